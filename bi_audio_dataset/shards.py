"""Parquet files with embedded media.

Bytes are a function of the rows alone (per pyarrow version): sorted by id, fixed row groups, no times or
paths. The schema carries the `huggingface` metadata, so `datasets.load_dataset(folder)` gives typed columns.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bi_audio_dataset.figures import HEAVY_COLUMNS, Figures
from bi_audio_dataset.schema import SPLITS, ClipRecord, UserError, features
from bi_audio_dataset.workplace import part_file

ROW_GROUP_ROWS = 25
MANIFEST_KEY = b"bi_audio_manifest"


def arrow_schema():
    """The pyarrow schema of a shard, with the `huggingface` metadata."""
    return features().arrow_schema


def write_rows(
    path: Path, records: Iterable[ClipRecord], manifest: list[dict[str, Any]] | None = None
) -> None:
    """One Parquet file of the records, in the given order.

    manifest: rows that go into the file's metadata, so that a recording's clips and what was decided about it
    appear together, by one rename. Shards carry none.
    """
    import pyarrow as pa

    rows = [record.to_row() for record in records]
    _write_table(path, pa.Table.from_pylist(rows, schema=arrow_schema()), manifest)


def read_manifest(path: str | os.PathLike) -> list[dict[str, Any]] | None:
    """The manifest rows in a Parquet file's metadata; None where there are none or the file is no Parquet
    file. UserError where it lies elsewhere and cannot be had."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with part_file(path) as handle:
            found = (pq.read_schema(handle).metadata or {}).get(MANIFEST_KEY)
        return None if found is None else json.loads(found)
    except UserError:  # is a ValueError too
        raise
    except (pa.ArrowException, OSError, ValueError):
        return None


def read_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of one Parquet file as plain dicts, a row group at a time. columns: only these. UserError for
    a damaged file."""
    import pyarrow.parquet as pq

    with _readable(path, "validate the folder"), pq.ParquetFile(path) as parquet:
        for batch in parquet.iter_batches(batch_size=ROW_GROUP_ROWS, columns=columns):
            yield from batch.to_pylist()


@contextlib.contextmanager
def _readable(path: str | os.PathLike, todo: str) -> Iterator[None]:
    """What pyarrow says of a damaged file, as one line."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if getattr(error, "errno", None) is not None:  # the machine's, not the file's
            raise
        why = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: is damaged ({why}): {todo}") from None


def figures_of(paths: Iterable[Path], figures: Figures | None = None) -> Figures:
    """What the card says of the rows of some Parquet files, added to `figures`; media and camera paths are
    not read."""
    figures = Figures() if figures is None else figures
    columns = [name for name in arrow_schema().names if name not in HEAVY_COLUMNS]
    for path in paths:
        figures.bytes += path.stat().st_size
        for row in read_rows(path, columns):
            figures.add(row)
    return figures


