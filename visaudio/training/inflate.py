"""Start a Synchformer from a picture encoder, as MotionFormer does from ViT: space is known, time is learned.

Only where both are of one width and depth. What has no counterpart: CLIP's norm before its first block is
folded into the patch projection with its mean scale over example pictures; attention over time starts silent.

Legend: D width, n patches, t steps of a segment.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from visaudio.encoders.clip import ClipEncoder
from visaudio.encoders.synchformer import SynchformerEncoder


def can_inflate(encoder: SynchformerEncoder, clip: ClipEncoder) -> bool:
    """Whether width, depth, patch size and MLP are the same, and the tower has a norm before its blocks."""
    config, visual = encoder.config, clip.model.visual
    blocks = getattr(getattr(visual, "transformer", None), "resblocks", [])
    return (
        len(blocks) == config.depth
        and tuple(visual.conv1.weight.shape[:1] + visual.conv1.weight.shape[2:])
        == (config.width, config.patch_size, config.patch_size)
        and blocks[0].mlp.c_fc.out_features == encoder.blocks[0].mlp.fc1.out_features
        and blocks[0].attn.num_heads == config.heads
        and isinstance(visual.ln_pre, torch.nn.LayerNorm)
    )


@torch.no_grad()
def inflate(encoder: SynchformerEncoder, clip: ClipEncoder, pictures: Tensor) -> None:
    """Copy CLIP's picture tower into `encoder`, in place. pictures (B, 3, S, S) in [0, 1], of CLIP's size."""
    visual, config = clip.model.visual, encoder.config
    position = visual.positional_embedding
    tokens = visual.conv1((pictures - clip.mean) / clip.std).flatten(2).transpose(1, 2) + position[1:]
    scale = _fold(visual.ln_pre, tokens.std(dim=-1, unbiased=False).mean())

    # CLIP sees (p - mean) / std of p in [0, 1], this encoder x = 2 p - 1
    std = clip.std.flatten()
    weight = visual.conv1.weight * (0.5 / std)[None, :, None, None]
    offset = (visual.conv1.weight.sum(dim=(2, 3)) * ((0.5 - clip.mean.flatten()) / std)).sum(dim=1)
    cube = torch.einsum("de,echw->dchw", scale, weight)[:, :, None] / config.tubelet
    encoder.patch_embed_3d.proj.weight.copy_(cube.expand_as(encoder.patch_embed_3d.proj.weight))
    encoder.patch_embed_3d.proj.bias.copy_(scale @ offset + visual.ln_pre.bias)

    side, own = round((position.shape[0] - 1) ** 0.5), config.image_size // config.patch_size
    grid = rearrange(position[1:] @ scale.T, "(h w) d -> 1 d h w", h=side)
    grid = F.interpolate(grid, size=(own, own), mode="bilinear", align_corners=False)
    encoder.pos_embed[:, 1:].copy_(rearrange(grid, "1 d h w -> 1 (h w) d"))
    encoder.pos_embed[:, :1].zero_()
    encoder.cls_token.copy_(visual.ln_pre(visual.class_embedding + position[0])[None, None])

    for block, source in zip(encoder.blocks, visual.transformer.resblocks, strict=True):
        block.norm1.load_state_dict(source.ln_1.state_dict())
        block.norm2.load_state_dict(source.ln_2.state_dict())
        block.attn.qkv.weight.copy_(source.attn.in_proj_weight)
        block.attn.qkv.bias.copy_(source.attn.in_proj_bias)
        block.attn.proj.load_state_dict(source.attn.out_proj.state_dict())
        block.mlp.fc1.load_state_dict(source.mlp.c_fc.state_dict())
        block.mlp.fc2.load_state_dict(source.mlp.c_proj.state_dict())
        block.timeattn.proj.weight.zero_()
        block.timeattn.proj.bias.zero_()
    encoder.norm.load_state_dict(visual.ln_post.state_dict())


def _fold(norm: torch.nn.LayerNorm, deviation: Tensor) -> Tensor:
    """(D, D): what the norm does to a token but for its bias, if all tokens had this deviation."""
    width = norm.normalized_shape[0]
    centre = torch.eye(width) - 1.0 / width
    return norm.weight[:, None] * centre / deviation
