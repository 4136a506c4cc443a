"""The audio branch, the sync head and the whole Synchformer: golden, published names, plain facts."""

import json
import math
import pickle
import zlib

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from bi_audio_dataset.schema import UserError
from visaudio.encoders import synchformer_audio
from visaudio.encoders.synchformer import SynchformerConfig
from visaudio.encoders.synchformer_audio import (
    MEAN,
    SEGMENT_SAMPLES,
    SEGMENT_STRIDE,
    STD,
    SynchformerAudioConfig,
    SynchformerAudioEncoder,
    log_mel,
    num_segments,
    segments,
)
from visaudio.encoders.synchformer_sync import (
    SyncHeadConfig,
    Synchformer,
    SynchformerFullConfig,
    offset_classes_s,
)

TINY = SynchformerFullConfig(
    SynchformerConfig(image_size=32, width=24, depth=1, heads=4),
    SynchformerAudioConfig(width=32, depth=2, heads=4),
    SyncHeadConfig(segments=3, width=16, depth=2, heads=2),
)


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter of a size at which a mistake would be seen."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.named_parameters():
        value.data = 0.2 * torch.randn(value.shape, generator=generator)
        if value.ndim == 1 and name.endswith("weight"):
            value.data += 1
    return model.eval().requires_grad_(False)


@pytest.mark.slow
@torch.no_grad()
def test_full_width_audio_branch_and_head_give_the_published_codes_output(shared_dir):
    """Weights by the formula of DESIGN.md section 6; the visual branch has a test of its own."""
    golden = load_file(shared_dir / "golden" / "synchformer_full_io.safetensors")
    shapes = json.loads((shared_dir / "golden" / "upstream_state_dicts.json").read_text())["synchformer_full"]
    shapes = {name: shape for name, shape in shapes.items() if not name.startswith("vfeat")}
    longest = max(map(math.prod, shapes.values()))
    angle = 0.7390851 * torch.arange(longest, dtype=torch.float64)
    cos, sin = angle.cos(), angle.sin()

    def weight(name: str, shape: list[int]) -> torch.Tensor:
        n, shift = math.prod(shape), zlib.crc32(name.encode()) % 1000
        value = 0.02 * (cos[:n] * math.cos(shift) - sin[:n] * math.sin(shift))
        return (value + (len(shape) == 1 and name.endswith("weight"))).view(shape).float()

    with torch.device("meta"):
        model = Synchformer()
    model.vfeat_extractor = nn.Identity()
    model = model.to_empty(device="cpu").eval()
    model.load_state_dict({name: weight(name, shape) for name, shape in shapes.items()})
    features = model.afeat_extractor(golden["log_mel"][:, :, 0])
    assert (features - golden["audio_features"]).abs().max() < 1e-4
    logits = model.offset_logits(golden["head_visual"], golden["head_audio"])
    assert (logits - golden["head_logits"]).abs().max() < 1e-4


def test_state_dict_has_the_published_names_and_shapes(shared_dir):
    listing = json.loads((shared_dir / "golden" / "upstream_state_dicts.json").read_text())
    with torch.device("meta"):
        state = Synchformer().state_dict()
    assert {name: list(value.shape) for name, value in state.items()} == listing["synchformer_full"]


@torch.no_grad()
def test_audio_branch_equals_transformers_ast():
    """An independent network with the same weights, at reduced width; then a plain transformer layer."""
    from transformers import ASTConfig, ASTModel

    config = TINY.audio
    ours = randomised(SynchformerAudioEncoder(config))
    theirs = ASTModel(
        ASTConfig(
            hidden_size=config.width,
            num_hidden_layers=config.depth,
            num_attention_heads=config.heads,
            intermediate_size=config.hidden,
            max_length=config.frames,
            num_mel_bins=config.bands,
        )
    ).eval()
    state = {name.removeprefix("ast."): value for name, value in ours.ast.state_dict().items()}
    theirs.load_state_dict(renamed(state, theirs.state_dict()))
    layer = nn.TransformerEncoderLayer(
        config.width, config.heads, config.hidden, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True
    ).eval()
    gather = dict(ours.freq_attn_agg.state_dict())
    cls_token = gather.pop("cls_token")
    layer.load_state_dict(gather)

    mel = torch.randn(2, 3, 128, 66)
    hidden = theirs(mel.flatten(0, 1).transpose(1, 2)).last_hidden_state[:, 2:]
    by_frequency = hidden.view(6, 12, 6, config.width)
    expected = torch.stack(
        [layer(torch.cat([cls_token.expand(6, -1, -1), by_frequency[:, :, t]], 1))[:, 0] for t in range(6)], 1
    )
    assert ours(mel).shape == (2, 3, 6, 32)
    assert (ours(mel).flatten(0, 1) - expected).abs().max() < 1e-4


def renamed(state: dict, like: dict) -> dict:
    """Published names -> those of the installed transformers, which has changed them."""
    if set(state) == set(like):
        return state
    names = (
        ("encoder.layer.", "layers."),
        ("attention.attention.query", "attention.q_proj"),
        ("attention.attention.key", "attention.k_proj"),
        ("attention.attention.value", "attention.v_proj"),
        ("attention.output.dense", "attention.o_proj"),
        ("intermediate.dense", "mlp.fc1"),
        ("output.dense", "mlp.fc2"),
    )
    found = {}
    for name, value in state.items():
        for old, new in names:
            name = name.replace(old, new)
        found[name] = value
    return found


