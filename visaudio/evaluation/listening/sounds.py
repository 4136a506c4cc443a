"""What a listener hears: all systems' sounds of a clip at one rate, of one length, equally loud.

So nothing but the sound tells systems apart: not the file's format, rate, length or level. Loudness is
matched over all systems of the clip, by one gain for both ears each, so that level differences between the
ears stay. With a picture the sound is put beside it in one file (MP4 with FLAC: a browser then keeps them
together to the sample), else it is FLAC.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
import soxr

from bi_audio_dataset import media
from bi_audio_dataset.schema import UserError
from visaudio.evaluation.listening import loudness

RATE_HZ = 48000
TONE_HZ, TONE_S, RAMP_S = 440.0, 0.7, 0.02
SIDES = ("left", "right")


@dataclass(frozen=True)
class Matched:
    """A clip's sounds, ready: system -> (2, S) at RATE_HZ; gains_db that made them; lufs of all of them."""

    sounds: Mapping[str, np.ndarray] = field(repr=False)
    gains_db: Mapping[str, float]
    lufs: float


def match(paths: Mapping[str, Path], duration_s: float | None) -> Matched:
    """Reads and levels all systems' sounds of a clip. duration_s: of the picture, which none outlasts.

    UserError for a file that cannot be read, is empty or has more than two channels.
    """
    read = {name: _read(path) for name, path in paths.items()}
    length = min(audio.shape[1] for audio in read.values())
    if duration_s is not None:
        length = min(length, round(duration_s * RATE_HZ))
    cut = {name: audio[:, :length] for name, audio in read.items()}
    levels = [loudness.loudness_lufs(audio, RATE_HZ) for audio in cut.values()]
    peaks = [loudness.true_peak(audio, RATE_HZ) for audio in cut.values()]
    gains, target = loudness.matching_gains_db(levels, peaks)
    sounds = {
        name: (audio * 10 ** (gain / 20)).astype(np.float32)
        for (name, audio), gain in zip(cut.items(), gains, strict=True)
    }
    return Matched(sounds, dict(zip(cut, (round(gain, 3) for gain in gains), strict=True)), round(target, 3))


def _read(path: Path) -> np.ndarray:
    audio, rate = media.read_audio(path)
    if not 1 <= audio.shape[0] <= 2 or not audio.shape[1]:
        raise UserError(f"{path}: {audio.shape[0]} channels of {audio.shape[1]} samples, expected one or two")
    if rate != RATE_HZ:
        audio = soxr.resample(audio.T, rate, RATE_HZ, quality="VHQ").T
    return np.repeat(audio, 2, axis=0) if audio.shape[0] == 1 else audio


def rendered(audio: np.ndarray, video: Path | None) -> tuple[bytes, str]:
    """(2, S) -> a file's bytes and its media type."""
    if video is None:
        return flac(audio), "audio/flac"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.mp4"
        media.mux_binaural(video, audio, RATE_HZ, path, lossless=True)
        return path.read_bytes(), "video/mp4"


def flac(audio: np.ndarray) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, audio.T, RATE_HZ, format="FLAC", subtype="PCM_24")
    return out.getvalue()


@lru_cache(maxsize=4)
def tone(side: str) -> bytes:
    """A tone in one ear, or in "both", at the loudness of the test's sounds in two ears."""
    time = np.arange(round(TONE_S * RATE_HZ)) / RATE_HZ
    wave = sum(np.sin(2 * np.pi * TONE_HZ * k * time) / k for k in (1, 2, 3, 4))
    ramp = np.minimum(1, np.minimum(time, time[::-1]) / RAMP_S)
    ears = np.stack([wave, wave]) * ramp
    gain = 10 ** ((loudness.TARGET_LUFS - loudness.loudness_lufs(ears, RATE_HZ)) / 20)
    mask = {"left": [1, 0], "right": [0, 1], "both": [1, 1]}[side]
    return flac((gain * ears * np.array(mask)[:, None]).astype(np.float32))
