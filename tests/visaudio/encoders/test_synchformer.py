import json
import math
import zlib

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from bi_audio_dataset.schema import UserError
from visaudio.encoders.frames import to_signed
from visaudio.encoders.synchformer import (
    DividedAttention,
    SpatialAggregation,
    SynchformerConfig,
    SynchformerEncoder,
)

TINY = SynchformerConfig(image_size=32, width=24, depth=2, heads=4)


@torch.no_grad()
def test_reduced_network_gives_the_published_codes_output(shared_dir):
    golden = load_file(shared_dir / "golden" / "synchformer_visual_reduced.safetensors")
    encoder = SynchformerEncoder(SynchformerConfig(width=48, depth=2, heads=4))
    prefix = "weights."
    encoder.load_weights({k[len(prefix) :]: v for k, v in golden.items() if k.startswith(prefix)})
    features = encoder(to_signed(golden["frames_u8"]))
    assert (features - golden["sync_features"]).abs().max() < 1e-4


@pytest.mark.slow
@torch.no_grad()
def test_full_width_network_gives_the_published_codes_output(shared_dir):
    """Weights by the formula of DESIGN.md section 6, for every name of the published checkpoint."""
    golden = load_file(shared_dir / "golden" / "synchformer_full_io.safetensors")
    shapes = json.loads((shared_dir / "golden" / "upstream_state_dicts.json").read_text())["synchformer_full"]
    longest = max(math.prod(shape) for name, shape in shapes.items() if name.startswith("vfeat"))
    angle = 0.7390851 * torch.arange(longest, dtype=torch.float64)
    cos, sin = angle.cos(), angle.sin()

    def weight(name: str, shape: list[int]) -> torch.Tensor:
        n, shift = math.prod(shape), zlib.crc32(name.encode()) % 1000
        value = 0.02 * (cos[:n] * math.cos(shift) - sin[:n] * math.sin(shift))
        return (value + (len(shape) == 1 and name.endswith("weight"))).view(shape).float()

    with torch.device("meta"):
        encoder = SynchformerEncoder()
    encoder.to_empty(device="cpu")
    # the audio side and the head are in the file as well, and are passed over
    encoder.load_weights({k: weight(k, s) if k.startswith("vfeat") else cos[:1] for k, s in shapes.items()})
    features = encoder(to_signed(golden["frames_u8"]))
    assert (features - golden["visual_features"].flatten(1, 2)).abs().max() < 1e-4


def test_state_dict_has_the_published_names_and_shapes(shared_dir):
    names = json.loads((shared_dir / "golden" / "upstream_state_dicts.json").read_text())
    with torch.device("meta"):
        state = SynchformerEncoder().state_dict()
    ours = {f"vfeat_extractor.{name}": list(value.shape) for name, value in state.items()}
    assert ours == names["synchformer_visual_full"]


def test_of_the_whole_published_checkpoint_the_rest_is_passed_over(shared_dir):
    """Every name and shape of synchformer_state_dict.pth; the audio side and the head are not for us."""
    listing = json.loads((shared_dir / "golden" / "upstream_state_dicts.json").read_text())
    with torch.device("meta"):
        encoder = SynchformerEncoder()
        state = {name: torch.empty(shape) for name, shape in listing["synchformer_full"].items()}
        encoder.load_weights(state)
    rest = {name for name in state if name.removeprefix("vfeat_extractor.") not in encoder.state_dict()}
    assert {name.partition(".")[0] for name in rest} == {"afeat_extractor", "aproj", "transformer", "vproj"}
    without = {name: value for name, value in state.items() if name != "vfeat_extractor.norm.bias"}
    with pytest.raises(UserError, match=r"missing \['norm.bias'\], unexpected \[\].*\(1, 0, 0 in all\)"):
        encoder.load_weights(without)


