"""Synchformer's audio branch (Iashin et al. 2024, arXiv 2401.16423), written from its facts.

An Audio Spectrogram Transformer (Gong et al. 2021, arXiv 2104.01778) over the log-mel spectrogram of each
segment of 0.64 s, then one transformer layer whose class token gathers each time step's frequencies.
Parameter names are the published ones without `afeat_extractor.`.

Legend: B batch, S samples, G segments, M mel bands, L mel frames of a segment, f and t patches over
frequency and time, D width.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from visaudio.attention import attention
from visaudio.encoders.synchformer import SpatialAggregation, SynchformerConfig

SAMPLE_RATE = 16000
SEGMENT_SAMPLES, SEGMENT_STRIDE = 10240, 5120  # 0.64 s every 0.32 s: 16 frames every 8 at 25 fps
N_FFT, WINDOW, HOP = 1024, 400, 160
LOG_FLOOR = 1e-6
MEAN, STD = -4.2677393, 4.5689974  # of AudioSet's log-mel values, as AST takes them
NORM_EPS = 1e-12  # of AST's own norms; the aggregation has Synchformer's 1e-6


@dataclass(frozen=True)
class SynchformerAudioConfig:
    """The published branch by default."""

    bands: int = 128
    frames: int = 66
    patch_size: int = 16
    patch_stride: int = 10
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}")
        if min(self.bands, self.frames) < self.patch_size:
            raise ValueError(f"a patch is larger than the spectrogram: {self}")

    @property
    def rows(self) -> int:
        """f"""
        return (self.bands - self.patch_size) // self.patch_stride + 1

    @property
    def tokens_per_segment(self) -> int:
        """t"""
        return (self.frames - self.patch_size) // self.patch_stride + 1

    @property
    def hidden(self) -> int:
        return int(self.width * self.mlp_ratio)


def num_segments(num_samples: int) -> int:
    """Whole segments in a sound of SAMPLE_RATE."""
    return max(0, (num_samples - SEGMENT_SAMPLES) // SEGMENT_STRIDE + 1)


def segments(audio: Tensor) -> Tensor:
    """(..., S) at SAMPLE_RATE -> (..., G, SEGMENT_SAMPLES); what is left over at the end is not heard."""
    if num_segments(audio.shape[-1]) < 1:
        raise ValueError(f"expected at least {SEGMENT_SAMPLES} samples, got {audio.shape[-1]}")
    return audio.unfold(-1, SEGMENT_SAMPLES, SEGMENT_STRIDE)


def log_mel(audio: Tensor, config: SynchformerAudioConfig | None = None) -> Tensor:
    """Segments (..., SEGMENT_SAMPLES) at SAMPLE_RATE -> (..., M, L), as the network was trained to hear them.

    ln(power in HTK's mel bands from 0 to 8 kHz + 1e-6), then (x - MEAN) / (2 STD). Each segment is a signal
    of its own: reflected at its ends, and its 65 frames are filled up to L with a logarithm of 0.
    """
    config = config or SynchformerAudioConfig()
    spectrum = torch.stft(
        audio.reshape(-1, audio.shape[-1]).float(),
        N_FFT,
        HOP,
        WINDOW,
        torch.hann_window(WINDOW, device=audio.device),
        center=True,
        pad_mode="reflect",
        return_complex=True,
    )
    power = spectrum.real**2 + spectrum.imag**2
    mel = _mel_bands(config.bands).to(power) @ power
    logarithm = torch.log(mel + LOG_FLOOR)[..., : config.frames]
    logarithm = F.pad(logarithm, (0, config.frames - logarithm.shape[-1]))
    return ((logarithm - MEAN) / (2 * STD)).reshape(*audio.shape[:-1], *logarithm.shape[-2:])


@lru_cache(maxsize=2)
def _mel_bands(bands: int) -> Tensor:
    """(bands, N_FFT / 2 + 1) triangles of HTK's scale, each with a peak of 1."""
    from transformers.audio_utils import mel_filter_bank

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the lowest bands, which lie between bins, as in training
        bank = mel_filter_bank(
            N_FFT // 2 + 1, bands, 0.0, SAMPLE_RATE / 2, SAMPLE_RATE, norm=None, mel_scale="htk"
        )
    return torch.from_numpy(bank).T


class Holder(nn.Module):
    """Names parts as the checkpoint does: Holder(dense=...) gives the key `dense`."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


class Embeddings(nn.Module):
    """(N, M, L) -> (N, 2 + f t, D): class and distillation tokens, then patches, frequency-major."""

    def __init__(self, config: SynchformerAudioConfig) -> None:
        super().__init__()
        width, patch, stride = config.width, config.patch_size, config.patch_stride
        patches = config.rows * config.tokens_per_segment
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.distillation_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position_embeddings = nn.Parameter(torch.zeros(1, 2 + patches, width))
        self.patch_embeddings = Holder(projection=nn.Conv2d(1, width, patch, stride))

    def forward(self, log_mel: Tensor) -> Tensor:
        patches = self.patch_embeddings.projection(log_mel[:, None]).flatten(2).transpose(1, 2)
        tokens = (self.cls_token, self.distillation_token)
        first = [token.expand(len(patches), -1, -1) for token in tokens]
        return torch.cat([*first, patches], dim=1) + self.position_embeddings


class AstLayer(nn.Module):
    """Pre-norm self-attention and MLP over (N, n, D)."""

    def __init__(self, config: SynchformerAudioConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.attention = Holder(
            attention=Holder(**{name: nn.Linear(width, width) for name in ("query", "key", "value")}),
            output=Holder(dense=nn.Linear(width, width)),
        )
        self.intermediate = Holder(dense=nn.Linear(width, config.hidden))
        self.output = Holder(dense=nn.Linear(config.hidden, width))
        self.layernorm_before = nn.LayerNorm(width, eps=NORM_EPS)
        self.layernorm_after = nn.LayerNorm(width, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        normed, of = self.layernorm_before(x), self.attention.attention
        q, k, v = (
            rearrange(part(normed), "b n (h d) -> b h n d", h=self.heads)
            for part in (of.query, of.key, of.value)
        )
        x = x + self.attention.output.dense(rearrange(attention(q, k, v), "b h n d -> b n (h d)"))
        return x + self.output.dense(F.gelu(self.intermediate.dense(self.layernorm_after(x))))


class SynchformerAudioEncoder(nn.Module):
    """Log-mel segments (B, G, M, L) -> (B, G, t, D) timing features."""

    def __init__(self, config: SynchformerAudioConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SynchformerAudioConfig()
        self.ast = Holder(
            embeddings=Embeddings(config),
            encoder=Holder(layer=nn.ModuleList(AstLayer(config) for _ in range(config.depth))),
            layernorm=nn.LayerNorm(config.width, eps=NORM_EPS),
        )
        # the layer that gathers a picture's patches in the visual branch gathers a moment's bands here
        self.freq_attn_agg = SpatialAggregation(
            SynchformerConfig(width=config.width, heads=config.heads, mlp_ratio=config.mlp_ratio)
        )

    def forward(self, log_mel: Tensor) -> Tensor:
        config = self.config
        if log_mel.ndim != 4 or log_mel.shape[2:] != (config.bands, config.frames):
            raise ValueError(
                f"expected log-mel segments of shape (B, G, {config.bands}, {config.frames}), "
                f"got {tuple(log_mel.shape)}"
            )
        x = self.ast.embeddings(log_mel.flatten(0, 1))
        for layer in self.ast.encoder.layer:
            x = layer(x)
        patches = rearrange(self.ast.layernorm(x)[:, 2:], "n (f t) d -> (n t) f d", f=config.rows)
        tokens = self.freq_attn_agg(patches)
        return rearrange(tokens, "(b g t) d -> b g t d", b=len(log_mel), t=config.tokens_per_segment)
