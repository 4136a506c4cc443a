"""MMAudio's 44.1 kHz mel VAE: log-mel spectrogram <-> 40 latents at half its frame rate.

The architecture is what the public checkpoint (`v1-44.pth`, MMAudio, arXiv 2412.15322) prescribes:
convolutions over time with magnitude-preserving weights (EDM2, arXiv 2312.02696), mel bands as channels.
Module names are the checkpoint's.

Legend: B batch, T mel frames, F = T / 2 latent frames, M mel bands, D latent dimensions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

SILU_GAIN = 1 / 0.596  # keeps a unit-variance signal's magnitude (EDM2, equation 81)
RESIDUAL = 0.3  # share of the branch in a magnitude-preserving sum
MAX_ACTIVATION = 256.0
LOGVAR_RANGE = (-30.0, 20.0)


@dataclass(frozen=True)
class MelVaeConfig:
    """widths of the levels: `width` times each of `multipliers`; time is halved after the first level."""

    num_mels: int = 128
    latent_dim: int = 40
    width: int = 512
    multipliers: tuple[int, ...] = (1, 2, 4)
    blocks: int = 2

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(self.width * factor for factor in self.multipliers)


def unit_norm(x: Tensor, dims: tuple[int, ...], eps: float = 1e-4) -> Tensor:
    """x over its root mean square along `dims`, of which eps is a floor in the norm's own scale."""
    norm = torch.linalg.vector_norm(x, dim=dims, keepdim=True, dtype=torch.float32)
    norm = eps + norm * math.sqrt(norm.numel() / x.numel())
    return x / norm.to(x.dtype)


def balanced_sum(a: Tensor, b: Tensor) -> Tensor:
    """(1 - t) a + t b, of unit magnitude where both are (EDM2, equation 88)."""
    t = RESIDUAL
    return (a + t * (b - a)) / math.sqrt((1 - t) ** 2 + t**2)


def silu(x: Tensor) -> Tensor:
    return F.silu(x) * SILU_GAIN


class UnitConv(nn.Module):
    """A convolution over time without bias, whose weights have unit magnitude whatever is stored."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels_out, channels_in, kernel))

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        fan_in = self.weight[0].numel()
        weight = unit_norm(self.weight.float(), (1, 2)) * (gain / math.sqrt(fan_in))
        return F.conv1d(x, weight.to(x.dtype), padding=self.weight.shape[-1] // 2)


class ResidualBlock(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv1 = UnitConv(channels_in, channels_out, kernel)
        self.conv2 = UnitConv(channels_out, channels_out, kernel)
        self.nin_shortcut = UnitConv(channels_in, channels_out, 1) if channels_in != channels_out else None

    def forward(self, x: Tensor) -> Tensor:
        x = unit_norm(x, (1,))
        branch = self.conv2(silu(self.conv1(silu(x))))
        return balanced_sum(x if self.nin_shortcut is None else self.nin_shortcut(x), branch)


class Attention(nn.Module):
    """One head over time, with queries, keys and values of unit magnitude."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = UnitConv(channels, 3 * channels, 1)
        self.proj_out = UnitConv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = rearrange(self.qkv(x), "b (c three) t -> b c three t", three=3)
        q, k, v = unit_norm(parts, (1,)).transpose(1, 3).unbind(2)  # each (B, T, C)
        mixed = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        return balanced_sum(x, self.proj_out(mixed.transpose(1, 2)))


class Halve(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = UnitConv(channels, channels, 1), UnitConv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(F.avg_pool1d(self.conv1(x), 2))


class Double(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = UnitConv(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.repeat_interleave(2, dim=-1))


class _Middle(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1, self.block_2 = ResidualBlock(channels, channels), ResidualBlock(channels, channels)
        self.attn_1 = Attention(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class _Level(nn.Module):
    """Residual blocks, and at the level that changes the rate a `downsample` or an `upsample`."""

    def __init__(self, channels_in: int, channels_out: int, blocks: int) -> None:
        super().__init__()
        widths = [channels_in, *[channels_out] * blocks]
        self.block = nn.ModuleList(ResidualBlock(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        return x


class Encoder(nn.Module):
    def __init__(self, config: MelVaeConfig) -> None:
        super().__init__()
        widths = config.widths
        self.conv_in = UnitConv(config.num_mels, widths[0], 3)
        self.down = nn.ModuleList(
            _Level(a, b, config.blocks) for a, b in zip((widths[0], *widths), widths, strict=False)
        )
        self.down[0].downsample = Halve(widths[0])
        self.mid = _Middle(widths[-1])
        self.conv_out = UnitConv(widths[-1], 2 * config.latent_dim, 3)
        self.learnable_gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for number, level in enumerate(self.down):
            x = level(x).clamp(-MAX_ACTIVATION, MAX_ACTIVATION)
            if number == 0:
                x = level.downsample(x)
        x = self.mid(x).clamp(-MAX_ACTIVATION, MAX_ACTIVATION)
        return self.conv_out(silu(x), self.learnable_gain + 1)


class Decoder(nn.Module):
    def __init__(self, config: MelVaeConfig) -> None:
        super().__init__()
        widths = config.widths
        self.conv_in = UnitConv(config.latent_dim, widths[-1], 3)
        self.mid = _Middle(widths[-1])
        inputs = (*widths[1:], widths[-1])  # from the level above
        self.up = nn.ModuleList(_Level(a, b, config.blocks + 1) for a, b in zip(inputs, widths, strict=True))
        self.up[1].upsample = Double(widths[1])
        self.conv_out = UnitConv(widths[0], config.num_mels, 3)
        self.learnable_gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(self.conv_in(x)).clamp(-MAX_ACTIVATION, MAX_ACTIVATION)
        for number in reversed(range(len(self.up))):
            x = self.up[number](x).clamp(-MAX_ACTIVATION, MAX_ACTIVATION)
            if number == 1:
                x = self.up[1].upsample(x)
        return self.conv_out(silu(x), self.learnable_gain + 1)


class MelVae(nn.Module):
    """Log-mel (B, M, T), natural logarithm, T even, <-> latents (B, D, T / 2)."""

    def __init__(self, config: MelVaeConfig | None = None) -> None:
        super().__init__()
        self.config = config or MelVaeConfig()
        self.encoder, self.decoder = Encoder(self.config), Decoder(self.config)
        self.register_buffer("data_mean", torch.zeros(1, self.config.num_mels, 1))
        self.register_buffer("data_std", torch.ones(1, self.config.num_mels, 1))

    def encode(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents, each (B, D, T / 2)."""
        mean, logvar = self.encoder((mel - self.data_mean) / self.data_std).chunk(2, dim=1)
        return mean, torch.exp(0.5 * logvar.clamp(*LOGVAR_RANGE))

    def decode(self, latents: Tensor) -> Tensor:
        return self.decoder(latents) * self.data_std + self.data_mean
