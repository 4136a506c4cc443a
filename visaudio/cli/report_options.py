"""Flags of the report page, which several commands write."""

from __future__ import annotations

import argparse


def add_report_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the page")
    group.add_argument(
        "--report-clips",
        type=_count,
        metavar="N",
        help="clips with pictures: the worst half first, then a spread (default: 16)",
    )
    group.add_argument(
        "--report-figure",
        default="",
        metavar="NAME",
        help="worst first by this figure, as results.json names it (default: ild_error_db, or the first)",
    )
    group.add_argument(
        "--report-system", default="", metavar="NAME", help="of this system (default: the first)"
    )


def report_config(options: argparse.Namespace):
    """What write_report takes."""
    from visaudio.evaluation.html_report import ReportConfig

    given = {} if options.report_clips is None else {"clips": options.report_clips}
    return ReportConfig(figure=options.report_figure, system=options.report_system, **given)


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, got {text}")
    return value
