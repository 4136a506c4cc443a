import dataclasses
import math

import pytest
import torch

from visaudio.flow import interpolate, velocity_target
from visaudio.model.conditions import Conditions
from visaudio.model.guess import straight_guess
from visaudio.model.network import DualBranchNetwork, NetworkConfig
from visaudio.sequence import SequenceConfig

SEQUENCE = SequenceConfig(duration_s=2.0, sample_rate=22050)
CONFIG = NetworkConfig(
    token_dim=12,
    clip_dim=10,
    sync_dim=9,
    text_dim=8,
    text_tokens=5,
    spatial_dim=7,
    spatial_width=16,
    hidden_dim=32,
    num_heads=2,
    joint_blocks=2,
    branch_blocks=2,
    mlp_multiple_of=32,
    input_kernel=3,
)
N = SEQUENCE.num_tokens


def network(seed: int = 0, trained: bool = True, **changes) -> DualBranchNetwork:
    """Random weights everywhere, gates and outputs included, unless trained is False."""
    torch.manual_seed(seed)
    net = DualBranchNetwork(dataclasses.replace(CONFIG, **changes)).eval()
    if trained:
        with torch.no_grad():
            for p in net.parameters():
                p.copy_(torch.randn_like(p) * (1 / math.sqrt(p[0].numel()) if p.ndim > 1 else 0.3))
    return net


def conditions(batch: int = 2, sequence: SequenceConfig = SEQUENCE) -> Conditions:
    c = CONFIG
    return Conditions(
        torch.randn(batch, sequence.num_clip_frames, c.clip_dim),
        torch.randn(batch, sequence.num_sync_tokens, c.sync_dim),
        torch.randn(batch, c.text_tokens, c.text_dim),
        torch.randn(batch, sequence.num_clip_frames, 16, c.spatial_dim),
        torch.tensor([1.0, math.nan])[:batch],
    )


def latents(batch: int = 2, tokens: int = N) -> torch.Tensor:
    return torch.randn(batch, 2, tokens, CONFIG.token_dim)


def flip_columns(cells: torch.Tensor) -> torch.Tensor:
    return cells.unflatten(-2, (2, 8)).flip(-2).flatten(-3, -2)


def test_straight_guess_is_the_least_squares_one():
    x_0, x_1 = torch.randn(2, 4, 2, 500, 3, generator=torch.Generator().manual_seed(0)).unbind(0)
    t = torch.tensor([0.0, 0.2, 0.5, 0.9])
    x_t, v = interpolate(x_0, x_1, t), velocity_target(x_0, x_1)
    guess = straight_guess(x_t, t, torch.zeros_like(x_t))
    rest = (v - guess).flatten(1)
    assert (rest * x_t.flatten(1)).mean(dim=1).abs().max() < 0.05  # nothing linear is left
    scale = straight_guess(torch.zeros_like(x_t), t, torch.ones_like(x_t)).flatten(1)[:, 0]
    assert torch.allclose(rest.std(dim=1), scale, rtol=0.04)


def test_straight_guess_is_added_to_what_the_network_says():
    plain, guessing = network(), network(straight_guess=True)
    guessing.load_state_dict(plain.state_dict())
    x, t, told = latents(), torch.tensor([0.2, 0.7]), conditions()
    assert torch.allclose(guessing(x, t, told), straight_guess(x, t, plain(x, t, told)), atol=1e-5)


def test_straight_guess_with_a_mean_is_the_least_squares_one():
    """Data of unit variance, a part of which is known: the guess from x_t and the known part has no bias."""
    draw = torch.Generator().manual_seed(0)
    mean = 0.8 * torch.randn(4, 2, 500, 3, generator=draw)
    x_0, rest = torch.randn(2, 4, 2, 500, 3, generator=draw).unbind(0)
    x_1 = mean + 0.6 * rest
    t = torch.tensor([0.0, 0.2, 0.5, 1.0])
    x_t, v, none = interpolate(x_0, x_1, t), velocity_target(x_0, x_1), torch.zeros_like(x_0)
    told = (v - straight_guess(x_t, t, none, mean)).square().flatten(1).mean(dim=1)
    untold = (v - straight_guess(x_t, t, none)).square().flatten(1).mean(dim=1)
    assert torch.allclose(told[0], (x_1 - mean)[0].square().mean())
    assert (told[:3] < untold[:3] - 0.1).all() and told[3] == untold[3]


