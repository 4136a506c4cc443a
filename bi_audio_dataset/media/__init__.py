"""Media files: probe, decode by timestamp, audio in and out, encode, mux. Floor 0: imports only `schema`.

Time 0 is presentation time 0: what a player shows first. Frames that an edit list hides do not exist here.
Pictures are (T, H, W, 3) uint8 RGB, upright (display matrix applied). Audio is (C, N) float32, left first.
Every error a user can cause is a `UserError` of one line; nothing is left behind by a write that fails.
"""

from bi_audio_dataset.media.ambisonic_tags import AmbisonicTag, ambisonic_tag
from bi_audio_dataset.media.audio import read_audio, write_audio
from bi_audio_dataset.media.damage import Damage
from bi_audio_dataset.media.encode import encode_video_bytes, write_video
from bi_audio_dataset.media.frames import iter_frames, read_frames
from bi_audio_dataset.media.mux import mux_binaural, output_container_for
from bi_audio_dataset.media.probe import AudioInfo, MediaInfo, probe, probe_audio

__all__ = [
    "AmbisonicTag",
    "AudioInfo",
    "Damage",
    "MediaInfo",
    "ambisonic_tag",
    "encode_video_bytes",
    "iter_frames",
    "mux_binaural",
    "output_container_for",
    "probe",
    "probe_audio",
    "read_audio",
    "read_frames",
    "write_audio",
    "write_video",
]
