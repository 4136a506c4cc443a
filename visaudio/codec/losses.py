"""Training losses of the spectral codec: what an ear hears, and what two ears compare.

Magnitudes alone lose the interaural time: the complex term below `phase_cutoff_hz` keeps it. ILD is a
difference of levels, so each band's level has a term of its own. All terms are zero at identity.

Legend: B batch, S samples, T STFT frames, K bins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visaudio.codec.spectral import SpectralCodec

LEVEL_FLOOR_POWER = 1e-7  # -70 dB relative to a full-scale sine
SCALES = ((256, 32), (512, 48), (1024, 80), (2048, 100))  # (n_fft, mel bands)


@dataclass(frozen=True)
class SpectralLossConfig:
    mel_weight: float = 1.0
    magnitude_weight: float = 0.5
    complex_weight: float = 3.0
    level_weight: float = 1.0
    frame_weight: float = 2.0
    readout_weight: float = 2.0
    kl_weight: float = 1e-3
    noise_std: float = 0.15
    phase_cutoff_hz: float = 1500.0
    complex_n_ffts: tuple[int, ...] = (1024, 2048)
    level_n_fft: int = 1024
    frame_n_fft: int = 2048
    readout_bands: int = 16
    level_bands: int = 10


@lru_cache(maxsize=32)
def mel_filters(sample_rate: int, n_fft: int, bands: int) -> Tensor:
    """(K, bands) triangular filters on O'Shaughnessy's mel scale, each of unit sum.

    A band narrower than a bin takes the nearest bin, so that no band is empty.
    """
    top = 2595.0 * math.log10(1.0 + sample_rate / 2 / 700.0)
    edges_hz = 700.0 * (10.0 ** (torch.linspace(0, top, bands + 2, dtype=torch.float64) / 2595.0) - 1.0)
    bins = edges_hz * n_fft / sample_rate
    k = torch.arange(n_fft // 2 + 1, dtype=torch.float64)[:, None]
    low, centre, high = bins[:-2], bins[1:-1], bins[2:]
    filters = torch.minimum((k - low) / (centre - low), (high - k) / (high - centre)).clamp_min(0.0)
    nearest = (k - centre).abs().argmin(dim=0)
    filters[nearest, torch.arange(bands)] = filters[nearest, torch.arange(bands)].clamp_min(1e-3)
    return (filters / filters.sum(dim=0)).float()


def stft(audio: Tensor, n_fft: int) -> Tensor:
    """(B, S) -> complex (B, T, K) at hop n_fft / 4; a full-scale sine has magnitude 1."""
    window = _window(n_fft).to(audio.device)
    frames = F.pad(audio, (n_fft // 2, n_fft // 2)).unfold(-1, n_fft, n_fft // 4)
    return torch.fft.rfft(frames * window, dim=-1)


@lru_cache(maxsize=8)
def _window(n_fft: int) -> Tensor:
    window = torch.hann_window(n_fft)
    return window * (2.0 / window.sum())


def _magnitude(spectrum: Tensor) -> Tensor:
    # abs() of a complex zero has no finite second moment of its gradient: keep clear of it
    return (spectrum.real.square() + spectrum.imag.square() + 1e-12).sqrt()


def log_mel_l1(estimate: Tensor, target: Tensor, filters: Tensor, floor: float = 1e-5) -> Tensor:
    """Mean |difference| of natural-log mel magnitudes (B, T, K); `floor` is -100 dB re a full-scale sine."""
    return F.l1_loss((estimate @ filters + floor).log(), (target @ filters + floor).log())


def magnitude_loss(estimate: Tensor, target: Tensor) -> Tensor:
    """Spectral convergence (Arik et al. 2018) of each example's magnitudes (B, T, K), mean over B."""
    error = (estimate - target).square().sum(dim=(1, 2))
    energy = target.square().sum(dim=(1, 2))
    scale = energy + target[0].numel() * LEVEL_FLOOR_POWER
    return ((error + 1e-12 * scale).sqrt() / scale.sqrt() - 1e-6).mean()


def complex_loss(estimate: Tensor, target: Tensor) -> Tensor:
    """L1 of complex spectra (B, T, K) relative to each frame's level.

    The scale of a frame is its mean magnitude plus a tenth of the example's: decays count, silence does not.
    """
    magnitude = _magnitude(target)
    frame = magnitude.mean(dim=2, keepdim=True)
    scale = frame + 0.1 * frame.mean(dim=1, keepdim=True) + math.sqrt(LEVEL_FLOOR_POWER)
    return ((_magnitude(estimate - target) - 1e-6) / scale).mean()


def level_loss(estimate: Tensor, target: Tensor, filters: Tensor) -> Tensor:
    """Mean |level error| in units of 10 dB, over frames and bands.

    Magnitudes (B, T, K); powers below -70 dB do not count.
    """

    def levels(magnitude: Tensor) -> Tensor:
        return ((magnitude.square() @ filters + LEVEL_FLOOR_POWER) * filters.shape[0]).log10()

    return F.l1_loss(levels(estimate), levels(target))


def frame_level_loss(estimate: Tensor, target: Tensor) -> Tensor:
    """Mean |error| of whole frames' levels, the bands together, in units of 10 dB: what the ILD is made of.

    Magnitudes (B, T, K). An error of each ear's own ends up in the difference of the two, which is often
    smaller than 3 dB.
    """

    def levels(magnitude: Tensor) -> Tensor:
        return (magnitude.square().sum(dim=-1) + 10 * LEVEL_FLOOR_POWER).log10()

    return F.l1_loss(levels(estimate), levels(target))


