"""The answers' file: JSON lines, one an answer, each written whole or not at all.

What an interrupted append left, the beginning of an answer, counts for nothing and is cut off by the next
one. A file that ends in anything else is refused: it may be somebody's.

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
BEGINS = f'{{"schema_version": {SCHEMA_VERSION}, '.encode()  # as every answer does


def append(path: Path, row: Mapping[str, Any]) -> None:
    """One line, under a lock, followed by fsync. What a crash left unfinished at the end is cut off first.

    UserError where the file ends in what is no answer; OSError where it cannot be written.
    """
    data = json.dumps({"schema_version": SCHEMA_VERSION, **row}, allow_nan=False).encode() + b"\n"
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        rest = _rest(file)
        size = file.seek(0, os.SEEK_END)
        unfinished = _is_torn(rest, path)
        whole = size - len(rest) if unfinished else size
        file.truncate(whole)
        try:
            file.write(data if unfinished or not rest else b"\n" + data)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            os.ftruncate(file.fileno(), whole)
            raise


def _rest(file) -> bytes:
    """What stands after the last newline; of more than a block the last one, as rows are far shorter."""
    end = file.seek(0, os.SEEK_END)
    start = max(0, end - (1 << 16))
    file.seek(start)
    return file.read(end - start).rpartition(b"\n")[2]


def _is_torn(rest: bytes, path: Path) -> bool:
    """Whether what stands after the last newline is the beginning of an answer; False for nothing, and for an
    answer that lacks nothing but its newline. UserError for anything else."""
    if not rest.strip():
        return False
    _, fault = _row(rest)
    if not fault:
        return False
    if rest[: len(BEGINS)] == BEGINS[: len(rest)] and not _is_json(rest):
        return True
    raise UserError(f"{path}, last line: {fault}; correct the line, or give another file")


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def read(path: Path) -> list[dict[str, Any]]:
    """All whole answers; none of a file that is not there. UserError naming a line that is no answer."""
    try:
        *lines, rest = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not _is_torn(rest, path):
        lines.append(rest)
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        row, fault = _row(line)
        if fault:
            raise UserError(f"{path}:{number}: {fault}; correct or remove the line")
        rows.append(row)
    return rows


def _row(line: bytes) -> tuple[dict[str, Any], str]:
    """A line's answer, and what is wrong with it, "" for nothing."""
    try:
        row = json.loads(line)
        return row, _fault(row)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}, "not an answer of the listening test"


def _fault(row: Mapping[str, Any]) -> str:
    """What is wrong with a row, "" for nothing."""
    if row["schema_version"] != SCHEMA_VERSION:
        return f"schema version {row['schema_version']}, expected {SCHEMA_VERSION}"
    if row["kind"] == CHECK:
        return "" if isinstance(row["passed"], bool) else "passed is neither true nor false"
    if row["kind"] not in (RATING, PAIR):
        return f"kind '{row['kind']}'"
    order, count = row["order"], {RATING: 1, PAIR: 2}[row["kind"]]
    if not isinstance(order, list) or len(order) != count or sorted(order) != row["systems"]:
        return f"order {order} of systems {row['systems']}"
    if not all(isinstance(name, str) for name in order):
        return "systems that are no text"
    for name in ("listener", "clip", "plan"):
        if not isinstance(row[name], str):
            return f"{name} is no text"
    if not isinstance(row["trial"], int) or isinstance(row["trial"], bool):
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
