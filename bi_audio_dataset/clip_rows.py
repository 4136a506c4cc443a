"""The clips of a dataset folder, finished or still being built: a light index of all, and whole rows one at a
time.

What captions and review need to know of the build's files stands here and nowhere else.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bi_audio_dataset.schema import UserError
from bi_audio_dataset.workplace import PARTS, WORK

#: Where rows lie, the first that holds any. Parts go before shards: `finalize --keep` leaves both, and only
#: parts hold the clips that were left out and those that were rendered again.
LOCATIONS = (f"{WORK}/{PARTS}", "data")
#: A folder's time stamp is trusted to tell of changes once it is this old; clocks of file systems are coarse.
SETTLED_S = 2.0
_COLUMNS = [
    "id",
    "recording_id",
    "split",
    "caption",
    "duration_s",
    "filters",
    "truth.sources.list.element.class_name",
]


@dataclass(frozen=True)
class ClipInfo:
    """One clip without its media. confidence: filters.direction_confidence, nan where it was not measured."""

    id: str
    recording_id: str
    split: str
    caption: str
    duration_s: float
    confidence: float
    lr_difference: float
    has_truth: bool
    file: Path
    row_number: int


class ClipFolder:
    """The clips of a folder; reads again only what has changed since (a build may go on beside)."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise UserError(f"'{folder}' is not a folder")
        self._files: dict[Path, tuple[tuple[int, int], list[ClipInfo]]] = {}
        self._by_id: dict[str, ClipInfo] = {}
        self._settled: tuple | None = None
        if not self.index():
            raise UserError(
                f"'{folder}' holds no clips: expected a dataset folder, of which at least one recording is "
                f"built"
            )

    def index(self) -> dict[str, ClipInfo]:
        """Clip id -> info, by id. UserError where two rows have one id or a file cannot be read."""
        state = tuple(_changed_ns(self.folder / location) for location in LOCATIONS)
        if state == self._settled:
            return self._by_id  # files are renamed into place, which changes their folder
        newest = max((ns for ns in state if ns is not None), default=0)
        settled = time.time_ns() - newest > SETTLED_S * 1e9
        paths = self._paths()
        stamps = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in paths}
        stale = [path for path in paths if self._files.get(path, (None,))[0] != stamps[path]]
        self._settled = None
        if not stale and len(paths) == len(self._files):
            self._settled = state if settled else None
            return self._by_id
        self._files = {path: kept for path, kept in self._files.items() if path in stamps}
        for path in stale:
            self._files[path] = (stamps[path], list(_read_index(path)))
        infos = sorted(
            (info for _, infos in self._files.values() for info in infos), key=lambda info: info.id
        )
        by_id = {info.id: info for info in infos}
        if len(by_id) < len(infos):
            twice = next(a.id for a, b in zip(infos, infos[1:], strict=False) if a.id == b.id)
            raise UserError(
                f"'{self.folder}' holds the clip id '{twice}' more than once: validate the folder"
            )
        self._by_id, self._settled = by_id, state if settled else None
        return by_id

    def row(self, clip_id: str) -> dict[str, Any]:
        """The whole row with its media. KeyError if there is no such clip."""
        import pyarrow.parquet as pq

        info = self.index()[clip_id]
        first = 0
        with pq.ParquetFile(info.file) as parquet:
            for group in range(parquet.num_row_groups):
                count = parquet.metadata.row_group(group).num_rows
                if info.row_number < first + count:
                    return parquet.read_row_group(group).slice(info.row_number - first, 1).to_pylist()[0]
                first += count
        raise KeyError(clip_id)

    def _paths(self) -> list[Path]:
        for location in LOCATIONS:
            paths = sorted((self.folder / location).glob("*.parquet"))
            if paths:
                return paths
        return []


def _changed_ns(folder: Path) -> int | None:
    try:
        return folder.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _read_index(path: Path) -> Iterator[ClipInfo]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as parquet:
            rows = parquet.read(columns=_COLUMNS).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{path}: not a Parquet file of clips ({' '.join(str(error).split())[:120]})"
        ) from None
    for number, row in enumerate(rows):
        filters = row.get("filters") or {}
        yield ClipInfo(
            id=row["id"],
            recording_id=row["recording_id"],
            split=row["split"],
            caption=row["caption"] or "",
            duration_s=row["duration_s"],
            confidence=_number(filters.get("direction_confidence")),
            lr_difference=_number(filters.get("lr_difference")),
            has_truth=bool((row.get("truth") or {}).get("sources")),
            file=path,
            row_number=number,
        )


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