def rewrite(path: Path, rows: Iterable[dict[str, Any]], manifest: list[dict[str, Any]] | None = None) -> None:
    """One Parquet file of the rows, in the given order and a row group at a time; written beside (.tmp),
    brought to the disk and then renamed. The bytes are those of `write_shards`, or with a manifest those of
    `write_rows`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    beside = path.with_name(path.name + ".tmp")
    schema, rows = arrow_schema(), iter(rows)
    if (
        manifest is None
    ):  # what stands in a shard was read from a part, where Parquet names lists' elements anew
        buffer = pa.BufferOutputStream()
        pq.write_table(schema.empty_table(), buffer)
        schema = pq.read_schema(pa.BufferReader(buffer.getvalue()))
    schema = schema.with_metadata(_metadata(manifest))
    with pq.ParquetWriter(beside, schema, compression="zstd") as writer:
        while group := list(itertools.islice(rows, ROW_GROUP_ROWS)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema), row_group_size=ROW_GROUP_ROWS)
    with open(beside, "rb") as handle:
        os.fsync(handle.fileno())
    os.replace(beside, path)


@dataclass(frozen=True)
class Placed:
    """A clip that is published: where it lies (path or fsspec URL), and what finalize decided on. caption
    None: its own."""

    id: str
    part: str | Path
    split: str
    caption: str | None = None


def write_shards(
    folder: Path, placed: list[Placed], rows_per_shard: int, of: bytes = b"", progress: bool = False
) -> Figures:
    """Gather clips from part files into folder/{split}-XXXXX-of-XXXXX.parquet, sorted by id.

    A shard appears by a rename. Those that an interrupted call has left are kept where it was given the same
    clips of the same parts, and the same `of` (whatever else the parts' rows depend on); else all are made.
    """
    import pyarrow as pa
    from tqdm import tqdm

    _keep_or_clear(folder, _key(placed, rows_per_shard, of))
    figures = Figures()
    with tqdm(total=len(placed), desc="shards", unit="clip", disable=not progress) as bar:
        for split in SPLITS:
            chosen = sorted((clip for clip in placed if clip.split == split), key=lambda clip: clip.id)
            starts = range(0, len(chosen), rows_per_shard)
            for shard, start in enumerate(starts):
                clips = chosen[start : start + rows_per_shard]
                path = folder / f"{split}-{shard:05d}-of-{len(starts):05d}.parquet"
                if path.exists():
                    figures_of([path], figures)
                else:
                    runs = [list(run) for _, run in itertools.groupby(clips, key=lambda clip: clip.part)]
                    table = pa.concat_tables(_pick(run) for run in runs)
                    for row in table.drop_columns(list(HEAVY_COLUMNS)).to_pylist():
                        figures.add(row)
                    beside = path.with_name(path.name + ".tmp")
                    _write_table(beside, table.combine_chunks())
                    os.replace(beside, path)
                    figures.bytes += path.stat().st_size
                bar.update(len(clips))
    return figures


def _key(placed: Iterable[Placed], rows_per_shard: int, of: bytes) -> str:
    """SHA-256 of what shards are made of: clips as placed, files that they lie in, `of`, library."""
    import pyarrow as pa

    digest = hashlib.sha256(f"{rows_per_shard} {pa.__version__} ".encode() + of)
    files: set[str] = set()
    for clip in placed:
        digest.update(repr((clip.id, str(clip.part), clip.split, clip.caption)).encode())
        files.add(str(clip.part))
    for name in sorted(files):
        try:  # a part at a URL has no such thing
            found = os.stat(name)
            digest.update(f"{name} {found.st_size} {found.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(f"{name}\n".encode())
    return digest.hexdigest()


def _keep_or_clear(folder: Path, key: str) -> None:
    """Keep a folder of shards that were written under this key; else begin an empty one."""
    mark = folder.with_name(folder.name + ".key")
    if not (mark.exists() and mark.read_text() == key):
        shutil.rmtree(folder, ignore_errors=True)
        beside = mark.with_name(mark.name + ".tmp")
        beside.write_text(key)
        os.replace(beside, mark)
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("*.tmp"):
        left.unlink()


def _pick(clips: list[Placed]):
    """The rows of some clips of one part, in their order, with split and caption as decided."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with (
        _readable(clips[0].part, "remove that file and run the build again"),
        part_file(clips[0].part) as handle,
    ):
        table = pq.read_table(handle)
    place = {clip_id: number for number, clip_id in enumerate(table.column("id").to_pylist())}
    missing = [clip.id for clip in clips if clip.id not in place]
    if missing:
        raise UserError(f"{clips[0].part}: lacks the clip '{missing[0]}': run the build again")
    table = table.take([place[clip.id] for clip in clips])
    captions = [
        own if clip.caption is None else clip.caption
        for clip, own in zip(clips, table.column("caption").to_pylist(), strict=True)
    ]
    for name, values in (("split", [clip.split for clip in clips]), ("caption", captions)):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), pa.array(values, pa.string()))
    return table


def _write_table(path: Path, table, manifest: list[dict[str, Any]] | None = None) -> None:
    import pyarrow.parquet as pq

    # the schema's metadata must be the same for each shard, whatever the parts' reader added
    table = table.replace_schema_metadata(_metadata(manifest))
    pq.write_table(table, path, row_group_size=ROW_GROUP_ROWS, compression="zstd")


def _metadata(manifest: list[dict[str, Any]] | None) -> dict[bytes, bytes]:
    metadata = dict(arrow_schema().metadata)
    if manifest is not None:
        metadata[MANIFEST_KEY] = json.dumps(manifest, ensure_ascii=False, allow_nan=False).encode()
    return metadata
