"""What can be said of the velocity before the trunk is asked: from x_t by a formula, from the conditions.

Legend: B samples, 2 ears (0 = left), N latent tokens of D dimensions, W the network's width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visaudio.model.layers import GatedMLP


def straight_guess(x_t: Tensor, t: Tensor, rest: Tensor, mean: Tensor | None = None) -> Tensor:
    """The best linear guess of the velocity from x_t, and `rest` in units of its error. (B, 2, N, D), t (B,).

    With data and noise of unit variance, v = x_1 - x_0 has covariance 2 t - 1 with x_t, which has variance
    s = t^2 + (1 - t)^2: the guess is (2 t - 1) / s x_t, its error has variance 1 / s (preconditioning as in
    Karras et al. 2022, arXiv 2206.00364, for the straight path). The trunk need not carry the noise through.

    mean: where the conditions say that the data lie. The guess is then mean + (2 t - 1) / s (x_t - t mean),
    in which the mean counts fully at t = 0 and not at all at t = 1.
    """
    t = t.to(x_t.dtype)[:, None, None, None]
    s = t.square() + (1 - t).square()
    velocity = (2 * t - 1) / s * x_t + rest.to(x_t.dtype) / s.sqrt()
    return velocity if mean is None else velocity + (1 - t) / s * mean.to(x_t.dtype)


class ConditionGuess(nn.Module):
    """Conditions at the latents' rate -> where each ear's latents lie, without noise or time.

    At t near 0 nothing but the conditions says when it sounds, how loud and on which side. Through adaLN
    alone the network is slow to hear that (docs/decisions.md). Weights are the ears' own where they differ:
    sync features are of the whole picture, and only an ear knows whether its left is towards it.
    """

    def __init__(self, width: int, token_dim: int, multiple_of: int, ears: int = 2) -> None:
        super().__init__()
        self.enter = nn.ModuleList(nn.Linear(width, width) for _ in range(ears))
        self.mlps = nn.ModuleList(GatedMLP(width, 2.0, multiple_of, kernel_size=3) for _ in range(ears))
        self.out = nn.ModuleList(nn.Linear(width, token_dim) for _ in range(ears))

    def zero_output(self) -> None:
        for layer in self.out:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def start_alike(self) -> None:
        """The right ear with the left one's weights."""
        for ears in (self.enter, self.mlps, self.out):
            ears[-1].load_state_dict(ears[0].state_dict())

    def forward(self, sync: Tensor, spatial: Tensor | None, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """sync (B, N, W), spatial (B, 2, N, W), pooled (B, W) -> hidden (B, 2, N, W), mean (B, 2, N, D)."""
        hidden, mean = [], []
        for ear in (0, 1):
            own = min(ear, len(self.mlps) - 1)
            h = self.enter[own](sync) + pooled[:, None]
            if spatial is not None:
                h = h + spatial[:, ear]
            h = h + self.mlps[own](F.layer_norm(h, h.shape[-1:]))
            hidden.append(h)
            mean.append(self.out[own](F.layer_norm(h, h.shape[-1:])))
        return torch.stack(hidden, dim=1), torch.stack(mean, dim=1)
