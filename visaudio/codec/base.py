"""The codec interface: mono waveform <-> latents, and both ears through one mono codec.

Legend: B batch, S samples, F latent frames, D latent dimensions; ear 0 = left.
Every codec keeps lengths right to the sample: `encode` pads S to F = ceil(S / latent_hop) whole
frames, `decode` gives F * latent_hop samples or the first `num_samples` of them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


def num_frames(num_samples: int, hop: int) -> int:
    """Whole latent frames that hold `num_samples` samples (at least one)."""
    if num_samples < 1:
        raise ValueError(f"expected at least 1 sample, got {num_samples}")
    return -(-num_samples // hop)


def pad_to_frames(audio: Tensor, hop: int) -> Tensor:
    """Zero-pad (B, 1, S) on the right to whole frames: (B, 1, F * hop)."""
    if audio.ndim != 3 or audio.shape[1] != 1:
        raise ValueError(f"expected mono audio of shape (batch, 1, samples), got {tuple(audio.shape)}")
    samples = audio.shape[-1]
    return F.pad(audio, (0, num_frames(samples, hop) * hop - samples))


def trim(audio: Tensor, num_samples: int | None) -> Tensor:
    """First `num_samples` of (B, 1, S); None keeps all. Raises ValueError if there are fewer."""
    if num_samples is None:
        return audio
    if not 1 <= num_samples <= audio.shape[-1]:
        raise ValueError(f"num_samples must be 1 to {audio.shape[-1]} for these latents, got {num_samples}")
    return audio[..., :num_samples]


class Codec(nn.Module):
    """Base of all codecs. Subclasses set the three attributes and implement `encode` and `decode`."""

    sample_rate: int
    latent_hop: int
    latent_dim: int

    def encode(self, audio: Tensor) -> Tensor:
        """(B, 1, S) at `sample_rate` -> latents (B, F, D), F = ceil(S / latent_hop)."""
        raise NotImplementedError

    def decode(self, latents: Tensor, num_samples: int | None = None) -> Tensor:
        """(B, F, D) -> (B, 1, num_samples), by default all F * latent_hop samples."""
        raise NotImplementedError

    def encode_binaural(self, audio: Tensor) -> Tensor:
        """(B, 2, S) -> (B, 2, F, D): each ear alone through the mono codec."""
        if audio.ndim != 3 or audio.shape[1] != 2:
            raise ValueError(f"expected audio of shape (batch, 2, samples), got {tuple(audio.shape)}")
        latents = self.encode(rearrange(audio, "b ear s -> (b ear) 1 s"))
        return rearrange(latents, "(b ear) f d -> b ear f d", ear=2)

    def decode_binaural(self, latents: Tensor, num_samples: int | None = None) -> Tensor:
        """(B, 2, F, D) -> (B, 2, num_samples)."""
        if latents.ndim != 4 or latents.shape[1] != 2 or latents.shape[3] != self.latent_dim:
            raise ValueError(
                f"expected latents of shape (batch, 2, frames, {self.latent_dim}), got {tuple(latents.shape)}"
            )
        audio = self.decode(rearrange(latents, "b ear f d -> (b ear) f d"), num_samples)
        return rearrange(audio, "(b ear) 1 s -> b ear s", ear=2)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device
