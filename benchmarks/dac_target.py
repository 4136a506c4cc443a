"""What should a flow generate on a DAC: its projected latents, or a PCA of what comes before the quantisers?

    python benchmarks/dac_target.py --dataset SYNTH --features FEATURES --output OUT

One DAC is trained by train.py's codec stage (configs/tiny-dac.yaml), one PCA of as many dimensions as the
projected latents have is fitted to its encoder's output, and one flow network for each target is trained
from one seed, on the same clips, noise, times and steps. Then the validation clips are generated from their
pictures alone (no prompt, unknown lens), each from one noise for all targets, and heard as synth_quality.py
hears them. `FEATURES`: of the same dataset by python -m visaudio.data.features; only their vision and text
are read.

A stage whose files are there is skipped, so that the same command goes on where it stopped.

Legend: C clips, 2 ears (0 = left), F codec frames, D latent dimensions, S samples.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from bi_audio_dataset.schema import UserError
from visaudio import hub
from visaudio.cli.common import seed_number
from visaudio.codec.dac import DacCodec
from visaudio.codec.pca import StreamingCovariance
from visaudio.data.dataset import AudioCache, build_cache, open_dataset, read_clip
from visaudio.data.feature_store import FeatureDataset
from visaudio.evaluation import classifier as classifiers
from visaudio.evaluation.synth_benchmark import Score, hear, score
from visaudio.evaluation.target_report import Heard, markdown, mel_distance, summary
from visaudio.model.network import DualBranchNetwork
from visaudio.sampling import generate
from visaudio.training.batches import conditions_of, stream
from visaudio.training.codec_stage import whole_clips
from visaudio.training.flow_stage import FlowStageConfig, TokenSamples, export_weights, train_flow
from visaudio.training.full_run import plan
from visaudio.training.memory import keep_freed_memory
from visaudio.training.parts import load_weights
from visaudio.training.recipe import TrainConfig, load_train_config

HERE = Path(__file__).parent
TARGETS = ("projected", "continuous")
# what is heard: the target that the flow made, and whether its PCA's answer goes through the quantisers
SYSTEMS = {"projected": "projected", "continuous": "continuous", "requantised": "continuous"}
MARKS = ("<!-- dac target: begin -->", "<!-- dac target: end -->")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    try:
        config = configuration(options)
        run_codec(config)
        encode(options, config)
        share_out(options, train_and_sample, TARGETS)
        heard = share_out(options, hear_system, options.systems)
        figures = summary(dict(zip(options.systems, heard, strict=True)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    figures |= codec_figures(options, config)
    figures["made"] = made(options, list(sys.argv[1:] if arguments is None else arguments))
    (options.output / "report.json").write_text(json.dumps(figures, indent=1) + "\n")
    table = markdown(figures)
    if options.write_to:
        replace_part(options.write_to, table)
    print(table)
    return 0


def share_out(
    options: argparse.Namespace, work: Callable[[argparse.Namespace, str], Any], names: Sequence[str]
) -> list[Any]:
    """work(options, name) of each, in their order; in processes where --workers asks for more than one."""
    if options.workers < 2:
        return [work(options, name) for name in names]
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        return list(pool.map(work, [options] * len(names), names))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--dataset", type=Path, required=True, help="a BiAudio-Synth folder")
    add("--features", type=Path, required=True, help="its features; only vision and text are read")
    add("--output", type=Path, required=True, help="folder of everything that is made")
    add("--config", type=Path, default=HERE.parent / "configs" / "tiny-dac.yaml", help="of the training")
    add("--set", nargs="*", default=[], metavar="key=value", help="on top of it")
    add("--codec-minutes", type=float, default=30, help="of the DAC's training (default: 30)")
    add("--flow-steps", type=int, default=2000, help="of each flow (default: 2000)")
    add("--batch-size", type=int, default=16, help="clips of a step (default: 16)")
    add("--train-clips", type=int, default=1350, help="clips that the flows see (default: 1350)")
    add("--clips", type=int, default=64, help="validation clips that are generated (default: 64)")
    add("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), help="that are heard (default: all)")
    add("--num-steps", type=int, default=25, help="of the sampler (default: 25)")
    add("--guidance-scale", type=float, default=3.0, help="of the sampler (default: 3)")
    add("--workers", type=int, default=1, help="flows trained at once, one thread each (default: 1)")
    add("--threads", type=int, default=1, help="of the codec's stages (default: 1)")
    add("--seed", type=seed_number, default=0, help="of everything (default: 0)")
    add("--classifier", type=Path, default=classifiers.PACKAGED)
    add("--write-to", type=Path, help="a Markdown file whose marked part the table replaces")
    return parser.parse_args(arguments)


def configuration(options: argparse.Namespace) -> TrainConfig:
    return load_train_config(
        options.config,
        [
            f"output={options.output}",
            f"data.path={options.dataset}",
            "workers=1",
            f"codec.loop.max_minutes={options.codec_minutes}",
            *options.set,
        ],
    )


# -------------------- the codec and its latents


def run_codec(config: TrainConfig) -> None:
    """train.py --stages data,codec."""
    stages = plan(config)
    chosen = stages.select(["data", "codec"])
    stages.check(chosen)
    config.folder.mkdir(parents=True, exist_ok=True)
    if not stages.execute(chosen):
        raise KeyboardInterrupt


def codec_of(options: argparse.Namespace, config: TrainConfig, system: str) -> DacCodec:
    """The one trained DAC, under the latents of a system; its PCA as far as it is fitted."""
    trained = load_weights(DacCodec(config.model.codec), options.output / "codec" / "model.safetensors")
    if SYSTEMS[system] == "projected":
        return trained
    sizes = config.model.codec
    dims = sizes.num_codebooks * sizes.codebook_dim  # equal networks
    codec = DacCodec(replace(sizes, latents="continuous", pca_dims=dims, requantise=system == "requantised"))
    codec.model = trained.model
    path = options.output / "pca.safetensors"
    return load_weights(codec, path) if path.is_file() else codec


def audio_of(
    options: argparse.Namespace, config: TrainConfig, split: str, count: int
) -> tuple[list[str], np.ndarray]:
    """Ids and audio (C, 2, S) int16 of the split's first clips; of the training set all are in the cache."""
    rows = open_dataset(options.dataset, [split])
    if split != "train":
        rows = rows.select(range(min(count, len(rows))))
    sequence = config.model.sequence
    folder = options.output / "cache" / (split if split == "train" else f"{split}_{len(rows)}")
    audio = build_cache(rows, AudioCache(sequence.sample_rate, sequence.num_samples), folder, workers=1)
    return list(rows["id"][:count]), audio[:count]


