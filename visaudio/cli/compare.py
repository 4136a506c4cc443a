"""python -m visaudio.evaluation.compare: earlier evaluations side by side, or a page made anew."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bi_audio_dataset.schema import UserError
from visaudio.cli.common import Parser, guard, positive_int, seed_number
from visaudio.cli.report_options import add_report_options, report_config

EPILOG = """\
Nothing is measured again. Systems of different runs are tested in pairs on the clips that both have. Writes
results.json, clips.csv, table.csv and report.html to --output, and the table to stdout. Of one results.json
alone only report.html is made anew: with more pictures, or with other clips first.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    typed = list(sys.argv[1:] if arguments is None else arguments)
    return guard(lambda: run(options, typed))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m visaudio.evaluation.compare",
        description="Put earlier evaluations side by side.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "results",
        nargs="+",
        metavar="[NAME=]RESULTS.json",
        help="of an evaluation, or its folder; NAME tells systems of one name apart",
    )
    add("--output", required=True, type=Path, metavar="DIR", help="folder to write to")
    add("--resamples", type=positive_int, default=1000, metavar="N", help="of the bootstrap (default: 1000)")
    add("--seed", type=seed_number, default=0, metavar="N", help="of the resampling (default: 0)")
    add_report_options(parser)
    return parser


def run(options: argparse.Namespace, typed: Sequence[str]) -> int:
    from visaudio.evaluation import compare, writing
    from visaudio.evaluation.html_report import worst_order, write_report
    from visaudio.evaluation.problems import line

    runs, config = compare.read_runs(options.results), report_config(options)
    if len(runs) == 1:
        print(write_report(runs[0].results, options.output, config))
        return 0
    if any(options.output.resolve() == run.path.resolve().parent for run in runs):
        raise UserError(f"--output {options.output}: holds one of the runs, whose files would be lost")
    results = compare.merge(runs, options.resamples, options.seed)
    worst_order(results, config)  # names that are not there are told before anything is written
    for problem in results.problems:
        print(line(problem), file=sys.stderr)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{options.output}: cannot be written ({error.strerror or error})") from error
    command = writing.shown_command(typed, "visaudio.evaluation.compare")
    results = writing.write(writing.stamped(results, command), options.output)
    print(writing.table_text(results))
    page = write_report(results, options.output, config)
    written = (writing.RESULTS, writing.CLIPS, writing.TABLE, writing.COMPARISONS, page.name)
    print(f"{options.output}: {', '.join(written)}")
    return 0