class LevelReadout(nn.Module):
    """Latents (B, F, D) -> levels (B, F, M + 1) in units of 10 dB, linear: M mel bands and the whole frame.

    Trained with the codec and dropped afterwards. It makes the latents say levels in straight lines: whatever
    generates them then has an ILD of 2 dB as one direction of the ears' difference, not as a bend in forty
    dimensions. Without it a linear fit finds 73 to 94 % of the bands' variance, with errors larger than ILDs.
    """

    def __init__(self, latent_dim: int, bands: int) -> None:
        super().__init__()
        self.bands = bands
        self.linear = nn.Linear(latent_dim, bands + 1)

    def forward(self, latents: Tensor) -> Tensor:
        return self.linear(latents)

    def targets(self, codec: SpectralCodec, audio: Tensor) -> Tensor:
        """What should be read, from audio (B, 1, S) of whole latent frames."""
        power = codec.stft(audio[:, 0]).abs().square().unflatten(1, (-1, codec.config.downsample)).mean(dim=2)
        filters = mel_filters(codec.sample_rate, codec.config.n_fft, self.bands).to(audio.device)
        bands = (power @ filters + LEVEL_FLOOR_POWER) * filters.shape[0]
        whole = power.sum(dim=-1, keepdim=True) + 10 * LEVEL_FLOOR_POWER
        return torch.cat([bands, whole], dim=-1).log10()


def reconstruction_losses(
    estimate: Tensor, target: Tensor, sample_rate: int, config: SpectralLossConfig | None = None
) -> dict[str, Tensor]:
    """Unweighted terms {mel, magnitude, complex, level, frame} of audio (B, 1, S); always float32."""
    config = config or SpectralLossConfig()
    parts: dict[str, Tensor] = {
        name: target.new_zeros(()) for name in ("mel", "magnitude", "complex", "level", "frame")
    }
    with torch.autocast(target.device.type, enabled=False):
        estimate, target = estimate[:, 0].float(), target[:, 0].float()
        for n_fft, bands in SCALES:
            spectrum, reference = stft(estimate, n_fft), stft(target, n_fft)
            magnitude, reference_magnitude = _magnitude(spectrum), _magnitude(reference)
            filters = mel_filters(sample_rate, n_fft, bands).to(target.device)
            mel = log_mel_l1(magnitude, reference_magnitude, filters)
            parts["mel"] = parts["mel"] + mel / len(SCALES)
            convergence = magnitude_loss(magnitude, reference_magnitude)
            parts["magnitude"] = parts["magnitude"] + convergence / len(SCALES)
            if n_fft in config.complex_n_ffts:
                low = slice(0, int(config.phase_cutoff_hz * n_fft / sample_rate) + 1)
                term = complex_loss(spectrum[..., low], reference[..., low])
                parts["complex"] = parts["complex"] + term / len(config.complex_n_ffts)
            if n_fft == config.level_n_fft:
                wide = mel_filters(sample_rate, n_fft, config.level_bands).to(target.device)
                parts["level"] = level_loss(magnitude, reference_magnitude, wide)
            if n_fft == config.frame_n_fft:
                parts["frame"] = frame_level_loss(magnitude, reference_magnitude)
    return parts


def add_latent_noise(latents: Tensor, std: float, generator: torch.Generator | None = None) -> Tensor:
    """Noise of `std` times each dimension's own deviation over the batch, as a flow's error would be.

    Relative, so that the encoder cannot drown it by scaling its latents up.
    """
    spread = latents.detach().std(dim=(0, 1)) if latents.shape[0] * latents.shape[1] > 1 else 1.0
    return latents + std * spread * _randn_like(latents, generator)


def _randn_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    device = x.device if generator is None else generator.device
    return torch.randn(x.shape, generator=generator, device=device, dtype=x.dtype).to(x.device)


def spectral_codec_loss(
    codec: SpectralCodec,
    audio: Tensor,
    generator: torch.Generator | None = None,
    config: SpectralLossConfig | None = None,
    readout: LevelReadout | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """One training step's loss for audio (B, 1, S): weighted sum and detached unweighted parts.

    readout: also asks the noisy latents for levels; S is then to be a whole number of latent frames.
    Call it under autocast for bf16: the STFTs, the head and the losses stay float32.
    """
    config = config or SpectralLossConfig()
    mean, logvar = codec.encode_distribution(audio)
    latents = mean + (0.5 * logvar).exp() * _randn_like(mean, generator)
    latents = add_latent_noise(latents, config.noise_std, generator)
    estimate = codec.decode(latents, audio.shape[-1])
    parts = reconstruction_losses(estimate, audio, codec.sample_rate, config)
    parts["kl"] = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean()
    loss = (
        config.mel_weight * parts["mel"]
        + config.magnitude_weight * parts["magnitude"]
        + config.complex_weight * parts["complex"]
        + config.level_weight * parts["level"]
        + config.frame_weight * parts["frame"]
        + config.kl_weight * parts["kl"]
    )
    if readout is not None:
        with torch.autocast(audio.device.type, enabled=False):
            parts["readout"] = F.l1_loss(readout(latents.float()), readout.targets(codec, audio))
        loss = loss + config.readout_weight * parts["readout"]
    return loss, {name: value.detach() for name, value in parts.items()}
