"""The presets: complete sets of sizes, one dataclass each, in one dict.

`tiny` ships with weights and trains on a CPU. `small`, `medium` and `large` are the paper's scale: DAC at
44.1 kHz, CLIP DFN5B ViT-H/14, Synchformer, and MMAudio's trunk of the same name, from which they can start.
Widths that follow from a codec or an encoder are taken from it, never written twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from bi_audio_dataset.schema import UserError
from visaudio.codec.dac import DacCodecConfig
from visaudio.codec.kinds import CodecConfig
from visaudio.codec.spectral import SpectralCodecConfig
from visaudio.config import from_dict, read_layers
from visaudio.encoders.clip import ClipConfig
from visaudio.encoders.perception import PerceptionConfig
from visaudio.encoders.synchformer import SynchformerConfig
from visaudio.model.network import NetworkConfig
from visaudio.model.warm_start import REPOSITORY
from visaudio.sequence import SequenceConfig


@dataclass(frozen=True)
class Preset:
    """All parts of one model; `sequence.duration_s` is the training window, in seconds.

    spatial: the encoder whose grid takes the place of CLIP's; None: CLIP's own.
    """

    name: str
    sequence: SequenceConfig
    codec: CodecConfig
    clip: ClipConfig
    synchformer: SynchformerConfig
    network: NetworkConfig
    spatial: PerceptionConfig | None = None

    def __post_init__(self) -> None:
        """The parts must fit each other."""
        tokens = self.codec.latent_dim * self.sequence.frames_per_token
        who, grid = ("spatial", self.spatial) if self.spatial else ("clip", self.clip)
        agreements = (
            ("sequence.sample_rate", self.sequence.sample_rate, "codec.sample_rate", self.codec.sample_rate),
            ("sequence.latent_hop", self.sequence.latent_hop, "codec.latent_hop", self.codec.latent_hop),
            (
                "network.token_dim",
                self.network.token_dim,
                "codec.latent_dim x sequence.frames_per_token",
                tokens,
            ),
            ("network.spatial_rows", self.network.spatial_rows, f"{who}.grid_rows", grid.grid_rows),
            (
                "network.spatial_columns",
                self.network.spatial_columns,
                f"{who}.grid_columns",
                grid.grid_columns,
            ),
            ("network.sync_dim", self.network.sync_dim, "synchformer.width", self.synchformer.width),
        )
        if self.spatial is not None:
            width = self.spatial.output_dim
            agreements += (("network.spatial_dim", self.network.spatial_dim, "that of spatial", width),)
        if self.network.condition_times == "time":
            agreements += tuple(
                (f"network.{name}", getattr(self.network, name), f"what sequence says of {name}", value)
                for name, value in network_rates(self.sequence).items()
            )
        for name, value, other_name, other in agreements:
            if value != other:
                raise ValueError(f"{name} is {value}, but {other_name} is {other}; they must be equal")


def network_rates(sequence: SequenceConfig) -> dict[str, Any]:
    """The clocks that a network with condition_times="time" goes by, as its config's fields."""
    return {
        "token_rate_hz": sequence.tokens_per_second,
        "clip_fps": sequence.clip_fps,
        "sync_slot_hz": sequence.sync_slots_per_second,
        "sync_segment_hop": sequence.sync_slots_per_stride,
        "sync_tokens_per_segment": sequence.tokens_per_segment,
    }


def compose(
    name: str,
    codec: CodecConfig,
    clip: ClipConfig,
    synchformer: SynchformerConfig,
    network: NetworkConfig,
    duration_s: float = 8.0,
    frames_per_token: int = 2,
    spatial: PerceptionConfig | None = None,
) -> Preset:
    """A preset whose dependent numbers (rates, token and feature widths) follow from its parts.

    CLIP's widths follow from ClipConfig where it describes the sizes itself; for a named open_clip model
    they are the network's own defaults, which are those of DFN5B ViT-H/14.
    """
    sequence = SequenceConfig(
        duration_s=duration_s,
        sample_rate=codec.sample_rate,
        latent_hop=codec.latent_hop,
        frames_per_token=frames_per_token,
        segment_frames=synchformer.segment_frames,
        segment_stride=synchformer.segment_stride,
        tokens_per_segment=synchformer.tokens_per_segment,
    )
    rates = network_rates(sequence)
    rates["sync_segment_hop"] = int(rates["sync_segment_hop"])  # Preset refuses one that was not whole
    widths: dict[str, Any] = {}
    if clip.model_name is None:
        widths = {
            "clip_dim": clip.embed_dim,
            "text_dim": clip.text_width,
            "text_tokens": clip.context_length,
            "spatial_dim": clip.width,
        }
    network = replace(
        network,
        token_dim=codec.latent_dim * frames_per_token,
        sync_dim=synchformer.width,
        **rates,
        **{**widths, **spatial_sizes(clip, spatial)},
    )
    return Preset(name, sequence, codec, clip, synchformer, network, spatial)


