"""Latents in which the ears' difference weighs as much as their sum, and which ear is which stays."""

from dataclasses import replace

import pytest
import torch

from visaudio.model.network import DualBranchNetwork
from visaudio.presets import TINY

DIM = TINY.network.token_dim


def network(whitening: float) -> DualBranchNetwork:
    made = DualBranchNetwork(replace(TINY.network, interaural_whitening=whitening))
    generator = torch.Generator().manual_seed(0)
    side = 0.05 + 0.4 * torch.rand(DIM, generator=generator)
    std = 0.5 + torch.rand(DIM, generator=generator)
    made.set_latent_stats(torch.full((DIM,), 3.0), std, side)
    return made


def tokens(made: DualBranchNetwork, count: int = 4000) -> torch.Tensor:
    """(1, 2, count, D) with exactly the statistics that the network was told."""
    generator = torch.Generator().manual_seed(1)
    middle = (2 * made.latent_std**2 - made.latent_side_std**2).sqrt()
    total = torch.randn(1, 1, count, DIM, generator=generator) * middle
    apart = torch.randn(1, 1, count, DIM, generator=generator) * made.latent_side_std
    return torch.cat([total + apart, total - apart], dim=1) / 2**0.5 + 3.0


@pytest.mark.parametrize("whitening", [0.5, 1.0])
def test_round_trip(whitening):
    made = network(whitening)
    x = tokens(made, 50)
    torch.testing.assert_close(made.unnormalize(made.normalize(x)), x)


def test_full_whitening_gives_sum_and_difference_unit_deviation():
    made = network(1.0)
    left, right = made.normalize(tokens(made)).unbind(1)
    for part in ((left + right) / 2**0.5, (left - right) / 2**0.5):
        deviation = part.flatten(0, 1).std(dim=0)
        assert (deviation - 1).abs().max() < 0.06, deviation


def test_partial_whitening_lies_between():
    made = network(0.5)
    left, right = made.normalize(tokens(made)).unbind(1)
    deviation = ((left - right) / 2**0.5).flatten(0, 1).std(dim=0)
    middle = (2 * made.latent_std**2 - made.latent_side_std**2).sqrt()
    torch.testing.assert_close(deviation, (made.latent_side_std / middle).sqrt(), rtol=0.06, atol=0)


def test_the_mirror_swaps_the_ears():
    made = network(0.7)
    x = tokens(made, 20)
    torch.testing.assert_close(made.normalize(x.flip(1)), made.normalize(x).flip(1))


def test_it_needs_the_deviation_of_the_difference():
    made = network(1.0)
    with pytest.raises(ValueError, match="side_std"):
        made.set_latent_stats(torch.zeros(DIM), torch.ones(DIM))


def test_the_other_ear_is_unheard_at_first():
    """A new network with and without the cross-ear weight gives the same tokens to the joint blocks."""
    made = DualBranchNetwork(replace(TINY.network, cross_ear_input=True))
    assert made.cross_ear_proj.weight.abs().max() == 0
