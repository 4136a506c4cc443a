"""python -m visaudio.evaluation: how good generated binaural sounds are, of any system or of our own model.

Measures and models are loaded after the command line and the folders have been looked at.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bi_audio_dataset.schema import UserError
from visaudio.cli.common import Parser, guard, positive_int

EPILOG = """\
--generated takes folders of WAV, FLAC, MP3, MP4 and so on of any system; a file is of the clip it is named
after (ID.flac, ID.binaural.flac, ID.mp4). Writes results.json, clips.csv, table.csv and report.html to
--output, and the table to stdout. What was heard is kept in OUTPUT/cache: stopped at any time, the same
command goes on.

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
    add("--output", required=True, type=Path, metavar="DIR", help="folder to write to")
    add("--videos", type=Path, metavar="DIR", help="the clips' videos, where the sounds come without")
    add("--split", default="test", help="of a BiAudio dataset (default: test)")
    add("--config", choices=("default", "synth"), default="default", help="of a BiAudio dataset")
    add("--limit", type=positive_int, metavar="N", help="the first N clips by name, for a quick look")
    add("--measures", type=_names, metavar="a,b", help="these alone (default: all that can be had)")
    add(
        "--weights",
        action="append",
        default=[],
        type=_named,
        metavar="NAME=PATH",
        help="a measure's weights from a file; may be repeated (names: docs/metrics.md)",
    )
    add("--device", help="of measures and models that use torch (default: a GPU if there is one)")
    add("--workers", type=positive_int, metavar="N", help="processes (default: one for each core, at most 8)")
    add("--strict", action="store_true", help="end with exit code 2 at any problem with the files")
    add("--no-report", action="store_true", help="no HTML page")
    return parser


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _named(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"expected NAME=PATH, got '{text}'")
    return name, path


def run(options: argparse.Namespace, typed: Sequence[str]) -> int:
    from visaudio.evaluation import pairs, runner, writing
    from visaudio.evaluation.problems import line
    from visaudio.evaluation.workers import usual_workers

    systems = pairs.parse_systems(options.generated)
    if not systems:
        raise UserError("nothing to score: give --generated folders")
    settings = runner.Options(
        measures=options.measures,
        weights=dict(options.weights),
        device=options.device or _usual_device(),
        split=options.split,
        config=options.config,
        limit=options.limit,
        workers=options.workers or usual_workers(),
        strict=options.strict,
        videos=options.videos,
        unpack_videos=not options.no_report,
    )
    try:
        results = runner.evaluate(systems, options.reference, options.output, settings, say=_say)
    except KeyboardInterrupt:
        _say(f"what was done is kept in {options.output}: the same command goes on")
        raise
    results = writing.write(writing.stamped(results, writing.shown_command(typed)), options.output)
    for problem in results.problems:
        _say(line(problem))
    print(writing.table_text(results))
    written = [writing.RESULTS, writing.CLIPS, writing.TABLE]
    if not options.no_report:
        from visaudio.evaluation.html_report import write_report

        written.append(write_report(results, options.output).name)
    print(f"{options.output}: {', '.join(written)}")
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _usual_device() -> str:
    """Without importing torch, which measures made of numpy do not need."""
    from importlib.util import find_spec

    if find_spec("torch") is None:
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