@torch.no_grad()
@pytest.mark.parametrize("over", ["space", "time"])
def test_divided_attention_equals_masked_full_attention(over):
    steps, patches, width, heads = 3, 5, 16, 4
    attention = DividedAttention(width, heads, over)
    full = nn.MultiheadAttention(width, heads, batch_first=True)
    full.in_proj_weight.copy_(attention.qkv.weight)
    full.in_proj_bias.copy_(attention.qkv.bias)
    full.out_proj.load_state_dict(attention.proj.state_dict())
    index = torch.arange(steps * patches)
    group = index // patches if over == "space" else index % patches
    blocked = torch.zeros(1 + steps * patches, 1 + steps * patches, dtype=torch.bool)
    blocked[1:, 1:] = group[:, None] != group[None]
    x = torch.randn(2, 1 + steps * patches, width)
    expected = full(x, x, x, attn_mask=blocked, need_weights=False)[0]
    assert torch.allclose(attention(x, steps), expected, atol=1e-5)


@torch.no_grad()
def test_aggregation_equals_a_transformer_layers_class_token():
    config = SynchformerConfig(image_size=32, width=24, depth=1, heads=4)
    ours = SpatialAggregation(config)
    nn.init.normal_(ours.cls_token)
    layer = nn.TransformerEncoderLayer(
        24, 4, 96, dropout=0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    )
    layer.load_state_dict({k: v for k, v in ours.state_dict().items() if k != "cls_token"})
    x = torch.randn(3, 7, 24)
    expected = layer(torch.cat([ours.cls_token.expand(3, -1, -1), x], dim=1))[:, 0]
    assert torch.allclose(ours(x), expected, atol=1e-5)


@pytest.mark.parametrize(("frames", "segments"), [(16, 1), (23, 1), (24, 2), (200, 24)])
def test_eight_seconds_are_24_segments(frames, segments):
    assert SynchformerConfig().num_segments(frames) == segments


@torch.no_grad()
def test_overlapping_segments_equal_segments_alone():
    encoder = SynchformerEncoder(TINY)
    video = torch.rand(2, 34, 3, 32, 32) * 2 - 1  # two frames left over
    together = encoder(video)
    assert together.shape == (2, 3 * 8, 24)
    for segment in range(3):
        alone = encoder(video[:, 8 * segment : 8 * segment + 16])
        assert torch.allclose(together[:, 8 * segment : 8 * segment + 8], alone, atol=1e-5)


@torch.no_grad()
def test_odd_stride_projects_each_segment_alone():
    even = SynchformerEncoder(SynchformerConfig(image_size=32, width=24, depth=1, heads=4))
    odd = SynchformerEncoder(SynchformerConfig(image_size=32, width=24, depth=1, heads=4, segment_stride=7))
    odd.load_state_dict(even.state_dict())
    video = torch.rand(1, 23, 3, 32, 32) * 2 - 1
    assert torch.allclose(odd(video)[:, 8:], even(video[:, 7:]), atol=1e-5)


@torch.no_grad()
def test_bf16_autocast_stays_near_float32():
    torch.manual_seed(0)
    encoder = SynchformerEncoder(TINY)
    video = torch.rand(1, 24, 3, 32, 32) * 2 - 1
    exact = encoder(video)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = encoder(video)
    assert (rounded - exact).norm() < 0.02 * exact.norm()


def test_bad_input_and_weights_are_named(tmp_path):
    encoder = SynchformerEncoder(TINY)
    with pytest.raises(ValueError, match="at least 16 frames, got 15"):
        encoder(torch.zeros(1, 15, 3, 32, 32))
    with pytest.raises(ValueError, match=r"uint8"):
        encoder(torch.zeros(1, 16, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(UserError, match="no weights of Synchformer"):
        encoder.load_weights(tmp_path / "none.pth")
    with pytest.raises(UserError, match="missing"):
        encoder.load_weights({"vfeat_extractor.cls_token": torch.zeros(1, 1, 24)})
    wider = SynchformerEncoder(SynchformerConfig(image_size=32, width=32, depth=2, heads=4))
    with pytest.raises(UserError, match=r"not the weights of this Synchformer encoder: .* other shapes"):
        encoder.load_weights(wider.state_dict())


def test_pth_with_wrapper_and_prefix_loads(tmp_path):
    encoder = SynchformerEncoder(TINY)
    state = {f"vfeat_extractor.{k}": v for k, v in encoder.state_dict().items()}
    torch.save({"model": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "sync.pth")
    other = SynchformerEncoder(
        SynchformerConfig(image_size=32, width=24, depth=2, heads=4, weights=str(tmp_path / "sync.pth"))
    )
    assert all(torch.equal(a, b) for a, b in zip(encoder.parameters(), other.parameters(), strict=True))
