"""The removal list: recordings and clips that may no longer be published, and why.

DIR/removals.jsonl   append-only rows {"id": ..., "reason": ...}; the last row of an id stands
DIR/removed.txt      the same by hand: an id to a line, what follows '#' is the reason

An id is that of a clip, of a recording (then all its clips are meant) or of a recording's group (one film of
which several recordings were cut). finalize, remove, rebuild, publish and push honour the list.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from bi_audio_dataset import jsonl, manifest
from bi_audio_dataset.schema import UserError

REMOVALS_FILE = "removals.jsonl"
REMOVALS_TEXT = "removed.txt"
NO_REASON = "on the removal list"

#: id -> reason
Removals = Mapping[str, str]


def load(folder: Path, more: Iterable[Path] = ()) -> dict[str, str]:
    """What the folder's own lists and the files `more` say together. UserError for a malformed line, and
    where one of `more` cannot be read."""
    own = (Path(folder) / name for name in (REMOVALS_TEXT, REMOVALS_FILE))
    found: dict[str, str] = {}
    for path in (*(path for path in own if path.exists()), *more):
        found |= read(Path(path))
    return found


def read(path: Path) -> dict[str, str]:
    """Id -> reason of one list, text or JSON lines (they may be mixed). UserError naming a malformed line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"the removal list '{path}' cannot be read ({' '.join(str(error).split())})"
        ) from None
    found = {}
    for number, line in enumerate(lines, start=1):
        if line.lstrip().startswith("{"):
            name, reason = _parse(line, f"{path}:{number}")
        else:
            name, _, reason = (part.strip() for part in line.partition("#"))
        if name:
            found[name] = reason or NO_REASON
    return found


def _parse(line: str, where: str) -> tuple[str, str]:
    try:
        row = json.loads(line)
    except ValueError:
        row = {}
    name, reason = row.get("id"), row.get("reason") or ""
    # a line that is passed over would leave published what somebody wants removed
    if not (isinstance(name, str) and name and isinstance(reason, str)):
        raise UserError(f'{where}: expected {{"id": "...", "reason": "..."}}: correct or remove the line')
    return name, " ".join(reason.split())


def append(folder: Path, removals: Removals) -> None:
    """Add to DIR/removals.jsonl what it does not say yet."""
    known = load(folder)
    rows = [{"id": name, "reason": why} for name, why in removals.items() if known.get(name) != why]
    jsonl.append_rows(Path(folder) / REMOVALS_FILE, rows)


def reason_for(removals: Removals, *names: str) -> str | None:
    """Why a clip is removed, None if it is not. names: its id, its recording's, its recording's group."""
    return next((removals[name] for name in names if name and name in removals), None)


def groups_of(manifest_path: Path) -> dict[str, str]:
    """Recording id -> its group, of those that have one; {} without a manifest."""
    if not manifest_path.exists():
        return {}
    rows = manifest.read(manifest_path, camera=False)
    return {row["id"]: row["group"] for row in rows if row["kind"] == "recording" and row.get("group")}
