"""Parity with MMAudio: both branches loaded from one of its checkpoints give each ear its velocity."""

import json

import pytest
import torch

from visaudio.guidance import guided
from visaudio.model.conditions import Conditions
from visaudio.model.network import DualBranchNetwork, NetworkConfig
from visaudio.model.warm_start import load_mmaudio_state_dict, our_names
from visaudio.presets import PRESETS
from visaudio.sequence import SequenceConfig
from visaudio.solver import solve, time_grid

GENERATIONS = {
    "mmaudio_reduced": {"projections": "v1", "time_frequencies": 256, "time_scale": 1.0},
    "mmaudio_reduced_v2": {"projections": "v2", "time_frequencies": 64, "time_scale": 10000.0},
}


def reduced(**changes) -> DualBranchNetwork:
    sizes = {"hidden_dim": 64, "num_heads": 2, "joint_blocks": 2, "branch_blocks": 2, "token_dim": 40}
    torch.manual_seed(0)
    return DualBranchNetwork(NetworkConfig(spatial_dim=16, spatial_width=16, **{**sizes, **changes})).eval()


def golden(shared_dir, name):
    path = shared_dir / "golden" / f"{name}.safetensors"
    if not path.is_file():
        pytest.skip(f"no {path.name}")
    from safetensors.torch import load_file

    tensors = load_file(path)
    weights = {k.removeprefix("weights."): v for k, v in tensors.items() if k.startswith("weights.")}
    features = (tensors["clip"], tensors["sync"], tensors["text"])
    batch = len(tensors["x"])
    conditions = Conditions(*features, torch.randn(batch, 64, 16, 16), torch.full((batch,), 1.2))
    return tensors, weights, conditions


@pytest.mark.parametrize("name", GENERATIONS)
def test_each_ear_equals_mmaudio(shared_dir, name):
    tensors, weights, conditions = golden(shared_dir, name)
    net = reduced(**GENERATIONS[name])
    report = load_mmaudio_state_dict(net, weights)
    x = tensors["x"][:, None].expand(-1, 2, -1, -1)
    with torch.no_grad():
        velocity = net(x, tensors["t"], conditions)
        prepared = net.preprocess_conditions(conditions, 345)
        null = net.preprocess_conditions(net.null_conditions(1, SequenceConfig()), 345).expand(len(x))
        field = guided(net.predict_velocity, prepared, null, 4.5)
        end = solve(field, x, time_grid(5), "euler")
    for ear in (0, 1):
        torch.testing.assert_close(velocity[:, ear], tensors["velocity"], atol=1e-4, rtol=0)
        torch.testing.assert_close(end[:, ear], tensors["euler5_cfg4.5"], atol=1e-4, rtol=0)
    assert not report.ignored
    assert all(n.startswith(("inter_ear.", "spacetime.", "empty_spatial_feat")) for n in report.new)
    assert all(n.startswith("fused_blocks.") for n in report.duplicated)


def test_a_loaded_network_still_learns_to_part_the_ears(shared_dir):
    """Zero gates and output must not be a trap: their own gradients are not zero."""
    tensors, weights, conditions = golden(shared_dir, "mmaudio_reduced_v2")
    net = reduced(**GENERATIONS["mmaudio_reduced_v2"])
    load_mmaudio_state_dict(net, weights)
    x = torch.randn(1, 2, 345, 40)
    net(x, torch.tensor([0.5]), conditions.index(slice(0, 1))).square().sum().backward()
    assert net.spacetime.out.weight.grad.abs().max() > 0
    assert all(block.gate.grad.abs().max() > 0 for block in net.inter_ear)


def test_other_codecs_keep_their_own_input_and_output(shared_dir):
    _, weights, _ = golden(shared_dir, "mmaudio_reduced")
    net = reduced(**GENERATIONS["mmaudio_reduced"], token_dim=144)
    before = net.audio_input_proj[0].weight.clone()
    report = load_mmaudio_state_dict(net, weights)
    assert set(report.ignored) == {
        "audio_input_proj.0.weight",
        "final_layer.conv.weight",
        "final_layer.conv.bias",
        "latent_mean",
        "latent_std",
    }
    assert torch.equal(net.audio_input_proj[0].weight, before)
    torch.testing.assert_close(net.clip_cond_proj.weight, weights["clip_cond_proj.weight"])


def test_a_checkpoint_of_another_width_is_refused(shared_dir):
    _, weights, _ = golden(shared_dir, "mmaudio_reduced")
    with pytest.raises(ValueError, match="does not fit.*expected"):
        load_mmaudio_state_dict(reduced(hidden_dim=32), weights)


@pytest.mark.parametrize(
    ("preset", "upstream"),
    [("small", "small_44k"), ("medium", "medium_44k"), ("large", "large_44k_v2")],
)
def test_presets_have_the_shapes_of_the_full_checkpoints(shared_dir, preset, upstream):
    """Names and shapes alone, on the meta device: no weights are needed."""
    listing = json.loads((shared_dir / "golden" / "upstream_state_dicts.json").read_text())
    found = [key for key in listing if upstream in key]
    if not found:
        pytest.skip(f"no {upstream} among {sorted(listing)}")
    with torch.device("meta"):
        ours = DualBranchNetwork(PRESETS[preset].network).state_dict()
    codec = ("audio_input_proj.0.weight", "final_layer.conv.", "latent_mean", "latent_std")
    for name, shape in shapes_of(listing[found[0]]).items():
        for target in our_names(name):
            assert target in ours, name
            if not name.startswith(codec):
                got = [s for s in ours[target].shape if s != 1]
                assert got == [s for s in shape if s != 1], name


def shapes_of(entry) -> dict[str, list[int]]:
    """The listing's entry as name -> shape, whether or not it also names dtypes."""
    return {k: (v["shape"] if isinstance(v, dict) else v) for k, v in entry.items()}
