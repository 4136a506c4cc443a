"""BigVGAN v2 (Lee et al. 2023, arXiv 2206.04658): a log-mel spectrogram to a waveform.

Module names are those of NVIDIA's public checkpoints; snake activations run at twice the rate between two
low-pass filters, so that their harmonics do not fold back.

Legend: B batch, M mel bands, T mel frames, C channels, S = T * hop samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

FILTER_TAPS = 12
DENOMINATOR_FLOOR = 1e-9


@dataclass(frozen=True)
class BigVganConfig:
    """Sizes of bigvgan_v2_44khz_128band_512x; `from_upstream` reads another checkpoint's config."""

    num_mels: int = 128
    width: int = 1536  # channels before the first upsampling, halved at each
    rates: tuple[int, ...] = (8, 4, 2, 2, 2, 2)
    kernels: tuple[int, ...] = (16, 8, 4, 4, 4, 4)
    block_kernels: tuple[int, ...] = (3, 7, 11)
    dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))

    @property
    def hop(self) -> int:
        return math.prod(self.rates)

    @classmethod
    def from_upstream(cls, values: Mapping[str, Any]) -> BigVganConfig:
        """From the `config.json` beside a public checkpoint. ValueError for a variant that is not v2's."""
        expected = {
            "resblock": "1",
            "activation": "snakebeta",
            "snake_logscale": True,
            "use_tanh_at_final": False,
            "use_bias_at_final": False,
        }
        for name, value in expected.items():
            if values.get(name) != value:
                raise ValueError(f"BigVGAN {name} is {values.get(name)!r}, this reads v2's {value!r} alone")
        return cls(
            num_mels=values["num_mels"],
            width=values["upsample_initial_channel"],
            rates=tuple(values["upsample_rates"]),
            kernels=tuple(values["upsample_kernel_sizes"]),
            block_kernels=tuple(values["resblock_kernel_sizes"]),
            dilations=tuple(tuple(row) for row in values["resblock_dilation_sizes"]),
        )


def lowpass_taps() -> Tensor:
    """(1, 1, FILTER_TAPS): a Kaiser-windowed sinc that cuts at a quarter of the (doubled) rate, sum 1."""
    cutoff, half_width = 0.25, 0.3  # of the doubled rate
    attenuation_db = 2.285 * (FILTER_TAPS // 2 - 1) * math.pi * 4 * half_width + 7.95
    if attenuation_db > 50:
        beta = 0.1102 * (attenuation_db - 8.7)
    else:
        beta = 0.5842 * (attenuation_db - 21) ** 0.4 + 0.07886 * (attenuation_db - 21)
    window = torch.kaiser_window(FILTER_TAPS, beta=beta, periodic=False)
    times = torch.arange(FILTER_TAPS) - FILTER_TAPS // 2 + 0.5
    taps = 2 * cutoff * window * torch.sinc(2 * cutoff * times)
    return (taps / taps.sum()).reshape(1, 1, -1)


class _Filter(nn.Module):
    """Holds taps under a checkpoint's name."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filter", lowpass_taps())


class _Upsample(_Filter):
    def forward(self, x: Tensor) -> Tensor:
        """(B, C, S) -> (B, C, 2 S)."""
        channels, edge = x.shape[1], FILTER_TAPS // 2 - 1
        x = F.pad(x, (edge, edge), mode="replicate")
        x = 2 * F.conv_transpose1d(x, self.filter.expand(channels, -1, -1), stride=2, groups=channels)
        left = 2 * edge + (FILTER_TAPS - 2) // 2
        return x[..., left : -(2 * edge + (FILTER_TAPS - 1) // 2)]


class _Downsample(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lowpass = _Filter()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, 2 S) -> (B, C, S)."""
        channels = x.shape[1]
        x = F.pad(x, (FILTER_TAPS // 2 - 1, FILTER_TAPS // 2), mode="replicate")
        return F.conv1d(x, self.lowpass.filter.expand(channels, -1, -1), stride=2, groups=channels)


class _SnakeBeta(nn.Module):
    """x + sin^2(a x) / b, one a and b a channel, kept as logarithms."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha, self.beta = (nn.Parameter(torch.zeros(channels)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        alpha, beta = self.alpha.exp()[:, None], self.beta.exp()[:, None]
        return x + torch.sin(alpha * x).square() / (beta + DENOMINATOR_FLOOR)


class _Activation(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.upsample, self.act, self.downsample = _Upsample(), _SnakeBeta(channels), _Downsample()

    def forward(self, x: Tensor) -> Tensor:
        return self.downsample(self.act(self.upsample(x)))


def _conv(
    channels_in: int, channels_out: int, kernel: int, dilation: int = 1, bias: bool = True
) -> nn.Module:
    padding = (kernel - 1) * dilation // 2
    return weight_norm(
        nn.Conv1d(channels_in, channels_out, kernel, dilation=dilation, padding=padding, bias=bias)
    )


class _Block(nn.Module):
    """Residual pairs of convolutions, the first of each dilated."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(_conv(channels, channels, kernel, dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(_conv(channels, channels, kernel) for _ in dilations)
        self.activations = nn.ModuleList(_Activation(channels) for _ in range(2 * len(dilations)))

    def forward(self, x: Tensor) -> Tensor:
        pairs = zip(self.convs1, self.convs2, self.activations[::2], self.activations[1::2], strict=True)
        for first, second, before, between in pairs:
            x = x + second(between(first(before(x))))
        return x


class BigVgan(nn.Module):
    """Log-mel (B, M, T), natural logarithm -> waveform (B, 1, T * hop) within -1 .. 1."""

    def __init__(self, config: BigVganConfig | None = None) -> None:
        super().__init__()
        config = self.config = config or BigVganConfig()
        self.conv_pre = _conv(config.num_mels, config.width, 7)
        self.ups, self.resblocks, width = nn.ModuleList(), nn.ModuleList(), config.width
        for rate, kernel in zip(config.rates, config.kernels, strict=True):
            up = nn.ConvTranspose1d(width, width // 2, kernel, rate, padding=(kernel - rate) // 2)
            self.ups.append(nn.ModuleList([weight_norm(up)]))
            width //= 2
            for size, dilations in zip(config.block_kernels, config.dilations, strict=True):
                self.resblocks.append(_Block(width, size, dilations))
        self.activation_post = _Activation(width)
        self.conv_post = _conv(width, 1, 7, bias=False)

    def forward(self, mel: Tensor) -> Tensor:
        x, per_rate = self.conv_pre(mel), len(self.config.block_kernels)
        for number, (up,) in enumerate(self.ups):
            x = up(x)
            blocks = self.resblocks[number * per_rate : (number + 1) * per_rate]
            x = sum(block(x) for block in blocks) / per_rate
        return self.conv_post(self.activation_post(x)).clamp(-1, 1)


def current_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's tensors by the names that today's weight_norm gives; older ones wrote weight_g and
    weight_v."""
    spelling = {
        ".weight_g": ".parametrizations.weight.original0",
        ".weight_v": ".parametrizations.weight.original1",
    }
    renamed = {}
    for name, value in state.items():
        for old, new in spelling.items():
            if name.endswith(old):
                name = name[: -len(old)] + new
        renamed[name] = value
    return renamed