@torch.inference_mode()
def encode(options: argparse.Namespace, config: TrainConfig) -> None:
    """latents/SPLIT_TARGET.npy (C, 2, F, D) float16 with SPLIT.json of the clips' ids; pca.safetensors.

    The PCA is fitted to every frame of the training clips that the flows see.
    """
    from safetensors.torch import save_file

    folder = options.output / "latents"
    folder.mkdir(exist_ok=True)
    plain, continuous = (codec_of(options, config, target) for target in TARGETS)
    sequence = config.model.sequence
    whole = sequence.num_frames * sequence.latent_hop
    for split, count in (("train", options.train_clips), ("validation", options.clips)):
        ids, audio = audio_of(options, config, split, count)
        index = folder / f"{split}.json"
        if index.is_file() and json.loads(index.read_text()) == ids:
            continue
        padded = (
            torch.nn.functional.pad(x, (0, whole - x.shape[-1])) for x in whole_clips(audio, len(audio))
        )
        hidden = [plain.hidden(ears) for ears in tqdm(padded, total=len(audio), desc=split, unit="clip")]
        if split == "train":
            frames = StreamingCovariance(plain.config.hidden_dim)
            for one in hidden:
                frames.add(one.mT.flatten(0, 1))
            continuous.pca.fit(frames)
            state = {name: value.contiguous() for name, value in continuous.state_dict().items()}
            save_file(state, options.output / "pca.safetensors")
        made = {"projected": plain.project, "continuous": lambda one: continuous.pca.encode(one.mT)}
        for target, latents in made.items():
            every = torch.stack([latents(one).half() for one in hidden])
            np.save(folder / f"{split}_{target}.npy", every.numpy())
        index.write_text(json.dumps(ids))


