"""Minibatch optimal-transport coupling (Tong et al. 2024, arXiv 2302.00482): which noise a clip gets.

Within a group of consecutive places of the stream the noises change places so that the sum of squared
distances between each clip's latents and its noise is least: an exact assignment. Straight lines between
such pairs cross less. Groups begin at multiples of their size in the batch and never straddle what one
process holds, so the pairs are a function of (seed, step) alone. The group's set of noises stays what it was.

With conditions this is biased: sampling draws the noise whatever the condition, but here noise and clip, and
so noise and condition, go together (Cheng and Schwing 2025, arXiv 2503.10636). Hence it is off by default.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor, nn

from bi_audio_dataset.schema import UserError


class Coupling:
    """group: clips that exchange their noise. network: its `normalize` leads to the space in which distances
    count; taken as it is when the first batch is made, after a resume."""

    def __init__(self, group: int, network: nn.Module) -> None:
        self.group = group
        self._shell = copy.copy(network)  # now: FSDP2 makes it an object of another class, which has no copy

    @cached_property
    def normalize(self) -> Callable[[Tensor], Tensor]:
        """network.normalize with copies of its buffers on the CPU, where batches are prepared."""
        self._shell._buffers = {  # until here the network's own
            name: None if value is None else value.detach().cpu().clone()
            for name, value in self._shell._buffers.items()
        }
        return self._shell.normalize

    def check(self, share: int) -> None:
        """Raise UserError where groups would straddle the `share` clips that one process holds at a time."""
        if share % self.group:
            raise UserError(
                f"each process takes {share} clips at a time, which do not divide into groups of "
                f"ot_group={self.group}; change ot_group, batch_size, accumulation or the number of processes"
            )

    def __call__(self, noise: Tensor, latents: Tensor) -> Tensor:
        """noise, latents (B, 2, N, D) -> the noise in another order within each group."""
        x_1 = self.normalize(latents)
        order = [
            first + assign(noise[first : first + self.group], x_1[first : first + self.group])
            for first in range(0, len(noise), self.group)
        ]
        return noise[torch.cat(order)]


def assign(x_0: Tensor, x_1: Tensor) -> Tensor:
    """(G, ...), (G, ...) -> for each x_1 the index (G,) of its x_0; the sum of squared distances is least."""
    from scipy.optimize import linear_sum_assignment

    # |x_0 - x_1|^2 less the squares, whose sum is the same for each assignment
    cost = -(x_1.double().flatten(1) @ x_0.double().flatten(1).T)
    if not torch.isfinite(cost).all():
        return torch.arange(len(cost))  # the loss will not be finite either, and its guard names the clip
    return torch.from_numpy(linear_sum_assignment(cost.numpy())[1])
