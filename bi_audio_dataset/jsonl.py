"""Append-only JSON lines: what people and models decide, kept so that no crash loses or tears a row.

A row is one `write` of one line to a file opened for appending, under a lock and followed by fsync. A process
that dies inside the write leaves a last line without its newline: readers leave it out, the next append
removes it.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bi_audio_dataset.schema import UserError


def append_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Append the rows, all or (if the disk is full) none; the file is made if it is not there."""
    data = b"".join(json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n" for row in rows)
    if not data:
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        whole = _whole_bytes(handle)
        handle.truncate(whole)
        try:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        except OSError:
            os.ftruncate(handle.fileno(), whole)
            raise


def read_rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """(line number from 1, row) of each whole line; blank lines are left out, a missing file has no rows.

    UserError naming the line that is not a JSON object.
    """
    path = Path(path)
    if not path.exists():
        return []
    rows = []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is torn or empty
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise UserError(f"{path}:{number}: not a JSON object: correct or remove the line")
        rows.append((number, row))
    return rows


def _whole_bytes(handle) -> int:
    """Length of the file up to and with its last newline."""
    end = handle.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 65536)
        handle.seek(start)
        found = handle.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
