"""What measures see of a clip: frames at given times, and which file it was.

Legend: T frames.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bi_audio_dataset import media
from visaudio.encoders.frames import prepare_frames

FRAMES_AT_ONCE = 16  # of the picture's full size, in memory


def frames_at(video: Path, times_s: np.ndarray, size: int) -> Tensor:
    """uint8 (T, 3, size, size) on screen at rising times; short side scaled to `size`, centre kept."""
    blocks = media.iter_frames(video, times_s, chunk=FRAMES_AT_ONCE)
    return torch.cat([prepare_frames(block, size, "crop") for block in blocks])


def picture_digest(video: Path | None) -> str:
    """Of the file's bytes, 16 hexadecimal digits; "" without a picture."""
    if video is None:
        return ""
    state = video.stat()
    return _digest(video, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=64)
def _digest(video: Path, changed_ns: int, size: int) -> str:
    digest = hashlib.blake2b(digest_size=8)
    with video.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
