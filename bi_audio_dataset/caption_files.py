"""Captions that a user brings: a CSV with the columns `id` and `caption`, or JSON lines with these two keys.

Nothing is guessed and nothing dropped in silence: each row that cannot be taken is one line that names the
file, the line, the fault and the remedy.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterator
from pathlib import Path

from bi_audio_dataset import captions
from bi_audio_dataset.schema import UserError

SUFFIXES = (".csv", ".jsonl")


def read_caption_file(path: Path, known_ids: Collection[str]) -> tuple[dict[str, str], list[str]]:
    """({clip id: caption}, problems) of a file; other columns or keys are left alone.

    A row is a problem if its id is not among known_ids, or came before, or its caption is not of the form;
    the first of two rows with one id is kept. UserError if the file as a whole cannot be read.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"{path}: a caption file is {' or '.join(SUFFIXES)}, got '{path.suffix or path.name}'"
        )
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}): save it as UTF-8") from None
    read = _csv if path.suffix.lower() == ".csv" else _jsonl
    found: dict[str, str] = {}
    first_line: dict[str, int] = {}
    problems = []
    known_ids = frozenset(known_ids)
    for number, row in read(path, text):
        reason = row if isinstance(row, str) else _row_problem(row, known_ids, first_line)
        if reason is not None:
            problems.append(f"{path.name}:{number}: {reason}")
        if isinstance(row, str) or not isinstance(row.get("id"), str):
            continue
        first_line.setdefault(row["id"], number)
        if reason is None:
            found[row["id"]] = row["caption"]
    if not found and not problems:
        raise UserError(f"{path}: holds no captions")
    return found, problems


def _row_problem(row: dict, known_ids: frozenset[str], first_line: dict[str, int]) -> str | None:
    clip_id, caption = row.get("id"), row.get("caption")
    if not isinstance(clip_id, str) or not clip_id:
        return f"'id' must be a text that is not empty, got {clip_id!r}"
    if clip_id not in known_ids:
        return f"unknown id '{clip_id}': no clip of this dataset has it"
    if clip_id in first_line:
        return f"id '{clip_id}' again, it stands in line {first_line[clip_id]} already: keep one of them"
    if caption is None:
        return f"id '{clip_id}' has no caption"
    reason = captions.problem(caption)
    return None if reason is None else f"caption of '{clip_id}': {reason}"


def _csv(path: Path, text: str) -> Iterator[tuple[int, dict | str]]:
    """(line on which the row ends, row or what is wrong with it)."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        if not {"id", "caption"} <= set(header) or len(set(header)) < len(header):
            raise UserError(
                f"{path}: the first line must name the columns id and caption, once each, got {header}"
            )
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                yield (
                    reader.line_num,
                    f"{len(cells)} cells where the header has {len(header)} "
                    "(a caption holds commas: put it into double quotes)",
                )
                continue
            yield reader.line_num, {k: v.strip() for k, v in zip(header, cells, strict=True)}
    except csv.Error as error:
        yield reader.line_num, f"not CSV ({error}): the rest of the file was not read"


def _jsonl(path: Path, text: str) -> Iterator[tuple[int, dict | str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            yield number, f"not JSON ({error})"
            continue
        yield number, row if isinstance(row, dict) else "not a JSON object"
