"""Muon for hidden matrices, AdamW for the rest, as one optimiser."""

import pytest
import torch
from torch import nn

from bi_audio_dataset.schema import UserError
from visaudio.training.optimizer import MuonAdamW, hidden_matrices, make_optimizer


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(48, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 3))


def _fit(network, optimizer, steps):
    inputs = torch.randn(256, 48, generator=torch.Generator().manual_seed(1))
    targets = torch.stack([inputs[:, 0].sin(), inputs[:, 1] * inputs[:, 2], inputs[:, :4].sum(1)], dim=1)
    for _ in range(steps):
        loss = (network(inputs) - targets).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def test_hidden_matrices_are_those_of_two_wide_sides(network):
    assert set(hidden_matrices(network)) == {"0.weight", "2.weight"}
    assert set(hidden_matrices(nn.MultiheadAttention(64, 2))) == {"in_proj_weight", "out_proj.weight"}
    assert not hidden_matrices(nn.Embedding(64, 64))


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_each_kind_learns_and_every_parameter_moves(network, kind):
    before = [p.detach().clone() for p in network.parameters()]
    optimizer = make_optimizer(network, kind, 1e-2, (0.9, 0.95), 0.0)
    first = _fit(network, optimizer, 1)
    assert _fit(network, optimizer, 150) < 0.3 * first
    moved = [float((p.detach() - b).abs().max()) for p, b in zip(network.parameters(), before, strict=True)]
    assert min(moved) > 0


def test_one_schedule_reaches_both_parts(network):
    optimizer = make_optimizer(network, "muon", 1e-3, (0.9, 0.95), 0.0)
    assert isinstance(optimizer, MuonAdamW)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = [p.detach().clone() for p in network.parameters()]
    _fit(network, optimizer, 2)
    assert all(torch.equal(p, b) for p, b in zip(network.parameters(), before, strict=True))


def test_a_loaded_state_goes_on_as_if_never_stopped(network):
    straight = make_optimizer(network, "muon", 1e-3, (0.9, 0.95), 0.01)
    _fit(network, straight, 5)
    weights = {k: v.clone() for k, v in network.state_dict().items()}
    state = straight.state_dict()
    expected = _fit(network, straight, 5)
    other = nn.Sequential(*(type(m)(*_sizes(m)) for m in network))
    other.load_state_dict(weights)
    resumed = make_optimizer(other, "muon", 1e-3, (0.9, 0.95), 0.01)
    resumed.load_state_dict(state)
    for group in resumed.param_groups:
        assert group["lr"] == 1e-3
    assert _fit(other, resumed, 5) == pytest.approx(expected, rel=1e-5)


def _sizes(module):
    return (module.in_features, module.out_features) if isinstance(module, nn.Linear) else ()


def test_an_unknown_kind_is_refused(network):
    with pytest.raises(UserError, match="optimizer is 'sgd', expected one of adamw, muon"):
        make_optimizer(network, "sgd", 1e-3, (0.9, 0.95), 0.0)
