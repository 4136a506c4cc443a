"""CLIP through open_clip: meaning from the pooled embedding, space from the patch tokens, and text.

The tiny encoder is open_clip's own CLIP class built from `ClipConfig`; a large one names an open_clip model
(`ViT-H-14-378-quickgelu`, or `hf-hub:...`: see clip_models.py). open_clip is imported in the constructor: it
costs seconds.

Legend: B batch, T frames, L text tokens, H x W patch grid, R x C pooled grid, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from bi_audio_dataset.schema import UserError
from visaudio import weight_files
from visaudio.encoders.clip_models import SAME_NETWORK, ClipModel, build, find_weights, make_tokenizer
from visaudio.encoders.frames import ResizeMode, prepare_frames
from visaudio.encoders.grid import pool_grid

BPE_VOCAB = 49408  # open_clip's byte-pair vocabulary, its last two ids start and end of text
HASH_MULTIPLIER = 2654435761  # Knuth's multiplicative hash: spreads neighbouring ids


@dataclass(frozen=True)
class ClipConfig:
    """The tiny encoder by default.

    With `model_name` the architecture is open_clip's and the sizes below are ignored but for the grid.
    `weights`: an open_clip tag, a file (.safetensors, or .bin/.pt read with weights_only) or a Hub source
    (weight_files.py); None is random, except that `hf-hub:` and `local-dir:` names bring their own.
    `input_size`: side of the pictures it is given, where that is not the model's own (MMAudio gives DFN5B's
    378 pixel tower 384).
    """

    model_name: str | None = None
    weights: str | None = None
    image_size: int = 128
    patch_size: int = 16
    width: int = 128
    layers: int = 3
    head_width: int = 32
    mlp_ratio: float = 4.0
    embed_dim: int = 128
    text_width: int = 64
    text_layers: int = 2
    text_heads: int = 2
    context_length: int = 32
    vocab_size: int = 4096
    grid_rows: int = 2
    grid_columns: int = 8
    resize: str = "squash"
    max_batch: int = 64
    input_size: int | None = None


def hash_tokens(ids: Tensor, vocab_size: int) -> Tensor:
    """open_clip BPE ids -> ids below `vocab_size`: 0 pads, the last two start and end a text.

    The end id stays the largest, for open_clip finds a text's end by argmax.
    """
    if vocab_size >= BPE_VOCAB:
        return ids
    hashed = 1 + (ids * HASH_MULTIPLIER % 2**32) % (vocab_size - 3)
    hashed = torch.where(ids == 0, 0, hashed)
    hashed = torch.where(ids == BPE_VOCAB - 2, vocab_size - 2, hashed)
    return torch.where(ids == BPE_VOCAB - 1, vocab_size - 1, hashed)


class ClipEncoder(nn.Module):
    """Frozen or trainable CLIP. Attributes: image_size, embed_dim, grid_dim (D of patch tokens), text_dim."""

    def __init__(self, config: ClipConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ClipConfig()
        file = fetch_weights(config)  # before the network is built: ViT-H takes its time
        self.model, self.described = _build(config)
        if file is not None:
            self.load_weights(file)
        visual = self.model.visual
        size = visual.image_size if isinstance(visual.image_size, tuple) else (visual.image_size,) * 2
        if size[0] != size[1]:
            raise UserError(f"expected a CLIP model with square pictures, got {size}")
        self.image_size: int = config.input_size or size[0]
        self.register_buffer("mean", torch.tensor(self.described.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(self.described.std)[:, None, None], persistent=False)
        self.embed_dim: int = self.model.text_projection.shape[-1]
        self.text_dim: int = self.model.ln_final.normalized_shape[0]
        self.grid_dim: int = visual.ln_post.normalized_shape[0]
        self.context_length: int = self.model.context_length
        self._tokenizer = None

    def prepare(self, frames: Tensor | np.ndarray, mode: ResizeMode | None = None) -> Tensor:
        """uint8 (T, H, W, 3) -> uint8 (T, 3, image_size, image_size); mode defaults to config.resize."""
        return prepare_frames(frames, self.image_size, mode or self.config.resize)

    def encode_patches(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, 3, S, S), uint8 or float in [0, 1] -> embeddings (B, T, embed_dim), not normalised, and the
        final patch tokens after the final norm (B, T, H, W, grid_dim)."""
        if frames.ndim != 5 or frames.shape[2:] != (3, self.image_size, self.image_size):
            raise ValueError(
                f"expected frames of shape (B, T, 3, {self.image_size}, {self.image_size}), "
                f"got {tuple(frames.shape)}; use prepare()"
            )
        batch = frames.shape[0]
        chunks = rearrange(frames, "b t c h w -> (b t) c h w").split(self.config.max_batch)
        pooled, tokens = zip(*(self._encode(chunk) for chunk in chunks), strict=True)
        return (
            rearrange(torch.cat(pooled), "(b t) d -> b t d", b=batch),
            rearrange(torch.cat(tokens), "(b t) d h w -> b t h w d", b=batch),
        )

    def _encode(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        scaled = pictures.float() / 255.0 if pictures.dtype == torch.uint8 else pictures
        out = self.model.visual.forward_intermediates(
            (scaled - self.mean) / self.std, indices=1, normalize_intermediates=True, output_fmt="NCHW"
        )
        return out["image_features"], out["image_intermediates"][-1]

    def encode_images(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """As `encode_patches`, but embeddings of unit norm, and tokens pooled to (B, T, R * C, grid_dim)."""
        pooled, tokens = self.encode_patches(frames)
        grid = pool_grid(tokens, self.config.grid_rows, self.config.grid_columns)
        return F.normalize(pooled.float(), dim=-1), grid.float()

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Texts -> ids (B, L) on the model's device; longer texts are cut, an empty one is start and end."""
        if self._tokenizer is None:
            self._tokenizer = make_tokenizer(self.config.model_name, self.described)
        ids = self._tokenizer(list(texts), context_length=self.context_length)
        if self.config.model_name is None:
            ids = hash_tokens(ids, self.config.vocab_size)
        return ids.to(self.mean.device)

    def encode_tokens(self, ids: Tensor) -> Tensor:
        """ids (B, L) -> all tokens after the final norm, before the projection: (B, L, text_dim)."""
        model = self.model
        x = model.token_embedding(ids) + model.positional_embedding[: ids.shape[1]]
        return model.ln_final(model.transformer(x, attn_mask=model.attn_mask[: ids.shape[1], : ids.shape[1]]))

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Texts -> (B, context_length, text_dim), every token after the final norm."""
        return self.encode_tokens(self.tokenize(texts)).float()

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Texts -> unit-norm joint embeddings (B, embed_dim), for contrastive training."""
        ids = self.tokenize(texts)
        tokens = self.encode_tokens(ids)
        end = tokens[torch.arange(len(ids), device=ids.device), ids.argmax(dim=-1)]
        return F.normalize((end @ self.model.text_projection).float(), dim=-1)

    def load_weights(self, source: str | Path) -> None:
        """A file or Hub source of open_clip's names; every tensor of this network must be there."""
        state = weight_files.read_state(source, "CLIP")
        if "logit_scale" in state:  # a number, or one in a vector
            state["logit_scale"] = state["logit_scale"].reshape(self.model.logit_scale.shape)
        weight_files.load_into(
            self.model, state, source, f"CLIP {self.config.model_name or 'of these sizes'}"
        )

    @property
    def logit_scale(self) -> Tensor:
        """Learned inverse temperature (already exponentiated)."""
        return self.model.logit_scale.exp()


def without_weights(config: ClipConfig) -> ClipConfig:
    """The same network, for a loader that brings its weights; nothing is fetched for it where that can be."""
    return replace(config, weights=None, model_name=SAME_NETWORK.get(config.model_name, config.model_name))


def fetch_weights(config: ClipConfig) -> Path | None:
    """The local file that a config's weights come from, fetched where it is not; None: random ones."""
    if config.model_name is not None:
        return find_weights(config.model_name, config.weights)
    return None if config.weights is None else weight_files.fetch(config.weights, "CLIP")


def _build(config: ClipConfig) -> tuple[nn.Module, ClipModel]:
    import open_clip

    if config.model_name is not None:
        model, described = build(config.model_name, config.weights)
    else:
        described = ClipModel(_sizes(config))
        model = open_clip.CLIP(**described.sizes)
    return model, described


def _sizes(config: ClipConfig) -> dict[str, Any]:
    return {
        "embed_dim": config.embed_dim,
        "vision_cfg": {
            "image_size": config.image_size,
            "patch_size": config.patch_size,
            "width": config.width,
            "layers": config.layers,
            "head_width": config.head_width,
            "mlp_ratio": config.mlp_ratio,
        },
        "text_cfg": {
            "context_length": config.context_length,
            "vocab_size": config.vocab_size,
            "width": config.text_width,
            "layers": config.text_layers,
            "heads": config.text_heads,
        },
    }