@torch.no_grad()
def test_sync_head_equals_transformer_layers_over_one_sequence():
    model = randomised(Synchformer(TINY))
    head, width = model.transformer, TINY.head.width
    layers = []
    for block in head.blocks:
        layer = nn.TransformerEncoderLayer(
            width, TINY.head.heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        in_projection = [getattr(block.attn, name) for name in ("query", "key", "value")]
        layer.load_state_dict(
            {
                "self_attn.in_proj_weight": torch.cat([part.weight for part in in_projection]),
                "self_attn.in_proj_bias": torch.cat([part.bias for part in in_projection]),
                "self_attn.out_proj.weight": block.attn.proj.weight,
                "self_attn.out_proj.bias": block.attn.proj.bias,
                **{f"linear1.{name}": value for name, value in block.mlp[0].state_dict().items()},
                **{f"linear2.{name}": value for name, value in block.mlp[2].state_dict().items()},
                **{f"norm1.{name}": value for name, value in block.ln1.state_dict().items()},
                **{f"norm2.{name}": value for name, value in block.ln2.state_dict().items()},
            }
        )
        layers.append(layer.eval())
    visual, audible = torch.randn(2, 3, 8, 24), torch.randn(2, 3, 6, 32)
    v = head.vis_in_lnorm(model.vproj(visual).flatten(1, 2))
    a = head.aud_in_lnorm(model.aproj(audible).flatten(1, 2))
    tokens = (head.OFF_tok.expand(2, -1, -1), v, head.MOD_tok.expand(2, -1, -1), a)
    x = torch.cat(tokens, dim=1) + head.pos_emb_cfg.pos_emb
    for layer in layers:
        x = layer(x)
    expected = head.off_head(head.ln_f(x))[:, 0]
    assert (model.offset_logits(visual, audible) - expected).abs().max() < 1e-4


def test_log_mel_equals_transformers_spectrogram():
    """Independent: numpy, and frames cut before the transform instead of torch's padded window."""
    from transformers.audio_utils import mel_filter_bank, spectrogram

    rng = np.random.default_rng(0)
    audio = rng.standard_normal(SEGMENT_SAMPLES).astype(np.float32) * np.linspace(1, 0, SEGMENT_SAMPLES) ** 4
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    bank = mel_filter_bank(513, 128, 0, 8000, 16000, norm=None, mel_scale="htk")
    power = spectrogram(audio, window, 400, 160, 1024, power=2.0, center=True, mel_filters=bank, mel_floor=0)
    expected = (np.log(power + 1e-6) + 4.2677393) / (2 * 4.5689974)
    ours = log_mel(torch.from_numpy(audio.astype(np.float32))).numpy()
    assert ours.shape == (128, 66) and expected.shape == (128, 65)
    assert np.abs(ours[:, :65] - expected).max() < 1e-4
    # the 66th frame is a logarithm of 0, not silence
    assert np.allclose(ours[:, 65], 4.2677393 / (2 * 4.5689974))
    silence = log_mel(torch.zeros(SEGMENT_SAMPLES))[:, :65]
    assert torch.allclose(silence, torch.tensor((math.log(1e-6) - MEAN) / (2 * STD)), atol=1e-5)


def test_a_tones_band_is_where_htks_mel_scale_has_it():
    time = torch.arange(SEGMENT_SAMPLES) / 16000
    band = log_mel(torch.sin(2 * torch.pi * 3000 * time))[:, 32].argmax().item()
    mel = lambda hz: 2595 * math.log10(1 + hz / 700)  # noqa: E731
    assert band == round(mel(3000) / mel(8000) * 129) - 1


def test_segments_of_sound_and_picture_begin_together():
    """At 25 fps and 16 kHz: 0.64 s every 0.32 s, 14 of them in 4.8 s, 24 in 8 s."""
    video = SynchformerConfig()
    assert SEGMENT_SAMPLES / 16000 == video.segment_frames / 25
    assert SEGMENT_STRIDE / 16000 == video.segment_stride / 25
    for seconds in (0.5, 0.64, 0.96, 4.76, 4.8, 8.0, 10.0):
        assert num_segments(round(seconds * 16000)) == video.num_segments(round(seconds * 25))
    assert num_segments(int(4.8 * 16000)) == 14 and num_segments(8 * 16000) == 24
    ramp = torch.arange(3 * SEGMENT_SAMPLES).float()
    assert segments(ramp)[:, 0].tolist() == [0, 5120, 10240, 15360, 20480]
    with pytest.raises(ValueError, match="at least 10240 samples, got 10239"):
        segments(torch.zeros(SEGMENT_SAMPLES - 1))


@torch.no_grad()
def test_a_sound_later_by_a_stride_has_its_features_a_segment_later():
    model = randomised(Synchformer(TINY))
    audio = torch.randn(1, 4 * SEGMENT_SAMPLES)
    late = torch.cat([torch.randn(1, SEGMENT_STRIDE), audio], dim=1)
    assert torch.allclose(model.audio_features(late)[:, 1:], model.audio_features(audio), atol=1e-5)


@torch.no_grad()
def test_visual_features_in_parts_equal_the_encoders(monkeypatch):
    model = randomised(Synchformer(TINY))
    frames = torch.rand(2, 16 + 6 * 8 + 5, 3, 32, 32) * 2 - 1
    whole = model.vfeat_extractor(frames).unflatten(1, (7, 8))
    monkeypatch.setattr("visaudio.encoders.synchformer_sync.SEGMENTS_AT_ONCE", 3)
    assert torch.allclose(model.visual_features(frames), whole, atol=1e-5)
    with pytest.raises(ValueError, match="at least 16 frames, got 15"):
        model.visual_features(frames[:, :15])


def test_classes_are_fifths_of_a_second_from_minus_two_to_two():
    expected = [round(-2 + 0.2 * k, 1) for k in range(21)]
    assert np.allclose(offset_classes_s().tolist(), expected, atol=1e-12)


class Spy(Synchformer):
    """Logits that say which segments were compared: the class of the first seen and heard, of 21."""

    def offset_logits(self, visual, audible):
        super().offset_logits(visual, audible)  # its checks
        assert torch.equal(visual[..., 0, 0], audible[..., 0, 0])
        return nn.functional.one_hot(visual[:, 0, 0, 0].long(), 21).float()


@torch.no_grad()
@pytest.mark.parametrize("count", [3, 4, 9])
def test_first_and_last_segments_are_compared(count):
    model = Spy(TINY)
    number = torch.arange(float(count))[None, :, None, None]
    heard = torch.arange(float(count + 1))[None, :, None, None]  # one segment more: left out
    found = model.offsets_s(number.expand(1, -1, 8, 24), heard.expand(1, -1, 6, 32))
    assert np.allclose(found, [[-2.0, -2.0 + 0.2 * (count - 3)]])
    with pytest.raises(ValueError, match="compares 3 segments, got 2 seen and 2 heard"):
        model.offsets_s(number[:, :2].expand(1, -1, 8, 24), heard.expand(1, -1, 6, 32))


@torch.no_grad()
def test_no_offset_is_read_from_logits_that_are_not_finite():
    model = randomised(Synchformer(TINY))
    audible = torch.zeros(1, 4, 6, 32)
    audible[:, 0] = float("nan")
    found = model.offsets_s(torch.zeros(1, 4, 8, 24), audible)
    assert found.isnan().tolist() == [[True, False]]


def test_weights_load_strictly_and_bad_files_are_one_line(tmp_path):
    model = randomised(Synchformer(TINY))
    state = model.state_dict()
    save_file(state, tmp_path / "good.safetensors")
    loaded = Synchformer.load(tmp_path / "good.safetensors", TINY)
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
    torch.save({"state_dict": dict(state)}, tmp_path / "good.pth")
    assert torch.equal(Synchformer.load(tmp_path / "good.pth", TINY).aproj.weight, state["aproj.weight"])

    visual = {name: value for name, value in state.items() if name.startswith("vfeat")}
    save_file(visual, tmp_path / "visual.safetensors")
    with pytest.raises(UserError, match="not the weights of the whole Synchformer.*missing") as error:
        Synchformer.load(tmp_path / "visual.safetensors", TINY)
    assert "\n" not in str(error.value)
    cut = (tmp_path / "good.pth").read_bytes()[:-2000]
    (tmp_path / "cut.pth").write_bytes(cut)
    with pytest.raises(UserError, match="cut.pth: cannot be read as weights of the whole Synchformer"):
        Synchformer.load(tmp_path / "cut.pth", TINY)
    with pytest.raises(UserError, match="no weights of the whole Synchformer at .*nothing.pth"):
        Synchformer.load(tmp_path / "nothing.pth", TINY)


class Code:
    def __reduce__(self):
        return exec, ("raise SystemExit('code of a pickle was run')",)


def test_code_in_a_pickle_is_not_run(tmp_path):
    (tmp_path / "code.pth").write_bytes(pickle.dumps({"vproj.weight": Code()}))
    with pytest.raises(UserError, match="more than tensors"):
        Synchformer.load(tmp_path / "code.pth", TINY)


def test_configs_refuse_what_cannot_be():
    with pytest.raises(ValueError, match="no multiple of heads"):
        SynchformerAudioConfig(width=30, heads=4)
    with pytest.raises(ValueError, match="larger than the spectrogram"):
        SynchformerAudioConfig(frames=10)
    with pytest.raises(ValueError, match="no multiple of heads"):
        SyncHeadConfig(width=30, heads=4)
    with pytest.raises(ValueError, match=r"of shape \(B, G, 128, 66\), got \(1, 2, 128, 65\)"):
        SynchformerAudioEncoder(TINY.audio)(torch.zeros(1, 2, 128, 65))
    assert (synchformer_audio.SynchformerAudioConfig().rows, TINY.audio.tokens_per_segment) == (12, 6)
