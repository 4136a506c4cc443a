"""The whole Synchformer (Iashin et al. 2024, arXiv 2401.16423): by how much a sound is ahead of a picture.

Both branches' features of 14 segments (4.8 s), projected, go through three transformer layers as one sequence

    [offset token, 14 * 8 visual, modality token, 14 * 6 audible]

and the offset token's end says one of 21 offsets, -2 s to 2 s in steps of 0.2 s. An offset is positive where
the sound comes early: at time t is heard what is seen at t + offset. Names are the published ones, so
`synchformer_state_dict.pth` loads key by key.

Legend: B batch, T frames, S samples, G segments, v = 8 and a = 6 tokens of a segment, D width, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn

from visaudio import weight_files
from visaudio.attention import attention
from visaudio.encoders.synchformer import SynchformerConfig, SynchformerEncoder
from visaudio.encoders.synchformer_audio import (
    Holder,
    SynchformerAudioConfig,
    SynchformerAudioEncoder,
    log_mel,
    segments,
)

VIDEO_FPS = 25.0
MAX_OFFSET_S, OFFSET_STEP_S = 2.0, 0.2
SEGMENTS_AT_ONCE = 8  # bounds the memory of the visual branch; 1568 patches each


@dataclass(frozen=True)
class SyncHeadConfig:
    """segments: how many the head was trained on; its positions are for no other number."""

    segments: int = 14
    width: int = 768
    depth: int = 3
    heads: int = 8
    classes: int = 21

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}")


@dataclass(frozen=True)
class SynchformerFullConfig:
    """The published network by default."""

    visual: SynchformerConfig = field(default_factory=SynchformerConfig)
    audio: SynchformerAudioConfig = field(default_factory=SynchformerAudioConfig)
    head: SyncHeadConfig = field(default_factory=SyncHeadConfig)


def offset_classes_s(classes: int = 21) -> Tensor:
    """(K,) the offset that each class means, in seconds."""
    return torch.linspace(-MAX_OFFSET_S, MAX_OFFSET_S, classes, dtype=torch.float64)


class HeadLayer(nn.Module):
    """Pre-norm self-attention and MLP over (B, n, D)."""

    def __init__(self, config: SyncHeadConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Holder(**{name: nn.Linear(width, width) for name in ("key", "query", "value", "proj")})
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        normed = self.ln1(x)
        q, k, v = (
            rearrange(part(normed), "b n (h d) -> b h n d", h=self.heads)
            for part in (self.attn.query, self.attn.key, self.attn.value)
        )
        x = x + self.attn.proj(rearrange(attention(q, k, v), "b h n d -> b n (h d)"))
        return x + self.mlp(self.ln2(x))


class Positions(nn.Module):
    """Holder of the published key `pos_emb_cfg.pos_emb`."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.pos_emb = nn.Parameter(torch.zeros(1, tokens, width))


class SyncHead(nn.Module):
    """Projected tokens (B, G v, D) and (B, G a, D) -> logits (B, K)."""

    def __init__(self, config: SyncHeadConfig, tokens: int) -> None:
        super().__init__()
        width = config.width
        self.OFF_tok = nn.Parameter(torch.zeros(1, 1, width))
        self.MOD_tok = nn.Parameter(torch.zeros(1, 1, width))
        self.vis_in_lnorm, self.aud_in_lnorm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.pos_emb_cfg = Positions(tokens, width)
        self.blocks = nn.ModuleList(HeadLayer(config) for _ in range(config.depth))
        self.ln_f = nn.LayerNorm(width)
        self.off_head = nn.Linear(width, config.classes)

    def forward(self, visual: Tensor, audible: Tensor) -> Tensor:
        offset, modality = (token.expand(len(visual), -1, -1) for token in (self.OFF_tok, self.MOD_tok))
        x = torch.cat([offset, self.vis_in_lnorm(visual), modality, self.aud_in_lnorm(audible)], dim=1)
        x = x + self.pos_emb_cfg.pos_emb
        for block in self.blocks:
            x = block(x)
        return self.off_head(self.ln_f(x[:, 0]))


class Synchformer(nn.Module):
    """Frames at VIDEO_FPS and sound at 16 kHz, both from time 0 -> which offset they have."""

    def __init__(self, config: SynchformerFullConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SynchformerFullConfig()
        visual, audio, head = config.visual, config.audio, config.head
        self.vfeat_extractor = SynchformerEncoder(visual)
        self.afeat_extractor = SynchformerAudioEncoder(audio)
        self.vproj = nn.Linear(visual.width, head.width)
        self.aproj = nn.Linear(audio.width, head.width)
        tokens = 2 + head.segments * (visual.tokens_per_segment + audio.tokens_per_segment)
        self.transformer = SyncHead(head, tokens)

    @classmethod
    def load(cls, source: str | Path, config: SynchformerFullConfig | None = None) -> Synchformer:
        """With the weights of a source as in weight_files.py, in evaluation mode; every key must fit."""
        state = weight_files.read_state(source, "the whole Synchformer")
        with torch.device("meta"):  # no time on random weights: all of them are replaced
            model = cls(config)
        model = model.to_empty(device="cpu")
        weight_files.load_into(model, state, source, "the whole Synchformer (both branches and the head)")
        return model.eval().requires_grad_(False)

    def visual_features(self, frames: Tensor) -> Tensor:
        """(B, T, 3, H, W) in [-1, 1] -> (B, G, v, D)."""
        of = self.config.visual
        parts = []
        for first in range(0, of.num_segments(frames.shape[1]), SEGMENTS_AT_ONCE):
            begin = first * of.segment_stride
            length = of.segment_frames + (SEGMENTS_AT_ONCE - 1) * of.segment_stride
            parts.append(self.vfeat_extractor(frames[:, begin : begin + length]))
        if not parts:
            raise ValueError(f"expected at least {of.segment_frames} frames, got {frames.shape[1]}")
        return rearrange(torch.cat(parts, dim=1), "b (g v) d -> b g v d", v=of.tokens_per_segment)

    def audio_features(self, audio: Tensor) -> Tensor:
        """(B, S) at 16 kHz -> (B, G, a, D)."""
        return self.afeat_extractor(log_mel(segments(audio), self.config.audio))

    def offset_logits(self, visual: Tensor, audible: Tensor) -> Tensor:
        """Features of as many segments as the head knows, (B, G, v, D) and (B, G, a, D) -> (B, K)."""
        expected = self.config.head.segments
        if visual.shape[1] != expected or audible.shape[1] != expected:
            raise ValueError(
                f"the sync head compares {expected} segments, got {visual.shape[1]} seen and "
                f"{audible.shape[1]} heard"
            )
        return self.transformer(self.vproj(visual).flatten(1, 2), self.aproj(audible).flatten(1, 2))

    def offsets_s(self, visual: Tensor, audible: Tensor) -> Tensor:
        """(B, G, v, D), (B, G, a, D) -> (B, 2) likeliest offset over the first and over the last segments.

        nan where the logits are not finite. G may be larger than what the head knows, not smaller.
        """
        count = min(visual.shape[1], audible.shape[1])
        visual, audible, known = visual[:, :count], audible[:, :count], self.config.head.segments
        first = self.offset_logits(visual[:, :known], audible[:, :known])
        last = self.offset_logits(visual[:, -known:], audible[:, -known:])
        logits = torch.stack([first, last], dim=1).double().cpu()
        found = offset_classes_s(self.config.head.classes)[logits.argmax(-1)]
        return found.masked_fill(~logits.isfinite().all(-1), float("nan"))
