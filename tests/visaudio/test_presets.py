import dataclasses
import json

import pytest
import torch

from bi_audio_dataset.schema import UserError
from visaudio.config import from_dict, to_dict
from visaudio.model.network import DualBranchNetwork
from visaudio.presets import PRESETS, TINY, Preset, load_preset


def test_the_papers_presets_have_its_lengths_and_widths():
    for name, hidden, heads, joint, branch in (
        ("small", 448, 7, 4, 8),
        ("medium", 896, 14, 4, 8),
        ("large", 896, 14, 7, 14),
    ):
        p = PRESETS[name]
        assert (p.sequence.num_tokens, p.network.token_dim) == (345, 144)
        n = p.network
        assert (n.hidden_dim, n.num_heads, n.joint_blocks, n.branch_blocks) == (hidden, heads, joint, branch)
        assert (n.clip_dim, n.text_dim, n.spatial_dim, n.sync_dim) == (1024, 1024, 1280, 768)


def test_tiny_is_small_enough_to_ship():
    net = DualBranchNetwork(TINY.network)
    assert sum(p.numel() for p in net.parameters()) * 2 <= 15e6  # bytes in fp16, of 25 MB for all parts
    assert TINY.sequence.num_tokens == 173


@pytest.mark.parametrize("name", PRESETS)
def test_json_round_trip(name):
    assert from_dict(Preset, json.loads(json.dumps(to_dict(PRESETS[name])))) == PRESETS[name]


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="token_dim is 80, but codec.latent_dim.* is 94"):
        dataclasses.replace(TINY, codec=dataclasses.replace(TINY.codec, latent_dim=47))
    with pytest.raises(UserError, match="spatial_columns is 8, but clip.grid_columns is 4"):
        load_preset("tiny", ["clip.grid_columns=4"])


def test_overrides_and_unknown_names():
    preset = load_preset("tiny", ["sequence.duration_s=4", "network.inter_ear_attention=false"])
    assert preset.network == dataclasses.replace(TINY.network, inter_ear_attention=False)
    assert preset.sequence.duration_s == 4.0 and preset.codec == TINY.codec
    with pytest.raises(UserError, match="unknown preset 'teeny'.*tiny, small"):
        load_preset("teeny")


def test_a_preset_can_run():
    """The smallest forward pass through sizes that the preset alone decides."""
    sequence = TINY.sequence.with_duration(1.0)
    net = DualBranchNetwork(TINY.network).eval()
    x = torch.randn(1, 2, sequence.num_tokens, TINY.network.token_dim)
    torch.nn.init.ones_(net.final_layer.conv.bias)
    with torch.no_grad():
        out = net(x, torch.tensor([0.5]), net.null_conditions(1, sequence))
    # at t = 1/2 the straight guess is zero, and its error sqrt(2) large
    torch.testing.assert_close(out, torch.full_like(x, 2**0.5))
