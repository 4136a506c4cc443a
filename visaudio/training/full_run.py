"""From nothing to a folder that `from_pretrained` loads: the stages of a TrainConfig, put together."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from visaudio.config import to_dict
from visaudio.hub_access import on_hub
from visaudio.licences import combined
from visaudio.model.network import DualBranchNetwork
from visaudio.training.checks import check_config
from visaudio.training.flow_stage import export_weights, train_flow, weights_summary
from visaudio.training.initial import REPORT, Origin, origin, recorded_origin
from visaudio.training.parts import load_parts, load_spatial, load_weights, published, shown, trained
from visaudio.training.progress import say
from visaudio.training.recipe import DataConfig, TrainConfig
from visaudio.training.sources import dataset_name, describe, extractions, open_features
from visaudio.training.stages import Plan, Stage

STAGES = ("data", "codec", "clip", "synchformer", "features", "flow", "export")
PROVENANCE = (
    "Every part was trained from random weights by train.py of this repository; no other weights entered."
)
LIMITS = (
    "It knows the sounds, objects and rooms of BiAudio-Synth, which are procedural (bell, drum, "
    "woodblock, ball, engine, bee, bird, siren); of anything else it makes what resembles them."
)

# Minutes per clip on two CPU cores, for the estimates alone.
BUILD_MIN_PER_CLIP = 0.025
FEATURES_MIN_PER_CLIP = 0.011
DECODE_MIN_PER_CLIP = 0.002
MIN_PER_STEP = 0.015  # of 32 clips, tiny
TINY_PRODUCTS = 32 * 6.7e6 * 173  # clips x parameters x tokens of such a step


class FullRun:
    """The stages' work; each method takes its folder. Parts that an earlier stage trained are read from
    its folder.
    """

    def __init__(self, config: TrainConfig):
        self.config, self.root = config, config.folder
        # decoded frames and audio, shared by the stages; may be deleted afterwards
        self.cache = self.root / "cache"
        self.workers = config.workers or os.cpu_count() or 1

    @property
    def dataset(self) -> str:
        """The one dataset; of several sources the first, which the pretraining stages read."""
        return (self.config.paths or (str(self.root / "data" / "bi_audio_synth"),))[0]

    @property
    def device(self) -> str:
        """This process's own, as Accelerate will choose it; plain "cuda" would be the first one for all."""
        if not torch.cuda.is_available():
            return "cpu"
        return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"

    # --- the stages ---

    def data(self, folder: Path) -> bool:
        if not self.config.paths:
            build_synthetic(
                folder / "bi_audio_synth", self.config.data.clips, self.config.data.seed, self.workers
            )
        return True

    def codec(self, folder: Path) -> bool:
        from visaudio.training.codec_stage import train_codec

        train_codec(self.dataset, self.config.model.codec, self.config.codec, folder, **self._shared())
        return True

    def clip(self, folder: Path) -> bool:
        from visaudio.training.clip_stage import train_clip

        train_clip(self.dataset, self.config.model.clip, self.config.clip, folder, **self._shared())
        return True

    def synchformer(self, folder: Path) -> bool:
        from visaudio.encoders.clip import ClipEncoder
        from visaudio.training.synchformer_stage import train_synchformer

        model = self.config.model
        clip = self.root / "clip" / "model.safetensors"
        train_synchformer(
            self.dataset,
            model.synchformer,
            self.config.synchformer,
            folder,
            sample_rate=model.sequence.sample_rate,
            clip_encoder=load_weights(ClipEncoder(model.clip), clip) if clip.is_file() else None,
            **self._shared(),
        )
        return True

    def features(self, folder: Path) -> bool:
        from visaudio.data.features import extract_features
        from visaudio.precision import use_bf16

        parts = self.feature_parts()
        parts.bf16 = use_bf16("auto")
        neighbours = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        for dataset, output, mono in extractions(self.config.sources, self.dataset, folder):
            own = replace(parts, mono=mono)
            extract_features(dataset, output, own, workers=max(1, self.workers // neighbours))
        return True

    def feature_parts(self) -> Any:
        """The frozen parts that features are made with."""
        from visaudio.data.parts import Parts

        model = self.config.model
        return Parts(*self.parts(), model.sequence, spatial=load_spatial(model))

    def flow(self, folder: Path) -> bool:
        parts = self.feature_parts()
        codec, clip = parts.codec, parts.clip
        result = train_flow(
            *open_features(self.config.sources, self.root / "features", parts),
            self.config.model.network,
            self.config.model.sequence,
            self.config.flow,
            folder,
            codec=codec.to(self.device),
            clip=clip,
            seed=self.config.seed,
            init_from=self.config.init_from,
            shared_noise=self.config.sampling.shared_noise,
        )
        return result.finished

    def export(self, folder: Path) -> bool:
        """Write the model folder, from a finished or an unfinished flow stage, in half precision; push it."""
        from visaudio import hub

        codec, clip, synchformer = self.parts()
        components = hub.Components(
            self.config.model,
            codec,
            clip,
            synchformer,
            self.network(),
            sampling=self.config.sampling,
            info=self.info(),
            spatial=load_spatial(self.config.model),
        )
        hub.save_pretrained(
            self.model_folder,
            components,
            torch.float16,
            references=self.config.export.references,
            max_shard_size=self.config.export.max_shard_size,
        )
        if self.config.hub is not None:
            hub_config = to_dict(self.config.hub)  # a failure leaves the folder; the same stage tries again
            say(f"pushed: {hub.push_to_hub(self.model_folder, **hub_config)}")
        return True

    # --- what they share ---

    def info(self) -> Any:
        """Licence, provenance and limits of what comes out: what entered says what they are."""
        from visaudio.hub import ModelInfo

        entered = [f"{part} from {shown(self.config.model, part)}" for part in published(self.config.model)]
        start = self.started_from()
        if start is not None:
            entered.append(f"network started from {start.whose} ({Path(start.source).name})")
        synthetic = all(name.startswith("BiAudio-Synth") for name in self.summary()["data"].split("; "))
        entered_licences = [self.config.export.licence] if self.config.export.licence else []
        entered_licences += [start.licence] if start is not None and start.licence else []
        return ModelInfo(
            licence=combined([ModelInfo.licence, *entered_licences]),
            provenance=PROVENANCE if not entered else f"Trained by train.py; {'; '.join(entered)}.",
            limits=LIMITS if synthetic else "",
            training=self.summary(),
            datasets=tuple(path for path in self.config.paths or (self.dataset,) if on_hub(path)),
        )

    def started_from(self) -> Origin | None:
        """What the network started from: the flow stage's own record counts, whatever is configured now."""
        report = self.root / "flow" / REPORT
        if report.is_file():
            return recorded_origin(report)
        return None if self.config.init_from is None else origin(self.config.init_from)

    @property
    def model_folder(self) -> Path:
        return self.root / "model"

    def summary(self) -> dict[str, Any]:
        """For the model card: what it was trained on, for how long."""
        spent = {path.parent.name: json.loads(path.read_text()) for path in self.root.glob("*/stage.json")}
        sources = self.config.sources
        return {
            "data": describe(sources) if sources else dataset_name(self.dataset),
            **weights_summary(self.config.flow, self.root / "flow"),
            "clips per step": self.config.flow.loop.batch_size,
            "minutes": {name: round(spent[name]["minutes"], 1) for name in STAGES if name in spent},
        }

    def _shared(self) -> dict[str, Any]:
        return {
            "cache": self.cache,
            "duration_s": self.config.model.sequence.duration_s,
            "workers": self.workers,
            "device": self.device,
        }

    def parts(self) -> tuple[Any, Any, Any]:
        """Codec, CLIP and Synchformer, published or trained here, frozen, on the CPU."""
        return load_parts(self.config.model, self.root)

    def network(self) -> torch.nn.Module:
        """The network with its averaged weights."""
        network = DualBranchNetwork(self.config.model.network)
        network.load_state_dict(
            export_weights(self.config.model.network, self.config.flow, self.root / "flow")
        )
        return network.eval()


def build_synthetic(folder: Path, clips: int, seed: int, workers: int) -> None:
    """Make, or go on making, the BiAudio-Synth set; the same as `python -m bi_audio_dataset synth`."""
    from bi_audio_dataset.build import build
    from bi_audio_dataset.build_config import BuildConfig
    from bi_audio_dataset.sources.synthetic.source import SyntheticSource

    source = SyntheticSource(clips=clips, seed=seed)
    settings = {"seed": seed, "held_out": False, "sounds": "procedural", "sprites": "procedural"}
    build(source, folder, BuildConfig(seed=seed), workers=workers, settings=settings)


def synthetic_splits(config: TrainConfig) -> set[str]:
    """Splits of the BiAudio-Synth set that a run makes; none where it reads datasets that are there."""
    from bi_audio_dataset.sources.synthetic.source import SyntheticSource

    if config.paths:
        return set()
    source = SyntheticSource(config.data.clips, config.data.seed)
    return {source.split(name) for name in source.recording_ids()}


def budget_min(loop: Any) -> float:
    """Minutes that a stage's loop may take, roughly."""
    steps = loop.steps * MIN_PER_STEP
    return min(loop.max_minutes, steps) if loop.max_minutes > 0 else steps


def flow_min(config: TrainConfig) -> float:
    """Minutes of the flow stage, by the operations of a step beside the tiny preset's."""
    loop = config.flow.loop
    if loop.max_minutes > 0:
        return loop.max_minutes
    with torch.device("meta"):
        parameters = sum(p.numel() for p in DualBranchNetwork(config.model.network).parameters())
    products = loop.batch_size * parameters * config.model.sequence.num_tokens
    return loop.steps * MIN_PER_STEP * products / TINY_PRODUCTS


def plan(config: TrainConfig) -> Plan:
    """All stages of a run with their settings and estimates. Raises UserError for what cannot be run."""
    check_config(config)
    run = FullRun(config)
    model = to_dict(config.model)
    weights = {source.label: source.weight for source in config.sources}
    flow = to_dict(config.flow)
    flow["loop"].pop("steps")  # a run may be made longer
    flow.pop("export")  # of the weights that are there anyway
    clips = (DataConfig() if config.sources else config.data).clips  # of the estimates

    def stage(
        name: str, title: str, settings: Any, minutes: float, after: tuple[str, ...], **more: Any
    ) -> Stage:
        return Stage(name, title, getattr(run, name), settings, minutes, after, **more)

    there = published(config.model)
    own = trained(config.model)
    encoders = ("data", *own)

    def pretraining(name: str, title: str) -> Stage:
        settings = {"stage": to_dict(getattr(config, name)), "model": model[name]}
        budget = budget_min(getattr(config, name).loop)
        return stage(name, title, settings, budget + DECODE_MIN_PER_CLIP * clips, ("data",))

    titles = {
        "codec": "waveform <-> latents, one ear at a time",
        "clip": "what is seen, and where",
        "synchformer": "when something happens",
    }
    return Plan(
        config.folder,
        [
            stage(
                "data",
                ", ".join(config.paths) or f"BiAudio-Synth, {clips} clips",
                config.data_settings,
                0 if config.paths else BUILD_MIN_PER_CLIP * clips,
                (),
            ),
            *(pretraining(part, titles[part]) for part in own),
            stage(
                "features",
                "every clip through the three frozen parts",
                {
                    "sequence": model["sequence"],
                    **({"published": there} if there else {}),
                    **({"spatial": model["spatial"]} if model["spatial"] else {}),
                },
                FEATURES_MIN_PER_CLIP * clips,
                encoders,
                parallel=True,
            ),
            stage(
                "flow",
                "the dual-branch network",
                {
                    "flow": flow,
                    "network": model["network"],
                    "seed": config.seed,
                    **({"init_from": config.init_from} if config.init_from else {}),
                    **({"weights": weights} if weights else {}),
                },
                flow_min(config),
                ("features",),
                always=True,
                parallel=True,
            ),
            stage(
                "export", f"{run.model_folder}, which from_pretrained loads", {}, 0.2, encoders, always=True
            ),
        ],
    )
