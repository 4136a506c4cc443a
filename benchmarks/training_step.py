#!/usr/bin/env python
"""Where the time of a training step goes: the real loop on a real features folder, timed part by part.

    python benchmarks/training_step.py                                the tiny preset, then small, on this CPU
    python benchmarks/training_step.py --runs tiny:16:8 --steps 20    preset, batch and window in seconds
    python benchmarks/training_step.py --features DIR --runs tiny:16:8    features of one's own

Bounds: waiting for the loader under 5 % of the step; nothing in a step but its logging waits for a number.
The features are random numbers of the preset's shapes in the typed shards that extraction writes, read back
as in training: what is trained does not matter to the time that it takes. Runs on a GPU where there is one.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from bi_audio_dataset.schema import UserError
from visaudio import tables
from visaudio.data.feature_sizes import feature_shapes
from visaudio.data.feature_store import FeatureDataset, finish, shard_path, write_shard
from visaudio.presets import PRESETS, Preset, load_preset
from visaudio.training import step_profile
from visaudio.training.ema import EmaConfig
from visaudio.training.flow_stage import TokenSamples, new_network
from visaudio.training.loop import FlowLoopConfig, train
from visaudio.training.measured import largest_shares
from visaudio.training.memory import keep_freed_memory

HERE = Path(__file__).resolve().parent
NAME = "training_step"
WAIT_BOUND = 0.05
WARM_UP, PROFILED = 3, 3
OPTIMIZERS = {"tiny": "muon"}  # as the presets are trained: recipe.py, configs/


@dataclass(frozen=True)
class Run:
    """preset, clips of a step, window in seconds."""

    preset: str
    batch: int
    window_s: float

    @classmethod
    def parse(cls, text: str) -> Run:
        try:
            preset, batch, window = text.split(":")
            run = cls(preset, int(batch), float(window))
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r}: expected preset:batch:seconds") from error
        if run.preset not in PRESETS or run.batch < 1 or run.window_s <= 0:
            raise argparse.ArgumentTypeError(
                f"{text!r}: expected one of {', '.join(PRESETS)}, then sizes above 0"
            )
        return run


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    commit = tables.commit(HERE)  # of the code that runs: by the end the checkout may be another
    try:
        tables.check_part(options.write_to, NAME)
        figures = [measure(run, options) for run in options.runs]
        given = list(sys.argv[1:] if arguments is None else arguments)
        command = tables.shown_command("benchmarks/training_step.py", given)
        text = f"`{command}` at commit `{commit}`, torch {torch.__version__}.\n\n"
        text += markdown(figures)
        if options.output:
            options.output.write_text(json.dumps(figures, indent=1) + "\n")
        tables.publish(text, None, options.write_to, NAME)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    default = [Run("tiny", 16, 8.0), Run("small", 2, 2.0)]
    add("--runs", type=Run.parse, nargs="+", default=default, help="preset:batch:seconds of the window")
    add("--steps", type=int, default=20, help="timed steps of each run (default: 20)")
    add("--clips", type=int, default=64, help="clips in the made features folder (default: 64)")
    add("--features", type=Path, help="a features folder to read instead of a made one")
    add("--threads", type=int, default=1, help="of this process on a CPU (default: 1)")
    add("--loader-workers", type=int, default=1, help="threads that prepare batches (default: 1)")
    add("--checkpointing", action="store_true", help="with activation checkpointing")
    add("--output", type=Path, help="a JSON file for the figures")
    add("--write-to", type=Path, help="a Markdown file whose marked part the tables replace")
    options = parser.parse_args(arguments)
    if min(options.steps, options.clips, options.threads, options.loader_workers) < 1:
        parser.error("--steps, --clips, --threads and --loader-workers must be at least 1")
    return options


def measure(run: Run, options: argparse.Namespace) -> dict[str, Any]:
    preset = load_preset(run.preset, [f"sequence.duration_s={run.window_s}"])
    with tempfile.TemporaryDirectory(prefix="visaudio-step-") as scratch:
        folder = options.features or write_features(Path(scratch) / "features", preset, options.clips)
        return measure_loop(preset, FeatureDataset(folder, None), run.batch, options, Path(scratch))


def write_features(folder: Path, preset: Preset, clips: int) -> Path:
    """A features folder of random numbers in the preset's shapes."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    columns = {}
    for name, (shape, dtype) in feature_shapes(preset).items():
        if dtype == "uint8":
            columns[name] = rng.integers(0, 256, (clips, *shape), dtype=np.uint8)
        else:
            columns[name] = rng.standard_normal((clips, *shape), dtype=np.float32).astype(dtype)
    meta = [
        {
            "id": f"clip{index:05d}",
            "split": "train",
            "caption": "",
            "hfov_deg": 90.0,
            "hrir_symmetric": True,
            "hrir_set": "sphere",
            "source_name": "random",
            "classes": [],
        }
        for index in range(clips)
    ]
    path = shard_path(folder, 0, 1)
    write_shard(path, meta, columns)
    finish(folder, {"made_from": {"rows": "random"}}, [path])
    return folder