def spatial_sizes(clip: ClipConfig, spatial: PerceptionConfig | None) -> dict[str, int]:
    """The network's sizes that follow from the encoder of the spatial grid, as its config's fields."""
    grid = spatial or clip
    sizes = {"spatial_rows": grid.grid_rows, "spatial_columns": grid.grid_columns}
    return sizes if spatial is None else {**sizes, "spatial_dim": spatial.output_dim}


def with_spatial_sizes(values: dict[str, Any], preset: Preset) -> dict[str, Any]:
    """Values for a preset; where they name a spatial encoder, the network's spatial sizes follow from it."""
    if values.get("spatial") is None:
        return values
    spatial = from_dict(PerceptionConfig, values["spatial"], defaults=preset.spatial, where="spatial")
    return {**values, "network": {**spatial_sizes(preset.clip, spatial), **values.get("network", {})}}


TINY = compose(
    "tiny",
    codec=SpectralCodecConfig(latent_dim=40, phase_slots=8),
    clip=ClipConfig(vocab_size=1536),  # the generator's captions have some 150 words
    synchformer=SynchformerConfig(image_size=112, width=128, depth=3, heads=4, picture_projection=False),
    # all shipped weights are to fit 25 MB in half precision, a training step half a second of two cores
    network=NetworkConfig(
        hidden_dim=128,
        num_heads=2,
        joint_blocks=2,
        branch_blocks=3,
        block_kernel=1,
        mlp_ratio=4.5,
        mlp_multiple_of=128,
        input_kernel=3,
        spatial_width=128,
        cross_ear_input=True,
        interaural_whitening=0.7,
        straight_guess=True,
        condition_guess=True,
        condition_times="time",
    ),
)

_DFN5B = ClipConfig(
    model_name="ViT-H-14-378-quickgelu",
    weights="dfn5b",
    image_size=378,
    patch_size=14,
    width=1280,
    layers=32,
    embed_dim=1024,
    text_width=1024,
    text_layers=24,
    context_length=77,
    vocab_size=49408,
)
_DAC = DacCodecConfig(weights="descript/dac_44khz")
_SYNCHFORMER = SynchformerConfig(weights=f"{REPOSITORY}:ext_weights/synchformer_state_dict.pth")
# the time embeddings and projections are those of the MMAudio generation that each starts from
_V1: dict[str, Any] = {"projections": "v1", "time_frequencies": 256, "time_scale": 1.0}
_V2: dict[str, Any] = {"projections": "v2", "time_frequencies": 896, "time_scale": 10000.0}


def _paper(name: str, **network: Any) -> Preset:
    return compose(name, _DAC, _DFN5B, _SYNCHFORMER, NetworkConfig(**network))


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        TINY,
        _paper("small", hidden_dim=448, num_heads=7, joint_blocks=4, branch_blocks=8, **_V1),
        _paper("medium", hidden_dim=896, num_heads=14, joint_blocks=4, branch_blocks=8, **_V1),
        _paper("large", hidden_dim=896, num_heads=14, joint_blocks=7, branch_blocks=14, **_V2),
    )
}


def get_preset(name: str) -> Preset:
    if name not in PRESETS:
        raise UserError(f"unknown preset {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def load_preset(name: str, overrides: Sequence[str] = ()) -> Preset:
    """A preset by name, with overrides such as "network.inter_ear_attention=false" on top."""
    preset = get_preset(name)
    return from_dict(Preset, with_spatial_sizes(read_layers(None, overrides), preset), defaults=preset)
