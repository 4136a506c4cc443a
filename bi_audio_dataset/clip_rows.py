"""The clips of a dataset folder, finished or still being built: a light index of all, and whole rows one at a
time.

What captions and review need to know of the build's files stands here and nowhere else.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bi_audio_dataset.schema import UserError
from bi_audio_dataset.workplace import CACHE, JOURNAL, WORK, Parts, part_file

#: A folder's time stamp is trusted to tell of changes once it is this old; clocks of file systems are coarse.
SETTLED_S = 2.0
#: Bytes read at a time of such a part's columns, of which the media are the most and are not asked for.
BLOCK = 1 << 16
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
    place: Parts
    file: str
    stamp: str
    row_number: int


class ClipFolder:
    """The clips of a folder; reads again only what has changed since (a build may go on beside).

    Of parts that lie elsewhere only the light columns are read for the index; whole rows come from a local
    copy of the part, in DIR/.work/cache.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise UserError(f"'{folder}' is not a folder")
        self._files: dict[tuple[Parts, str], tuple[str, list[ClipInfo]]] = {}
        self._by_id: dict[str, ClipInfo] = {}
        self._settled: tuple | None = None
        if not self.index():
            raise UserError(
                f"'{folder}' holds no clips: expected a dataset folder, of which at least one recording is "
                f"built"
            )

    def index(self) -> dict[str, ClipInfo]:
        """Clip id -> info, by id. UserError where two rows have one id or a file cannot be read."""
        places = self._places()
        state = tuple((place, self._changed_ns(place)) for place in places)
        if state == self._settled:
            return self._by_id
        newest = max((ns for _, ns in state if ns is not None), default=0)
        settled = time.time_ns() - newest > SETTLED_S * 1e9
        self._settled = None
        place, stamps = next(((p, found) for p in places if (found := p.stamps())), (places[0], {}))
        files = {(place, name): stamp for name, stamp in sorted(stamps.items())}
        stale = [key for key in files if self._files.get(key, (None,))[0] != files[key]]
        if not stale and len(files) == len(self._files):
            self._settled = state if settled else None
            return self._by_id
        self._files = {key: kept for key, kept in self._files.items() if key in files}
        for key in stale:
            self._files[key] = (files[key], list(_read_index(*key, files[key])))
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
        row = self._row(self.index()[clip_id])
        if row is None:  # the part was replaced since it was listed
            self._settled = None
            row = self._row(self.index()[clip_id])
        if row is None:
            raise KeyError(clip_id)
        return row

    def _row(self, info: ClipInfo) -> dict[str, Any] | None:
        import pyarrow.parquet as pq

        first = 0
        with pq.ParquetFile(info.place.fetch(info.file, info.stamp, self.folder / WORK / CACHE)) as parquet:
            for group in range(parquet.num_row_groups):
                count = parquet.metadata.row_group(group).num_rows
                if info.row_number < first + count:
                    rows = parquet.read_row_group(group).slice(info.row_number - first, 1)
                    (row,) = rows.to_pylist()
                    return row if row["id"] == info.id else None
                first += count
        return None

    def _changed_ns(self, place: Parts) -> int | None:
        """When files last came or went there. They are renamed into place, which changes their folder; of one
        elsewhere the journal tells, which the build writes to after each part."""
        try:
            return (self.folder / WORK / JOURNAL if place.remote else Path(place.address)).stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def _places(self) -> tuple[Parts, Parts]:
        """Where rows lie, the first that holds any. Parts go before shards: `finalize --keep` leaves both,
        and only parts hold the clips that were left out and those that were rendered again."""
        return Parts.of(self.folder / WORK), Parts(os.path.abspath(self.folder / "data"))


def _read_index(place: Parts, name: str, stamp: str) -> Iterator[ClipInfo]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    location = f"{place.address}/{name}"
    try:
        with part_file(location, BLOCK) as handle, pq.ParquetFile(handle) as parquet:
            rows = parquet.read(columns=_COLUMNS).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{location}: not a Parquet file of clips ({' '.join(str(error).split())[:120]})"
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
            place=place,
            file=name,
            stamp=stamp,
            row_number=number,
        )


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
