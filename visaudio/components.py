"""All parts of a model together, as `hub` loads and saves them and `sampling` uses them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from visaudio.codec.base import Codec
from visaudio.codec.kinds import build_codec
from visaudio.encoders.clip import ClipEncoder
from visaudio.encoders.perception import PerceptionEncoder
from visaudio.encoders.synchformer import SynchformerEncoder
from visaudio.model.network import DualBranchNetwork
from visaudio.presets import Preset
from visaudio.references import Reference
from visaudio.sampling import SamplingConfig

PARTS = ("codec", "clip", "synchformer", "network")  # of every model; see parts_of
OPTIONAL = ("spatial",)
_MAKERS = {
    "codec": build_codec,
    "clip": ClipEncoder,
    "synchformer": SynchformerEncoder,
    "network": DualBranchNetwork,
    "spatial": PerceptionEncoder,
}


def parts_of(preset: Preset) -> tuple[str, ...]:
    """Names of the parts that a model of this preset has; those of its fields too."""
    return PARTS + tuple(part for part in OPTIONAL if getattr(preset, part) is not None)


def build_part(part: str, config: Any) -> nn.Module:
    """A part in evaluation mode without gradients; weights that its config names are loaded."""
    return _MAKERS[part](config).eval().requires_grad_(False)


@dataclass(frozen=True)
class ModelInfo:
    """What a model card says and a program may ask.

    licence: of the weights that are stored, the strictest of all that entered (licences.py). datasets: Hub
    names of what it was trained on. training: free-form summary (data, steps). results: what an evaluation
    wrote (model_card.read_results), with the command and commit that made it.
    """

    licence: str = "apache-2.0"
    provenance: str = ""
    limits: str = ""
    training: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    datasets: tuple[str, ...] = ()


@dataclass
class Components:
    """All parts of a model, in evaluation mode.

    references: part -> the published files that its weights were loaded from (references.py).
    """

    preset: Preset
    codec: Codec
    clip: ClipEncoder
    synchformer: SynchformerEncoder
    network: DualBranchNetwork
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    info: ModelInfo = field(default_factory=ModelInfo)
    spatial: PerceptionEncoder | None = None
    references: dict[str, tuple[Reference, ...]] = field(default_factory=dict)

    @property
    def parts(self) -> tuple[str, ...]:
        return parts_of(self.preset)

    @property
    def device(self) -> torch.device:
        return self.network.latent_mean.device

    def to(self, device: torch.device | str) -> Components:
        """Moves every part, in place; returns itself."""
        for part in self.parts:
            getattr(self, part).to(device)
        return self


def build_components(preset: Preset) -> Components:
    """All parts of a preset; weights that its configs name are loaded, all others are random."""
    made = {part: build_part(part, getattr(preset, part)) for part in parts_of(preset)}
    return Components(preset=preset, **made)