def guessing_network(trained: bool = True, **changes) -> DualBranchNetwork:
    return network(trained=trained, straight_guess=True, condition_guess=True, **changes)


def test_condition_guess_reaches_velocity_and_input():
    net, c, x = guessing_network(), conditions(), latents()
    prepared = net.preprocess_conditions(c, N)
    assert prepared.mean.shape == x.shape and prepared.hidden.shape == (2, 2, N, CONFIG.hidden_dim)
    with torch.no_grad():
        moved = dataclasses.replace(prepared, mean=prepared.mean + 1.0)
        change = net.predict_velocity(x, torch.tensor([0.0, 1.0]), moved) - net.predict_velocity(
            x, torch.tensor([0.0, 1.0]), prepared
        )
        torch.testing.assert_close(change[0], torch.ones_like(change[0]))
        torch.testing.assert_close(change[1], torch.zeros_like(change[1]))
        louder = dataclasses.replace(prepared, hidden=prepared.hidden.flip(2))
        t = torch.tensor([0.5, 0.5])
        assert (net.predict_velocity(x, t, louder) - net.predict_velocity(x, t, prepared)).abs().max() > 1e-3


def test_condition_guess_of_a_fresh_network_is_zero_and_learns():
    net, c, x, t = guessing_network(trained=False), conditions(), latents(), torch.tensor([0.2, 0.7])
    torch.testing.assert_close(net(x, t, c), straight_guess(x, t, torch.zeros_like(x)))
    net = guessing_network()
    net(x, t, c).square().sum().backward()
    names = [n for n, p in net.named_parameters() if n.startswith("condition_")]
    assert len(names) == 15 and all(net.get_parameter(n).grad.abs().max() > 0 for n in names)


def test_condition_guess_is_a_part_of_the_straight_guess():
    with pytest.raises(ValueError, match="set straight_guess"):
        network(condition_guess=True)


def test_block_kernel_1_is_a_plain_transformer_block():
    narrow, wide = network(block_kernel=1), network()
    assert narrow.joint_blocks[0].latent_block.ffn.w1.weight.ndim == 2
    assert wide.joint_blocks[0].latent_block.ffn.w1.weight.shape[2] == 3
    assert narrow(latents(), torch.tensor([0.2, 0.7]), conditions()).shape == (2, 2, N, CONFIG.token_dim)


def test_a_fresh_network_predicts_zero_and_every_parameter_learns():
    net, c = network(trained=False), conditions()
    dropped = c.drop({k: torch.tensor([True, False]) for k in ("clip", "sync", "text", "spatial")})
    x, t = latents(), torch.tensor([0.2, 0.7])
    assert net(x, t, dropped).abs().max() == 0
    net = network()
    net(x, t, dropped).square().sum().backward()
    dead = [name for name, p in net.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    # queries of the last joint block that nobody asks; MMAudio's checkpoints have them all the same
    assert dead == [f"joint_blocks.1.{m}_block.attn.q_norm.weight" for m in ("clip", "text")]


MONO = dict(dual_branch=False, spacetime=False, inter_ear_attention=False, cross_ear_input=False)


@pytest.mark.parametrize("switches", [{}, dict(spacetime=False), MONO, dict(shared_video_tokens=True)])
def test_no_trainable_parameter_is_left_out(switches):
    """In several processes torch refuses a parameter that has no part in the loss."""
    net = network(**switches)
    net(latents(), torch.tensor([0.2, 0.7]), conditions().drop({})).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.requires_grad and p.grad is None] == []


def test_prepared_conditions_give_the_same_velocity():
    net, c, x, t = network(), conditions(), latents(), torch.tensor([0.1, 0.9])
    with torch.no_grad():
        prepared = net.preprocess_conditions(c, N)
        torch.testing.assert_close(net.predict_velocity(x, t, prepared), net(x, t, c))


