"""H.264 encoding whose bytes depend only on the frames and the settings."""

import os
import tempfile
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from bi_audio_dataset.media.files import replacing

# No encoder name, no creation time: two machines write the same bytes.
MP4_OPTIONS = {"fflags": "+bitexact", "movflags": "+faststart"}
# Macroblock-tree rate control gives now one file, now another, for pictures whose width is not a multiple of
# 128 (x264's SIMD works on eight macroblocks at once): docs/decisions.md
STABLE_X264 = "mbtree=0"


def write_video(
    path: str | os.PathLike,
    frames: Iterable[np.ndarray],
    fps: float | Fraction,
    crf: int = 23,
    preset: str = "medium",
    threads: int = 1,
) -> int:
    """Encodes frames as H.264 yuv420p without sound. Returns the number of frames.

    Args:
        frames: (H, W, 3) uint8 RGB each, sides even and equal throughout.
        fps: constant rate in Hz; 29.97 and the like are taken as n/1001.
        threads: fixed, since the bytes depend on it.

    Raises:
        UserError: the file cannot be written.
        ValueError: no frame, or a frame of the wrong shape.
    """
    rate = Fraction(fps).limit_denominator(1001)
    count = 0
    with replacing(path) as temporary:
        with av.open(str(temporary.absolute()), "w", options=MP4_OPTIONS) as container:
            stream = None
            for frame_HWC in frames:
                if stream is None:
                    stream = _video_stream(container, frame_HWC, rate, crf, preset, threads)
                if frame_HWC.shape != (stream.height, stream.width, 3) or frame_HWC.dtype != np.uint8:
                    raise ValueError(
                        f"frame {count} is {frame_HWC.shape} {frame_HWC.dtype}, expected "
                        f"{(stream.height, stream.width, 3)} uint8"
                    )
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC), format="rgb24")
                frame.pts, frame.time_base = count, 1 / rate
                container.mux(stream.encode(frame))
                count += 1
            if stream is None:
                raise ValueError(f"{path}: no frame was given to encode")
            container.mux(stream.encode())
    return count


def encode_video_bytes(frames: Iterable[np.ndarray], fps: float | Fraction, **settings) -> bytes:
    """`write_video` into memory: the bytes of an mp4 file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        write_video(path, frames, fps, **settings)
        return path.read_bytes()


def _video_stream(container, frame_HWC: np.ndarray, rate: Fraction, crf: int, preset: str, threads: int):
    height, width = frame_HWC.shape[:2]
    if height % 2 or width % 2:
        raise ValueError(f"frames are {width}x{height}, expected even sides (yuv420p halves the colour)")
    options = {"crf": str(crf), "preset": preset, "x264-params": STABLE_X264}
    stream = container.add_stream("libx264", rate=rate, options=options)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.codec_context.time_base = 1 / rate
    stream.codec_context.thread_count = threads
    stream.codec_context.flags |= av.codec.context.Flags.bitexact
    return stream
