"""What a media file holds, from one pass over its packets (no frame but the first is decoded)."""

import os
import struct
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np

from bi_audio_dataset.media.files import check_input, open_input, reading
from bi_audio_dataset.schema import UserError

# Containers that count in whole milliseconds: gaps that differ by less are still a constant rate.
ROUNDING_S = 0.0021


@dataclass(frozen=True)
class MediaInfo:
    """A video file as a player presents it.

    Attributes:
        duration_s: presentation time 0 to the end of the last frame.
        width, height: pixels of the upright picture (after the display matrix; pixels are taken as square).
        rotation_deg: counter-clockwise turn that the display matrix asks for: 0, 90, 180 or 270.
        fps: average frame rate in Hz.
        is_variable_rate: whether gaps between frames differ by more than the container's rounding.
        num_frames: frames that are shown (an edit list may hide others).
        first_frame_s: when the first frame appears (0 unless the picture starts late).
        audio_channels, audio_rate: of the first audio stream that can be decoded, None without one.
        container: "mp4", "mov", "mkv", "webm" or FFmpeg's name of the format.
        video_codec: FFmpeg's name, e.g. "h264".
        projection: what the file states of a 360-degree picture ("equirectangular", "cubemap", ...), "" if
            nothing.
        stereo: how it states to hold two eyes ("top-bottom", "side-by-side", ...; "mono" for one), "" if
            nothing.
        pose_deg: the turn (yaw, pitch, roll) that the file states for the sphere, degrees.
    """

    duration_s: float
    width: int
    height: int
    rotation_deg: int
    fps: float
    is_variable_rate: bool
    num_frames: int
    first_frame_s: float
    audio_channels: int | None
    audio_rate: int | None
    container: str
    video_codec: str
    projection: str = ""
    stereo: str = ""
    pose_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Timeline:
    """When each coded frame is shown.

    Attributes:
        info: the public summary.
        times_s: (F,) presentation times of all coded frames, rising; hidden ones included.
        shown: (F,) bool, False where an edit list hides the frame.
        origin_s: container time of presentation time 0.
        mirrored: whether the display matrix flips the picture left to right after the turn.
    """

    info: MediaInfo
    times_s: np.ndarray
    shown: np.ndarray
    origin_s: Fraction
    mirrored: bool

    def frame_length_s(self, time_s: float) -> float:
        """How long the frame that begins at `time_s` is shown."""
        following = np.searchsorted(self.times_s, time_s + 1e-6, side="right")
        end_s = self.times_s[following] if following < len(self.times_s) else self.info.duration_s
        return float(end_s - time_s)


def probe(path: str | os.PathLike) -> MediaInfo:
    """Reads what `path` holds.

    Raises:
        UserError: missing, empty, a folder, no media, no picture, or no frame that can be decoded.
    """
    return timeline(path).info


@dataclass(frozen=True)
class AudioInfo:
    """The first audio track of a file.

    duration_s: presentation time 0 to its end, from what the file really holds. codec: FFmpeg's name.
    """

    channels: int
    rate: int
    duration_s: float
    codec: str


def probe_audio(path: str | os.PathLike) -> AudioInfo:
    """Reads what the first audio track of `path` holds: its packets' times, and its first block decoded.

    Raises:
        UserError: missing, empty, no media, no audio track, or none that can be decoded.
    """
    path = check_input(path)
    stat = path.stat()
    return _probe_audio(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=16)
def _probe_audio(path: Path, size: int, changed_ns: int) -> AudioInfo:
    with reading(path):
        with open_input(path) as container:
            stream = sound_to_decode(container, path)
            frame = next(container.decode(stream), None)
        if frame is None:
            raise UserError(f"{path}: its audio track cannot be decoded")
        with open_input(path) as container:
            stream = audio_stream(container)
            origin_s, end = origin_of(container), 0
            try:
                for packet in container.demux(stream):
                    if packet.size and packet.pts is not None:
                        end = max(end, packet.pts + (packet.duration or 0))
            except av.error.FFmpegError:  # cut short: what came before still plays
                pass
            return AudioInfo(
                channels=frame.layout.nb_channels,
                rate=frame.sample_rate,
                duration_s=max(float(end * stream.time_base - origin_s), 0.0),
                codec=stream.codec_context.codec.canonical_name,
            )