@pytest.mark.parametrize("shared", [False, True])
def test_samples_do_not_mix(shared):
    net, c, x, t = network(shared_video_tokens=shared), conditions(), latents(), torch.tensor([0.1, 0.9])
    with torch.no_grad():
        both = net(x, t, c)
        for i in (0, 1):
            alone = net(x[i : i + 1], t[i : i + 1], c.index(slice(i, i + 1)))
            torch.testing.assert_close(both[i : i + 1], alone, atol=1e-4, rtol=1e-4)


def left_ear_change(net: DualBranchNetwork) -> float:
    """How much the left ear's velocity answers to a change of the right ear's latents."""
    c, x, t = conditions(), latents(), torch.tensor([0.3, 0.6])
    other = x.clone()
    other[:, 1] = torch.randn_like(other[:, 1])
    with torch.no_grad():
        return (net(x, t, c)[:, 0] - net(other, t, c)[:, 0]).abs().max().item()


def test_ears_talk_only_where_they_are_meant_to():
    assert left_ear_change(network(inter_ear_attention=False)) < 1e-5
    assert left_ear_change(network()) > 1e-3
    assert left_ear_change(network(inter_ear_attention=False, shared_video_tokens=True)) > 1e-3
    closed = network()
    for block in closed.inter_ear:
        torch.nn.init.zeros_(block.gate)
    assert left_ear_change(closed) < 1e-5


@pytest.mark.parametrize(
    "switches",
    [
        {"spacetime_in_joint": True},
        {"spacetime_in_joint": False},
        {"straight_guess": True, "condition_guess": True},
    ],
)
def test_mirror(switches):
    """Mirrored columns with swapped embeddings, branches and guesses give the swapped ears."""
    net, mirror = network(**switches), network(**switches)
    mirror.load_state_dict(net.state_dict())
    with torch.no_grad():
        mirror.branches[0].load_state_dict(net.branches[1].state_dict())
        mirror.branches[1].load_state_dict(net.branches[0].state_dict())
        mirror.spacetime.ear_embedding.copy_(flip_columns(net.spacetime.ear_embedding).flip(0))
        mirror.spacetime.query.copy_(net.spacetime.query.flip(0))
        if net.condition_guess is not None:
            for name in ("enter", "mlps", "out"):
                left, right = getattr(net.condition_guess, name)
                getattr(mirror.condition_guess, name)[0].load_state_dict(right.state_dict())
                getattr(mirror.condition_guess, name)[1].load_state_dict(left.state_dict())
        c, x, t = conditions(), latents(), torch.tensor([0.3, 0.6])
        mirrored = dataclasses.replace(c, spatial_features=flip_columns(c.spatial_features))
        out = net(x, t, c)
        torch.testing.assert_close(mirror(x.flip(1), t, mirrored), out.flip(1), atol=1e-4, rtol=1e-4)
        assert (net(x.flip(1), t, mirrored) - out.flip(1)).abs().max() > 1e-3


@pytest.mark.parametrize("guess", [False, True])
def test_a_single_branch_treats_the_ears_alike(guess):
    net = network(dual_branch=False, spacetime=False, straight_guess=guess, condition_guess=guess)
    c, t = conditions(), torch.tensor([0.3, 0.6])
    x = latents()[:, :1].expand(-1, 2, -1, -1)
    with torch.no_grad():
        out = net(x, t, c)
    torch.testing.assert_close(out[:, 0], out[:, 1])


@pytest.mark.parametrize("duration_s", [0.3, 1.0, 5.2])
def test_other_durations(duration_s):
    """A constant scene gets the same velocity at mid-clip whatever the duration says of its ends."""
    sequence = SEQUENCE.with_duration(duration_s)
    net = network()
    x, c = latents(2, sequence.num_tokens), conditions(2, sequence)
    with torch.no_grad():
        out = net(x, torch.tensor([0.3, 0.6]), c)
    assert out.shape == x.shape and out.isfinite().all()


def test_dropped_modalities_do_not_reach_the_output():
    net, x, t = network(), latents(), torch.tensor([0.3, 0.6])
    everything = {k: torch.ones(2, dtype=torch.bool) for k in ("clip", "sync", "text", "spatial")}
    a, b = (
        dataclasses.replace(conditions(), hfov_rad=torch.full((2,), math.nan)).drop(everything) for _ in "ab"
    )
    with torch.no_grad():
        torch.testing.assert_close(net(x, t, a), net(x, t, b))
        torch.testing.assert_close(net(x, t, a), net(x, t, net.null_conditions(2, SEQUENCE)))
    for name in everything:
        one = conditions()
        with torch.no_grad():
            assert (net(x, t, one) - net(x, t, one.drop({name: everything[name]}))).abs().max() > 1e-4, name


