"""Which noise goes with which clip: exact, within groups, and the same for any number of processes."""

from itertools import permutations

import pytest
import torch
from fakes import FakeNetwork, FakeSamples
from test_mixture import _Stopping

from bi_audio_dataset.schema import UserError
from visaudio.model.network import DualBranchNetwork, NetworkConfig
from visaudio.training.batches import BatchStream, DropoutConfig
from visaudio.training.coupling import Coupling, assign
from visaudio.training.loop import FlowLoopConfig, train


def distance(x_0, x_1) -> float:
    return float((x_0 - x_1).square().sum())


def batches(coupling, **more) -> BatchStream:
    return BatchStream(FakeSamples(), 3, 8, DropoutConfig(), coupling=coupling, **more)


def test_the_assignment_is_the_best_of_all():
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        x_0, x_1 = torch.randn(2, 5, 2, 3, 4, generator=generator)
        best = min(permutations(range(5)), key=lambda order: distance(x_0[list(order)], x_1))
        assert assign(x_0, x_1).tolist() == list(best)


def test_pairs_are_nearer_and_the_noises_the_same_set_within_each_group():
    network = FakeNetwork()
    plain, coupled = batches(None).get(2), batches(Coupling(4, network)).get(2)
    x_1 = network.normalize(plain.latents)
    for first in (0, 4):
        here = slice(first, first + 4)
        assert distance(coupled.noise[here], x_1[here]) < distance(plain.noise[here], x_1[here])
        sets = [sorted(noise.flatten().tolist() for noise in b.noise[here]) for b in (plain, coupled)]
        assert sets[0] == sets[1]
    assert coupled.ids == plain.ids and torch.equal(coupled.t, plain.t)
    assert torch.equal(coupled.conditions.presence(), plain.conditions.presence())


def test_any_number_of_processes_has_the_same_pairs():
    coupling = Coupling(2, FakeNetwork())
    whole = batches(coupling).get(1)
    for world, accumulation in ((2, 1), (1, 2), (2, 2)):
        parts = [
            batches(coupling, rank=rank, world=world, accumulation=accumulation).get(1, round_)
            for round_ in range(accumulation)
            for rank in range(world)
        ]
        assert torch.equal(torch.cat([part.noise for part in parts]), whole.noise)


def test_distances_are_those_of_the_flows_space():
    """A dimension whose latents are large must not decide alone: it is scaled first."""
    network = DualBranchNetwork(
        NetworkConfig(
            **dict.fromkeys(("clip_dim", "sync_dim", "text_dim", "spatial_dim"), 4), token_dim=2,
            hidden_dim=8, num_heads=1, joint_blocks=1, branch_blocks=1, mlp_multiple_of=8, spatial_width=8,
        )
    )  # fmt: skip
    network.set_latent_stats(torch.tensor([5.0, 0.0]), torch.tensor([100.0, 0.01]))
    coupling = Coupling(2, network)
    latents = 5 * torch.randn(3, 2, 4, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(coupling.normalize(latents), network.normalize(latents))
    network.latent_std.fill_(1.0)  # the copy stays what it was
    assert not torch.equal(coupling.normalize(latents), network.normalize(latents))


def test_groups_that_straddle_a_process_are_refused():
    with pytest.raises(UserError, match="takes 4 clips at a time, which do not divide into groups of ot_g"):
        batches(Coupling(8, FakeNetwork()), world=2)
    with pytest.raises(UserError, match="ot_group is -1"):
        FlowLoopConfig(ot_group=-1)
    with pytest.raises(UserError, match="ot_group is 1"):
        FlowLoopConfig(ot_group=1)


def test_a_coupled_run_resumes_bit_for_bit_and_differs_from_a_plain_one(tmp_path):
    weights = []
    for name, group, ends in (("plain", 0, (None,)), ("straight", 4, (None,)), ("resumed", 4, (15, None))):
        settings = {"steps": 6, "batch_size": 4, "precision": "fp32", "validate_every": 0, "log_every": 1}
        config = FlowLoopConfig(**settings, ot_group=group)
        for reads in ends:
            torch.manual_seed(0)
            network = FakeNetwork()
            samples = FakeSamples() if reads is None else _Stopping(FakeSamples(), reads)
            result = train(network, samples, config, tmp_path / name)
            assert result.finished is (reads is None)
        weights.append(network.state_dict())
    plain, straight, resumed = weights
    assert all(torch.equal(straight[key], resumed[key]) for key in straight)
    assert not torch.equal(plain["inner.weight"], straight["inner.weight"])


def test_a_clip_that_is_not_finite_is_still_named(tmp_path):
    samples = FakeSamples()
    samples.rows[7]["latents"] = torch.full_like(samples.rows[7]["latents"], float("nan"))
    config = FlowLoopConfig(steps=6, batch_size=4, precision="fp32", validate_every=0, ot_group=4)
    with pytest.raises(FloatingPointError, match="clip007"):
        train(FakeNetwork(), samples, config, tmp_path)
