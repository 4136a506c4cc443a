"""The whole of a training in one configuration: data, sizes, and what each stage does.

Every default lives here or beside its class, so an installed package needs no YAML: the files in configs/
name only what differs. The defaults are the tiny preset on two CPU cores within four hours.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bi_audio_dataset.schema import UserError
from visaudio.config import from_dict, read_layers
from visaudio.presets import Preset, get_preset, with_spatial_sizes
from visaudio.sampling import SamplingConfig
from visaudio.training.batches import DropoutConfig
from visaudio.training.clip_stage import ClipStageConfig
from visaudio.training.codec_stage import CodecStageConfig
from visaudio.training.flow_stage import FlowStageConfig
from visaudio.training.loop import FlowLoopConfig
from visaudio.training.push import HubConfig
from visaudio.training.schedule import ScheduleConfig
from visaudio.training.sources import SourceConfig, check_sources
from visaudio.training.synchformer_stage import SynchformerStageConfig


@dataclass(frozen=True)
class DataConfig:
    """path: a BiAudio folder or Hub repository; null makes (or goes on with) a BiAudio-Synth set of
    ``clips``.
    """

    path: str | None = None
    clips: int = 1500
    seed: int = 0

    def __post_init__(self) -> None:
        if self.clips < 1:
            raise UserError(f"clips is {self.clips}, expected at least 1")
        if self.seed < 0:
            raise UserError(f"seed is {self.seed}, expected at least 0")


def _codec() -> CodecStageConfig:
    default = CodecStageConfig()
    return replace(default, loop=replace(default.loop, max_minutes=22.0))


def _clip() -> ClipStageConfig:
    default = ClipStageConfig()
    return replace(default, loop=replace(default.loop, max_minutes=20.0))


def _synchformer() -> SynchformerStageConfig:
    default = SynchformerStageConfig()
    return replace(default, loop=replace(default.loop, max_minutes=45.0))


def _flow() -> FlowStageConfig:
    return FlowStageConfig(
        loop=FlowLoopConfig(
            steps=20000,
            max_minutes=90.0,
            batch_size=32,
            t_mean=-0.5,  # the conditions' share of the work lies at t near 0
            optimizer="muon",
            validate_every=500,
            schedule=ScheduleConfig(
                peak=3e-3, warmup_steps=150, decay="cosine", decay_start=0.3, final_ratio=0.02
            ),
            dropout=DropoutConfig(text=0.5),
        )
    )


@dataclass(frozen=True)
class ExportConfig:
    """How the model folder is written (model_folder.save_pretrained). references: codec and encoders that are
    published elsewhere are referenced, not copied. licence: of data or local files that entered, where it
    is stricter than Apache 2.0; those of published weights count by themselves.
    """

    references: bool = True
    max_shard_size: str = "5GB"
    licence: str = ""


@dataclass(frozen=True)
class TrainConfig:
    """preset names where the sizes in ``model`` start from. data: one dataset, or a list of sources that are
    trained on together; stages that train a frozen part then read the first of them. output: null is
    runs/<preset>. workers: processes that decode and build; 0 is one per core. threads: of this process on a
    CPU; 0 is torch's choice. sampling: the defaults that are stored with the model. duration of a training
    window: model.sequence.duration_s. init_from: what the network starts from: an MMAudio checkpoint, a file
    or owner/name:path on the Hub, or a model folder of this program, maybe with other switches. hub: where
    the export stage pushes the model, if anywhere.
    """

    preset: str = "tiny"
    output: str | None = None
    seed: int = 0
    workers: int = 0
    threads: int = 0
    init_from: str | None = None
    data: DataConfig | tuple[SourceConfig, ...] = field(default_factory=DataConfig)
    model: Preset = field(default_factory=lambda: get_preset("tiny"))
    codec: CodecStageConfig = field(default_factory=_codec)
    clip: ClipStageConfig = field(default_factory=_clip)
    synchformer: SynchformerStageConfig = field(default_factory=_synchformer)
    flow: FlowStageConfig = field(default_factory=_flow)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    hub: HubConfig | None = None

    def __post_init__(self) -> None:
        for name in ("seed", "workers", "threads"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} is {getattr(self, name)}, expected at least 0")
        if self.seed >= 2**63:
            raise UserError(f"seed is {self.seed}, expected less than 2^63")
        if isinstance(self.data, tuple):
            check_sources(self.data)

    @property
    def sources(self) -> tuple[SourceConfig, ...]:
        """The sources of a mixed training; empty where ``data`` is one dataset."""
        return self.data if isinstance(self.data, tuple) else ()

    @property
    def data_settings(self) -> dict[str, Any]:
        """What decides the clips. Weights of sources are not among it: features stay when they change."""
        if isinstance(self.data, tuple):
            return {source.label: {"path": source.path, "mono": source.mono} for source in self.data}
        if self.data.path is not None:
            return {"path": self.data.path}
        return {"clips": self.data.clips, "seed": self.data.seed}

    @property
    def paths(self) -> tuple[str, ...]:
        """The datasets that are to be there: none where a BiAudio-Synth set is made."""
        if isinstance(self.data, tuple):
            return tuple(source.path for source in self.data)
        return () if self.data.path is None else (self.data.path,)

    @property
    def folder(self) -> Path:
        return Path(self.output or f"runs/{self.preset}")


def load_train_config(path: str | Path | None = None, overrides: Sequence[str] = ()) -> TrainConfig:
    """Defaults < the preset's sizes < YAML at ``path`` < overrides ("flow.loop.steps=500"). Strict, as
    config.py.
    """
    values = read_layers(path, overrides)
    preset = get_preset(str(values.get("preset", TrainConfig.preset)))
    if isinstance(values.get("model"), dict):
        values["model"] = with_spatial_sizes(values["model"], preset)
    return from_dict(TrainConfig, values, defaults=TrainConfig(preset=preset.name, model=preset))