def test_an_absent_text_equals_the_empty_prompt():
    net, x, t, c = network(), latents(), torch.tensor([0.3, 0.6]), conditions()
    empty = torch.randn(CONFIG.text_tokens, CONFIG.text_dim)
    net.set_empty_text(empty)
    prompted = dataclasses.replace(c, text_features=empty.expand(2, -1, -1))
    with torch.no_grad():
        torch.testing.assert_close(
            net(x, t, prompted), net(x, t, c.drop({"text": torch.tensor([True, True])}))
        )


def test_latent_statistics_round_trip_without_mutation():
    net, x = network(), latents() * 3 + 2
    kept = x.clone()
    net.set_latent_stats(x.mean(dim=(0, 1, 2)), x.std(dim=(0, 1, 2)))
    y = net.normalize(x)
    torch.testing.assert_close(y.mean(dim=(0, 1, 2)), torch.zeros(12), atol=1e-5, rtol=0)
    torch.testing.assert_close(net.unnormalize(y), kept)
    assert torch.equal(x, kept)


def test_bf16_autocast_stays_close_to_float32():
    net, x, t, c = network(), latents(), torch.tensor([0.3, 0.6]), conditions()
    with torch.no_grad():
        exact = net(x, t, c)
        with torch.autocast("cpu", torch.bfloat16):
            rough = net(x, t, c)
    assert rough.dtype == torch.bfloat16
    assert ((rough.float() - exact).square().mean() / exact.square().mean()).sqrt() < 0.05


def test_errors_name_what_was_given():
    net, c = network(), conditions()
    with pytest.raises(ValueError, match=r"\(B, 2, N, 12\), got \(2, 2, 5, 13\)"):
        net(torch.zeros(2, 2, 5, 13), torch.zeros(2), c)
    with pytest.raises(ValueError, match="prepared for 43 tokens, latents have 44"):
        net.predict_velocity(latents(2, 44), torch.zeros(2), net.preprocess_conditions(c, 43))
    with pytest.raises(ValueError, match="not a multiple of 8"):
        net(latents(), torch.zeros(2), dataclasses.replace(c, sync_features=torch.zeros(2, 12, 9)))


def odd_share(project: torch.nn.Module, x: torch.Tensor) -> float:
    """Of the variance of project(x), what changes sign with x."""
    plus, minus = project(x), project(-x)
    odd, even = (plus - minus) / 2, (plus + minus) / 2
    even = even - even.mean(dim=(0, 1))
    return (odd.var() / (odd.var() + even.var())).item()


@pytest.mark.parametrize("input_kernel", [1, 7])
@pytest.mark.parametrize("projections", ["v1", "v2"])
def test_random_weights_can_be_told_to_let_the_latents_through(projections, input_kernel):
    net = network(trained=False, hidden_dim=64, projections=projections, input_kernel=input_kernel)
    x = torch.randn(8, 20, CONFIG.token_dim)
    with torch.no_grad():
        before, gain = odd_share(net.audio_input_proj, x), net.audio_input_proj(x).std().item()
        net.let_latents_through()
        after, louder = odd_share(net.audio_input_proj, x), net.audio_input_proj(x).std().item()
    assert before < 0.5 and after > 0.85
    assert louder > 5 * gain


def test_letting_the_latents_through_leaves_the_start_at_zero_and_the_kernels_their_power():
    net = network(trained=False, hidden_dim=64, input_kernel=7)
    gated = net.audio_input_proj[2]
    before = gated.w2.weight.detach().square().sum().item()
    net.let_latents_through()
    taps = gated.w2.weight.detach().square().mean(dim=(0, 1))
    assert taps.sum().item() * gated.w2.weight[:, :, 0].numel() == pytest.approx(before, rel=0.05)
    assert taps[3] > 100 * taps[[0, 1, 2, 4, 5, 6]].max()
    x = latents()
    assert net(x, torch.tensor([0.2, 0.7]), conditions()).abs().max().item() == 0
