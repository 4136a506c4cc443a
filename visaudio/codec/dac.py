"""The Descript Audio Codec (Kumar et al. 2023, arXiv 2306.06546) as continuous latents, by transformers.

Latents, by DacCodecConfig.latents:

- "projected": the projected latents before quantisation, codebook after codebook (9 x 8 = 72 dimensions at
  44100 / 512 Hz). Decoding snaps each codebook's part to its nearest code, then runs the decoder, so a small
  error of the flow is rounded away.
- "continuous": the encoder's output, before any quantiser, in its first principal components. Decoding goes
  back through the transpose, and from there into the decoder or, with `requantise`, through the quantisers
  first.

Legend: B batch, S samples, F latent frames, H width of the encoder's output, Q codebooks,
D = codebooks * codebook_dim or pca_dims.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from bi_audio_dataset.schema import UserError, reason_of
from visaudio import hub_access, weight_files
from visaudio.codec.base import Codec, pad_to_frames, trim
from visaudio.codec.pca import Pca, StreamingCovariance

OWN = "give a folder of transformers' or Descript's .pth that you have"


@dataclass(frozen=True)
class DacCodecConfig:
    """DAC 44.1 kHz by default.

    `weights`: a Hub id ("descript/dac_44khz"), a transformers folder, or Descript's own .pth; the sizes are
    then the checkpoint's. None gives random weights of the sizes below, for training to begin with.
    latents: what a flow is to generate, see above; pca_dims and requantise count for "continuous" alone,
    whose PCA the codec stage of train.py fits.
    """

    weights: str | None = None
    sample_rate: int = 44100
    strides: tuple[int, ...] = (2, 4, 8, 8)
    encoder_width: int = 64
    decoder_width: int = 1536
    num_codebooks: int = 9
    codebook_size: int = 1024
    codebook_dim: int = 8
    latents: Literal["projected", "continuous"] = "projected"
    pca_dims: int = 72
    requantise: bool = False

    def __post_init__(self) -> None:
        if self.latents not in ("projected", "continuous"):
            raise UserError(f"DAC latents are 'projected' or 'continuous', got {self.latents!r}")
        if self.pca_dims < 1:
            raise UserError(f"pca_dims is {self.pca_dims}, expected at least 1")
        if any(stride % 2 for stride in self.strides):
            raise UserError(
                f"DAC strides must be even, got {tuple(self.strides)}: at odd ones lengths go wrong"
            )

    @property
    def latent_hop(self) -> int:
        return math.prod(self.strides)

    @property
    def latent_dim(self) -> int:
        return self.pca_dims if self.latents == "continuous" else self.num_codebooks * self.codebook_dim

    @property
    def hidden_dim(self) -> int:
        """H: every stride doubles the encoder's width."""
        return self.encoder_width * 2 ** len(self.strides)