def timeline(path: str | os.PathLike) -> Timeline:
    """The frame times of `path`; the last few files are remembered (by name, size and time of change)."""
    path = check_input(path)
    stat = path.stat()
    return _timeline(path, stat.st_size, stat.st_mtime_ns)


def video_stream(container: av.container.InputContainer, path: Path) -> av.video.stream.VideoStream:
    """The first moving picture of an open file: cover art of a sound file does not count.

    Raises:
        UserError: there is none.
    """
    if container.format.name.endswith("_pipe") or container.format.name == "image2":
        raise UserError(f"{path}: is a still image file, expected a video")
    if container.format.name == "tty":  # FFmpeg would draw any text as a film
        raise UserError(f"{path}: is text, expected a video")
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    raise UserError(f"{path}: has no picture, only sound or data; expected a video")


def audio_stream(container: av.container.InputContainer) -> av.audio.stream.AudioStream | None:
    """The first audio track that FFmpeg has a decoder for, None without."""
    # PyAV gives a track of an unknown codec no context, and fails where one is asked for its channels
    return next((stream for stream in container.streams.audio if stream.codec_context is not None), None)


def sound_to_decode(container: av.container.InputContainer, path: Path) -> av.audio.stream.AudioStream:
    """`audio_stream`, for who means to decode it.

    Raises:
        UserError: there is none, or it is Opus of a kind that FFmpeg does not decode.
    """
    stream = audio_stream(container)
    if stream is None:
        raise UserError(f"{path}: has no audio track that can be decoded")
    if opus_family(stream) == 3:
        raise UserError(
            f"{path}: is Opus of channel mapping family 3, a mixture that FFmpeg does not undo; "
            "decode it with opus-tools (opusdec) to a 4-channel .wav or .flac beside the video"
        )
    return stream


def opus_family(stream: av.audio.stream.AudioStream) -> int | None:
    """Channel mapping family (RFC 7845, RFC 8486) of an Opus track, None for other codecs."""
    header = bytes(stream.codec_context.extradata or b"")
    return header[18] if header[:8] == b"OpusHead" and len(header) > 18 else None


def origin_of(container: av.container.InputContainer) -> Fraction:
    """Container time that players show as 0: the earliest stream's start when late, e.g. in MPEG-TS."""
    return max(Fraction(container.start_time or 0, av.time_base), Fraction(0))


@lru_cache(maxsize=16)
def _timeline(path: Path, size: int, changed_ns: int) -> Timeline:
    with reading(path):
        with open_input(path) as container:
            stream = video_stream(container, path)
            first = _first_frame(container, stream, path)
            rotation_deg, mirrored = _orientation(first)
            origin_s = origin_of(container)
            audio = audio_stream(container)
            stereo_mode = stream.metadata.get("stereo_mode", "")
        with open_input(path) as container:
            stream = video_stream(container, path)
            pts, shown, last_duration = _packet_times(container, stream)
            fallback_rate = stream.average_rate or Fraction(25)
            times = [float(p * stream.time_base - origin_s) for p in pts]
    times_s = np.array(times)
    shown = shown & (times_s > -1e-9)
    if not shown.any():
        raise UserError(f"{path}: no frame of the picture can be read; is the file damaged or cut short?")
    visible_s = times_s[shown]
    gaps_s = np.diff(visible_s)
    last_s = float(last_duration) or (float(np.median(gaps_s)) if len(gaps_s) else float(1 / fallback_rate))
    span_s = visible_s[-1] - visible_s[0]
    width, height = first.width, first.height
    info = MediaInfo(
        duration_s=float(visible_s[-1] + last_s),
        width=height if rotation_deg % 180 else width,
        height=width if rotation_deg % 180 else height,
        rotation_deg=rotation_deg,
        fps=float(len(gaps_s) / span_s) if span_s > 0 else float(fallback_rate),
        is_variable_rate=bool(len(gaps_s) and np.ptp(gaps_s) > ROUNDING_S),
        num_frames=int(shown.sum()),
        first_frame_s=float(visible_s[0]),
        audio_channels=audio.channels if audio else None,
        audio_rate=audio.rate if audio else None,
        container=_container_name(container.format.name, path),
        video_codec=stream.codec_context.codec.canonical_name,
        stereo=_stereo(first, stereo_mode),
        **_sphere(first),
    )
    return Timeline(info, times_s, shown, origin_s, mirrored)


