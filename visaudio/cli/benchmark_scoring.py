"""Options that benchmarks of systems' sounds share: which clips, whose sounds, and how to score."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bi_audio_dataset.schema import INNER, UserError
from visaudio.cli.common import positive_int
from visaudio.cli.evaluation import add_weights, comma_names

if TYPE_CHECKING:
    from visaudio.evaluation.benchmark_table import Clips, Published


def add_clip_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--dataset", required=True, help="a BiAudio folder or Hub repository that holds the benchmark")
    add("--config", default="benchmark", choices=("default", *INNER), help="of it (default: benchmark)")
    add("--limit", type=positive_int, metavar="N", help="only the first N clips (for a quick look)")
    add("--write-to", type=Path, help="a Markdown file whose marked part the table replaces")


def add_scoring_options(parser: argparse.ArgumentParser) -> None:
    add_clip_options(parser)
    add = parser.add_argument
    add(
        "--any-set",
        action="store_true",
        help="another set than the benchmark: its test split; the table says so",
    )
    add(
        "--measures",
        type=comma_names,
        default=(),
        metavar="a,b",
        help="a table more, by published networks: panns, passt, vggish, desync, clap, imagebind",
    )
    add_weights(parser, "of those measures, from a file")
    add("--device", default="cpu", help="of those measures (default: cpu)")


def named_folder(text: str) -> tuple[str, Path]:
    """Of --system NAME=DIR. UserError for what is none."""
    name, _, folder = text.partition("=")
    if not name or not folder or not Path(folder).is_dir():
        raise UserError(f"--system {text}: expected NAME=DIR, a folder of sounds")
    return name, Path(folder)


def clips_of(options: argparse.Namespace) -> Clips:
    """UserError for what is not the benchmark."""
    from visaudio.evaluation.benchmark_table import benchmark_clips

    return benchmark_clips(options.dataset, options.config, options.limit, options.any_set)


def published_of(options: argparse.Namespace) -> Published:
    """UserError for a measure that is none of those."""
    from visaudio.evaluation.benchmark_table import Published

    return Published(tuple(options.measures), dict(options.weights), options.device)
