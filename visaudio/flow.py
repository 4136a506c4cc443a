"""The probability path and its loss (conditional flow matching, straight lines).

Time convention, stated here and imported everywhere: t = 0 is noise, t = 1 is data,
x_t = t x_1 + (1 - t) x_0, and the velocity dx_t/dt is x_1 - x_0.

Shapes: latents (B, 2, N, D) with ear 0 = left; t (B,). Any trailing shape works.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _over(t: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B, 1, ...), so that t broadcasts over everything but the batch."""
    if t.ndim != 1 or t.shape[0] != like.shape[0]:
        raise ValueError(f"t must have shape ({like.shape[0]},), one time per sample; got {tuple(t.shape)}")
    return t.view(-1, *([1] * (like.ndim - 1)))


def interpolate(x_0: Tensor, x_1: Tensor, t: Tensor) -> Tensor:
    """x_t = t x_1 + (1 - t) x_0, for noise x_0 and data x_1 of one shape and t of shape (B,)."""
    t = _over(t, x_1)
    return t * x_1 + (1 - t) * x_0


def velocity_target(x_0: Tensor, x_1: Tensor) -> Tensor:
    """The velocity of the straight path, which does not depend on t."""
    return x_1 - x_0


def flow_matching_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Squared error per sample, (B,): the mean over tokens and dimensions, summed over the two ears.

    ViSAudio's loss sums over the ears; a network that predicts zero scores about 2 x (1 + 1) on
    normalised latents (each ear's velocity has the variance of the data plus that of the noise).
    """
    if predicted.shape != target.shape or predicted.ndim != 4:
        raise ValueError(
            f"expected two tensors (B, 2, N, D); got {tuple(predicted.shape)}, {tuple(target.shape)}"
        )
    return (predicted.float() - target.float()).square().mean(dim=(2, 3)).sum(dim=1)


def timesteps_from_normal(normal: Tensor, mean: float = 0.0, scale: float = 1.0) -> Tensor:
    """Logit-normal times in (0, 1) from standard normal numbers: sigmoid(mean + scale z)."""
    return torch.sigmoid(mean + scale * normal)


def sample_timesteps(
    count: int,
    *,
    generator: torch.Generator | None = None,
    mean: float = 0.0,
    scale: float = 1.0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """`count` logit-normal times, (count,), float32 (Esser et al. 2024; MMAudio uses mean 0, scale 1)."""
    return timesteps_from_normal(torch.randn(count, generator=generator, device=device), mean, scale)
