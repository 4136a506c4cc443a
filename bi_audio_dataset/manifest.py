"""The manifest: one JSON line for each recording and for each clip, only ever appended to.

A row has "kind" ("recording" or "clip"), "id", "decision" ("accept", "reject"; of a recording "built" or
"quarantine"), "reasons" and "marks" ({filter: words}), "measures", provenance, seeds and, of a clip, the
whole camera path. "camera" is by far the largest value; it stands at the end of the line, so that it need not
be parsed where it is not needed. Rows hold no times, hosts or paths: a build's rows are the same everywhere.

While a build runs the rows are a journal in the order in which recordings were finished
(`.work/journal.jsonl`, with what JOURNAL_ONLY names beside each recording); a finished dataset holds
`manifest.jsonl`, sorted by id.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bi_audio_dataset import jsonl
from bi_audio_dataset.schema import UserError

MANIFEST_VERSION = 1
#: An integer per stage of the builder; changing what a stage gives changes its number.
STAGE_VERSIONS = {"select": 2, "trajectory": 1, "render": 2, "fingerprint": 1, "caption": 1, "finalize": 1}
#: Of a recording, and left out by finalize: seconds of work, when it was done, what its part is made of, the
#: part's bytes, and the source's files as they were ({"video": [name, bytes, mtime in ns], ...}).
JOURNAL_ONLY = ("seconds", "at", "unit", "size", "files")
#: How the last value of a clip's line begins. In a text its quotes would be escaped.
_HEAVY = ', "camera": {"rate_hz": '
_HEAD = ', "camera": '

Row = dict[str, Any]


def dumps(row: Row) -> str:
    """One line, "camera" last."""
    return json.dumps(_camera_last(row), ensure_ascii=False, allow_nan=False)


def split_line(line: str) -> tuple[Row, str]:
    """(the row without its camera path, the path's part of the line as it stands)."""
    head, mark, tail = line.rstrip("\n").partition(_HEAVY)
    return (json.loads(head + "}") if mark else json.loads(head)), mark + tail


def join_line(row: Row, tail: str) -> str:
    """The inverse of split_line, with a changed row."""
    text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    return text[:-1] + tail if tail else text


def read(path: str | os.PathLike, camera: bool = True) -> Iterator[Row]:
    """The rows of a manifest or journal. A torn last line, which a kill leaves, is passed over.

    Raises:
        UserError: the file is missing, or a line that is not the last is not a row.
    """
    for _, (row, tail) in _lines(path):
        if camera and tail:
            row["camera"] = json.loads(tail[len(_HEAD) : -1])
        yield row


def rows_at(path: Path) -> Iterator[tuple[int, Row]]:
    """(offset of its line in bytes, row without its camera path) of each line, as `read`."""
    offset = 0
    for line, (row, _) in _lines(path):
        yield offset, row
        offset += len(line)


def row_at(path: Path, offset: int) -> Row:
    """The whole row that begins there."""
    with open(path, "rb") as handle:
        handle.seek(offset)
        return json.loads(handle.readline())


def _lines(path: str | os.PathLike) -> Iterator[tuple[bytes, tuple[Row, str]]]:
    try:
        handle = open(path, "rb")
    except FileNotFoundError:
        raise UserError(f"'{path}' does not exist: expected a manifest; build the dataset first") from None
    with handle:
        for number, line in enumerate(handle, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield line, split_line(line.decode())
            except ValueError as error:
                raise UserError(
                    f"'{path}' line {number} is not a manifest row ({error}): remove that line or the file"
                ) from None


def write(path: Path, lines: Iterable[str]) -> None:
    """A whole manifest at once: written beside, then renamed."""
    beside = path.with_name(path.name + ".tmp")
    with open(beside, "w", encoding="utf-8") as handle:
        for line in lines:
            handle.write(line + "\n")
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(beside, path)


def append(path: Path, rows: Iterable[Row]) -> None:
    """Append rows, on the disk when this returns; a last line that a kill has torn is removed first."""
    jsonl.append_rows(path, [_camera_last(row) for row in rows])


def _camera_last(row: Row) -> Row:
    light = {key: value for key, value in row.items() if key != "camera"}
    return light | ({"camera": row["camera"]} if row.get("camera") else {})
