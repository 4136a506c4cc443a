"""PaSST (Koutini et al. 2022, arXiv 2110.05069), written from its facts: a vision transformer on log-mel.

Overlapping patches of the mel spectrogram get a position in frequency and one in time; a class token and a
distillation token are read at the end. The embedding is their mean before the head, as hear21passt's "all"
mode gives it and av-benchmark takes it.

Legend: B sounds, S samples, W windows of a sound, T frames, M mel bands, D width, f and t patches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from einops import rearrange
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from visaudio import weight_files
from visaudio.evaluation.audio_networks.filters import htk_filters
from visaudio.evaluation.audio_networks.heard import NetworkOutput, padded

WINDOW, HOP, TRANSFORM = 800, 320, 1024  # 25 and 10 ms at 32 kHz
HIGH_HZ = 15_000.0  # where training drew it from 15 to 16 kHz, outside of it
PREEMPHASIS = 0.97
LOG_OFFSET = 1e-5
MEAN, SPREAD = -4.5, 5.0
PATCH_KEY = "patch_embed.proj.weight"


@dataclass(frozen=True)
class PasstConfig:
    """`passt-s-f128-p16-s10-ap.476-swa.pt`, hear21passt's default. frames: that the positions span."""

    width: int = 768
    depth: int = 12
    heads: int = 12
    bands: int = 128
    frames: int = 998
    patch: int = 16
    stride: int = 10
    classes: int = 527
    window_s: float = 10.0


class PatchEmbed(nn.Module):
    """Holder of one convolution, for its published name."""

    def __init__(self, config: PasstConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, config.width, config.patch, config.stride)


class Passt(nn.Module):
    """Parameter names are the published ones."""

    sample_rate = 32_000

    def __init__(self, config: PasstConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or PasstConfig()
        width, grid = config.width, (config.bands // config.stride, config.frames // config.stride)
        norm = partial(nn.LayerNorm, eps=1e-6)
        self.patch_embed = PatchEmbed(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.dist_token = nn.Parameter(torch.zeros(1, 1, width))
        self.new_pos_embed = nn.Parameter(torch.zeros(1, 2, width))
        self.freq_new_pos_embed = nn.Parameter(torch.zeros(1, width, grid[0], 1))
        self.time_new_pos_embed = nn.Parameter(torch.zeros(1, width, 1, grid[1]))
        self.blocks = nn.Sequential(
            *(Block(width, config.heads, qkv_bias=True, norm_layer=norm) for _ in range(config.depth))
        )
        self.norm = norm(width)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, config.classes))
        self.head_dist = nn.Linear(width, config.classes)  # of training; the checkpoint carries it
        filters = htk_filters(TRANSFORM, self.sample_rate, config.bands, 0.0, HIGH_HZ)
        self.register_buffer("filters", torch.from_numpy(filters), persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW, periodic=False), persistent=False)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], source: str) -> Passt:
        """Of a published checkpoint; UserError for another network's."""
        network, state = cls(), dict(state)
        patch = state.get(PATCH_KEY)
        if patch is not None and patch.ndim == 2:  # the authors' older files keep each patch flat
            state[PATCH_KEY] = patch.reshape(len(patch), 1, network.config.patch, -1)
        weight_files.load_into(network, state, source, "PaSST")
        return network.eval()

    def log_mel(self, audio: Tensor) -> Tensor:
        """(B, S) -> (B, M, T), about -1 to 1."""
        audio = audio[:, 1:] - PREEMPHASIS * audio[:, :-1]
        spectrum = torch.stft(audio, TRANSFORM, HOP, WINDOW, self.window, center=True, return_complex=True)
        mel = self.filters.T @ (spectrum.real**2 + spectrum.imag**2)
        return (torch.log(mel + LOG_OFFSET) - MEAN) / SPREAD

    def windows(self, audio: Tensor) -> Tensor:
        """(B, S) -> (B, W, 10 s): one, with silence after a shorter sound; else as few as cover it all."""
        length = int(self.config.window_s * self.sample_rate)
        audio = padded(audio, length)
        spare = audio.shape[-1] - length
        count = 1 + math.ceil(spare / length)
        starts = [round(i * spare / max(count - 1, 1)) for i in range(count)]
        return torch.stack([audio[:, s : s + length] for s in starts], dim=1)

    def tokens(self, mel: Tensor) -> Tensor:
        """(B, M, T) -> the mean of the two tokens (B, D)."""
        x = self.patch_embed.proj(mel[:, None])
        x = x + self.time_new_pos_embed[..., : x.shape[-1]] + self.freq_new_pos_embed
        read = torch.cat([self.cls_token, self.dist_token], dim=1) + self.new_pos_embed
        x = torch.cat([read.expand(len(x), -1, -1), rearrange(x, "b d f t -> b (f t) d")], dim=1)
        return self.norm(self.blocks(x)[:, :2]).mean(dim=1)

    def forward(self, audio: Tensor) -> NetworkOutput:
        """(B, S) in [-1, 1] -> one embedding a sound, and logits; means over the windows of a long one."""
        windows = self.windows(audio)
        tokens = self.tokens(self.log_mel(rearrange(windows, "b w s -> (b w) s")))
        logits = rearrange(self.head(tokens), "(b w) c -> b w c", b=len(audio)).mean(dim=1)
        return NetworkOutput(
            rearrange(tokens, "(b w) d -> b w d", b=len(audio)).mean(dim=1, keepdim=True), logits
        )