class DacCodec(Codec):
    """Mono DAC; `config` holds the sizes actually loaded."""

    def __init__(self, config: DacCodecConfig | None = None) -> None:
        super().__init__()
        config = config or DacCodecConfig()
        self.config, self.model = _load(config) if config.weights else (config, _random(config))
        self.sample_rate, self.latent_dim = self.config.sample_rate, self.config.latent_dim
        self.latent_hop = self.config.latent_hop
        if self.config.latents == "continuous":
            self.pca = Pca(self.config.hidden_dim, self.config.pca_dims)
        self.model.eval()

    def train(self, mode: bool = True) -> DacCodec:
        """Stays in evaluation mode: in training transformers drops codebooks at random."""
        return super().train(False)

    def encode(self, audio: Tensor) -> Tensor:
        with torch.autocast(audio.device.type, enabled=False):
            hidden = self.hidden(audio)
            if self.config.latents == "continuous":
                return self.pca.encode(hidden.transpose(1, 2))
            return self.project(hidden)

    def hidden(self, audio: Tensor) -> Tensor:
        """(B, 1, S) -> the encoder's output (B, H, F)."""
        return self.model.encoder(pad_to_frames(audio, self.latent_hop).float())

    def project(self, hidden: Tensor) -> Tensor:
        """(B, H, F) -> projected latents (B, F, Q * codebook_dim): each book sees what the others left."""
        parts = []
        for quantizer in self.model.quantizer.quantizers:
            latents = quantizer.in_proj(hidden)
            parts.append(latents)
            hidden = hidden - quantizer.out_proj(quantizer.decode_latents(latents)[0])
        return torch.cat(parts, dim=1).transpose(1, 2)

    def quantise(self, projected: Tensor) -> Tensor:
        """Projected latents (B, F, Q * codebook_dim) -> the decoder's input (B, H, F), of nearest codes."""
        snapped = self._snap(projected)
        quantizers = self.model.quantizer.quantizers
        return sum(q.out_proj(values) for q, (values, _) in zip(quantizers, snapped, strict=True))

    def codes(self, latents: Tensor) -> Tensor:
        """(B, F, D) -> codebook indices (B, Q, F)."""
        if self.config.latents == "continuous":
            latents = self.project(self.pca.decode(latents.float()).transpose(1, 2))
        return torch.stack([codes for _, codes in self._snap(latents)], dim=1)

    def decode(self, latents: Tensor, num_samples: int | None = None) -> Tensor:
        if latents.ndim != 3 or latents.shape[-1] != self.latent_dim:
            raise ValueError(
                f"expected latents of shape (batch, frames, {self.latent_dim}), got {tuple(latents.shape)}"
            )
        with torch.autocast(latents.device.type, enabled=False):
            if self.config.latents == "projected":
                hidden = self.quantise(latents)
            else:
                hidden = self.pca.decode(latents.float()).transpose(1, 2)
                if self.config.requantise:
                    hidden = self.quantise(self.project(hidden))
            return trim(self.model.decoder(hidden).float(), num_samples)

    @torch.no_grad()
    def fit_pca(self, batches: Iterable[Tensor]) -> float:
        """Fit the PCA to the encoder's output for mono batches (B, 1, S); returns the share of variance kept.

        Of a batch only whole frames of its own count, not one that zeros fill up.
        """
        if self.config.latents != "continuous":
            raise UserError("a PCA belongs to DAC latents of the kind 'continuous'; these are 'projected'")
        found = StreamingCovariance(self.config.hidden_dim)
        for audio in batches:
            audio = audio[..., : audio.shape[-1] // self.latent_hop * self.latent_hop]
            if audio.shape[-1]:
                found.add(self.hidden(audio.to(self.device)).transpose(1, 2).flatten(0, 1))
        self.pca.fit(found)
        return float(self.pca.kept)

    def _snap(self, latents: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Per codebook: nearest code vectors (B, codebook_dim, F) and their indices (B, F)."""
        parts = latents.float().transpose(1, 2).split(self.config.codebook_dim, dim=1)
        quantizers = self.model.quantizer.quantizers
        return [quantizer.decode_latents(part) for quantizer, part in zip(quantizers, parts, strict=True)]


def _random(config: DacCodecConfig) -> nn.Module:
    from transformers import DacConfig, DacModel

    return DacModel(
        DacConfig(
            encoder_hidden_size=config.encoder_width,
            decoder_hidden_size=config.decoder_width,
            downsampling_ratios=list(config.strides),
            n_codebooks=config.num_codebooks,
            codebook_size=config.codebook_size,
            codebook_dim=config.codebook_dim,
            sampling_rate=config.sample_rate,
        )
    )


def _load(config: DacCodecConfig) -> tuple[DacCodecConfig, nn.Module]:
    """The checkpoint's own sizes and its model."""
    if Path(config.weights).suffix == ".pth":
        return _load_descript(config)
    from transformers import DacModel

    folder = _fetch(config.weights) if hub_access.on_hub(config.weights) else Path(config.weights)
    if not folder.is_dir():
        raise UserError(f"cannot load a DAC from {config.weights!r} (there is no such folder): {OWN}")
    try:
        how = {"use_safetensors": True, "output_loading_info": True, "local_files_only": True}
        model, loading = DacModel.from_pretrained(folder, **how)
    except Exception as error:  # transformers and safetensors raise whatever a damaged file makes them raise
        reason = reason_of(error, 160)
        raise UserError(f"cannot load a DAC from {config.weights!r} ({reason}): {OWN}") from error
    # transformers would go on with random weights in their place
    if missing := sorted(map(str, loading["missing_keys"])):
        raise UserError(
            f"{config.weights!r}: not the weights of a DAC: missing {missing[:2]} ({len(missing)} in all)"
        )
    loaded = model.config
    sizes = replace(
        config,
        sample_rate=loaded.sampling_rate,
        strides=tuple(loaded.downsampling_ratios),
        encoder_width=loaded.encoder_hidden_size,
        decoder_width=loaded.decoder_hidden_size,
        num_codebooks=loaded.n_codebooks,
        codebook_size=loaded.codebook_size,
        codebook_dim=loaded.codebook_dim,
    )
    return sizes, model


def _fetch(repository: str) -> Path:
    """The folder of a Hub repository's DAC: both files, of one commit."""
    try:
        sizes = hub_access.fetch_file(repository, "config.json", what="config.json")
        commit = hub_access.commit_of(sizes, "config.json")
        hub_access.fetch_file(repository, "model.safetensors", commit, what="model.safetensors")
    except UserError as error:
        raise UserError(f"cannot load a DAC from {repository!r}: {error}; or {OWN}") from error
    return sizes.parent


def _load_descript(config: DacCodecConfig) -> tuple[DacCodecConfig, nn.Module]:
    path = weight_files.fetch(config.weights, "DAC")
    checkpoint = weight_files.read(path, "DAC")
    try:
        state, kwargs = checkpoint["state_dict"], checkpoint["metadata"]["kwargs"]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: is no Descript .pth with state_dict and metadata.kwargs") from error
    strides = tuple(kwargs["encoder_rates"])
    if tuple(kwargs["decoder_rates"]) != strides[::-1]:
        raise UserError(f"{path}: decoder rates {kwargs['decoder_rates']} do not mirror {list(strides)}")
    sizes = replace(
        config,
        sample_rate=kwargs["sample_rate"],
        strides=strides,
        encoder_width=kwargs["encoder_dim"],
        decoder_width=kwargs["decoder_dim"],
        num_codebooks=kwargs["n_codebooks"],
        codebook_size=kwargs["codebook_size"],
        codebook_dim=kwargs["codebook_dim"],
    )
    model = _random(sizes)
    renamed = {rename_descript(k, len(strides)): v for k, v in merge_weight_norm(state).items()}
    weight_files.load_into(model, renamed, path, "the DAC of its own metadata")
    return sizes, model


def merge_weight_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace weight-norm pairs by w = g v / |v|, the norm over all but the first axis.

    Both spellings: `weight_g`, `weight_v`, and `parametrizations.weight.original0`, `original1`.
    """
    spellings = (
        ("weight_g", "weight_v"),
        ("parametrizations.weight.original0", "parametrizations.weight.original1"),
    )
    merged = {}
    for key, value in state.items():
        for gain, direction in spellings:
            if key.endswith(gain):
                stem = key[: -len(gain)]
                v = state[stem + direction]
                norm = v.flatten(1).norm(dim=1).view(-1, *[1] * (v.ndim - 1))
                merged[stem + "weight"] = value * v / norm
                break
            if key.endswith(direction):
                break
        else:
            merged[key] = value
    return merged


UNIT = {"0": "snake1", "1": "conv1", "2": "snake2", "3": "conv2"}


def rename_descript(key: str, num_strides: int) -> str:
    """Descript's parameter name (numbered layers) -> transformers' (named layers)."""
    if match := re.fullmatch(r"(encoder|decoder)\.(?:block|model)\.(\d+)\.(\w+)", key):
        side, index, leaf = match.groups()
        ends = {0: "conv1", num_strides + 1: "snake1", num_strides + 2: "conv2"}
        return f"{side}.{ends[int(index)]}.{leaf}"
    pattern = r"(encoder|decoder)\.(?:block|model)\.(\d+)\.block\.(\d+)(?:\.block\.(\d+))?\.(\w+)"
    if match := re.fullmatch(pattern, key):
        side, block, layer, unit, leaf = match.groups()
        stem = f"{side}.block.{int(block) - 1}"
        # encoder block: three residual units, snake, strided convolution; decoder: snake, convolution, units
        first_unit = 0 if side == "encoder" else 2
        if unit is not None:
            return f"{stem}.res_unit{int(layer) - first_unit + 1}.{UNIT[unit]}.{leaf}"
        names = {"3": "snake1", "4": "conv1"} if side == "encoder" else {"0": "snake1", "1": "conv_t1"}
        return f"{stem}.{names[layer]}.{leaf}"
    return key
