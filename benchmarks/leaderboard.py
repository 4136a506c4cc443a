#!/usr/bin/env python
"""The leaderboard of the BiAudio-Synth benchmark: a model, its ceiling, floor and baselines, other systems.

    python -m bi_audio_dataset synth --benchmark --output data/benchmark
    python benchmarks/leaderboard.py --dataset data/benchmark --model tiny --output runs/leaderboard

The model's sounds come from the benchmark's MP4 files alone: no prompt, unknown lens, one fixed noise for
each clip, the first and only sample; silence counts as wrong. Other systems are folders of sounds by clip id,
under the same rules: --system NAME=DIR. A system that lacks a clip is an error. Everything is kept under
--output; an interrupted command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from bi_audio_dataset.schema import INNER, UserError
from visaudio import tables
from visaudio.cli.common import guard
from visaudio.evaluation.benchmark_table import benchmark_clips, benchmark_table

ROOT = Path(__file__).resolve().parents[1]
LEARNED = "two-stage-learned"
ROWS = {
    "codec": "codec round trip of the truth (ceiling)",
    "model": "**{}**",
    "mono": "{}, mono copied to both ears",
    "two-stage-truth": "{} in mono, then the true direction",
    "two-stage-motion": "{} in mono, then motion in the picture",
    LEARNED: "{} in mono, then a learned head",
    "shuffled": "{}, another clip's picture (floor)",
}


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    given = list(sys.argv[1:] if arguments is None else arguments)
    return guard(lambda: run(options, tables.shown_command("benchmarks/leaderboard.py", given)))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--dataset", required=True, help="a BiAudio folder or Hub repository that holds the benchmark")
    add("--config", default="benchmark", choices=("default", *INNER), help="of it (default: benchmark)")
    add("--any-set", action="store_true", help="take another set's test split; the table says so")
    add("--model", default="tiny", help="packaged name, model folder or Hub repository (default: tiny)")
    add("--output", type=Path, required=True)
    add("--system", action="append", default=[], metavar="NAME=DIR", help="sounds of another system")
    add("--spatialiser", type=Path, help=f"for {LEARNED}: what baselines train-spatialiser wrote")
    add("--workers", type=int, default=2, help="processes of one thread each (default: 2)")
    add("--limit", type=int, help="only the first N clips (for a quick look)")
    add("--write-to", type=Path, help="a Markdown file whose marked part the table replaces")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace, command: str) -> int:
    others = dict(given(text) for text in options.system)
    clips = benchmark_clips(options.dataset, options.config, options.limit, options.any_set)
    rows = [name for name in ROWS if name != LEARNED or options.spatialiser]
    for name in others:
        if name in ROWS:
            raise UserError(f"--system {name}=...: that is a row of its own here, give it another name")
    own = Path(options.model).name
    systems = {name: [make(options, name)] for name in rows}
    systems |= {name: [folder] for name, folder in others.items()}
    titles = {name: ROWS[name].format(own) for name in rows} | {name: name for name in others}
    where = options.output / "evaluation"
    text = benchmark_table(systems, clips, where, titles, workers=options.workers)
    text = f"`{command}` at commit `{tables.commit(ROOT)}`.\n\n{text}"
    (options.output / "table.md").write_text(text)
    if options.write_to:
        tables.replace_part(options.write_to, "leaderboard", text)
    print(text)
    return 0


def given(text: str) -> tuple[str, Path]:
    name, separator, folder = text.partition("=")
    if not separator or not name or not Path(folder).is_dir():
        raise UserError(f"--system {text}: expected NAME=DIR, a folder of sounds")
    return name, Path(folder)


def make(options: argparse.Namespace, name: str) -> Path:
    """The folder of a row's sounds, made as far as they are missing."""
    from visaudio.evaluation.baselines.running import Request
    from visaudio.evaluation.baselines.running import run as make_missing

    def bar(what: str, total: int) -> tqdm:
        return tqdm(total=total, desc=f"{name}: {what}", unit="clip", smoothing=0.05)

    request = Request(
        name,
        options.dataset,
        options.output / "sounds",
        config=options.config,
        model=options.model,
        spatialiser=options.spatialiser if name == LEARNED else None,
        limit=options.limit,
        workers=options.workers,
    )
    return make_missing(request, bar)


if __name__ == "__main__":
    sys.exit(main())