class Relatented:
    """Features of a folder with the latents of a target in place of theirs; only clips that have both."""

    def __init__(self, options: argparse.Namespace, split: str, target: str) -> None:
        self._features = FeatureDataset(options.features, split)
        folder = options.output / "latents"
        self.ids = json.loads((folder / f"{split}.json").read_text())
        self._latents = np.load(folder / f"{split}_{target}.npy", mmap_mode="r")
        place = {name: i for i, name in enumerate(self._features.ids)}
        if missing := [name for name in self.ids if name not in place]:
            raise UserError(
                f"{options.features}: no features of {len(missing)} clips of {options.dataset}, "
                f"such as {missing[0]}"
            )
        self._places = [place[name] for name in self.ids]
        self.hrir_symmetric = [self._features.hrir_symmetric[i] for i in self._places]

    def get(self, index: int, mirror: bool) -> Mapping[str, Any]:
        row = self._features.get(self._places[index], mirror)
        return {**row, "latents": torch.from_numpy(np.array(self._latents[index]))}


# -------------------- the flows


class Latents:
    """Stands in for a codec: keeps what it is to decode, so that one sampling serves two ways of decoding."""

    device = torch.device("cpu")

    def __init__(self, latent_hop: int) -> None:
        self.latent_hop = latent_hop

    def decode_binaural(self, latents: Tensor) -> Tensor:
        self.kept = latents
        return latents.new_zeros(len(latents), 2, latents.shape[2] * self.latent_hop)


def train_and_sample(options: argparse.Namespace, target: str) -> None:
    """flow-TARGET/ and latents/sampled_TARGET.npy (C, 2, F, D)."""
    keep_freed_memory()
    torch.set_num_threads(1)
    config = configuration(options)
    path = options.output / "latents" / f"sampled_{target}.npy"
    if path.is_file():
        return
    network = flow_network(options, config, target)
    sequence = config.model.sequence
    rows = TokenSamples(Relatented(options, "validation", target), sequence.frames_per_token)
    codec, made = Latents(sequence.latent_hop), []
    for first in range(0, len(rows.ids), 8):
        chosen = range(first, min(len(rows.ids), first + 8))
        batch = [rows.get(index, mirror=False) for index in chosen]
        noise = [
            stream(options.seed, "dac_target", rows.ids[index]).standard_normal(
                tuple(row["latents"].shape), dtype=np.float32
            )
            for index, row in zip(chosen, batch, strict=True)
        ]
        conditions = conditions_of(batch).drop({"text": torch.ones(len(batch), dtype=torch.bool)})
        conditions = replace(conditions, hfov_rad=torch.full((len(batch),), torch.nan))
        generate(
            network,
            codec,
            conditions,
            sequence=sequence,
            noise=torch.from_numpy(np.stack(noise)),
            num_steps=options.num_steps,
            guidance_scale=options.guidance_scale,
        )
        made.append(codec.kept)
    np.save(path, torch.cat(made).float().numpy())


def flow_network(options: argparse.Namespace, config: TrainConfig, target: str) -> DualBranchNetwork:
    """Trained in flow-TARGET, with its averaged weights; both targets have tokens of one width."""
    loop = replace(config.flow.loop, steps=options.flow_steps, max_minutes=0, batch_size=options.batch_size)
    flow = FlowStageConfig(loop=loop, validation=replace(config.flow.validation, audio_clips=0))
    folder = options.output / f"flow-{target}"
    result = train_flow(
        Relatented(options, "train", target),
        Relatented(options, "validation", target),
        config.model.network,
        config.model.sequence,
        flow,
        folder,
        clip=hub.load_pretrained("tiny").clip,  # for the features of an empty prompt alone
        seed=options.seed,
    )
    if not result.finished:
        raise KeyboardInterrupt
    network = DualBranchNetwork(config.model.network)
    network.load_state_dict(export_weights(config.model.network, flow, folder))
    return network.eval()


# -------------------- what is heard


