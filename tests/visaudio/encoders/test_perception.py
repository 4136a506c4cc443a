"""The Perception Encoder: its tokens against a plain reading of the paper, and every form of its weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from clip_pair import write_cache
from plain_perception import noisy, plain_tokens
from safetensors.torch import save_file

from bi_audio_dataset.schema import UserError
from visaudio.encoders.grid import pool_grid
from visaudio.encoders.perception import NOT_FOR_PATCHES, PerceptionConfig, PerceptionEncoder

SPATIAL, CORE = "vit_pe_spatial_tiny_patch16_512", "vit_pe_core_tiny_patch16_384"
SIZES = {"image_size": 40, "patch_size": 8, "width": 32, "depth": 2, "heads": 2}
SMALL = PerceptionConfig(SPATIAL, None, grid_columns=5, **SIZES)


@pytest.fixture(scope="module")
def encoder():
    return noisy(PerceptionEncoder(SMALL))


@torch.no_grad()
def test_tokens_are_those_of_the_paper():
    """With the 32 x 32 patches of the published ones."""
    encoder = noisy(PerceptionEncoder(replace(SMALL, image_size=64, patch_size=2)))
    frames = torch.rand(1, 2, 3, 64, 64)
    expected = plain_tokens(encoder.model.state_dict(), frames[0], patch=2, heads=2)[None]
    assert expected.shape == (1, 2, 32, 32, 32) and expected.std() > 0.1
    assert (encoder.encode_patches(frames) - expected).abs().max() < 1e-5
    assert (encoder.encode_grid(frames) - pool_grid(expected, 2, 5)).abs().max() < 1e-5


@torch.no_grad()
def test_uint8_and_chunks_give_the_same(encoder):
    frames = torch.randint(0, 256, (2, 3, 3, 40, 40), dtype=torch.uint8)
    expected = encoder.encode_grid(frames.float() / 255)
    assert expected.shape == (2, 3, 2 * 5, 32)
    chunked = PerceptionEncoder(replace(SMALL, max_batch=2))
    chunked.load_state_dict(encoder.state_dict())
    assert torch.allclose(chunked.encode_grid(frames), expected, atol=1e-5)
    prepared = encoder.prepare(np.zeros((2, 30, 60, 3), np.uint8))
    assert prepared.shape == (2, 3, 40, 40)
    with pytest.raises(ValueError, match="use prepare"):
        encoder.encode_grid(torch.zeros(1, 1, 3, 32, 32))


def metas(state: dict) -> dict:
    """timm's names and shapes -> those of Meta's own files (facebook/PE-Spatial-*)."""
    swaps = (
        ("patch_embed.proj", "conv1"),
        ("norm_pre", "ln_pre"),
        ("blocks.", "transformer.resblocks."),
        (".norm", ".ln_"),
        ("attn.qkv.", "attn.in_proj_"),
        ("attn.proj", "attn.out_proj"),
        ("mlp.fc1", "mlp.c_fc"),
        ("mlp.fc2", "mlp.c_proj"),
        ("pos_embed", "positional_embedding"),
        ("cls_token", "class_embedding"),
    )
    out = {}
    for name, value in state.items():
        for ours, theirs in swaps:
            name = name.replace(ours, theirs)
        out[name] = value.squeeze() if name.endswith("embedding") else value
    return out


@pytest.mark.parametrize("form", ["timm", "meta", "meta, within CLIP", "open_clip"])
def test_every_published_form_loads(form, encoder, tmp_path):
    state = dict(encoder.model.state_dict())
    text = {"text.token_embedding.weight": torch.zeros(3, 2), "logit_scale": torch.zeros(())}
    forms = {
        "timm": lambda: state,
        "meta": lambda: metas(state),
        "meta, within CLIP": lambda: {f"visual.{k}": v for k, v in metas(state).items()} | text,
        "open_clip": lambda: {f"visual.trunk.{k}": v for k, v in state.items()} | text,
    }
    file = tmp_path / ("model.safetensors" if form == "timm" else "model.pt")
    save_file(state, file) if form == "timm" else torch.save(forms[form](), file)
    loaded = PerceptionEncoder(replace(SMALL, weights=str(file)))
    found = loaded.model.state_dict()
    assert found.keys() == state.keys() and all(torch.equal(found[k], state[k]) for k in state)


@torch.no_grad()
def test_pe_core_without_its_pooling():
    """Of PE-Core's file the pooling and the projection are left; its tokens come after its final norm."""
    import timm

    names = {"img_size": 40, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    whole = noisy(timm.create_model(CORE, **names))
    encoder = PerceptionEncoder(replace(SMALL, model_name=CORE)).eval()
    encoder.load_weights(whole.state_dict())
    left = set(whole.state_dict()) - set(encoder.model.state_dict())
    assert left and all(name.startswith(NOT_FOR_PATCHES) for name in left)
    frames = torch.rand(1, 1, 3, 40, 40)
    expected = whole.forward_features(frames[0] * 2 - 1)[:, 1:].view(1, 1, 5, 5, 32)
    assert torch.allclose(encoder.encode_patches(frames), expected, atol=1e-5)


def test_public_weights_are_timms_and_come_offline_from_the_cache(tmp_path, monkeypatch, encoder):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    config = replace(SMALL, weights="public")
    assert config.source == "timm/vit_pe_spatial_tiny_patch16_512.fb:model.safetensors"
    with pytest.raises(UserError, match="Perception Encoder, timm/vit_pe_.*: not in the local cache"):
        PerceptionEncoder(config)
    (tmp_path / "files").mkdir()
    save_file(encoder.model.state_dict(), tmp_path / "files" / "model.safetensors")
    write_cache(tmp_path / "cache", "timm/vit_pe_spatial_tiny_patch16_512.fb", tmp_path / "files")
    loaded = PerceptionEncoder(config).model.state_dict()
    assert torch.equal(loaded["pos_embed"], encoder.model.state_dict()["pos_embed"])
    assert replace(config, model_name="PE-Core-L-14-336").source.startswith(
        "timm/vit_pe_core_large_patch14_336.fb:"
    )


@pytest.mark.parametrize(
    ("name", "width", "grid", "tensors"),
    [
        ("vit_pe_spatial_tiny_patch16_512", 192, 32, 149),
        ("vit_pe_spatial_small_patch16_512", 384, 32, 149),
        ("vit_pe_spatial_base_patch16_512", 768, 32, 149),
        ("vit_pe_spatial_large_patch14_448", 1024, 32, 293),
        ("PE-Core-L-14-336", 1024, 24, 295),
    ],
)
def test_full_size_names_and_shapes(name, width, grid, tensors):
    """On the meta device: all that timm's whole model has, less pooling and head, loads without a rest."""
    import open_clip
    import timm

    config = PerceptionConfig(name, None)
    assert config.output_dim == width
    with torch.device("meta"):
        encoder = PerceptionEncoder(config)
        if name.startswith("PE-Core"):
            described = open_clip.get_model_config(name)
            described.pop("custom_text")
            public = open_clip.CustomTextCLIP(**described).state_dict()
        else:
            public = timm.create_model(name).state_dict()
        encoder.load_weights(public)
        lacking = {k: v for k, v in public.items() if not k.endswith("norm_pre.bias")}
        with pytest.raises(UserError, match=r"missing \['norm_pre.bias'\]"):
            encoder.load_weights(lacking)
    assert encoder.model.patch_embed.grid_size == (grid, grid) and len(encoder.state_dict()) == tensors


def test_another_of_the_family_is_refused(encoder):
    """PE-Core has a norm more; a wider one has other shapes; Synchformer is none of them."""
    core = noisy(PerceptionEncoder(replace(SMALL, model_name=CORE)))
    with pytest.raises(UserError, match=r"not the weights of the Perception Encoder .*unexpected \['norm"):
        encoder.load_weights(core.model.state_dict())
    wide = PerceptionEncoder(replace(SMALL, width=64))
    with pytest.raises(UserError, match="not the weights of the Perception Encoder .*other shapes"):
        encoder.load_weights(wide.model.state_dict())
    one = torch.ones(1)
    for strange in ({"pos_embed": one}, {"visual.pos_embed": one}, {"visual.conv1.weight": one}, {"a": one}):
        with pytest.raises(UserError, match="not the weights of the Perception Encoder"):
            encoder.load_weights(strange)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"model_name": "vit_large_patch14_dinov2"},
            "timm knows no Perception Encoder 'vit_large_.*vit_pe_spat",
        ),
        ({"model_name": "PE-Core-Z"}, "timm knows no Perception Encoder 'PE-Core-Z'"),
        ({"heads": 5}, "cannot be built with"),
        ({"image_size": 50}, "image_size 50 is no multiple of its patches' 8"),
    ],
)
def test_what_cannot_be_is_one_line(changes, said):
    with pytest.raises(UserError, match=said) as caught:
        PerceptionEncoder(replace(SMALL, **changes))
    assert "\n" not in str(caught.value)
