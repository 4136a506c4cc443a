import json

import pytest
import torch

from bi_audio_dataset.schema import UserError
from visaudio.encoders.clip import BPE_VOCAB, ClipConfig, ClipEncoder, hash_tokens
from visaudio.encoders.grid import pool_grid, pooling_matrix

TEXT = {"text_width": 16, "text_layers": 1}
TINY = ClipConfig(image_size=64, width=32, layers=1, head_width=16, embed_dim=24, grid_columns=4, **TEXT)


@pytest.fixture(scope="module")
def encoder() -> ClipEncoder:
    torch.manual_seed(0)
    return ClipEncoder(TINY)


@pytest.mark.parametrize(("size", "cells"), [(27, 8), (27, 2), (8, 8), (8, 2), (14, 8), (9, 4)])
def test_pooling_is_a_mean_and_mirror_symmetric_to_the_bit(size, cells):
    matrix = pooling_matrix(size, cells)
    assert torch.equal(matrix, matrix.flip(0, 1))
    assert torch.allclose(matrix.sum(dim=0), torch.ones(cells))
    # no patch counts more than another
    assert torch.allclose(matrix.sum(dim=1), torch.full((size,), cells / size))


def test_pooled_ramp_sits_at_the_cells_centres():
    columns = (torch.arange(27) + 0.5) / 27
    pooled = pool_grid(columns[None, :, None].expand(27, 27, 1), 2, 8)
    assert torch.allclose(pooled[:, 0].view(2, 8), ((torch.arange(8) + 0.5) / 8).expand(2, 8), atol=0.003)


def test_mirrored_grid_is_the_grid_mirrored():
    tokens = torch.randn(2, 3, 27, 27, 5)
    grid = pool_grid(tokens, 2, 8).view(2, 3, 2, 8, 5)
    assert torch.allclose(pool_grid(tokens.flip(-2), 2, 8).view(2, 3, 2, 8, 5), grid.flip(-2), atol=1e-6)


def test_more_cells_than_patches_is_refused():
    with pytest.raises(ValueError, match="4 patches to 8 cells"):
        pooling_matrix(4, 8)


@torch.no_grad()
def test_images_agree_with_open_clips_own_towers(encoder):
    frames = torch.rand(2, 3, 3, 64, 64)
    pooled, grid = encoder.encode_images(frames)
    assert grid.shape == (2, 3, 2 * 4, 32)
    scaled = (frames - encoder.mean) / encoder.std
    expected = encoder.model.encode_image(scaled.flatten(0, 1), normalize=True)
    assert torch.allclose(pooled.flatten(0, 1), expected, atol=1e-5)
    visual = encoder.model.visual
    visual.output_tokens = True
    tokens = visual(scaled.flatten(0, 1))[1]
    visual.output_tokens = False
    patches = encoder.encode_patches(frames)[1]
    assert torch.allclose(patches.flatten(0, 1).flatten(1, 2), tokens, atol=1e-5)
    assert torch.allclose(grid[..., 0, :], patches[..., :2, :1, :].mean(dim=(-3, -2)), atol=1e-5)


@torch.no_grad()
def test_uint8_and_chunks_give_the_same(encoder):
    frames = torch.randint(0, 256, (1, 5, 3, 64, 64), dtype=torch.uint8)
    expected = encoder.encode_images(frames.float() / 255)
    chunked = ClipEncoder(ClipConfig(**{**vars(TINY), "max_batch": 2}))
    chunked.load_state_dict(encoder.state_dict())
    for ours, theirs in zip(chunked.encode_images(frames), expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_hashed_ids_stay_in_range_and_keep_the_ends():
    ids = torch.arange(BPE_VOCAB)
    hashed = hash_tokens(ids, 4096)
    assert hashed[0] == 0 and hashed[-2] == 4094 and hashed[-1] == 4095
    assert hashed[1:-2].min() == 1 and hashed[1:-2].max() == 4093
    counts = torch.bincount(hashed[1:-2], minlength=4096)[1:4094]
    assert counts.max() <= 4 * BPE_VOCAB / 4096
    assert torch.equal(hash_tokens(ids, BPE_VOCAB), ids)


@torch.no_grad()
def test_text_is_every_token_after_the_final_norm(encoder):
    texts = ["a small brass bell", "", "a bee " * 60]
    tokens = encoder.encode_text(texts)
    assert tokens.shape == (3, 32, 16)
    assert torch.allclose(tokens.mean(-1), torch.zeros(3, 32), atol=1e-5)
    ids = encoder.tokenize(texts)
    assert ids[1, :3].tolist() == [4094, 4095, 0]
    assert ids[2, -1] == 4095  # a long text is cut, and still ends
    expected = encoder.model.encode_text(ids, normalize=True)
    assert torch.allclose(encoder.embed_text(texts), expected, atol=1e-5)


@torch.no_grad()
def test_later_words_do_not_change_earlier_tokens(encoder):
    """The mask is causal: two captions that begin alike have the same first tokens."""
    first, second = encoder.encode_text(["visible sound: a bell", "visible sound: a drum"])
    assert torch.allclose(first[:4], second[:4], atol=1e-6)
    assert not torch.allclose(first[4:8], second[4:8], atol=1e-3)


@torch.no_grad()
def test_named_architecture_takes_the_same_path(tmp_path, encoder):
    """A local open_clip folder stands for a hub name: same weights, same features."""
    model = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 64, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16},
        "text_cfg": {"context_length": 32, "vocab_size": 4096, "width": 16, "layers": 1, "heads": 2},
    }
    preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    (tmp_path / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": model, "preprocess_cfg": preprocess})
    )
    torch.save(encoder.model.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    named = ClipEncoder(ClipConfig(model_name=f"local-dir:{tmp_path}", grid_columns=4))
    assert (named.image_size, named.embed_dim, named.text_dim, named.grid_dim) == (64, 24, 16, 32)
    assert named.mean.flatten().tolist() == [0.5, 0.5, 0.5]  # the model's own, not CLIP's
    frames = torch.rand(1, 2, 3, 64, 64)
    shifted = (frames - 0.5) / 0.5 * encoder.std + encoder.mean
    for ours, theirs in zip(named.encode_images(frames), encoder.encode_images(shifted), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_weights_load_from_a_file_and_errors_are_named(tmp_path, encoder):
    torch.save(encoder.model.state_dict(), tmp_path / "clip.pt")
    loaded = ClipEncoder(ClipConfig(**{**vars(TINY), "weights": str(tmp_path / "clip.pt")}))
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), encoder.parameters(), strict=True))
    with pytest.raises(UserError, match="no weights of CLIP"):
        ClipEncoder(ClipConfig(weights=str(tmp_path / "none.safetensors")))
    with pytest.raises(UserError, match="no model 'ViT-Q-1'"):
        ClipEncoder(ClipConfig(model_name="ViT-Q-1"))
    with pytest.raises(ValueError, match="use prepare"):
        encoder.encode_images(torch.zeros(1, 1, 3, 32, 32))
