"""The whole of a training in one configuration: data, sizes, and what each stage does.

Every default lives here or beside its class, so an installed package needs no YAML: the files in configs/
name only what differs. The defaults are the tiny preset on two CPU cores within four hours.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bi_audio_dataset.schema import UserError
from visaudio.config import from_dict, read_layers
from visaudio.presets import Preset, get_preset, with_spatial_sizes
from visaudio.sampling import SamplingConfig
from visaudio.training.batches import DropoutConfig
from visaudio.training.clip_stage import ClipStageConfig
from visaudio.training.codec_stage import CodecStageConfig
from visaudio.training.flow_stage import FlowStageConfig
from visaudio.training.loop import FlowLoopConfig
from visaudio.training.schedule import ScheduleConfig
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
class TrainConfig:
    """preset names where the sizes in ``model`` start from. output: null is runs/<preset>. workers:
    processes that decode and build; 0 is one per core. threads: of this process on a CPU; 0 is torch's
    choice. sampling: the defaults that are stored with the model. duration of a training window:
    model.sequence.duration_s. init_from: an MMAudio checkpoint that the network starts from, a file or
    owner/name:path on the Hub.
    """

    preset: str = "tiny"
    output: str | None = None
    seed: int = 0
    workers: int = 0
    threads: int = 0
    init_from: str | None = None
    data: DataConfig = field(default_factory=DataConfig)
    model: Preset = field(default_factory=lambda: get_preset("tiny"))
    codec: CodecStageConfig = field(default_factory=_codec)
    clip: ClipStageConfig = field(default_factory=_clip)
    synchformer: SynchformerStageConfig = field(default_factory=_synchformer)
    flow: FlowStageConfig = field(default_factory=_flow)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        for name in ("seed", "workers", "threads"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} is {getattr(self, name)}, expected at least 0")
        if self.seed >= 2**63:
            raise UserError(f"seed is {self.seed}, expected less than 2^63")

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
