"""Where the frozen parts of a training come from: published weights, or the stages that train them here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bi_audio_dataset.schema import UserError
from visaudio.presets import Preset

FROZEN = ("codec", "clip", "synchformer")


def published(model: Preset) -> dict[str, str]:
    """Part -> where its published weights come from, for the parts of a preset that name some."""
    found = {}
    for part in (*FROZEN, "spatial"):
        config = getattr(model, part)
        name = getattr(config, "model_name", None)
        source = getattr(config, "source", getattr(config, "weights", None))
        if source is not None or (name or "").startswith(("hf-hub:", "local-dir:")):
            found[part] = " ".join(str(word) for word in (name, source) if word)
    return found


def trained(model: Preset) -> tuple[str, ...]:
    """Parts that have a stage: those without published weights, and a published DAC that is to get a PCA."""
    there = published(model)
    fitted = getattr(model.codec, "latents", None) == "continuous"
    return tuple(part for part in FROZEN if part not in there or (part == "codec" and fitted))


def make_part(model: Preset, part: str) -> Any:
    """One of the frozen parts, with its published weights where the preset names some."""
    from visaudio.codec.kinds import build_codec
    from visaudio.encoders.clip import ClipEncoder
    from visaudio.encoders.perception import PerceptionEncoder
    from visaudio.encoders.synchformer import SynchformerEncoder

    makers = {
        "codec": build_codec,
        "clip": ClipEncoder,
        "synchformer": SynchformerEncoder,
        "spatial": PerceptionEncoder,
    }
    return makers[part](getattr(model, part))


def load_parts(model: Preset, root: Path) -> tuple[Any, Any, Any]:
    """Codec, CLIP and Synchformer, frozen, on the CPU: the published ones, and of those that a stage below
    `root` has trained its weights. Raises UserError where some are missing."""
    own = trained(model)
    found = []
    for part in FROZEN:
        module = make_part(model, part)
        if part in own:
            load_weights(module, root / part / "model.safetensors")
        found.append(module.eval().requires_grad_(False))
    return tuple(found)


def load_spatial(model: Preset) -> Any:
    """The encoder that takes the place of CLIP's patch tokens, frozen, on the CPU; None where there is none.

    No stage trains one: its weights are published ones, or a file's.
    """
    if model.spatial is None:
        return None
    return make_part(model, "spatial").eval().requires_grad_(False)


def load_weights(module: torch.nn.Module, path: Path) -> torch.nn.Module:
    """``module`` with the weights at ``path``, in eval mode and without gradients."""
    from safetensors.torch import load_file

    if not path.is_file():
        raise UserError(
            f"{path} does not exist; run the stage that makes it first (--stages {path.parent.name})"
        )
    try:
        module.load_state_dict(load_file(str(path)))
    except RuntimeError as error:
        raise UserError(
            f"{path} does not fit this version of {type(module).__name__} "
            f"({str(error).splitlines()[-1].strip()}); remove {path.parent} to train it again"
        ) from error
    return module.eval().requires_grad_(False)