def measure_loop(
    preset: Preset, features: FeatureDataset, batch: int, options: argparse.Namespace, scratch: Path
) -> dict[str, Any]:
    """The loop twice from the start: once timed, once under the profiler."""
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as train.py does on a CPU
    device = "cuda" if torch.cuda.is_available() else "cpu"
    samples = TokenSamples(features, preset.sequence.frames_per_token)

    def loop(folder: Path, steps: int) -> None:
        config = FlowLoopConfig(
            steps=steps,
            batch_size=batch,
            precision="bf16",
            optimizer="muon"
            if preset.name == "tiny"
            else "adamw",  # as trained: recipe.py, configs/small.yaml
            activation_checkpointing=options.checkpointing,
            loader_workers=options.loader_workers,
            validate_every=0,
            checkpoint_minutes=1e9,
            ema=EmaConfig(snapshots=1),  # as rare in a few steps as twenty are in a run of thousands
        )
        train(new_network(preset.network, samples, None, 0), samples, config, folder)

    with step_profile.watch(skip=WARM_UP) as clock:
        loop(scratch / "timed", WARM_UP + options.steps)
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device == "cuda" else [])
    with step_profile.watch(), profile(activities=activities) as seen:
        loop(scratch / "profiled", PROFILED)
    waits = step_profile.waits_of_forward(preset.network, preset.sequence, batch)
    return {
        "preset": preset.name,
        "batch": batch,
        "window_s": preset.sequence.duration_s,
        "device": torch.cuda.get_device_name() if device == "cuda" else f"CPU, {options.threads} thread(s)",
        "steps": clock.steps,
        "seconds_per_step": clock.seconds_per_step,
        "shares": clock.shares(),
        "loader_cpu_s": clock.loader_cpu_s / clock.steps,
        "waits": step_profile.waits_by_part(seen, PROFILED),
        "gpu_waits_of_forward": [wait._asdict() for wait in waits],
        "top": largest_shares(seen, device),
    }


def title(one: dict[str, Any]) -> str:
    return f"{one['preset']}, {one['batch']} clips of {one['window_s']:g} s"


def markdown(figures: Sequence[dict[str, Any]]) -> str:
    parts = list(figures[0]["shares"])
    rows = [[part, *(f"{f['shares'][part]:.1%}" for f in figures)] for part in parts]
    rows.append(["seconds a step, on a busy machine", *(f"{f['seconds_per_step']:.2f}" for f in figures)])
    rows.append(["CPU seconds of the loader's threads", *(f"{f['loader_cpu_s']:.3f}" for f in figures)])
    kept = "kept" if max(f["shares"][parts[0]] for f in figures) < WAIT_BOUND else "**not kept**"
    lines = [
        f"The loop of `train.py` on features of random numbers, {figures[0]['steps']} steps after {WARM_UP}, "
        f"on {figures[0]['device']}. Bound: waiting for the loader under {WAIT_BOUND:.0%}, {kept}.\n",
        tables.table(["share of the step", *map(title, figures)], rows),
    ]
    for one in figures:
        top = ", ".join(f"`{operation}` {share:.0%}" for operation, share in one["top"])
        waits = "; ".join(f"{what} {count:g}" for what, count in one["waits"].items()) or "none"
        gpu = ", ".join(f"{w['operation']} {w['shape']}" for w in one["gpu_waits_of_forward"]) or "none"
        lines.append(
            f"\n**{title(one)}.** Operations by their own time: {top}. Host waits a step, by the profiler: "
            f"{waits}. What the forward pass would wait for on a GPU, followed on fake tensors: {gpu}."
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
