"""MMAudio's 44.1 kHz audio codec: waveform -> log-mel -> VAE latents, and back through BigVGAN v2.

40 latents at 44100 / 1024 Hz an ear. It is what MMAudio's public weights speak; a mel spectrogram keeps no
phase, and the vocoder makes up each ear's own: the ears' time difference is lost (docs/decisions.md).

Legend: B batch, S samples, T mel frames, M mel bands, F latent frames, D latent dimensions.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from bi_audio_dataset.schema import UserError
from visaudio import weight_files
from visaudio.codec.base import Codec, pad_to_frames, trim
from visaudio.codec.bigvgan import BigVgan, BigVganConfig, current_names
from visaudio.codec.mel_vae import MelVae, MelVaeConfig

MEL_FLOOR = 1e-5
POWER_FLOOR = 1e-9


@dataclass(frozen=True)
class MMAudioCodecConfig:
    """weights, vocoder_weights: files or Hub sources (weight_files.py) of the VAE and of BigVGAN; None gives
    random weights. The sizes must be those of the files."""

    weights: str | None = None
    vocoder_weights: str | None = None
    sample_rate: int = 44100
    n_fft: int = 2048
    hop: int = 512
    vae: MelVaeConfig = field(default_factory=MelVaeConfig)
    vocoder: BigVganConfig = field(default_factory=BigVganConfig)

    def __post_init__(self) -> None:
        if self.vocoder.hop != self.hop or self.vocoder.num_mels != self.vae.num_mels:
            raise UserError(
                f"the vocoder makes {self.vocoder.hop} samples of {self.vocoder.num_mels} bands, "
                f"the VAE's mel has {self.hop} and {self.vae.num_mels}: they must be equal"
            )

    @property
    def latent_hop(self) -> int:
        return 2 * self.hop

    @property
    def latent_dim(self) -> int:
        return self.vae.latent_dim


class LogMel(torch.nn.Module):
    """(B, S) -> (B, M, S / hop): natural logarithm of Slaney mel magnitudes, at least log(1e-5).

    The bands are area-normalised, from 0 to half the rate; frames are centred in their hop, with reflected
    edges.
    """

    def __init__(self, sample_rate: int, n_fft: int, hop: int, num_mels: int) -> None:
        super().__init__()
        from transformers.audio_utils import mel_filter_bank

        bank = mel_filter_bank(
            n_fft // 2 + 1, num_mels, 0.0, sample_rate / 2, sample_rate, norm="slaney", mel_scale="slaney"
        )
        self.n_fft, self.hop = n_fft, hop
        self.register_buffer("bank", torch.from_numpy(bank).float().T.contiguous(), persistent=False)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        edge = (self.n_fft - self.hop) // 2
        # reflection needs more samples than it mirrors: what is shorter is first continued by silence
        audio = F.pad(audio, (0, max(0, edge + 1 - audio.shape[-1])))
        audio = F.pad(audio[:, None], (edge, edge), mode="reflect")[:, 0]
        spectrum = torch.stft(
            audio, self.n_fft, self.hop, window=self.window, center=False, return_complex=True
        )
        power = torch.view_as_real(spectrum).square().sum(-1)
        return (self.bank @ (power + POWER_FLOOR).sqrt()).clamp(min=MEL_FLOOR).log()


class MMAudioCodec(Codec):
    """Latents are the VAE's mean; `decode` gives F * 1024 samples."""

    def __init__(self, config: MMAudioCodecConfig | None = None) -> None:
        super().__init__()
        config = self.config = config or MMAudioCodecConfig()
        self.sample_rate, self.latent_hop = config.sample_rate, config.latent_hop
        self.latent_dim = config.latent_dim
        self.vae, self.vocoder = MelVae(config.vae), BigVgan(config.vocoder)
        self.mel = LogMel(config.sample_rate, config.n_fft, config.hop, config.vae.num_mels)
        if config.weights is not None:
            state = weight_files.read_state(config.weights, "MMAudio's mel VAE")
            weight_files.load_into(self.vae, state, config.weights, "this mel VAE")
        if config.vocoder_weights is not None:
            state = current_names(weight_files.read_state(config.vocoder_weights, "BigVGAN"))
            weight_files.load_into(self.vocoder, state, config.vocoder_weights, "this BigVGAN")
        self.eval()

    def encode(self, audio: Tensor) -> Tensor:
        with torch.autocast(audio.device.type, enabled=False):
            mel = self.mel(pad_to_frames(audio, self.latent_hop)[:, 0].float())
            frames = -(-audio.shape[-1] // self.latent_hop)
            return self.vae.encode(mel[..., : 2 * frames])[0].transpose(1, 2)

    def decode(self, latents: Tensor, num_samples: int | None = None) -> Tensor:
        if latents.ndim != 3 or latents.shape[-1] != self.latent_dim:
            raise ValueError(
                f"expected latents of shape (batch, frames, {self.latent_dim}), got {tuple(latents.shape)}"
            )
        with torch.autocast(latents.device.type, enabled=False):
            mel = self.vae.decode(latents.float().transpose(1, 2))
            return trim(self.vocoder(mel), num_samples)


def read_vocoder_config(path: str | Path) -> BigVganConfig:
    """The sizes in the config.json beside a public BigVGAN checkpoint."""
    try:
        return BigVganConfig.from_upstream(json.loads(Path(path).read_text()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is no BigVGAN v2 config ({error})") from error
