"""Where a build keeps what is not finished: names below DIR/.work."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

WORK = ".work"
PARTS = "parts"
JOURNAL = "journal.jsonl"
#: An empty file: finalize was told to keep the clips.
KEPT = "kept"


def part_path(parts: Path, recording_id: str) -> Path:
    """The file of a recording's clips."""
    return parts / f"{quote(recording_id, safe='')}.parquet"
