"""The answers' file: JSON lines, one an answer, each written whole or not at all.

Every row has: schema_version, kind ("rating", "pair" or "check"), listener, time (UTC), plan (of `trials.
fingerprint`). Ratings and pairs also: seed, trial, clip, systems (sorted), order (as played), seconds (from
the trial's start to its answer), plays (of each sound), lufs, gains_db (in the order played); and
ratings {question: 1..5} or choices {question: "first" | "second" | "same"}. A check has passed, sides, said.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bi_audio_dataset.schema import UserError
from visaudio.evaluation.listening.questions import CHOICES, NAMES, SCALE
from visaudio.evaluation.listening.trials import PAIR, RATING

SCHEMA_VERSION = 1
CHECK = "check"


def append(path: Path, row: Mapping[str, Any]) -> None:
    """One line, under a lock, followed by fsync. What a crash left unfinished at the end is cut off first."""
    data = json.dumps({"schema_version": SCHEMA_VERSION, **row}, allow_nan=False).encode() + b"\n"
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        whole = _whole_bytes(file)
        file.truncate(whole)
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            os.ftruncate(file.fileno(), whole)
            raise


def _whole_bytes(file) -> int:
    """Length up to and with the last newline. Rows are far shorter than a block."""
    end = file.seek(0, os.SEEK_END)
    start = max(0, end - (1 << 16))
    file.seek(start)
    return start + file.read(end - start).rfind(b"\n") + 1


def read(path: Path) -> list[dict[str, Any]]:
    """All whole lines; none of a file that is not there. UserError naming a line that is no answer."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]  # after the last newline: nothing, or what a crash left
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            what = _fault(row)
        except (ValueError, TypeError, KeyError, AttributeError):
            row, what = None, "not an answer of the listening test"
        if what:
            raise UserError(f"{path}:{number}: {what}; correct or remove the line")
        rows.append(row)
    return rows


def _fault(row: Mapping[str, Any]) -> str:
    """What is wrong with a row, "" for nothing."""
    if row["schema_version"] != SCHEMA_VERSION:
        return f"schema version {row['schema_version']}, expected {SCHEMA_VERSION}"
    if row["kind"] == CHECK:
        return "" if isinstance(row["passed"], bool) else "passed is neither true nor false"
    if row["kind"] not in (RATING, PAIR):
        return f"kind '{row['kind']}'"
    order, count = row["order"], {RATING: 1, PAIR: 2}[row["kind"]]
    if len(order) != count or sorted(order) != row["systems"]:
        return f"order {order} of systems {row['systems']}"
    for name in ("listener", "clip", "plan"):
        if not isinstance(row[name], str):
            return f"{name} is no text"
    if not isinstance(row["trial"], int):
        return "trial is no number"
    return fault_of_answer(row["kind"], row["ratings" if row["kind"] == RATING else "choices"])


def fault_of_answer(kind: str, given: object, wanted: tuple[str, ...] | None = None) -> str:
    """What is wrong with {question: rating or choice}, "" for nothing. wanted: these questions, no others."""
    if not isinstance(given, dict) or not given:
        return "no answers"
    if unknown := [name for name in given if name not in NAMES]:
        return f"unknown question '{unknown[0]}'"
    if wanted is not None and set(given) != set(wanted):
        return f"expected answers to {', '.join(wanted)}"
    allowed: tuple = tuple(SCALE) if kind == RATING else CHOICES
    for name, value in given.items():
        # True would pass for 1
        if isinstance(value, bool) or value not in allowed or isinstance(value, float):
            return f"{name}: {value!r}, expected one of {', '.join(map(str, sorted(allowed, key=str)))}"
    return ""
