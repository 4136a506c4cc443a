"""Rotary position embedding (Su et al. 2021) with fractional steps between positions.

Two streams of different rates share one time axis: the latents step by 1, the video tokens by
(latent tokens / video tokens), so that equal times have equal positions whatever the duration.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor


class Rotation(NamedTuple):
    """cos and sin of each position's angles, (N, head_dim / 2)."""

    cos: Tensor
    sin: Tensor


@lru_cache(maxsize=64)
def rotation(
    length: int,
    head_dim: int,
    step: float = 1.0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    theta: float = 10000.0,
) -> Rotation:
    """The rotations of positions 0, step, 2 step, ...; angles in float32 whatever the dtype."""
    if head_dim % 2:
        raise ValueError(f"the head dimension must be even for rotary embeddings, got {head_dim}")
    with torch.inference_mode(False):  # a cached table serves sampling and training alike
        frequencies = step / theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
        angles = torch.arange(length, dtype=torch.float32)[:, None] * frequencies
        return Rotation(angles.cos().to(device, dtype), angles.sin().to(device, dtype))


def rotate(x: Tensor, rot: Rotation) -> Tensor:
    """Turn each pair (x_i, x_{i + d/2}) of x (..., N, d) by its position's angle.

    The halves hold the pairs because contiguous halves are fast; MMAudio pairs neighbours instead,
    which layers.SelfAttention turns into halves by re-ordering its weights.
    """
    first, second = x.chunk(2, dim=-1)
    cos, sin = rot
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
