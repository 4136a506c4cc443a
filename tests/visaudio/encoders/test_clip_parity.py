"""CLIP against an implementation of others, and the two forms in which the paper's CLIP is published."""

import json
from dataclasses import replace

import pytest
import torch
from clip_pair import SIZE, description, open_clip_state, transformers_clip, write_cache, write_repository

from bi_audio_dataset.schema import UserError
from visaudio.encoders import clip_models
from visaudio.encoders.clip import ClipConfig, ClipEncoder, fetch_weights, without_weights
from visaudio.encoders.grid import pool_grid
from visaudio.presets import get_preset
from visaudio.variants import CLIP

DFN5B = "apple/DFN5B-CLIP-ViT-H-14-384"
TEXTS = ["a small brass bell rings twice", "", "rain on a tin roof, " * 30]


@pytest.fixture(scope="module")
def reference():
    return transformers_clip()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@torch.no_grad()
def test_equals_transformers(activation, tmp_path):
    """Embeddings of unit norm, patch tokens and their grid, and all 77 text tokens after the final norm."""
    theirs = transformers_clip(activation)
    folder = write_repository(tmp_path / "clip", theirs, activation == "quick_gelu")
    ours = ClipEncoder(ClipConfig(model_name=f"local-dir:{folder}", grid_columns=4)).eval()
    frames = torch.rand(1, 3, 3, SIZE, SIZE)
    ids = ours.tokenize(TEXTS)
    assert ids.shape == (3, 77) and ids.max() == 49407
    seen = theirs(pixel_values=((frames - ours.mean) / ours.std)[0], input_ids=ids)
    pooled, grid = ours.encode_images(frames)
    patches = ours.encode_patches(frames)[1]
    after_norm = theirs.vision_model.post_layernorm(seen.vision_model_output.last_hidden_state[:, 1:])
    after_norm = after_norm.view(1, 3, 4, 4, -1)
    for got, expected in (
        (pooled[0], seen.image_embeds),
        (patches, after_norm),
        (grid, pool_grid(after_norm, 2, 4)),
        (ours.encode_text(TEXTS), seen.text_model_output.last_hidden_state),
        (ours.embed_text(TEXTS), seen.text_embeds),
    ):
        assert got.shape == expected.shape and expected.std() > 0.05
        assert (got - expected).abs().max() < 1e-5


@torch.no_grad()
def test_the_activation_is_what_the_description_says(reference, tmp_path):
    """DFN5B's is quick_gelu; with the other one the numbers are other ones."""
    frames, found = torch.rand(1, 1, 3, SIZE, SIZE), []
    for quick in (True, False):
        folder = write_repository(tmp_path / str(quick), reference, quick)
        config = ClipConfig(model_name=f"local-dir:{folder}", grid_columns=4)
        found.append(ClipEncoder(config).encode_images(frames)[0])
    assert (found[0] - found[1]).abs().max() > 1e-3


@torch.no_grad()
def test_from_the_hub_offline_once_cached(reference, tmp_path, cache):
    """`hf-hub:` with the repository's layout, from a cache, with nobody to ask; a revision may be named."""
    files = write_repository(tmp_path / "files", reference, True)
    write_cache(cache, DFN5B, files)
    config = ClipConfig(model_name=f"hf-hub:{DFN5B}", input_size=SIZE)
    encoder = ClipEncoder(config)
    assert encoder.mean.flatten().tolist() == pytest.approx([0.48, 0.46, 0.41])
    state = open_clip_state(reference.state_dict())
    assert state.keys() == encoder.model.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in encoder.model.state_dict().items())
    assert encoder.encode_text(["a bell"]).shape == (1, 77, 64)
    assert fetch_weights(config).name == "open_clip_pytorch_model.bin"
    pinned = ClipEncoder(replace(config, model_name=f"hf-hub:{DFN5B}@{'0' * 40}"))
    assert torch.equal(pinned.embed_text(["a bell"]), encoder.embed_text(["a bell"]))
    with pytest.raises(UserError, match="not in the local cache, and the Hub cannot be reached"):
        ClipEncoder(replace(config, model_name=f"hf-hub:{DFN5B}@{'1' * 40}"))


def test_a_repository_without_its_weights_is_no_random_model(reference, tmp_path, cache):
    """open_clip itself goes on with random ones."""
    files = write_repository(tmp_path / "files", reference, True)
    (files / "open_clip_pytorch_model.bin").unlink()
    write_cache(cache, DFN5B, files)
    with pytest.raises(UserError, match="open_clip_pytorch_model.bin: not in the local cache"):
        ClipEncoder(ClipConfig(model_name=f"hf-hub:{DFN5B}"))
    with pytest.raises(UserError, match="holds no open_clip_model.safetensors or open_clip_pytorch"):
        ClipEncoder(ClipConfig(model_name=f"local-dir:{files}"))


