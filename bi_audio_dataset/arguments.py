"""The command lines' parser: a mistake is one line on stderr and exit code 2, and flags are not shortened."""

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
