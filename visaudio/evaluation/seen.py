"""What measures see of a clip: frames at given times.

Legend: T frames.
"""

from __future__ import annotations

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


def picture_state(video: Path) -> tuple[Path, int, int]:
    """Tells one file from another, and from what it was before it was written anew."""
    found = video.stat()
    return video, found.st_mtime_ns, found.st_size