def _first_frame(container, stream, path: Path) -> av.VideoFrame:
    try:
        return next(container.decode(stream))
    except (StopIteration, av.error.FFmpegError) as error:
        raise UserError(
            f"{path}: no frame of the picture can be read; is the file damaged or cut short?"
        ) from error


def _packet_times(container, stream) -> tuple[list[int], np.ndarray, Fraction]:
    """(sorted pts, shown mask, duration in s of the last shown frame or 0) of all readable packets."""
    entries = []
    try:
        for packet in container.demux(stream):
            pts = packet.dts if packet.pts is None else packet.pts
            if packet.size and pts is not None:
                entries.append((pts, not packet.is_discard, packet.duration or 0))
    except av.error.FFmpegError:  # cut short: what came before still plays
        pass
    entries.sort()
    shown = np.array([entry[1] for entry in entries], dtype=bool)
    durations = [duration for _, is_shown, duration in entries if is_shown]
    last_duration = durations[-1] * stream.time_base if durations else Fraction(0)
    return [entry[0] for entry in entries], shown, last_duration


def _orientation(frame: av.VideoFrame) -> tuple[int, bool]:
    """(counter-clockwise turn in degrees, mirrored left to right after the turn) from the display matrix."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return 0, False
    a, b, _, c, d = np.frombuffer(bytes(matrix), dtype=np.int32)[:5]
    # The picture's x axis goes to (a, b), its y axis (down) to (c, d); a negative determinant is a flip.
    mirrored = int(a) * int(d) - int(b) * int(c) < 0
    if mirrored:
        a, c = -a, -c  # undo the flip, which acts last
    turn_deg = -np.degrees(np.arctan2(float(b), float(a)))  # image y points down
    return int(round(turn_deg / 90)) * 90 % 360, mirrored


def _stereo(frame: av.VideoFrame, stereo_mode: str) -> str:
    """From AVStereo3D (mp4's st3d box), else from Matroska's StereoMode."""
    data = frame.side_data.get("STEREO3D")
    if data is not None:
        kind = struct.unpack("=i", bytes(data)[:4])[0]
        return {0: "mono", 1: "side-by-side", 2: "top-bottom"}.get(kind, f"interleaved (kind {kind})")
    if not stereo_mode:
        return ""
    names = {"mono": "mono", "left_right": "side-by-side", "right_left": "side-by-side"}
    names |= {"top_bottom": "top-bottom", "bottom_top": "top-bottom"}
    return names.get(stereo_mode, stereo_mode)


def _sphere(frame: av.VideoFrame) -> dict[str, Any]:
    """projection and pose_deg from AVSphericalMapping (mp4's sv3d and uuid boxes, Matroska's Projection)."""
    data = frame.side_data.get("SPHERICAL")
    if data is None:
        return {}
    kind, *pose = struct.unpack("=4i", bytes(data)[:16])
    names = ("equirectangular", "cubemap", "tiled", "half-equirectangular", "rectilinear", "fisheye")
    projection = names[kind] if 0 <= kind < len(names) else f"kind {kind}"
    return {"projection": projection, "pose_deg": tuple(angle / 65536 for angle in pose)}


def _container_name(format_name: str, path: Path) -> str:
    suffix = path.suffix.lower().lstrip(".")
    if format_name.startswith("mov"):
        return "mov" if suffix == "mov" else "mp4"
    if format_name.startswith("matroska"):
        return "webm" if suffix == "webm" else "mkv"
    return format_name
