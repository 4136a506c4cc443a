"""Synchformer's visual encoder (Iashin et al. 2024, arXiv 2401.16423), written from its facts.

A divided space-time vision transformer (MotionFormer's baseline, after TimeSformer) over segments of 16
frames, then one transformer layer whose class token gathers each time step's patches. Parameter names are
the published ones without `vfeat_extractor.`, so the published state dict loads key by key.

Legend: B batch, T frames, G segments, t time steps of a segment, n patches of a time step, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from visaudio import weight_files
from visaudio.attention import attention

PREFIX = "vfeat_extractor."
NORM_EPS = 1e-6


@dataclass(frozen=True)
class SynchformerConfig:
    """The published encoder by default. `weights`: a published or own checkpoint, None for random."""

    image_size: int = 224
    patch_size: int = 16
    tubelet: int = 2
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    segment_frames: int = 16
    segment_stride: int = 8
    resize: str = "squash"
    weights: str | None = None
    # the published state dict carries a 2-D projection that nothing uses; own encoders need not
    picture_projection: bool = True

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}")
        if self.image_size % self.patch_size or self.segment_frames % self.tubelet:
            raise ValueError(f"image_size / patch_size and segment_frames / tubelet must be whole: {self}")

    @property
    def num_patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2

    @property
    def tokens_per_segment(self) -> int:
        return self.segment_frames // self.tubelet

    def num_segments(self, num_frames: int) -> int:
        return max(0, (num_frames - self.segment_frames) // self.segment_stride + 1)


class Patches(nn.Module):
    """Holder of one projection, for the published key `<name>.proj`."""

    def __init__(self, proj: nn.Module) -> None:
        super().__init__()
        self.proj = proj


class DividedAttention(nn.Module):
    """Patches attend within their group, and to the class token; the class token attends to all.

    Input (B, 1 + t n, D), class token first, then time-major patches.
    """

    def __init__(self, width: int, heads: int, over: str) -> None:
        super().__init__()
        self.heads, self.over = heads, over
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, steps: int) -> Tensor:
        batch = x.shape[0]
        q, k, v = rearrange(self.qkv(x), "b s (three h d) -> three b h s d", three=3, h=self.heads)
        cls_out = attention(q[:, :, :1], k, v)
        if self.over == "space":
            fold, unfold = "b h (t n) d -> (b t) h n d", "(b t) h n d -> b h (t n) d"
            groups = steps
        else:
            fold, unfold = "b h (t n) d -> (b n) h t d", "(b n) h t d -> b h (t n) d"
            groups = (x.shape[1] - 1) // steps
        queries, keys, values = (rearrange(part[:, :, 1:], fold, t=steps) for part in (q, k, v))
        keys, values = (
            torch.cat([repeat(own[:, :, :1], "b h 1 d -> (b g) h 1 d", g=groups), part], dim=2)
            for own, part in ((k, keys), (v, values))
        )
        out = rearrange(attention(queries, keys, values), unfold, b=batch, t=steps)
        return self.proj(rearrange(torch.cat([cls_out, out], dim=2), "b h s d -> b s (h d)"))


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class DividedBlock(nn.Module):
    """Pre-norm: attention over time (norm3), over space (norm1), then the MLP (norm2)."""

    def __init__(self, config: SynchformerConfig) -> None:
        super().__init__()
        width = config.width
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = DividedAttention(width, config.heads, "space")
        self.timeattn = DividedAttention(width, config.heads, "time")
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, int(width * config.mlp_ratio))
        self.norm3 = nn.LayerNorm(width, eps=NORM_EPS)

    def forward(self, x: Tensor, steps: int) -> Tensor:
        x = x + self.timeattn(self.norm3(x), steps)
        x = x + self.attn(self.norm1(x), steps)
        return x + self.mlp(self.norm2(x))


class SpatialAggregation(nn.Module):
    """A pre-norm transformer layer over each time step's patches; only its class token is computed."""

    def __init__(self, config: SynchformerConfig) -> None:
        super().__init__()
        width = config.width
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.self_attn = nn.MultiheadAttention(width, config.heads, batch_first=True)
        self.linear1 = nn.Linear(width, int(width * config.mlp_ratio))
        self.linear2 = nn.Linear(int(width * config.mlp_ratio), width)
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, D) -> (B, D)."""
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1).to(x.dtype), x], dim=1)
        normed = self.norm1(x)
        cls = x[:, :1] + self.self_attn(normed[:, :1], normed, normed, need_weights=False)[0]
        return (cls + self.linear2(F.gelu(self.linear1(self.norm2(cls)))))[:, 0]


class SynchformerEncoder(nn.Module):
    """frames (B, T, 3, H, W) in [-1, 1] at 25 fps -> (B, G * t, D) timing features."""

    def __init__(self, config: SynchformerConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SynchformerConfig()
        width, patch = config.width, config.patch_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.num_patches, width))
        self.temp_embed = nn.Parameter(torch.zeros(1, config.tokens_per_segment, width))
        if config.picture_projection:
            self.patch_embed = Patches(nn.Conv2d(3, width, patch, patch)).requires_grad_(False)
        cube = (config.tubelet, patch, patch)
        self.patch_embed_3d = Patches(nn.Conv3d(3, width, cube, cube))
        self.blocks = nn.ModuleList(DividedBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.spatial_attn_agg = SpatialAggregation(config)
        self._initialise()
        if config.weights is not None:
            self.load_weights(config.weights)

    @property
    def image_size(self) -> int:
        return self.config.image_size

    @property
    def output_dim(self) -> int:
        return self.config.width

    def _initialise(self) -> None:
        for embedding in (self.cls_token, self.pos_embed, self.temp_embed, self.spatial_attn_agg.cls_token):
            nn.init.trunc_normal_(embedding, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        if self.config.picture_projection:
            nn.init.zeros_(self.patch_embed.proj.weight)
            nn.init.zeros_(self.patch_embed.proj.bias)

    def patch_tokens(self, frames: Tensor) -> Tensor:
        """(B, T, 3, H, W) in [-1, 1] -> (B, G, t, n, D) normed patch tokens before spatial aggregation."""
        config = self.config
        tokens = self._embed_segments(frames)
        batch, segments, steps, patches, _ = tokens.shape
        tokens = tokens + self.pos_embed[:, None, None, 1:] + self.temp_embed[:, None, :, None]
        x = rearrange(tokens, "b g t n d -> (b g) (t n) d")
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(x.shape[0], -1, -1)
        x = torch.cat([cls.to(x.dtype), x], dim=1)
        for block in self.blocks:
            x = block(x, config.tokens_per_segment)
        x = self.norm(x[:, 1:])
        return rearrange(x, "(b g) (t n) d -> b g t n d", b=batch, t=steps)

    def _embed_segments(self, frames: Tensor) -> Tensor:
        """(B, T, 3, H, W) -> (B, G, t, n, D); frames that segments share are projected once."""
        config = self.config
        expected = (3, config.image_size, config.image_size)
        if frames.ndim != 5 or frames.shape[2:] != expected or not frames.is_floating_point():
            raise ValueError(
                f"expected float frames of shape (B, T, {', '.join(map(str, expected))}) in [-1, 1], "
                f"got {frames.dtype} {tuple(frames.shape)}"
            )
        segments = config.num_segments(frames.shape[1])
        if segments < 1:
            raise ValueError(f"expected at least {config.segment_frames} frames, got {frames.shape[1]}")
        size, stride, tubelet = config.segment_frames, config.segment_stride, config.tubelet
        if stride % tubelet == 0:
            used = (segments - 1) * stride + size
            tokens = self._project(frames[:, :used])
            windows = tokens.unfold(1, size // tubelet, stride // tubelet)
            return rearrange(windows, "b g n d t -> b g t n d")
        pieces = [self._project(frames[:, g * stride : g * stride + size]) for g in range(segments)]
        return torch.stack(pieces, dim=1)

    def _project(self, frames: Tensor) -> Tensor:
        """The 3-D patch convolution as one matrix product: (B, T, 3, H, W) -> (B, T / tubelet, n, D)."""
        conv, patch = self.patch_embed_3d.proj, self.config.patch_size
        cubes = rearrange(
            frames,
            "b (t z) c (h p) (w q) -> b t (h w) (c z p q)",
            z=self.config.tubelet,
            p=patch,
            q=patch,
        )
        return F.linear(cubes, conv.weight.flatten(1), conv.bias)

    def aggregate(self, tokens: Tensor) -> Tensor:
        """(B, G, t, n, D) -> (B, G * t, D)."""
        batch, segments = tokens.shape[:2]
        pooled = self.spatial_attn_agg(rearrange(tokens, "b g t n d -> (b g t) n d"))
        return rearrange(pooled, "(b s) d -> b s d", b=batch)

    def forward(self, frames: Tensor) -> Tensor:
        return self.aggregate(self.patch_tokens(frames))

    def load_weights(self, source: str | Path | Mapping[str, Tensor]) -> None:
        """Load a published or own state dict (a mapping, or a source as in weight_files.py).

        Keys may carry `vfeat_extractor.`; other parts of a full Synchformer are passed over. Every key of
        this encoder must be present.
        """
        state, named = source, "these tensors"
        if isinstance(source, str | Path):
            state, named = weight_files.read_state(source, "Synchformer"), source
        if any(key.startswith(PREFIX) for key in state):
            state = {
                key.removeprefix(PREFIX): value for key, value in state.items() if key.startswith(PREFIX)
            }
        weight_files.load_into(self, state, named, "this Synchformer encoder")
