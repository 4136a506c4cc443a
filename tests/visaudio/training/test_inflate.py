"""A Synchformer started from CLIP sees in a still film what CLIP sees in the picture."""

import pytest
import torch

from visaudio.encoders.clip import ClipConfig, ClipEncoder
from visaudio.encoders.synchformer import SynchformerConfig, SynchformerEncoder
from visaudio.training.inflate import can_inflate, inflate

SIZES = dict(image_size=32, patch_size=8)
CLIP = ClipConfig(
    **SIZES, width=32, layers=2, head_width=8, embed_dim=16, text_width=16, text_layers=1, text_heads=2,
    context_length=8, vocab_size=64, grid_rows=1, grid_columns=2,
)  # fmt: skip


def synchformer(**changes) -> SynchformerEncoder:
    settings = dict(**SIZES, width=32, depth=2, heads=4, segment_frames=4, segment_stride=2)
    return SynchformerEncoder(SynchformerConfig(**{**settings, **changes})).eval()


@pytest.fixture
def clip() -> ClipEncoder:
    torch.manual_seed(0)
    encoder = ClipEncoder(CLIP).eval()
    with torch.no_grad():
        torch.nn.init.normal_(encoder.model.visual.ln_pre.bias, std=0.2)
    return encoder


def test_tokens_of_a_still_film_are_clips(clip):
    pictures = torch.rand(6, 3, 32, 32)
    encoder = synchformer()
    inflate(encoder, clip, pictures)
    with torch.no_grad():
        film = (2 * pictures - 1)[:, None].expand(-1, 4, -1, -1, -1)
        own = encoder.patch_tokens(film)[:, 0]
        theirs = clip.encode_patches(pictures[:, None])[1][:, 0].flatten(1, 2)
    # equal but for the norm's scale, which is a mean over tokens here
    for step in range(own.shape[1]):
        likeness = torch.cosine_similarity(own[:, step], theirs, dim=-1)
        assert likeness.mean() > 0.95, likeness.mean()
    shuffled = torch.cosine_similarity(own[:, 0], theirs.roll(1, dims=0), dim=-1).mean()
    assert shuffled < likeness.mean() - 0.05


@pytest.mark.parametrize("change", [{"width": 48}, {"depth": 3}, {"heads": 2}, {"mlp_ratio": 2.0}])
def test_only_towers_of_one_shape_are_inflated(clip, change):
    assert can_inflate(synchformer(), clip)
    assert not can_inflate(synchformer(**change), clip)
