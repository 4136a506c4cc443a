"""What the network is told about a clip, and what it makes of it once per sampling run.

Legend: B samples, Tc video frames at the CLIP rate, Ts sync tokens, L text tokens, R x C grid cells
(row-major, column 0 = the picture's left), N latent tokens, D the network's width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

MODALITIES = ("clip", "sync", "text", "spatial")


class _Batch:
    """Batch operations over dataclass fields that are tensors with the batch first, or None."""

    def _map(self, function) -> Any:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: None if v is None else function(v) for k, v in values.items()})

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """As Tensor.to, but a dtype reaches floating tensors alone (presence flags stay boolean)."""

        def move(value: Tensor) -> Tensor:
            moved = value.to(*args, **kwargs)
            return moved if value.is_floating_point() else moved.to(value.dtype)

        return self._map(move)

    def index(self, index: Any) -> Any:
        """The samples that a slice, mask or index tensor selects."""
        return self._map(lambda v: v[index])

    def expand(self, batch: int) -> Any:
        """One sample, repeated (without a copy) to a batch."""
        return self._map(lambda v: v.expand(batch, *v.shape[1:]))

    @classmethod
    def concat(cls, parts: Sequence[Any]) -> Any:
        """Samples of all parts in a row. A field must be present in all of them or in none."""
        joined = {}
        for f in fields(cls):
            values = [getattr(p, f.name) for p in parts]
            if any(v is None for v in values) and any(v is not None for v in values):
                raise ValueError(f"cannot join conditions: {f.name} is missing from some of them")
            joined[f.name] = None if values[0] is None else torch.cat(values)
        return cls(**joined)


@dataclass(frozen=True)
class Conditions(_Batch):
    """Features of B clips. `present` (B, 4) says which of MODALITIES each sample has; None = all.

    hfov_rad (B,): the horizontal field of view, nan where unknown.
    """

    clip_features: Tensor  # (B, Tc, Dc) pooled image embeddings
    sync_features: Tensor  # (B, Ts, Ds) Synchformer
    text_features: Tensor  # (B, L, Dt) token features
    spatial_features: Tensor  # (B, Tc, R C, Dg) patch features on the grid
    hfov_rad: Tensor  # (B,)
    present: Tensor | None = None  # (B, 4) bool

    @property
    def batch_size(self) -> int:
        return self.clip_features.shape[0]

    def drop(self, masks: Mapping[str, Tensor]) -> Conditions:
        """A copy in which modality m of the samples where masks[m] (B,) is True counts as absent.

        The network puts its learned null features in their place. Names: clip, sync, text, spatial.
        """
        present = self.presence().clone()
        for name, mask in masks.items():
            if name not in MODALITIES:
                raise ValueError(f"unknown condition {name!r}; expected one of {', '.join(MODALITIES)}")
            present[:, MODALITIES.index(name)] &= ~mask.to(present.device)
        return replace(self, present=present)

    def presence(self) -> Tensor:
        """`present`, filled in: (B, 4) bool."""
        if self.present is not None:
            return self.present
        return torch.ones(self.batch_size, 4, dtype=torch.bool, device=self.clip_features.device)

    @classmethod
    def concat(cls, parts: Sequence[Conditions]) -> Conditions:
        return super().concat([replace(p, present=p.presence()) for p in parts])


@dataclass(frozen=True)
class PreparedConditions(_Batch):
    """Everything about the conditions that depends on neither the latents nor the time."""

    clip: Tensor  # (B, Tc, D)
    text: Tensor  # (B, L, D)
    sync: Tensor  # (B, N, D), at the latents' rate
    pooled: Tensor  # (B, D), of video and text
    spatial: Tensor | None = None  # (B, 2, N, D) of the spacetime module, per ear
    hidden: Tensor | None = None  # (B, 2, N, D) of the condition guess, per ear, for the input
    mean: Tensor | None = None  # (B, 2, N, latent dimensions): where it says the data lie


def random_masks(
    batch: int, probability: float | Mapping[str, float], generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Independent dropout decisions per sample and modality, for `Conditions.drop`."""
    chance = probability if isinstance(probability, Mapping) else dict.fromkeys(MODALITIES, probability)
    return {name: torch.rand(batch, generator=generator) < p for name, p in chance.items()}
