"""The spatial grid in 8 bits: 0 to 255 between each dimension's least and largest value in a clip.

Grids are most of a clip's features. At the paper's sizes, in float16, a clip and its mirror would take 6.4
MB, where the room for 97,000 clips is 4.1; so they take 3.9, with an error of at most 1/510 of the
dimension's range in the clip. Half the frames or a PCA would save as much, and lose tens of times more
(`benchmarks/features.py`).

Legend: T frames, C cells, D dimensions.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

LEVELS = 255


def to_bytes(values: Tensor) -> tuple[Tensor, Tensor]:
    """(B, T, C, D) -> uint8 of that shape, and (B, 2, D) float32: each dimension's least value and step."""
    values = values.float()
    low, high = values.amin((1, 2)), values.amax((1, 2))
    step = (high - low) / LEVELS
    levels = (values - low[:, None, None]) / torch.where(step > 0, step, 1.0)[:, None, None]
    return levels.round().clamp(0, LEVELS).to(torch.uint8), torch.stack([low, step], dim=1)


def from_bytes(levels: np.ndarray, low_step: np.ndarray) -> np.ndarray:
    """uint8 (T, C, D) and (2, D) -> (T, C, D) float32."""
    out = levels.astype(np.float32)
    out *= low_step[1]
    out += low_step[0]
    return out
