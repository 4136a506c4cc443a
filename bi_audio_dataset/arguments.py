"""The command lines' parser: a mistake is one line on stderr and exit code 2, and flags are not shortened.
And what several commands take."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    def __init__(self, **options) -> None:
        # a shortened flag that works today is ambiguous tomorrow
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        # argparse's own prints the usage first; one line is the rule here
        print(f"error: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def not_negative(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {value}")
    return value


def add_running(parser: argparse.ArgumentParser) -> None:
    """Who makes units, and where their parts lie: of each command that builds."""
    parser.add_argument(
        "--workers", type=positive, metavar="N", help="processes (default: 1); ray: units at a time"
    )
    parser.add_argument(
        "--executor",
        choices=("local", "ray"),
        default="local",
        help="local: processes of this machine (default); ray: a cluster, needs visaudio[ray]",
    )
    parser.add_argument(
        "--address", metavar="ADDRESS", help="ray: the cluster (default: RAY_ADDRESS, or here)"
    )
    parser.add_argument(
        "--parts", metavar="URL", help="folder or fsspec URL for unfinished work (default: DIR/.work/parts)"
    )
