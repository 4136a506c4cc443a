"""Frames by timestamp: decord2 decodes and resizes; where it cannot, PyAV stands in with the same meaning.

PyAV also gives pictures of more than DECORD_PIXELS, of which decord2 3.4 holds many at a time
(benchmarks/media.py).
"""

import ctypes
import os
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import av
import numpy as np

from bi_audio_dataset.media.damage import Damage, Suspects, in_holes, too_old, usual_gap_s
from bi_audio_dataset.media.files import open_input, reading
from bi_audio_dataset.media.probe import Timeline, timeline, video_stream
from bi_audio_dataset.schema import UserError

# Above this decord's queue of whole pictures costs too much; below, each has its use.
DECORD_PIXELS = 2**20
# glibc's mallopt: blocks of up to 32 MB (its largest value) come from the heap, which keeps 128 MB free.
_MALLOPT = ((-3, 32 << 20), (-1, 128 << 20))  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
# A time asked for as i / fps may fall a rounding error short of the frame's own time.
_TIME_SLACK_S = 1e-6
# Decord decodes ahead of what is asked for, without a bound: while its user works on the first frames, those
# of the whole file come to lie in memory. A file whose frames would take more than this is PyAV's.
READ_AHEAD_BYTES = 256 * 2**20


def read_frames(
    path: str | os.PathLike,
    times_s: Sequence[float] | np.ndarray,
    size: tuple[int, int] | None = None,
    num_threads: int = 2,
) -> np.ndarray:
    """The frames on screen at `times_s`: (T, H, W, 3) uint8 RGB, upright.

    At each time it is the last frame that began by then; before the first frame the first, after the end the
    last. Frames that an edit list hides are never given.

    Args:
        times_s: (T,) presentation times, in any order.
        size: (width, height) of the result, resized while decoding (aspect not kept); None: as displayed.

    Raises:
        UserError: the file cannot be read.
    """
    times_s = np.asarray(times_s, dtype=np.float64).reshape(-1)
    info = timeline(path).info
    width, height = size or (info.width, info.height)
    frames_THWC = np.empty((len(times_s), height, width, 3), dtype=np.uint8)
    order = np.argsort(times_s, kind="stable")
    done = 0
    for block in iter_frames(path, times_s[order], size, num_threads=num_threads):
        frames_THWC[order[done : done + len(block)]] = block
        done += len(block)
    return frames_THWC


def iter_frames(
    path: str | os.PathLike,
    times_s: Sequence[float] | np.ndarray,
    size: tuple[int, int] | None = None,
    chunk: int = 32,
    num_threads: int = 2,
    damage: Damage | None = None,
) -> Iterator[np.ndarray]:
    """`read_frames` in blocks of (<= chunk, H, W, 3), in memory that does not grow with the video.

    A frame that cannot be decoded is replaced by the one before it.

    Args:
        times_s: (T,) presentation times that do not fall.
        damage: is told of each block's missing frames.

    Raises:
        ValueError: `times_s` falls somewhere.
        UserError: the file cannot be read.
    """
    times_s = np.asarray(times_s, dtype=np.float64).reshape(-1)
    if np.any(np.diff(times_s) < 0):
        raise ValueError("iter_frames: times_s falls somewhere, expected rising times; sort them first")
    line = timeline(path)
    indices = frame_indices(line, times_s)
    blocks = [indices[i : i + chunk] for i in range(0, len(indices), chunk)]
    if not blocks:
        return
    size = size or (line.info.width, line.info.height)
    reader = None
    if size[0] * size[1] <= DECORD_PIXELS:
        reader = _open_decord(Path(path), line, size, num_threads, probe_index=int(blocks[0][0]))
    holes = np.split(in_holes(line, times_s, indices), range(chunk, len(indices), chunk))
    for number, block in enumerate(blocks):
        frames = None if reader is None else _decord_block(reader, block, size)
        if frames is None:  # from here on PyAV: decord was not asked, or met a damaged stretch
            blocks, holes = blocks[number:], holes[number:]
            break
        if damage is not None:
            damage.add(holes[number])
        yield frames
    else:
        return
    found = _pyav_blocks(Path(path), line, blocks, size, num_threads)
    for in_hole, (frames, missing) in zip(holes, found, strict=True):
        if damage is not None:
            damage.add(in_hole | missing)
        yield frames


def frame_indices(line: Timeline, times_s: np.ndarray) -> np.ndarray:
    """(T,) indices into `line.times_s` of the frame on screen at each time."""
    shown = np.flatnonzero(line.shown)
    place = np.searchsorted(line.times_s[shown], times_s + _TIME_SLACK_S, side="right") - 1
    return shown[np.clip(place, 0, len(shown) - 1)]


@lru_cache(maxsize=1)
def _decord():
    """The decord module, imported on first use and without the CUDA libraries.

    decord2 3.4 loads every library of the installed `nvidia` packages at import, for NVDEC, which is not used
    here: 380 MB and seconds. It looks for them with find_spec, which finds nothing while the name is blocked.
    """
    absent = object()
    before = sys.modules.get("nvidia", absent)
    sys.modules["nvidia"] = None
    try:
        import decord

        decord.logging.set_level(decord.logging.QUIET)  # its FFmpeg writes to stderr past Python
    finally:
        del sys.modules["nvidia"]
        if before is not absent:
            sys.modules["nvidia"] = before
    return decord


