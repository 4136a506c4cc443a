"""The light codec of the tiny preset: ConvNeXt blocks at STFT frame rate, continuous latents.

The head is Vocos' (arXiv 2306.00814): magnitudes and phases of one STFT frame, then the inverse STFT.
Interaural time lives in the phase below about 1.5 kHz, so there the encoder also sees the complex
spectrum and the decoder writes one (a phase as a point of the unit circle, which has no wrap to learn),
and a direct linear path joins the two (`phase_code`).

Legend: B batch, S samples, T STFT frames, F = T / downsample latent frames, K bins, C channels, D latent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from visaudio.codec.base import Codec, pad_to_frames, trim

MAGNITUDE_FLOOR = 1e-5  # -100 dB relative to a full-scale sine
MAGNITUDE_CEILING = 1e2
COMPRESSION = 0.5  # power of the complex input: weaker partials reach the network too
LEVEL_FLOOR = 1e-4  # -80 dB: below it the complex input fades out
MAX_LOGVAR = 4.0


@dataclass(frozen=True)
class SpectralCodecConfig:
    sample_rate: int = 22050
    n_fft: int = 1024
    hop: int = 256
    downsample: int = 2
    latent_dim: int = 48
    encoder_width: int = 192
    encoder_blocks: int = 4
    decoder_width: int = 288
    decoder_blocks: int = 6
    expansion: int = 2
    kernel: int = 7
    phase_cutoff_hz: float = 1500.0
    phase_slots: int = 12

    def __post_init__(self) -> None:
        if self.n_fft % self.hop or self.n_fft // self.hop < 2:
            raise ValueError(
                f"n_fft must be a multiple of hop, at least twice it; got {self.n_fft} and {self.hop}"
            )
        if (self.n_fft - self.hop) % 2 or self.kernel % 2 == 0:
            raise ValueError(f"n_fft - hop must be even and kernel odd; got {self}")

    @property
    def latent_hop(self) -> int:
        return self.hop * self.downsample

    @property
    def num_bins(self) -> int:
        return self.n_fft // 2 + 1

    @property
    def num_phase_slots(self) -> int:
        """Complex slots of the direct phase path: two latent dimensions each, as far as there are any."""
        return min(self.phase_slots, self.latent_dim // 2)

    @property
    def num_phase_bins(self) -> int:
        """Bins, DC included, at or below `phase_cutoff_hz`."""
        return min(self.num_bins, int(self.phase_cutoff_hz * self.n_fft / self.sample_rate) + 1)


class FrameStft(nn.Module):
    """STFT with one frame per `hop` samples: frame k is centred on sample (k + 1/2) hop.

    Scaled so that a full-scale sine has magnitude 1. Always float32, whatever autocast says.
    """

    def __init__(self, n_fft: int, hop: int) -> None:
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        self.margin = (n_fft - hop) // 2
        window = torch.hann_window(n_fft)
        self.scale = float(window.sum()) / 2
        self.register_buffer("window", window, persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        """(B, S), S a multiple of hop -> complex (B, S / hop, K)."""
        with torch.autocast(audio.device.type, enabled=False):
            frames = F.pad(audio.float(), (self.margin, self.margin)).unfold(-1, self.n_fft, self.hop)
            return torch.fft.rfft(frames * (self.window / self.scale), dim=-1)

    def inverse(self, spectrum: Tensor) -> Tensor:
        """complex (B, T, K) -> (B, T * hop): overlap-add, divided by the sum of squared windows."""
        with torch.autocast(spectrum.device.type, enabled=False):
            frames = torch.fft.irfft(spectrum, n=self.n_fft, dim=-1) * (self.window * self.scale)
            ones = torch.ones(1, spectrum.shape[1], 1, device=frames.device)
            audio = self._overlap_add(frames)
            weight = self._overlap_add(ones * self.window.square())
            inner = slice(self.margin, self.margin + spectrum.shape[1] * self.hop)
            return audio[:, inner] / weight[:, inner]

    def _overlap_add(self, frames: Tensor) -> Tensor:
        parts = self.n_fft // self.hop
        pieces = rearrange(frames, "b t (p h) -> p b t h", p=parts)
        total = sum(F.pad(pieces[p], (0, 0, p, parts - 1 - p)) for p in range(parts))
        return rearrange(total, "b t h -> b (t h)")


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution over time, LayerNorm, two pointwise layers, layer scale. (B, T, C)."""

    def __init__(self, width: int, kernel: int, expansion: int, scale: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, expansion * width)
        self.project = nn.Linear(expansion * width, width)
        self.layer_scale = nn.Parameter(torch.full((width,), scale))

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        y = self.project(F.gelu(self.expand(self.norm(y)), approximate="tanh"))
        return x + self.layer_scale * y