def hear_system(options: argparse.Namespace, system: str) -> dict[str, list[Heard]]:
    """A system's round trips of the truth and its samples, clip by clip; heard/SYSTEM.json."""
    path = options.output / "heard" / f"{system}.json"
    if path.is_file():
        return {kind: [from_row(row) for row in rows] for kind, rows in json.loads(path.read_text()).items()}
    keep_freed_memory()
    torch.set_num_threads(1)
    config = configuration(options)
    rate, duration_s = config.model.sequence.sample_rate, config.model.sequence.duration_s
    ids, audio = audio_of(options, config, "validation", options.clips)
    rows = open_dataset(options.dataset, ["validation"])
    classify = classifiers.load(options.classifier).classify
    codec, folder = codec_of(options, config, system), options.output / "latents"
    found: dict[str, list[Heard]] = {"round trip": [], "sampled": []}
    latents = [
        np.load(folder / f"{name}_{SYSTEMS[system]}.npy", mmap_mode="r") for name in ("validation", "sampled")
    ]
    for index, (truth, *pair) in enumerate(zip(whole_clips(audio, len(ids)), *latents, strict=True)):
        clip, truth = read_clip(rows[index]), truth[:, 0]
        own = hear(truth.numpy(), rate, classify, duration_s)
        trip, sampled = (decode(codec, one, truth.shape[-1]) for one in pair)
        keep(options.output / "sounds" / system / f"{clip.id}.flac", sampled, rate)
        for kind, sound in (("round trip", trip), ("sampled", sampled)):
            one = score(hear(sound.numpy(), rate, classify, duration_s), own, clip)
            apart = mel_distance(sound, trip, rate) if kind == "sampled" else 0.0
            found[kind].append(Heard(one, mel_distance(sound, truth, rate), apart))
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({kind: [to_row(one) for one in heard] for kind, heard in found.items()}))
    return found


def to_row(heard: Heard) -> list[Any]:
    return [heard.score.sums.tolist(), heard.score.r_moving, heard.mel_truth, heard.mel_codec]


def from_row(row: Sequence[Any]) -> Heard:
    return Heard(Score(np.array(row[0]), row[1]), *row[2:])


@torch.inference_mode()
def decode(codec: DacCodec, latents: np.ndarray, samples: int) -> Tensor:
    """(2, F, D) -> (2, S)."""
    return codec.decode_binaural(torch.from_numpy(np.array(latents))[None].float(), samples)[0]


def keep(path: Path, sound: Tensor, rate: int) -> None:
    """To be listened to; one gain for both ears where it would clip."""
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    gain = min(1.0, 0.9 / max(float(sound.abs().max()), 1e-9))
    soundfile.write(path, (sound * gain).T.numpy(), rate, subtype="PCM_16")


# -------------------- how it was made


def codec_figures(options: argparse.Namespace, config: TrainConfig) -> dict[str, Any]:
    codec = codec_of(options, config, "continuous")
    return {
        "pca": {"dims": codec.latent_dim, "of": codec.config.hidden_dim, "kept": float(codec.pca.kept)},
        "codec": json.loads((options.output / "codec" / "done.json").read_text())["figures"],
    }


def made(options: argparse.Namespace, arguments: Sequence[str]) -> dict[str, Any]:
    short = [Path(a).name if Path(a).is_absolute() else a for a in arguments]
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, cwd=HERE, capture_output=True, text=True).stdout.strip() or "unknown"
    return {
        "command": shlex.join(["python", "benchmarks/dac_target.py", *short]),
        "commit": commit,
        "flow_steps": options.flow_steps,
        "batch_size": options.batch_size,
        "sampler": [options.num_steps, options.guidance_scale],
        "codec_steps": codec_steps(options.output / "codec"),
    }


def codec_steps(folder: Path) -> int:
    """From the stage's own log; its last line is the validation's."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return max((event.step for tag in events.Tags()["scalars"] for event in events.Scalars(tag)), default=0)


def replace_part(path: Path, table: str) -> None:
    text = path.read_text() if path.is_file() else ""
    if not all(mark in text for mark in MARKS):
        raise UserError(f"{path}: holds no {MARKS[0]} ... {MARKS[1]}")
    before, after = text.split(MARKS[0])[0], text.split(MARKS[1])[1]
    path.write_text(f"{before}{MARKS[0]}\n{table}{MARKS[1]}{after}")


if __name__ == "__main__":
    raise SystemExit(main())
