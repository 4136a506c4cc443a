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

from bi_audio_dataset.schema import UserError
from visaudio import tables
from visaudio.cli.benchmark_scoring import add_scoring_options, clips_of, named_folder, published_of
from visaudio.cli.common import Parser, guard, positive_int
from visaudio.evaluation.baselines import sources
from visaudio.evaluation.benchmark_table import Clips, benchmark_table

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
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_scoring_options(parser)
    add = parser.add_argument
    add("--model", default="tiny", help="packaged name, model folder or Hub repository (default: tiny)")
    add("--output", type=Path, required=True)
    add("--system", action="append", default=[], metavar="NAME=DIR", help="sounds of another system")
    add("--spatialiser", type=Path, help=f"for {LEARNED}: what baselines train-spatialiser wrote")
    add("--workers", type=positive_int, default=2, help="processes of one thread each (default: 2)")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace, command: str) -> int:
    tables.check_part(options.write_to, "leaderboard")
    published, clips = published_of(options), clips_of(options)
    others = dict(given(text, clips) for text in options.system)
    rows = [name for name in ROWS if name != LEARNED or options.spatialiser]
    for name in others:
        if name in ROWS:
            raise UserError(f"--system {name}=...: that is a row of its own here, give it another name")
    own = Path(options.model).name
    systems = {name: [make(options, name)] for name in rows}
    systems |= {name: [folder] for name, folder in others.items()}
    titles = {name: ROWS[name].format(own) for name in rows} | {name: name for name in others}
    where = options.output / "evaluation"
    text = benchmark_table(systems, clips, where, titles, workers=options.workers, published=published)
    tables.publish(
        f"`{command}` at commit `{tables.commit(ROOT)}`.\n\n{text}",
        options.output / "table.md",
        options.write_to,
        "leaderboard",
    )
    return 0


def given(text: str, clips: Clips) -> tuple[str, Path]:
    """UserError for what is no folder, or lacks a clip: before hours are spent on the other rows."""
    name, folder = named_folder(text)
    sources.sounds_of(folder, clips.ids, f"--system {name}")
    return name, folder


def make(options: argparse.Namespace, name: str) -> Path:
    """The folder of a row's sounds, made as far as they are missing."""
    from visaudio.evaluation.baselines.running import Request
    from visaudio.evaluation.baselines.running import run as make_missing

    def bar(what: str, total: int) -> tqdm:
        return tqdm(total=total, desc=f"{name}: {what}", unit="clip", smoothing=0.05)

    # shuffled clips depend on how many there are
    sounds = "sounds" if options.limit is None else f"sounds-of-{options.limit}"
    request = Request(
        name,
        options.dataset,
        options.output / sounds,
        config=options.config,
        model=options.model,
        spatialiser=options.spatialiser if name == LEARNED else None,
        limit=options.limit,
        workers=options.workers,
    )
    return make_missing(request, bar)


if __name__ == "__main__":
    sys.exit(main())