def _trunk(width: int, blocks: int, config: SpectralCodecConfig) -> nn.Sequential:
    return nn.Sequential(
        *(ConvNeXtBlock(width, config.kernel, config.expansion, 1.0 / blocks) for _ in range(blocks))
    )


def phase_code(config: SpectralCodecConfig) -> Tensor:
    """Start of the direct phase path: (D, 2 r K_low) real matrix, r = downsample, columns (r, re/im, bin).

    A latent frame has fewer dimensions than the low band has complex bins, so bands of three bins (a Hann
    main lobe) are folded: band b adds to complex slot b modulo `phase_slots`, its bins and STFT frames
    turned to the phase at the latent frame's centre, where one partial's entries agree. The transpose
    unfolds: in each band the strongest partial of its slot gets its own phase back, and the magnitudes,
    coded elsewhere, silence the others. Learned from chance, such a code takes thousands of steps.
    """
    k = torch.arange(config.num_phase_bins, dtype=torch.float64)
    r = torch.arange(config.downsample, dtype=torch.float64)[:, None]
    offset = (r + 0.5 - config.downsample / 2) * config.hop  # of a frame's centre, in samples
    turn = math.pi * k - 2 * math.pi * k * offset / config.n_fft  # FFT phase counts from the start
    slots = torch.arange(config.num_phase_slots)[:, None, None]
    member = (k // 3) % config.num_phase_slots == slots
    real, imag = member * turn.cos(), member * turn.sin()
    code = torch.stack([torch.stack([real, -imag], dim=2), torch.stack([imag, real], dim=2)], dim=1)
    weight = torch.zeros(config.latent_dim, 2 * config.downsample * config.num_phase_bins)
    weight[: 2 * config.num_phase_slots] = code.flatten(0, 1).flatten(1) / math.sqrt(member[0].sum() * len(r))
    return weight


class Encoder(nn.Module):
    """complex STFT (B, T, K) -> (B, T / downsample, 2 D): mean and log variance."""

    def __init__(self, config: SpectralCodecConfig) -> None:
        super().__init__()
        self.phase_bins, self.downsample = config.num_phase_bins, config.downsample
        width = config.encoder_width
        self.embed = nn.Linear(config.num_bins + 2 * self.phase_bins, width)
        self.norm = nn.LayerNorm(width)
        self.blocks = _trunk(width, config.encoder_blocks, config)
        self.down = nn.Linear(config.downsample * width, width)
        self.down_norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, 2 * config.latent_dim)
        self.direct = nn.Linear(2 * config.downsample * self.phase_bins, config.latent_dim, bias=False)
        with torch.no_grad():
            self.direct.weight.copy_(phase_code(config))
            self.project.weight[: 2 * config.num_phase_slots] *= 0.1  # the phase code rules at first

    def features(self, spectrum: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs of about unit size: log magnitudes of all bins; low bins, complex, relative to their level.

        The level is one number per latent frame, so that the complex input is nearly linear in the waveform.
        """
        log_magnitude = (spectrum.abs().clamp_min(MAGNITUDE_FLOOR).log() + 7.0) / 2.5
        low = rearrange(spectrum[..., : self.phase_bins], "b (f r) k -> b f r k", r=self.downsample)
        magnitude = low.abs()
        level = magnitude.square().mean(dim=(2, 3), keepdim=True).sqrt() + LEVEL_FLOOR
        gain = magnitude.clamp_min(MAGNITUDE_FLOOR) ** (COMPRESSION - 1) / level**COMPRESSION
        low = torch.view_as_real(low * gain)
        return log_magnitude, rearrange(low, "b f r k c -> b (f r) (c k)")

    def forward(self, spectrum: Tensor) -> Tensor:
        log_magnitude, low = self.features(spectrum)
        x = self.blocks(self.norm(self.embed(torch.cat([log_magnitude, low], dim=-1))))
        x = rearrange(x, "b (f r) c -> b f (r c)", r=self.downsample)
        mean, logvar = self.project(self.down_norm(F.gelu(self.down(x), approximate="tanh"))).chunk(2, dim=-1)
        mean = mean + self.direct(rearrange(low, "b (f r) c -> b f (r c)", r=self.downsample))
        return torch.cat([mean, logvar], dim=-1)


class Decoder(nn.Module):
    """latents (B, F, D) -> complex STFT (B, F * downsample, K)."""

    def __init__(self, config: SpectralCodecConfig) -> None:
        super().__init__()
        self.phase_bins, self.downsample = config.num_phase_bins, config.downsample
        self.num_bins = config.num_bins
        width = config.decoder_width
        self.embed = nn.Linear(config.latent_dim, config.downsample * width)
        self.norm = nn.LayerNorm(width)
        self.blocks = _trunk(width, config.decoder_blocks, config)
        self.out_norm = nn.LayerNorm(width)
        self.sizes = (self.num_bins, self.num_bins - self.phase_bins, self.phase_bins, self.phase_bins)
        self.head = nn.Linear(width, sum(self.sizes))
        self.direct = nn.Linear(config.latent_dim, 2 * config.downsample * self.phase_bins, bias=False)
        with torch.no_grad():
            self.direct.weight.copy_(phase_code(config).T)
            self.head.weight[-2 * self.phase_bins :] *= 0.1
            self.head.bias[-2 * self.phase_bins :] *= 0.1

    def forward(self, latents: Tensor) -> Tensor:
        x = rearrange(self.embed(latents), "b f (r c) -> b (f r) c", r=self.downsample)
        x = self.out_norm(self.blocks(self.norm(x)))
        # The head sets the waveform: float32, for bf16 keeps a phase of 3 rad only to 1/64 rad.
        with torch.autocast(x.device.type, enabled=False):
            x = F.linear(x.float(), self.head.weight.float(), self.head.bias.float())
            log_magnitude, angle, real, imag = x.split(self.sizes, dim=-1)
            direct = F.linear(latents.float(), self.direct.weight.float())
            direct = rearrange(direct, "b f (r c k) -> c b (f r) k", r=self.downsample, c=2)
            real, imag = real + direct[0], imag + direct[1]
            magnitude = (log_magnitude - 7.0).exp().clamp(max=MAGNITUDE_CEILING)
            norm = torch.rsqrt(real.square() + imag.square() + 1e-6)
            cos = torch.cat([real * norm, angle.cos()], dim=-1)
            sin = torch.cat([imag * norm, angle.sin()], dim=-1)
            return torch.complex(magnitude * cos, magnitude * sin)


class SpectralCodec(Codec):
    """Mono spectral codec with Gaussian latents; `encode` gives their mean."""

    def __init__(self, config: SpectralCodecConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SpectralCodecConfig()
        self.sample_rate, self.latent_dim = config.sample_rate, config.latent_dim
        self.latent_hop = config.latent_hop
        self.stft = FrameStft(config.n_fft, config.hop)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def encode_distribution(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, S) -> mean and log variance, float32, each (B, F, D)."""
        audio = pad_to_frames(audio, self.latent_hop)
        mean, logvar = self.encoder(self.stft(audio[:, 0])).float().chunk(2, dim=-1)
        return mean, logvar.clamp(-12.0, MAX_LOGVAR)

    def encode(self, audio: Tensor) -> Tensor:
        return self.encode_distribution(audio)[0]

    def decode(self, latents: Tensor, num_samples: int | None = None) -> Tensor:
        if latents.ndim != 3 or latents.shape[-1] != self.latent_dim:
            raise ValueError(
                f"expected latents of shape (batch, frames, {self.latent_dim}), got {tuple(latents.shape)}"
            )
        audio = self.stft.inverse(self.decoder(latents))
        return trim(audio[:, None], num_samples)