def test_by_open_clips_name_with_a_file(reference, tmp_path, cache, monkeypatch):
    """As `ViT-H-14-378-quickgelu`: the name describes the network, a file brings the weights."""
    import open_clip

    described = description(True)["model_cfg"]
    monkeypatch.setattr(
        open_clip, "get_model_config", lambda name: described if name == "ViT-small" else None
    )
    folder = write_repository(tmp_path / "files", reference, True)
    file = folder / "open_clip_pytorch_model.bin"
    encoder = ClipEncoder(ClipConfig(model_name="ViT-small", weights=str(file)))
    state = open_clip_state(reference.state_dict())
    assert torch.equal(encoder.model.visual.proj, state["visual.proj"])
    assert encoder.mean.flatten().tolist() == pytest.approx(clip_models.MEAN)
    # from a place on the Hub by our own form, and by a tag of open_clip's
    write_cache(cache, "some/clip", folder)
    for weights, tags in (("some/clip:open_clip_pytorch_model.bin", []), ("best", ["best"])):
        monkeypatch.setattr(open_clip, "list_pretrained_tags_by_model", lambda _, tags=tags: tags)
        monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: {"hf_hub": "some/clip/"})
        again = ClipEncoder(ClipConfig(model_name="ViT-small", weights=weights))
        assert torch.equal(again.model.visual.proj, encoder.model.visual.proj)
    with pytest.raises(UserError, match="no weights of CLIP at worst: expected a file.*tags of ViT-small"):
        ClipEncoder(ClipConfig(model_name="ViT-small", weights="worst"))


def test_a_checkpoint_for_other_pictures_is_refused(reference, tmp_path):
    """open_clip would stretch the positions in silence: another network than the one published."""
    folder = write_repository(tmp_path, reference, True)
    described = description(True)
    described["model_cfg"]["vision_cfg"]["image_size"] = 2 * SIZE
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match=r"not the weights of CLIP .*other shapes \['visual.positional_embed"):
        ClipEncoder(ClipConfig(model_name=f"local-dir:{folder}"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ViT-none", "open_clip knows no model 'ViT-none'"),
        ("coca_ViT-B-32", "coca_ViT-B-32 is none of open_clip's CLIP class"),
        ("PE-Core-B-16", "PE-Core-B-16 is none of open_clip's CLIP class"),
    ],
)
def test_what_is_no_clip_is_refused_by_name(name, said):
    with pytest.raises(UserError, match=said):
        clip_models.build(name)


def test_a_damaged_description_is_one_line(tmp_path):
    (tmp_path / "open_clip_config.json").write_text('{"model_cfg": ')
    with pytest.raises(UserError, match="is no description of an open_clip model"):
        clip_models.describe(f"local-dir:{tmp_path}")
    (tmp_path / "open_clip_config.json").write_text(
        '{"model_cfg": {"embed_dim": 8, "vision_cfg": {"width": 8}}}'
    )
    with pytest.raises(UserError, match="cannot be built from its description: .*text_cfg"):
        clip_models.build(f"local-dir:{tmp_path}")


def test_names_and_shapes_of_the_papers_clip():
    """At full size, on the meta device: ViT-H/14 at 378 pixels, 24 text layers, as DFN5B publishes them."""
    model = get_preset("small").clip
    assert (model.model_name, model.weights) == ("ViT-H-14-378-quickgelu", "dfn5b")
    with torch.device("meta"):
        encoder = ClipEncoder(replace(model, weights=None))
    shapes = {name: tuple(value.shape) for name, value in encoder.model.state_dict().items()}
    assert len(shapes) == 686 and sum(p.numel() for p in encoder.parameters()) == 986_714_881
    assert shapes["visual.conv1.weight"] == (1280, 3, 14, 14)
    assert shapes["visual.positional_embedding"] == (27 * 27 + 1, 1280)
    assert shapes["visual.transformer.resblocks.31.mlp.c_fc.weight"] == (5120, 1280)
    assert shapes["visual.proj"] == (1280, 1024) and shapes["positional_embedding"] == (77, 1024)
    assert shapes["transformer.resblocks.23.attn.in_proj_weight"] == (3072, 1024)
    assert shapes["token_embedding.weight"] == (49408, 1024) and shapes["logit_scale"] == ()
    network = get_preset("small").network
    assert (network.clip_dim, network.text_dim, network.text_tokens, network.spatial_dim) == (
        encoder.embed_dim,
        encoder.text_dim,
        encoder.context_length,
        encoder.grid_dim,
    )


def test_a_saved_model_needs_no_repository_for_its_clip():
    """The variants' CLIP is named by its repository; a model folder that brings the weights asks for none."""
    assert CLIP.model_name == f"hf-hub:{DFN5B}" and CLIP.weights is None
    bare = without_weights(CLIP)
    assert bare == replace(get_preset("small").clip, weights=None, input_size=384)
    assert fetch_weights(bare) is None
