"""What trains a DAC: its forward pass with codebooks dropped at random, the losses, and codebooks kept alive.

The reconstruction terms are those of the spectral codec (losses.py), which keep what two ears compare. DAC's
adversarial loss is left out: its discriminators cost more than the codec itself, and what they add is texture
above some kilohertz. A published DAC has had it.

Legend: B batch, S samples, F latent frames, H width of the encoder's output, Q codebooks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bi_audio_dataset.schema import UserError
from visaudio.codec.dac import DacCodec
from visaudio.codec.losses import SpectralLossConfig, reconstruction_losses


@dataclass(frozen=True)
class DacLossConfig:
    """commitment_weight, codebook_weight: Kumar et al. 2023. quantizer_dropout: share of the crops that
    have only the first 1 to Q codebooks, lest the last ones carry what the first ones should.
    refresh_every: steps after which codes that nothing uses move to where latents are, 0 is never;
    refresh_batches: batches that are asked.
    """

    commitment_weight: float = 0.25
    codebook_weight: float = 1.0
    quantizer_dropout: float = 0.5
    refresh_every: int = 100
    refresh_batches: int = 4

    def __post_init__(self) -> None:
        if not 0 <= self.quantizer_dropout <= 1:
            raise UserError(f"quantizer_dropout is {self.quantizer_dropout}, expected a share from 0 to 1")
        if self.refresh_every < 0 or self.refresh_batches < 1:
            raise UserError(
                f"refresh_every is {self.refresh_every} and refresh_batches {self.refresh_batches}, "
                "expected at least 0 and 1"
            )


def dac_codec_loss(
    codec: DacCodec,
    audio: Tensor,
    generator: torch.Generator | None = None,
    config: DacLossConfig | None = None,
    weights: SpectralLossConfig | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """One step's loss for audio (B, 1, S), S whole frames: weighted sum and detached unweighted parts."""
    config, weights = config or DacLossConfig(), weights or SpectralLossConfig()
    used = draw_codebooks(len(audio), codec.config.num_codebooks, config.quantizer_dropout, generator)
    hidden, commitment, codebook = quantise_for_training(
        codec, codec.model.encoder(audio), used.to(audio.device)
    )
    estimate = codec.model.decoder(hidden)
    parts = reconstruction_losses(estimate, audio, codec.sample_rate, weights)
    loss = sum(getattr(weights, f"{name}_weight") * value for name, value in parts.items())
    loss = loss + config.commitment_weight * commitment + config.codebook_weight * codebook
    parts |= {"commitment": commitment, "codebook": codebook}
    return loss, {name: value.detach() for name, value in parts.items()}


def draw_codebooks(
    batch: int, books: int, dropout: float, generator: torch.Generator | None = None
) -> Tensor:
    """(B,) how many codebooks each crop is to have: all of them, or 1 to Q with probability `dropout`."""
    device = "cpu" if generator is None else generator.device
    drop = torch.rand(batch, generator=generator, device=device) < dropout
    some = torch.randint(1, books + 1, (batch,), generator=generator, device=device)
    return torch.where(drop, some, books)


def quantise_for_training(codec: DacCodec, hidden: Tensor, used: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """hidden (B, H, F), used (B,) -> what the decoder gets (B, H, F), commitment and codebook loss.

    Gradients pass the rounding as if it were not there; books beyond a crop's count take no part in it.
    """
    residual, total = hidden.float(), torch.zeros_like(hidden, dtype=torch.float32)
    commitment = codebook = total.new_zeros(())
    for book, quantizer in enumerate(codec.model.quantizer.quantizers):
        mask = (book < used).to(total.dtype)
        values, straight, latents = _through(quantizer, residual)
        commitment = commitment + (mask * (latents - values.detach()).square().mean(dim=(1, 2))).mean()
        codebook = codebook + (mask * (values - latents.detach()).square().mean(dim=(1, 2))).mean()
        part = quantizer.out_proj(straight)
        total = total + mask[:, None, None] * part
        residual = residual - part
    return total, commitment, codebook


def _through(quantizer: nn.Module, residual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Nearest codes, the same with the latents' gradient, the latents: (B, codebook_dim, F) each."""
    latents = quantizer.in_proj(residual).float()
    values = quantizer.decode_latents(latents)[0]
    return values, latents + (values - latents).detach(), latents


def begin(codec: DacCodec) -> None:
    """Random weights that a signal gets through, and an output that starts quiet.

    DacModel's own (deviation 0.02 everywhere) are made for layers that are normalised and hundreds wide; in
    narrow ones they leave a thousandth of it.
    """
    for module in codec.model.modules():
        if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
            module.reset_parameters()
    with torch.no_grad():
        codec.model.decoder.conv2.weight.mul_(0.1)
        codec.model.decoder.conv2.bias.zero_()


@torch.no_grad()
def refresh_codebooks(codec: DacCodec, batches: Iterable[Tensor], seed: int, everything: bool = False) -> int:
    """Move codes that no frame of `batches` (B, 1, S) is nearest to onto latents drawn from them.

    Returns how many moved. everything: all codes, which gives a codebook its start. Books in turn, each on
    what the ones before it leave.
    """
    residual = torch.cat([codec.hidden(b.to(codec.device)).transpose(1, 2).flatten(0, 1) for b in batches])
    residual = residual.T[None]  # (1, H, all frames)
    generator, moved = torch.Generator().manual_seed(seed), 0
    for quantizer in codec.model.quantizer.quantizers:
        latents = quantizer.in_proj(residual)
        table = quantizer.codebook.weight
        idle = torch.ones(len(table), dtype=torch.bool, device=table.device)
        if not everything:
            idle[quantizer.decode_latents(latents)[1].flatten()] = False
        count = int(idle.sum())
        chosen = torch.randint(latents.shape[-1], (count,), generator=generator).to(table.device)
        # the nearest code is found by direction alone: lengths are to agree, or a code would set the level
        length = latents.norm(dim=1).mean() if everything else table.norm(dim=1).mean()
        table[idle] = (length * nn.functional.normalize(latents[0].T[chosen])).to(table.dtype)
        residual = residual - quantizer.out_proj(quantizer.decode_latents(latents)[0])
        moved += count
    return moved
