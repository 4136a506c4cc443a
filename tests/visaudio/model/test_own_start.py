"""A network of ours as the start of another: what goes where, and what stays new."""

from dataclasses import replace

import pytest
import torch

from visaudio.model.network import DualBranchNetwork, NetworkConfig
from visaudio.model.own_start import is_own, load_own_state_dict

ONE = NetworkConfig(
    token_dim=6, clip_dim=8, sync_dim=8, text_dim=8, text_tokens=4, spatial_dim=8, spatial_rows=1,
    spatial_columns=2, spatial_width=8, spatial_queries=1, hidden_dim=16, num_heads=2, joint_blocks=1,
    branch_blocks=2, mlp_multiple_of=8, straight_guess=True, condition_guess=True,
    dual_branch=False, spacetime=False, inter_ear_attention=False,
)  # fmt: skip
TWO = replace(
    ONE,
    dual_branch=True,
    spacetime=True,
    inter_ear_attention=True,
    cross_ear_input=True,
    interaural_whitening=0.5,
)


def _random(config: NetworkConfig, seed: int) -> DualBranchNetwork:
    torch.manual_seed(seed)
    network = DualBranchNetwork(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.1 * torch.randn_like(parameter))
    return network.eval()


def _velocity(network: DualBranchNetwork) -> torch.Tensor:
    from visaudio.model.conditions import Conditions

    torch.manual_seed(7)
    c = network.config
    cells = c.spatial_rows * c.spatial_columns
    conditions = Conditions(
        clip_features=torch.randn(1, 4, c.clip_dim),
        sync_features=torch.randn(1, 16, c.sync_dim),
        text_features=torch.randn(1, c.text_tokens, c.text_dim),
        spatial_features=torch.randn(1, 4, cells, c.spatial_dim),
        hfov_rad=torch.ones(1),
        present=torch.ones(1, 4, dtype=torch.bool),
    )
    with torch.no_grad():
        return network(torch.randn(1, 2, 5, c.token_dim), torch.tensor([0.3]), conditions)


def test_two_branches_begin_as_the_one():
    one = _random(ONE, 0)
    torch.manual_seed(1)
    two = DualBranchNetwork(TWO).eval()
    report = load_own_state_dict(two, one.state_dict())
    velocity = _velocity(one)
    assert velocity.std() > 0.01 and not torch.equal(velocity[:, 0], velocity[:, 1])
    assert torch.equal(_velocity(two), velocity)  # gates and outputs of all that is new are zero
    assert report.ignored == ()
    assert {n.split(".")[0] for n in report.new} == {
        "inter_ear", "spacetime", "cross_ear_proj", "latent_side_std"
    }  # fmt: skip
    assert "branches.0.1.linear1.weight" in report.duplicated
    assert "condition_guess.out.0.weight" in report.duplicated
    state = two.state_dict()
    for name, value in one.state_dict().items():
        assert torch.equal(state[name], value)
        if name.startswith("branches.0."):
            assert torch.equal(state[name.replace("branches.0.", "branches.1.")], value)


def test_a_network_of_the_same_config_is_taken_whole():
    source, target = _random(TWO, 0), _random(TWO, 1)
    report = load_own_state_dict(target, source.state_dict())
    assert report.new == report.ignored == report.duplicated == ()
    taken = target.state_dict()
    assert all(torch.equal(value, taken[name]) for name, value in source.state_dict().items())


def test_another_codec_leaves_what_depends_on_it():
    source, target = _random(ONE, 0), _random(replace(ONE, token_dim=10, condition_guess=False), 1)
    report = load_own_state_dict(target, source.state_dict())
    of_codec = {"audio_input_proj.0.weight", "final_layer.conv.weight", "latent_mean", "latent_std"}
    assert of_codec <= set(report.new) and of_codec <= set(report.ignored)
    assert torch.equal(target.joint_blocks[0].latent_block.attn.qkv.weight,
                       source.joint_blocks[0].latent_block.attn.qkv.weight)  # fmt: skip


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        (TWO, replace(TWO, dual_branch=False), "branches of its own for each ear"),
        (ONE, replace(ONE, hidden_dim=32), r"expected \(32"),
        (ONE, replace(ONE, branch_blocks=3), "branches.0.2.* is not in it"),
        (replace(ONE, branch_blocks=3), ONE, "does not fit the network's config: branches.0.2"),
    ],
)
def test_what_does_not_fit_is_refused(source, target, said):
    with pytest.raises(ValueError, match=said):
        load_own_state_dict(DualBranchNetwork(target), DualBranchNetwork(source).state_dict())


def test_mmaudios_names_are_not_ours():
    assert is_own(DualBranchNetwork(ONE).state_dict())
    assert not is_own({"fused_blocks.0.linear1.weight": torch.ones(1), "latent_mean": torch.ones(1)})
