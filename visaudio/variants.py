"""Models made of other projects' public weights: MMAudio's, both ears with the one sound it was trained for.

`python sample.py --video x.mp4 --variant mmaudio-large-44k-v2` runs on them before anyone has trained a
binaural model at that size: the trunk goes to both ears' branches, all that is new is silent (warm_start.py),
and both start from one noise, so that the ears are equal. Fine-tuning starts from the same weights
(`init_from`). MMAudio: arXiv 2412.15322; its weights are CC BY-NC 4.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from bi_audio_dataset.schema import UserError
from visaudio import hub, weight_files
from visaudio.codec.mmaudio import MMAudioCodecConfig
from visaudio.encoders.clip import ClipConfig
from visaudio.encoders.synchformer import SynchformerConfig
from visaudio.model.network import NetworkConfig
from visaudio.model.warm_start import LICENCE, REPOSITORY, load_mmaudio_state_dict
from visaudio.presets import Preset, compose, get_preset
from visaudio.sampling import SamplingConfig

_BIGVGAN = "nvidia/bigvgan_v2_44khz_128band_512x"
CODEC = MMAudioCodecConfig(
    weights=f"{REPOSITORY}:ext_weights/v1-44.pth", vocoder_weights=f"{_BIGVGAN}:bigvgan_generator.pt"
)
# the tower is native at 378 pixels; MMAudio gives it 384, of which its patches take 378
CLIP = replace(
    get_preset("small").clip,
    model_name="hf-hub:apple/DFN5B-CLIP-ViT-H-14-384",
    weights=None,
    input_size=384,
)
SYNCHFORMER = replace(get_preset("small").synchformer, resize="crop")
LIMITS = (
    "MMAudio's public weights without any binaural training: both ears get the same sound. Their licence "
    "(CC BY-NC 4.0) allows no commercial use."
)


@dataclass(frozen=True)
class Variant:
    """weights: the network's, a file or a Hub source (weight_files.py); clip, synchformer and codec name
    theirs themselves."""

    name: str
    weights: str
    network: NetworkConfig
    codec: MMAudioCodecConfig = CODEC
    clip: ClipConfig = CLIP
    synchformer: SynchformerConfig = SYNCHFORMER
    sampling: SamplingConfig = field(
        default_factory=lambda: SamplingConfig(shared_noise=True, captions_only=False)
    )

    @property
    def preset(self) -> Preset:
        """A latent frame is a token: 40 dimensions at 44100 / 1024 Hz."""
        return compose(self.name, self.codec, self.clip, self.synchformer, self.network, frames_per_token=1)


def _mmaudio(size: str, network: NetworkConfig) -> Variant:
    return Variant(f"mmaudio-{size.replace('_', '-')}", f"{REPOSITORY}:weights/mmaudio_{size}.pth", network)


_SMALL, _MEDIUM, _LARGE = (get_preset(name).network for name in ("small", "medium", "large"))
# the first large model is of the first generation, as small and medium are
_LARGE_V1 = replace(
    _LARGE, **{name: getattr(_MEDIUM, name) for name in ("projections", "time_frequencies", "time_scale")}
)
VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        _mmaudio("small_44k", _SMALL),
        _mmaudio("medium_44k", _MEDIUM),
        _mmaudio("large_44k", _LARGE_V1),
        _mmaudio("large_44k_v2", _LARGE),
    )
}


def load_variant(
    variant: str | Variant,
    weights: Mapping[str, str | Path] | None = None,
    device: torch.device | str = "cpu",
) -> hub.Components:
    """All parts of a variant, in evaluation mode.

    weights: part -> another file or Hub source: network, codec (the VAE), vocoder, clip, synchformer. What
    is not given comes from the Hub, or offline from its cache. Raises UserError with one line for all that
    can be wrong.
    """
    if isinstance(variant, str):
        if variant not in VARIANTS:
            raise UserError(f"unknown variant {variant!r}; choose one of {', '.join(VARIANTS)}")
        variant = VARIANTS[variant]
    variant = _with_files(variant, weights or {})
    # the network first: it is the smallest file, and the one that is most likely to be another's
    state = weight_files.read_state(variant.weights, f"the network of {variant.name}")
    components = hub.build_components(variant.preset)
    try:
        report = load_mmaudio_state_dict(components.network, state)
    except ValueError as error:
        raise UserError(f"{variant.weights}: {error}") from error
    lacking = [name for name in report.new if not name.startswith(SILENT_WHEN_NEW)]
    if lacking:
        raise UserError(f"{variant.weights}: lacks {', '.join(lacking[:3])} ({len(lacking)} in all)")
    components.sampling = variant.sampling
    components.info = hub.ModelInfo(
        licence=LICENCE,
        provenance=f"MMAudio ({variant.weights}), its mel VAE, BigVGAN v2, Synchformer and DFN5B CLIP.",
        limits=LIMITS,
    )
    return components.to(device)


#: Our own tensors that MMAudio's checkpoints have not: behind zero gates, so that they change nothing yet.
SILENT_WHEN_NEW = ("inter_ear.", "spacetime.", "empty_spatial_feat")


def _with_files(variant: Variant, weights: Mapping[str, str | Path]) -> Variant:
    changes: dict[str, Any] = {}
    for part, source in weights.items():
        source = str(source)
        if part == "network":
            changes["weights"] = source
        elif part in ("codec", "vocoder"):
            codec = changes.get("codec", variant.codec)
            field_name = "weights" if part == "codec" else "vocoder_weights"
            changes["codec"] = replace(codec, **{field_name: source})
        elif part == "clip":
            # a plain file needs the architecture by its open_clip name
            name = get_preset("small").clip.model_name if variant.clip is CLIP else variant.clip.model_name
            changes["clip"] = replace(variant.clip, model_name=name, weights=source)
        elif part == "synchformer":
            changes["synchformer"] = replace(variant.synchformer, weights=source)
        else:
            known = "network, codec, vocoder, clip, synchformer"
            raise UserError(f"unknown part {part!r} of {variant.name}: it has {known}")
    return replace(variant, **changes)
