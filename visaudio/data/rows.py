"""Rows of a dataset one after the other, straight from its Parquet files.

`datasets.load_dataset` first copies all that it reads, films too, into its cache: at 97,000 clips as much
disk again, on every machine. Feature extraction reads each row once, so a folder's files are read where they
lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bi_audio_dataset.schema import UserError, check_readable, reason_of
from visaudio.data.dataset import MEDIA_COLUMNS, check_columns, check_location, local_files, open_dataset

#: What features are made of. `truth` and what else a row may have are read where they are there.
NEEDED = (
    "schema_version", "id", "split", *MEDIA_COLUMNS, "caption", "duration_s", "width", "height", "hfov_deg",
    "hrir_symmetric",
)  # fmt: skip
OPTIONAL = ("truth", "hrir_set", "source_name")


class ParquetRows:
    """The rows of some Parquet files, those of `splits` alone where it is given.

    `ids` is in the order of the indices. One row group is kept in memory, so rows are best read in order. May
    be sent to another process.
    """

    def __init__(self, files: Sequence[str | Path], splits: Sequence[str] | None = None) -> None:
        self._files = [str(file) for file in files]
        self.ids: list[str] = []
        self._places: list[tuple[int, int, int]] = []  # file, row group, row of it
        self._kept: tuple[tuple[int, int], Any] | None = None
        wanted = None if splits is None else set(splits)
        for number in range(len(self._files)):
            self._list(number, wanted)

    def _list(self, number: int, wanted: set[str] | None) -> None:
        parquet = self._open(number)
        check_columns(parquet.schema_arrow.names, self._files[number], NEEDED)
        table = parquet.read(columns=["id", "split", "schema_version"])
        for version in set(table["schema_version"].to_pylist()):
            check_readable(version, f"'{self._files[number]}'")
        groups = [parquet.metadata.row_group(g).num_rows for g in range(parquet.metadata.num_row_groups)]
        places = [(number, group, row) for group, rows in enumerate(groups) for row in range(rows)]
        for place, name, split in zip(
            places, table["id"].to_pylist(), table["split"].to_pylist(), strict=True
        ):
            if wanted is None or split in wanted:
                self.ids.append(name)
                self._places.append(place)

    def _open(self, number: int):
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return pq.ParquetFile(self._files[number])
        except (OSError, pa.ArrowInvalid) as error:
            reason = reason_of(error)
            raise UserError(f"{self._files[number]} cannot be read as Parquet ({reason})") from error

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        number, group, row = self._places[index]
        if self._kept is None or self._kept[0] != (number, group):
            parquet = self._open(number)
            columns = [name for name in (*NEEDED, *OPTIONAL) if name in parquet.schema_arrow.names]
            self._kept = ((number, group), parquet.read_row_group(group, columns=columns))
        return self._kept[1].slice(row, 1).to_pylist()[0]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}


class TableRows:
    """The same of a `datasets` table, which a Hub repository comes as."""

    def __init__(self, table) -> None:
        self._table, self.ids = table, table["id"][:]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._table[index]


def open_rows(location: str | Path, splits: Sequence[str] | None = None) -> ParquetRows | TableRows:
    """The rows of a BiAudio folder, in place, or of a Hub repository, through the cache of `datasets`.

    Raises UserError if nothing can be read there, a column is missing, or the splits hold no row.
    """
    check_location(location)
    files = local_files(Path(location), "default")
    if files is not None:
        rows = ParquetRows(files, splits)
    else:
        rows = TableRows(open_dataset(location, splits, columns=NEEDED))
    if not len(rows):
        chosen = f" in splits {', '.join(splits)}" if splits else ""
        raise UserError(f"the dataset at '{location}' has no rows{chosen}")
    return rows
