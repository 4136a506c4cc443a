"""What an audio network says of sounds, and how its checkpoint is put in."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor


class NetworkOutput(NamedTuple):
    """embeddings (B, K, D), K of them for each sound; logits (B, classes) of the 527 of AudioSet, or None."""

    embeddings: Tensor
    logits: Tensor | None = None


def padded(audio: Tensor, samples: int) -> Tensor:
    """(B, S) -> (B, max(S, samples)): silence after a sound that is shorter than a network takes."""
    return F.pad(audio, (0, max(0, samples - audio.shape[-1])))
