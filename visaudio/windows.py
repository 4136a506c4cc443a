"""Any length from a model of one length: overlapping windows, joined in latent space.

A window is as long as the training clips. Each one after the first starts inside the one before; there its
latents are led along the straight path to those already found, so the two agree where they meet. The last
window is moved back to end where the sound ends (its overlap is then longer), so that no window is short.
What is kept in memory does not grow with the length: frames of the windows now open, one window's latents.

Legend: N tokens, overlaps and hops counted in tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bi_audio_dataset import media
from visaudio.encoders.frames import ResizeMode, prepare_frames
from visaudio.sequence import SequenceConfig

# Frames are decoded this much larger than the largest encoder needs, then resized as in training: for the
# tiny preset (128 px) a 16:9 video comes at 256 x 144, the size of the clips it was trained on.
DECODE_MARGIN = 1.125


@dataclass(frozen=True)
class Window:
    """Tokens `start` .. `start + length` of the whole; the first `overlap` of them were made before."""

    start: int
    length: int
    overlap: int


def plan_windows(total: int, window: int, overlap: int) -> tuple[Window, ...]:
    """Windows over `total` tokens. One window of `total` tokens if they fit into `window`.

    overlap: tokens shared with the window before, less than `window`; the last window may share more.
    """
    if total < 1 or window < 1 or not 0 <= overlap < window:
        raise ValueError(
            f"expected at least 1 token and 0 <= overlap < window; got {total}, {window}, {overlap}"
        )
    if total <= window:
        return (Window(0, total, 0),)
    windows = [Window(0, window, 0)]
    while (end := windows[-1].start + window) < total:
        start = min(end - overlap, total - window)
        windows.append(Window(start, window, end - start))
    return tuple(windows)


def hold_mask(overlap: int, length: int) -> Tensor:
    """(length, 1): 1 where tokens are led to the earlier window's, 0 where they are free.

    The first half of the overlap is held; over the second half the hold eases out, so that what the earlier
    window planned for its last moments gives way gradually to the window that sees what follows.
    """
    mask = torch.zeros(length, 1)
    held = (overlap + 1) // 2
    mask[:held] = 1.0
    ramp = overlap - held
    mask[held:overlap, 0] = 1.0 - (torch.arange(ramp) + 1) / (ramp + 1)
    return mask


def window_sequence(
    sequence: SequenceConfig, windows: tuple[Window, ...], duration_s: float
) -> SequenceConfig:
    """Lengths of one window: those of training, or of the whole sound where it is shorter."""
    return sequence if len(windows) > 1 else sequence.with_duration(duration_s)


def total_windows(sequence: SequenceConfig, duration_s: float, overlap_s: float) -> tuple[Window, ...]:
    """The windows over `duration_s` seconds, for a model trained on `sequence`."""
    overlap = min(round(overlap_s * sequence.tokens_per_second), sequence.num_tokens - 1)
    return plan_windows(sequence.with_duration(duration_s).num_tokens, sequence.num_tokens, overlap)


# -------------------- frames


@dataclass(frozen=True)
class FrameRequest:
    """One encoder's pictures of a window: at `times_s` (T,), rising, square of `size` pixels."""

    times_s: np.ndarray
    size: int
    resize: ResizeMode = "squash"


def decode_size(width: int, height: int, sizes: Iterable[int]) -> tuple[int, int]:
    """(width, height) to decode at: the short side DECODE_MARGIN times the largest of `sizes`, never larger
    than the video is; sides even."""
    scale = DECODE_MARGIN * max(sizes) / min(width, height)
    if scale >= 1:
        return width, height
    return tuple(max(2, 2 * round(side * scale / 2)) for side in (width, height))


def read_windows(
    video: str | Path, requests: Iterable[tuple[FrameRequest, ...]], num_threads: int = 2
) -> Iterator[tuple[Tensor, ...]]:
    """Per window, per request: frames on screen at its times, uint8 (T, 3, size, size), in order of windows.

    The video is decoded once, from front to back, at a small size; after its end the last frame is held.
    requests: per window one tuple; windows start in rising order. Raises UserError if it cannot be read.
    """
    requests = list(requests)
    info = media.probe(video)
    size = decode_size(info.width, info.height, (r.size for window in requests for r in window))
    wanted = np.unique(np.concatenate([r.times_s for window in requests for r in window]))
    blocks = media.iter_frames(video, wanted, size=size, num_threads=num_threads)
    held_times, held_frames = np.empty(0), None
    end = 0
    for window in requests:
        first, last = min(r.times_s[0] for r in window), max(r.times_s[-1] for r in window)
        keep = held_times >= first
        held_times = held_times[keep]
        held_frames = None if held_frames is None else held_frames[keep]
        while not len(held_times) or held_times[-1] < last:
            block = next(blocks)
            times, end = wanted[end : end + len(block)], end + len(block)
            held_times = np.concatenate([held_times, times])
            held_frames = block if held_frames is None else np.concatenate([held_frames, block])
        yield tuple(
            prepare_frames(held_frames[np.searchsorted(held_times, r.times_s)], r.size, r.resize)
            for r in window
        )