def _open_decord(path: Path, line: Timeline, size: tuple[int, int], num_threads: int, probe_index: int):
    """A decord reader whose frames are known to be `line`'s, else None.

    None where decord (seen in decord2 3.4)
    - counts frames that an edit list hides but does not decode them, so that its indices point elsewhere;
    - ignores a mirror in the display matrix;
    - counts other frames or times than the packets say;
    - gives the row padding as channels (pictures 8, 12, 16, 24, 32, 48, 96 or 144 wide);
    - would fill the memory with a long video (READ_AHEAD_BYTES).
    """
    if line.mirrored or not line.shown.all() or 3 * size[0] * size[1] * len(line.times_s) > READ_AHEAD_BYTES:
        return None
    decord = _decord()

    try:
        reader = decord.VideoReader(
            str(path.absolute()), width=size[0], height=size[1], num_threads=num_threads
        )
        if len(reader) != len(line.times_s):
            return None
        starts_s = reader.get_frame_timestamp(range(len(reader)))[:, 0].astype(np.float64)
        # Its clock starts at the stream's own start, in single precision: compare what has passed since.
        passed_s = line.times_s - line.times_s[0]
        if np.max(np.abs(starts_s - starts_s[0] - passed_s)) > 1e-3 + 1e-6 * passed_s[-1]:
            return None
        if reader[probe_index].shape != (size[1], size[0], 3):
            return None
    except (decord.DECORDError, RuntimeError, AssertionError, IndexError, StopIteration):
        return None
    return reader


def _decord_block(reader, block: np.ndarray, size: tuple[int, int]) -> np.ndarray | None:
    decord = _decord()

    try:
        frames = reader.get_batch(block).asnumpy()
    except (decord.DECORDError, RuntimeError, StopIteration):
        return None
    return frames if frames.shape == (len(block), size[1], size[0], 3) else None


def _pyav_blocks(
    path: Path, line: Timeline, blocks, size, num_threads: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same blocks by PyAV, in one pass, and which of their frames are missing (n,) bool.

    A frame that cannot be decoded is replaced by the one before.
    """
    if size[0] * size[1] > DECORD_PIXELS:
        _keep_freed_pictures()
    suspects, usual_s = Suspects(), usual_gap_s(line)
    start_s = line.times_s[blocks[0][0]]
    frames = _pyav_frames(path, line, size, num_threads, start_s, suspects)
    time_s, picture = next(frames, (None, None))
    if (picture is None or time_s > start_s + _TIME_SLACK_S) and start_s > line.times_s[line.shown][0]:
        # nothing from the key frame on: what is before it stands in
        suspects.spans.clear()
        frames = _pyav_frames(path, line, size, num_threads, 0.0, suspects)
        time_s, picture = next(frames, (None, None))
    if picture is None:
        raise UserError(f"{path}: no frame of the picture can be read; is the file damaged or cut short?")
    following = next(frames, None)
    for block in blocks:
        out = None if len(block) == 1 else np.empty((len(block), size[1], size[0], 3), dtype=np.uint8)
        missing = np.zeros(len(block), bool)
        for row, index in enumerate(block):
            while following is not None and following[0] <= line.times_s[index] + _TIME_SLACK_S:
                time_s, picture = following
                following = next(frames, None)
            missing[row] = suspects.hold(line.times_s[index]) or too_old(line, index, time_s, usual_s)
            if out is None:  # a large picture on its own need not be copied
                out = np.ascontiguousarray(picture())[None]
            else:
                out[row] = picture()
        yield out, missing


@lru_cache(maxsize=1)
def _keep_freed_pictures() -> None:
    """From now on the C library keeps the memory of freed pictures.

    To be given 22 MB anew for every frame costs 7 ms of CPU time each.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # no glibc: slower, nothing else
        return
    for option, value in _MALLOPT:
        mallopt(option, value)


def _pyav_frames(path: Path, line: Timeline, size, num_threads: int, start_s: float, suspects: Suspects):
    """Yields (time_s, function giving the upright (H, W, 3) picture) from the key frame by `start_s` on.

    What cannot be decoded is passed over, and so are the pictures that lean on it; suspects is told of both.
    """
    turned = line.info.rotation_deg % 180 != 0
    width, height = size[::-1] if turned else size

    def upright(frame: av.VideoFrame) -> np.ndarray:
        frame = frame.reformat(format="rgb24", width=width, height=height, interpolation="BICUBIC")
        rows = np.frombuffer(frame.planes[0], np.uint8).reshape(height, frame.planes[0].line_size)
        picture = rows[:, : 3 * width].reshape(height, width, 3)
        picture = np.rot90(picture, line.info.rotation_deg // 90)
        return picture[:, ::-1] if line.mirrored else picture

    with reading(path), open_input(path) as container:
        stream = video_stream(container, path)
        stream.codec_context.thread_count = num_threads
        if start_s > 0:
            container.seek(int((start_s + float(line.origin_s)) / stream.time_base), stream=stream)
        for frame in _decoded(container, stream, line.origin_s, suspects):
            if frame.pts is not None:
                time_s = float(frame.pts * stream.time_base - line.origin_s)
                if frame.is_corrupt:
                    suspects.single(time_s)
                if time_s > -1e-9 and not suspects.hold(time_s):
                    yield time_s, lambda frame=frame: upright(frame)


def _decoded(container, stream, origin_s, suspects: Suspects) -> Iterator[av.VideoFrame]:
    """Every frame that the decoder gives, also after packets that it cannot decode."""
    packets = container.demux(stream)
    time_s = -np.inf  # of the last packet that has one
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError:  # cut short: what came before still plays
            packet = None
        if packet is None:
            return
        stated = packet.dts if packet.pts is None else packet.pts
        if stated is not None:
            time_s = float(stated * stream.time_base - origin_s)
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            suspects.begin(time_s)
            continue
        if packet.is_keyframe:
            suspects.end(time_s)
        yield from frames
