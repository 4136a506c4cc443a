"""Random changes of frames for the encoder stages: what a tower trained on one renderer must not rely on.

Legend: B examples, T frames of an example (one change for all of them), pictures float32 in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class JitterConfig:
    """Strengths of the changes; 0 turns one off. Gains are +- around 1, shade and noise in picture units."""

    brightness: float = 0.25
    channel: float = 0.1
    contrast: float = 0.25
    saturation: float = 0.25
    shade: float = 0.12
    noise: float = 0.02
    zoom: tuple[float, float] = (0.7, 1.0)


@dataclass(frozen=True)
class Window:
    """The part of each picture that is kept, and whether it is mirrored. Arrays (B,), picture fractions."""

    centre_x: np.ndarray
    centre_y: np.ndarray
    width: np.ndarray
    height: np.ndarray
    mirror: np.ndarray

    def move_x(self, x: np.ndarray) -> np.ndarray:
        """Where a point at x (B, K) of the old picture lies in the new one."""
        moved = (x - self.centre_x[:, None]) / self.width[:, None]
        return 0.5 + np.where(self.mirror[:, None], -moved, moved)

    def move_y(self, y: np.ndarray) -> np.ndarray:
        return 0.5 + (y - self.centre_y[:, None]) / self.height[:, None]


def random_window(rng: np.random.Generator, batch: int, zoom: tuple[float, float]) -> Window:
    """Windows inside the picture; width and height are drawn together, with some change of aspect."""
    width = rng.uniform(*zoom, size=batch)
    height = np.clip(width * rng.uniform(0.85, 1.18, size=batch), 0.5, 1.0)
    centre_x = 0.5 + rng.uniform(-0.5, 0.5, size=batch) * (1 - width)
    centre_y = 0.5 + rng.uniform(-0.5, 0.5, size=batch) * (1 - height)
    return Window(centre_x, centre_y, width, height, rng.random(batch) < 0.5)


def apply_window(pictures: Tensor, window: Window) -> Tensor:
    """(B, 3, H, W) -> the same size, each example's window of it."""
    batch = pictures.shape[0]
    theta = np.zeros((batch, 2, 3), dtype=np.float32)
    theta[:, 0, 0] = np.where(window.mirror, -window.width, window.width)
    theta[:, 1, 1] = window.height
    theta[:, 0, 2] = 2 * window.centre_x - 1
    theta[:, 1, 2] = 2 * window.centre_y - 1
    grid = F.affine_grid(
        torch.from_numpy(theta).to(pictures.device), list(pictures.shape), align_corners=False
    )
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)


def jitter_colours(pictures: Tensor, rng: np.random.Generator, config: JitterConfig) -> Tensor:
    """(B, T, 3, H, W), uint8 or float in [0, 1] -> float32 in [0, 1].

    One gain, contrast, saturation, smooth shade and grain per example, the same in all its frames. Few passes
    over the pixels: gain, contrast and saturation are one 3 x 3 matrix, all that is added is one picture.
    """
    batch, frames, _, height, width = pictures.shape
    device = pictures.device

    def draw(strength: float, *shape: int) -> Tensor:
        values = rng.uniform(-strength, strength, size=(batch, *shape)).astype(np.float32)
        return torch.from_numpy(values).to(device)

    gain = (1 + draw(config.brightness, 1)) * (1 + draw(config.channel, 3))
    saturation = (1 + draw(config.saturation, 1, 1)).clamp_min(0)
    contrast = 1 + draw(config.contrast, 1, 1)
    matrix = (saturation * torch.eye(3, device=device) + (1 - saturation) / 3) * gain[:, :, None]
    scale = 1 / 255 if pictures.dtype == torch.uint8 else 1.0
    mean = pictures[:, 0, :, ::8, ::8].float().mean(dim=(2, 3)) * scale
    pivot = (1 - contrast) * (matrix @ mean[:, :, None])
    # light that differs over the picture, and backgrounds of other colours
    coarse = draw(config.shade, 3, 4, 4)
    added = F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False)
    added += pivot[..., None]
    if config.noise > 0:
        generator = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
        level = (draw(config.noise / 2, 1, 1, 1) + config.noise / 2).clamp_min(0)
        added += level * torch.randn(added.shape, generator=generator, device=device)
    flat = pictures.reshape(batch * frames, 3, height * width).float()
    weights = (matrix * contrast * scale).repeat_interleave(frames, dim=0)
    out = torch.bmm(weights, flat).reshape(batch, frames, 3, height, width)
    return out.add_(added[:, None]).clamp_(0, 1)
