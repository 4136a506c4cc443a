"""Whether features are those that a training takes: of its lengths and rates, its widths, its encoders.

Without these checks features of another model fail deep in the network, or, where the widths happen to agree,
train on what the encoders at inference never say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bi_audio_dataset.schema import UserError
from visaudio.model.network import NetworkConfig
from visaudio.sequence import SequenceConfig

if TYPE_CHECKING:
    from visaudio.data.feature_store import FeatureDataset
    from visaudio.data.parts import Parts

TODO = "extract the features again with this model's parts (python -m visaudio.data.features)"


def check_features(samples: Any, sequence: SequenceConfig, network: NetworkConfig) -> None:
    """Raise UserError, in one line, for features of another rate or of other widths.

    samples: what says nothing of where it came from (`made_from`), or holds nothing, is not looked at.
    """
    made_from: Mapping[str, Any] | None = getattr(samples, "made_from", None)
    if made_from is None or not len(samples.ids):
        return
    _check_sequence(made_from, sequence, samples.folder)
    cells = network.spatial_rows * network.spatial_columns
    expected = {
        "latents": (network.token_dim // sequence.frames_per_token,),
        "clip": (network.clip_dim,),
        "sync": (network.sync_dim,),
        "grid": (cells, network.spatial_dim),
        "text": (network.text_tokens, network.text_dim),
    }
    for name, shape in expected.items():
        found = samples.shapes[name][-len(shape) :]
        if found != shape:
            raise UserError(
                f"the features in '{samples.folder}' are of another encoder: {name} has {_sizes(found)} "
                f"dimensions, this model takes {_sizes(shape)}; {TODO}"
            )


def check_weights(samples: FeatureDataset, parts: Parts) -> None:
    """Raise UserError for features that were not made by these parts' weights and settings."""
    now = parts.made_from()
    _check_sequence(samples.made_from, parts.sequence, samples.folder)
    there = samples.made_from["weights"]
    wrong = [name for name in {**there, **now["weights"]} if there.get(name) != now["weights"].get(name)]
    if wrong:
        raise UserError(
            f"the features in '{samples.folder}' were made by other weights or settings of "
            f"{', '.join(wrong)} than this training's; {TODO}, or name those parts in the configuration"
        )


def _check_sequence(made_from: Mapping[str, Any], sequence: SequenceConfig, folder: Any) -> None:
    there = made_from["sequence"]
    wrong = [
        f"{name} {there.get(name)}, this model's is {value}"
        for name, value in asdict(sequence).items()
        if there.get(name) != value
    ]
    if wrong:
        raise UserError(
            f"the features in '{folder}' are of another rate or length: {'; '.join(wrong)}. {TODO}"
        )


def _sizes(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
