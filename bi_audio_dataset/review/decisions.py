"""Decisions of reviewers: an append-only file, and what follows from its rows.

A row of DIR/decisions.jsonl: {"clip_id", "decision": "accept" | "reject" | "rerender", "caption": str | null,
"reviewer", "time"}. `caption` is the caption as the reviewer changed it, null where it stays; `time` is UTC,
2026-01-31T12:00:00.000Z. A row judges one rendering of the clip: "render", left out for the first (0).
"rerender" asks for rendering render + 1, along another camera path.

What follows depends on the set of rows alone, not on their order or the file they came from:

- rows about an earlier rendering than the latest that anyone asked for no longer count;
- of each reviewer the last row counts; a later row takes an earlier one back;
- a request to render again stands over what others say of the same rendering;
- else, where reviewers differ, "reject" stands over "accept": a clip is published if nobody objects. The
  verdict says that they differ, and the page shows such clips first;
- the caption is that of the last accepting row that changed it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from bi_audio_dataset import captions, jsonl
from bi_audio_dataset.schema import UserError

DECISIONS_FILE = "decisions.jsonl"
CHOICES = ("accept", "reject", "rerender")
_KEYS = ("clip_id", "decision", "caption", "reviewer", "time")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")


@dataclass(frozen=True, order=True)
class Decision:
    """One row; the order is by time, so that sorted decisions are a history. caption '' means null."""

    time: str
    reviewer: str
    clip_id: str
    decision: str
    caption: str = ""
    render: int = 0

    def to_row(self) -> dict:
        row = {name: getattr(self, name) for name in _KEYS}
        row["caption"] = self.caption or None
        return row | {"render": self.render} if self.render else row


@dataclass(frozen=True)
class Verdict:
    """What stands of a clip. decision "rerender" means that rendering number `render` is asked for and nobody
    has judged it yet; "accept" and "reject" are about rendering `render`. caption None: the clip's own
    stays."""

    decision: str
    render: int
    caption: str | None
    reviewers: tuple[str, ...]
    disagreement: bool = False


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def append(path: Path, decision: Decision) -> None:
    """UserError if the row would not be read back."""
    check_row(decision.to_row(), str(path))
    jsonl.append_rows(path, [decision.to_row()])


def read(path: Path) -> list[Decision]:
    """The rows of a file in its order; [] if it is not there. UserError naming the line that is malformed."""
    return [check_row(row, f"{path}:{number}") for number, row in jsonl.read_rows(path)]


def check_row(row: Mapping, where: str) -> Decision:
    """The row as a Decision. UserError, which begins with `where`, if a key is missing or a value is none."""
    missing = [name for name in _KEYS if name not in row]
    if missing:
        raise UserError(f"{where}: a decision lacks {', '.join(missing)}")
    for name in ("clip_id", "reviewer", "time"):
        if not isinstance(row[name], str) or not row[name].strip():
            raise UserError(f"{where}: {name} must be a text that is not empty, got {row[name]!r}")
    if row["decision"] not in CHOICES:
        raise UserError(f"{where}: decision is {row['decision']!r}, expected one of {', '.join(CHOICES)}")
    if not _TIME.fullmatch(row["time"]):
        raise UserError(f"{where}: time is '{row['time']}', expected UTC such as 2026-01-31T12:00:00Z")
    render = row.get("render", 0)
    if not isinstance(render, int) or isinstance(render, bool) or render < 0:
        raise UserError(f"{where}: render is {render!r}, expected a whole number from 0")
    if row["caption"] is not None:
        reason = captions.problem(row["caption"])
        if reason is not None:
            raise UserError(f"{where}: caption: {reason}")
    # one spelling of a time, so that texts sort as times do
    stamp, _, fraction = row["time"].rstrip("Z").partition(".")
    time = f"{stamp}.{fraction[:6]:0<6}Z"
    return Decision(time, row["reviewer"], row["clip_id"], row["decision"], row["caption"] or "", render)


def resolve(decisions: Iterable[Decision]) -> dict[str, Verdict]:
    """Clip id -> what stands, for each clip that was decided on."""
    by_clip: dict[str, list[Decision]] = {}
    for decision in sorted(set(decisions)):
        by_clip.setdefault(decision.clip_id, []).append(decision)
    return {clip_id: _verdict(rows) for clip_id, rows in by_clip.items()}


def _verdict(rows: Sequence[Decision]) -> Verdict:
    """rows: of one clip, by time."""
    latest: dict[tuple[int, str], Decision] = {}
    for row in rows:
        latest[row.render, row.reviewer] = row
    asked: dict[int, set[str]] = {}
    for row in latest.values():
        if row.decision == "rerender":
            asked.setdefault(row.render + 1, set()).add(row.reviewer)
    judged = [row for row in latest.values() if row.decision != "rerender"]
    render = max([0, *asked])
    votes = sorted(row for row in judged if row.render >= render)
    if not votes:
        return Verdict("rerender", render, None, tuple(sorted(asked[render])))
    # files may be merged of which one knows a later rendering than any request that is left
    render = max(row.render for row in votes)
    votes = [row for row in votes if row.render == render]
    choices = {row.decision for row in votes}
    changed = [row.caption for row in votes if row.decision == "accept" and row.caption]
    return Verdict(
        decision="reject" if "reject" in choices else "accept",
        render=render,
        caption=changed[-1] if changed else None,
        reviewers=tuple(sorted({row.reviewer for row in votes})),
        disagreement=len(choices) > 1,
    )


def merge(into: Path, others: Sequence[Path]) -> int:
    """Append to a file the rows of others that it does not hold; how many. Merging again adds none.

    All files are read before anything is written. UserError if one is missing or malformed.
    """
    here = set(read(into))
    new: set[Decision] = set()
    for path in others:
        if not Path(path).is_file():
            raise UserError(f"{path}: no such file of decisions")
        new |= set(read(path)) - here
    jsonl.append_rows(into, [decision.to_row() for decision in sorted(new)])
    return len(new)
