#!/usr/bin/env python
"""The paper's ablation in miniature: what each part of the method adds, over seeds, on the BiAudio-Synth benchmark.

    python train.py --stages data,codec,clip,synchformer,features
    python -m bi_audio_dataset synth --benchmark --output data/benchmark
    python benchmarks/ablation.py --run runs/tiny --dataset data/benchmark --output runs/ablation

Codec, encoders and features are the run's. A mono network is trained on them once (the trunk: what MMAudio is to
the paper); then every variant starts from it and is trained for the same time, once for each seed. Each variant
is the one before it with one thing more; the two-stage ones put the mono variant's sounds into space. All sounds
are made from the benchmark's MP4 files alone, with one fixed noise for each clip and seed.

Everything is kept under --output: an interrupted command goes on where it stopped. Training takes
(trunk + variants x seeds x minutes / processes) minutes, sampling about 1 s of a core for a clip and variant.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from bi_audio_dataset.schema import UserError

ROOT = Path(__file__).resolve().parents[1]
TRUNK = "trunk"
PARTS = ("data", "codec", "clip", "synchformer", "features")
MONO = "configs/ablation-mono-copied.yaml"
ONE_SIDED = ("flow.loop.mirror_probability=0",)


@dataclass(frozen=True)
class Variant:
    """A row of the table. config: below the repository, None is the whole method; overrides of train.py;
    of: a two-stage variant's mono variant, and `baseline` the command that puts its sounds into space."""

    name: str
    title: str
    config: str | None = None
    overrides: tuple[str, ...] = ()
    of: str = ""
    baseline: str = ""


VARIANTS = (
    Variant("mono", "pretrained mono, copied to both ears", MONO, ONE_SIDED),
    Variant("dual", "+ dual branch", "configs/ablation-no-spacetime.yaml", ONE_SIDED),
    Variant("spacetime", "+ spacetime module", None, ONE_SIDED),
    Variant("mirror", "+ mirror augmentation (the method)"),
    Variant("two-stage-truth", "two stages: mono, true direction", of="mono", baseline="two-stage-truth"),
    Variant("two-stage-motion", "two stages: mono, motion in the picture", of="mono", baseline="two-stage-motion"),
    Variant("two-stage-learned", "two stages: mono, learned head", of="mono", baseline="two-stage-learned"),
)  # fmt: skip


@dataclass(frozen=True)
class Training:
    """One call of train.py. start: a model folder, None for the trunk."""

    folder: Path
    arguments: tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    try:
        run(options, list(sys.argv[1:] if arguments is None else arguments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--run", type=Path, required=True, help="a run of train.py that has its features")
    add("--dataset", required=True, help="what is scored on: its test split")
    add("--output", type=Path, required=True)
    add("--seeds", type=int, default=3, help="trainings of each variant (default: 3)")
    add("--minutes", type=float, default=10.0, help="of each training; at most 60 (default: 10)")
    add("--trunk-minutes", type=float, default=40.0, help="of the mono network (default: 40)")
    add("--processes", type=int, default=2, help="trainings and sampling at once, of one thread each")
    add("--variants", help="only these, by commas: " + ", ".join(v.name for v in VARIANTS))
    add("--limit", type=int, help="only the first N clips (for a quick look)")
    add("--set", action="append", default=[], metavar="key=value", help="for every training; may be repeated")
    add("--write-to", type=Path, help="a Markdown file whose marked part the table replaces")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace, arguments: list[str]) -> None:
    check(options)
    variants = chosen(options.variants)
    names = [f"{variant.name}-{seed}" for variant in variants for seed in range(options.seeds)]
    train_all(options, variants)
    sounds = {name: make_sounds(options, variant, seed) for variant, seed, name in cells(options, variants)}
    sounds |= bounds(options)
    found = score(options, sounds)
    table = seeds_table.table(found, {v.name: v.title for v in variants}, options.seeds)
    (options.output / "table.md").write_text(table)


def check(options: argparse.Namespace) -> None:
    """UserError for what would come to light after hours."""
    if not 0 < options.minutes <= 60:
        raise UserError(f"--minutes {options.minutes:g}: expected more than 0 and at most 60")
    if options.seeds < 1 or options.processes < 1:
        raise UserError("--seeds and --processes: expected at least 1")
    for part in PARTS:
        record = options.run / part / "stage.json"
        if not record.is_file() or not json.loads(record.read_text()).get("finished"):
            raise UserError(
                f"{options.run}: its stage {part} is not finished: python train.py --stages {','.join(PARTS)} "
                f"output={options.run}"
            )


def chosen(names: str | None) -> list[Variant]:
    known = {variant.name: variant for variant in VARIANTS}
    wanted = list(known) if names is None else names.split(",")
    for name in wanted:
        if name not in known:
            raise UserError(f"--variants: there is no {name!r}, expected of {', '.join(known)}")
    return [known[name] for name in known if name in wanted or any(known[w].of == name for w in wanted)]
