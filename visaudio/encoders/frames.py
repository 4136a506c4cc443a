"""Frames as the encoders want them: decoded uint8 pictures -> square tensors; the left-right mirror.

Legend: T frames, H height, W width; pictures come as (T, H, W, 3) and leave as (T, 3, size, size).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

ResizeMode = Literal["squash", "crop"]


def prepare_frames(frames: Tensor | np.ndarray, size: int, mode: ResizeMode = "squash") -> Tensor:
    """uint8 (T, H, W, 3) -> uint8 (T, 3, size, size), bicubic with antialiasing.

    "squash" keeps the full width (a 90 degree view keeps its edges at 45 degrees); "crop" scales the
    short side and keeps the centre, as MMAudio does for Synchformer (16:9 at 90 degrees: 29 degrees left).
    """
    frames = torch.as_tensor(frames)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != torch.uint8:
        raise ValueError(
            f"expected uint8 frames of shape (T, H, W, 3), got {frames.dtype} {tuple(frames.shape)}"
        )
    frames = frames.permute(0, 3, 1, 2)
    height, width = frames.shape[-2:]
    if mode == "squash":
        target = (size, size)
    elif mode == "crop":
        scale = size / min(height, width)
        target = (max(size, round(height * scale)), max(size, round(width * scale)))
    else:
        raise ValueError(f'resize mode must be "squash" or "crop", got {mode!r}')
    if (height, width) != target:
        frames = F.interpolate(frames, size=target, mode="bicubic", antialias=True)
    top, left = (target[0] - size) // 2, (target[1] - size) // 2
    return frames[..., top : top + size, left : left + size].contiguous()


def to_signed(frames: Tensor) -> Tensor:
    """uint8 0..255 -> float32 -1..1, Synchformer's input range."""
    return frames.float() / 127.5 - 1.0


def mirror(frames: Tensor) -> Tensor:
    """Left-right mirror of pictures (..., H, W)."""
    return frames.flip(-1)
