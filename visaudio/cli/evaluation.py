"""python -m visaudio.evaluation: how good generated binaural sounds are, of any system or of our own model.

Measures and models are loaded after the command line and the folders have been looked at.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bi_audio_dataset.schema import INNER, UserError
from visaudio.cli.common import Parser, guard, positive, positive_int, seed_number
from visaudio.cli.report_options import add_report_options, report_config

if TYPE_CHECKING:
    from visaudio.evaluation import runner

SYSTEM = "model"  # of generation.py, whose import would load the dataset's libraries

EPILOG = """\
--generated takes folders of WAV, FLAC, MP3, MP4 and so on of any system; a file is of the clip it is named
after (ID.flac, ID.binaural.flac, ID.mp4). Writes results.json, clips.csv, table.csv, comparisons.csv and
report.html to --output, and the table to stdout. What was heard is kept in OUTPUT/cache: stopped at any
time, the same command goes on.

--model and --dataset make each clip's sound from its video alone, then score it. Over several processes:
--workers on CPUs; accelerate launch or torchrun -m visaudio.evaluation ... on GPUs: each makes its share.

Exit code: 0 if there are figures, 2 if there are none, or with --strict if anything was not as it should be.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    typed = list(sys.argv[1:] if arguments is None else arguments)
    return guard(lambda: run(options, typed))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m visaudio.evaluation",
        description="Score generated binaural sounds.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--generated", nargs="+", default=[], metavar="[NAME=]DIR", help="folders of sounds, one per system")
    add(
        "--reference",
        metavar="DIR_OR_DATASET",
        help="folder of sounds, or BiAudio folder or Hub repository (default: none; then only measures that "
        "need no reference are taken)",
    )
    add("--model", metavar="DIR_OR_REPO", help="generate with this model first; needs --dataset")
    add(
        "--dataset",
        metavar="DIR_OR_REPO",
        help="BiAudio set: its videos for --model, its sounds as reference",
    )
    add("--output", required=True, type=Path, metavar="DIR", help="folder to write to")
    add("--videos", type=Path, metavar="DIR", help="the clips' videos, where the sounds come without")
    add("--captions", type=Path, metavar="FILE", help="the clips' captions: .json of {id: caption}, or .csv")
    add("--split", default="test", help="of a BiAudio dataset (default: test)")
    add("--config", choices=("default", *INNER), default="default", help="of a BiAudio dataset")
    add("--limit", type=positive_int, metavar="N", help="the first N clips by name, for a quick look")
    add("--measures", type=comma_names, metavar="a,b", help="these alone (default: all that can be had)")
    add_weights(parser, "a measure's weights from a file")
    add(
        "--hfov_deg",
        type=positive,
        default=90.0,
        metavar="DEG",
        help="lens of videos whose dataset does not say it, for measures of picture and sound (default: 90)",
    )
    add(
        "--detector_labels",
        type=comma_names,
        default=(),
        metavar="a,b",
        help="what a detector is to look for",
    )
    add("--device", help="of measures and models that use torch (default: a GPU if there is one)")
    add("--workers", type=positive_int, metavar="N", help="processes (default: one for each core, at most 8)")
    add("--seed", type=seed_number, default=0, help="of the model's noise and of the bootstrap (default: 0)")
    add("--num_steps", type=positive_int, help="the model's solver steps (default: its own)")
    add("--cfg_strength", type=float, help="the model's guidance; 1 is off (default: its own)")
    add("--batch", type=positive_int, default=4, help="clips the model samples together (default: 4)")
    add("--prompt", choices=("none", "caption"), default="none", help="tell the model the clip's caption")
    add("--hfov", choices=("unknown", "known"), default="unknown", help="tell the model the clip's lens")
    add("--strict", action="store_true", help="end with exit code 2 at any problem with the files")
    add("--no-report", action="store_true", help="no HTML page")
    add_report_options(parser)
    return parser


def add_weights(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        type=name_and_path,
        metavar="NAME=PATH",
        help=f"{what}; may be repeated (names: docs/metrics.md)",
    )


def comma_names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def name_and_path(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"expected NAME=PATH, got '{text}'")
    return name, path


def run(options: argparse.Namespace, typed: Sequence[str]) -> int:
    from visaudio.evaluation import pairs, runner, writing
    from visaudio.evaluation.problems import line
    from visaudio.evaluation.workers import usual_workers

    systems = pairs.parse_systems(options.generated)
    _check_together(options, systems)
    settings = runner.Options(
        measures=options.measures,
        weights=dict(options.weights),
        device=options.device or _usual_device(),
        hfov_deg=options.hfov_deg,
        detector_labels=options.detector_labels,
        split=options.split,
        config=options.config,
        limit=options.limit,
        workers=options.workers or usual_workers(),
        strict=options.strict,
        seed=options.seed,
        videos=options.videos,
        captions=options.captions,
        unpack_videos=not options.no_report,
    )
    try:
        made = {}
        if options.model is not None:
            folder, made[SYSTEM] = _generate(options, settings) or (None, None)
            if folder is None:
                return 0
            systems = {SYSTEM: folder, **systems}
        reference = options.dataset if options.reference is None else options.reference
        results = runner.evaluate(systems, reference, options.output, settings, made=made, say=_say)
    except KeyboardInterrupt:
        _say(f"what was done is kept in {options.output}: the same command goes on")
        raise
    results = writing.write(writing.stamped(results, writing.shown_command(typed)), options.output)
    for problem in results.problems:
        _say(line(problem))
    print(writing.table_text(results))
    written = [writing.RESULTS, writing.CLIPS, writing.TABLE]
    written += [writing.COMPARISONS] if results.comparisons else []
    if not options.no_report:
        from visaudio.evaluation.html_report import write_report

        written.append(write_report(results, options.output, report_config(options)).name)
    print(f"{options.output}: {', '.join(written)}")
    return 0


def _check_together(options: argparse.Namespace, systems: Mapping[str, Path]) -> None:
    """UserError for flags that do not go together."""
    if options.dataset is not None and options.reference is not None:
        raise UserError("--dataset is the reference already: give one of --dataset and --reference")
    if options.model is None:
        if not systems:
            raise UserError("nothing to score: give --generated folders, or --model and --dataset")
        given = [f for f in ("num_steps", "cfg_strength") if getattr(options, f) is not None]
        given += [f for f, usual in (("prompt", "none"), ("hfov", "unknown")) if getattr(options, f) != usual]
        if given:
            raise UserError(f"--{given[0]} is for generating: give --model, or leave it out")
    elif options.dataset is None:
        raise UserError("--model needs --dataset: the clips whose videos it is to hear")
    elif SYSTEM in systems:
        raise UserError(f"'{SYSTEM}' is the name of --model's sounds: call the folder otherwise, NAME=DIR")


def _generate(options: argparse.Namespace, settings: runner.Options):
    from visaudio.evaluation.generation import Generation, generate

    names = ("model", "seed", "num_steps", "cfg_strength", "prompt", "hfov", "batch")
    how = Generation(
        **{name: getattr(options, name) for name in names},
        # one process for each core would load the model as often: that is asked for, not taken
        workers=options.workers or 1,
        device=settings.device,
    )
    about = {"split": settings.split, "config": settings.config, "limit": settings.limit}
    return generate(options.dataset, options.output, how, **about)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _usual_device() -> str:
    """A GPU if there is one; torch, seconds that measures made of numpy do without, is asked only where
    there is a driver of one."""
    import ctypes

    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
