"""A Perception Encoder (Bolya et al. 2025, arXiv 2504.13181) through timm: patch tokens for space alone.

It may take the place of CLIP's patch tokens: PE-Spatial is tuned for where things are. The network is timm's;
its weights are timm's public ones (Apache 2.0), or Meta's own files and open_clip's PE-Core, whose names timm
translates. timm is imported where it is needed: it costs seconds.

Legend: B batch, T frames, H x W patch grid, R x C pooled grid, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from bi_audio_dataset.schema import UserError, reason_of
from visaudio import weight_files
from visaudio.encoders.frames import ResizeMode, prepare_frames
from visaudio.encoders.grid import pool_grid

PUBLIC = "public"
FAMILY = "vit_pe_"  # of timm's names
# of PE-Core's files: its pooling and projection into the joint space, which patch tokens do without
NOT_FOR_PATCHES = ("attn_pool.", "head.")


@dataclass(frozen=True)
class PerceptionConfig:
    """model_name: timm's (`vit_pe_spatial_base_patch16_512`), or open_clip's (`PE-Core-L-14-336`).

    weights: "public" is what timm publishes for that name; a file or Hub source (weight_files.py); None is
    random. Sizes: None is the model's own. image_size may differ from the weights': positions are resampled.
    """

    model_name: str = "vit_pe_spatial_large_patch14_448"
    weights: str | None = PUBLIC
    grid_rows: int = 2
    grid_columns: int = 8
    resize: str = "squash"
    max_batch: int = 16
    image_size: int | None = None
    patch_size: int | None = None
    width: int | None = None
    depth: int | None = None
    heads: int | None = None

    @property
    def source(self) -> str | None:
        """Where the weights come from, as in weight_files.py; None for random ones."""
        if self.weights != PUBLIC:
            return self.weights
        import timm

        return f"{timm.get_pretrained_cfg(_timm_name(self.model_name)).hf_hub_id}:model.safetensors"

    @property
    def output_dim(self) -> int:
        """D, without memory for the weights."""
        return _output_dim(self)


class PerceptionEncoder(nn.Module):
    """Frozen. Attributes: image_size, grid_dim (D of patch tokens)."""

    def __init__(self, config: PerceptionConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or PerceptionConfig()
        source = config.source
        # found before the network is built: the large ones take their time
        file = None if source is None else weight_files.fetch(source, "the Perception Encoder")
        self.model = _build(config)
        self.image_size: int = self.model.patch_embed.img_size[0]
        self.grid_dim: int = self.model.num_features
        pretrained = self.model.pretrained_cfg
        self.register_buffer("mean", torch.tensor(pretrained["mean"])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(pretrained["std"])[:, None, None], persistent=False)
        if file is not None:
            self.load_weights(weight_files.read_state(file, "the Perception Encoder"), source)

    def prepare(self, frames: Tensor | np.ndarray, mode: ResizeMode | None = None) -> Tensor:
        """uint8 (T, H, W, 3) -> uint8 (T, 3, image_size, image_size); mode defaults to config.resize."""
        return prepare_frames(frames, self.image_size, mode or self.config.resize)

    def encode_patches(self, frames: Tensor) -> Tensor:
        """(B, T, 3, S, S), uint8 or float in [0, 1] -> final patch tokens, (B, T, H, W, D)."""
        return self._in_chunks(frames, lambda tokens: tokens)

    def encode_grid(self, frames: Tensor) -> Tensor:
        """As `encode_patches`, but pooled: (B, T, R * C, D) float32, what CLIP's grid is else."""
        rows, columns = self.config.grid_rows, self.config.grid_columns
        return self._in_chunks(frames, lambda tokens: pool_grid(tokens, rows, columns).float())

    def _in_chunks(self, frames: Tensor, finish: Callable[[Tensor], Tensor]) -> Tensor:
        """Patch tokens of a few pictures at a time: those of 8 s at once are 270 MB."""
        if frames.ndim != 5 or frames.shape[2:] != (3, self.image_size, self.image_size):
            raise ValueError(
                f"expected frames of shape (B, T, 3, {self.image_size}, {self.image_size}), "
                f"got {tuple(frames.shape)}; use prepare()"
            )
        chunks = rearrange(frames, "b t c h w -> (b t) c h w").split(self.config.max_batch)
        return torch.cat([finish(self._encode(chunk)) for chunk in chunks]).unflatten(0, frames.shape[:2])

    def _encode(self, pictures: Tensor) -> Tensor:
        scaled = pictures.float() / 255.0 if pictures.dtype == torch.uint8 else pictures
        (tokens,) = self.model.forward_intermediates(
            (scaled - self.mean) / self.std, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True
        )
        return rearrange(tokens, "n d h w -> n h w d")

    def load_weights(self, state: Mapping[str, Tensor], source: str = "these weights") -> None:
        """A state dict of timm's, Meta's or open_clip's names; every tensor of this network must be there."""
        from timm.models.eva import checkpoint_filter_fn

        what = f"the Perception Encoder {self.config.model_name}"
        try:
            translated = checkpoint_filter_fn(dict(state), self.model)
        except Exception as error:  # it takes shapes for granted, and raises whatever others make it raise
            reason = reason_of(error, 120)
            raise UserError(f"{source}: not the weights of {what} ({reason})") from error
        ours = {k: v for k, v in translated.items() if not k.startswith(NOT_FOR_PATCHES)}
        weight_files.load_into(self.model, ours, source, what)


def _timm_name(name: str) -> str:
    """timm's name of the picture tower that a config names."""
    import timm

    if name.startswith("PE-"):
        import open_clip

        described = open_clip.get_model_config(name) or {}
        name = described.get("vision_cfg", {}).get("timm_model_name", name)
    if not name.startswith(FAMILY) or not timm.is_model(name):
        known = ", ".join(timm.list_models(f"{FAMILY}spatial_*"))
        raise UserError(f"timm knows no Perception Encoder {name!r}; choose for example one of {known}")
    return name


def _build(config: PerceptionConfig) -> nn.Module:
    import timm

    sizes: dict[str, Any] = {
        "img_size": config.image_size,
        "patch_size": config.patch_size,
        "embed_dim": config.width,
        "depth": config.depth,
        "num_heads": config.heads,
    }
    changed = {name: value for name, value in sizes.items() if value is not None}
    name = _timm_name(config.model_name)
    try:
        # no pooling and no head: PE-Core's would turn the patches into one embedding
        model = timm.create_model(name, num_classes=0, global_pool="", **changed)
    except (AssertionError, RuntimeError, TypeError, ValueError, ZeroDivisionError) as error:
        reason = reason_of(error)
        raise UserError(f"{config.model_name} cannot be built with {changed}: {reason}") from error
    size, patch = model.patch_embed.img_size[0], model.patch_embed.patch_size[0]
    if size % patch:  # what is left over would be cut off at the right alone
        raise UserError(f"{config.model_name}: image_size {size} is no multiple of its patches' {patch}")
    return model


@lru_cache(maxsize=8)
def _output_dim(config: PerceptionConfig) -> int:
    with torch.device("meta"):
        return _build(config).num_features
