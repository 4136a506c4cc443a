"""What the command lines share: one line for a mistake, exit code 2, and cleaning up when told to stop."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from bi_audio_dataset.schema import UserError


class Parser(argparse.ArgumentParser):
    """argparse, but a wrong flag gives one line, and a shortened flag is a wrong one."""

    def __init__(self, **options) -> None:
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        print(f"error: {message} (see --help)", file=sys.stderr)
        raise SystemExit(2)


def positive(text: str) -> float:
    """A positive finite number, for argparse."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text}")
    return value


def positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text}")
    return value


LARGEST_SEED = 2**63 - 1  # that torch takes; numpy takes none below 0


def seed_number(text: str) -> int:
    """A seed that numpy and torch both take."""
    value = int(text)
    if not 0 <= value <= LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to 2^63 - 1, got {text}")
    return value


def guard(run: Callable[[], int]) -> int:
    """Exit code of `run`; a UserError is one line and 2, an interruption 130 (143 for SIGTERM)."""

    def terminated(*_: object) -> NoReturn:
        raise SystemExit(143)  # unwinds, so that temporary files go

    previous = signal.signal(signal.SIGTERM, terminated)
    try:
        return run()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, previous)
