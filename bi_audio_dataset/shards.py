"""Parquet files with embedded media, and the dataset card.

Bytes are a function of the rows alone (per pyarrow version): sorted by id, fixed row groups, no times or
paths. The schema carries the `huggingface` metadata, so `datasets.load_dataset(folder)` gives typed columns.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bi_audio_dataset.schema import SCHEMA_VERSION, SPLITS, ClipRecord, UserError, features

ROW_GROUP_ROWS = 25
MANIFEST_KEY = b"bi_audio_manifest"


@dataclass
class Figures:
    """What the card and the validator report; filled row by row."""

    clips: Counter = field(default_factory=Counter)  # by split
    classes: Counter = field(default_factory=Counter)  # (class, split): clips that hold the class
    licences: Counter = field(default_factory=Counter)
    hrir_sets: Counter = field(default_factory=Counter)
    seconds: float = 0.0
    sources: Counter = field(default_factory=Counter)  # clips by number of sounding objects
    off_screen: int = 0  # clips with an object that is never on view
    bytes: int = 0  # of all shards

    def add(self, row: dict[str, Any]) -> None:
        self.clips[row["split"]] += 1
        self.seconds += row["duration_s"]
        self.licences[row["licence"]] += 1
        self.hrir_sets[row["hrir_set"]] += 1
        views = row["truth"]["sources"]
        self.sources[len(views)] += 1
        self.off_screen += any(not any(view["visible"]) for view in views)
        for name in {view["class_name"] for view in views}:
            self.classes[name, row["split"]] += 1


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


def read_manifest(path: Path) -> list[dict[str, Any]] | None:
    """The manifest rows in a Parquet file's metadata; None where there are none or the file is no Parquet
    file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found = (pq.read_schema(path).metadata or {}).get(MANIFEST_KEY)
        return None if found is None else json.loads(found)
    except (pa.ArrowException, OSError, ValueError):
        return None


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of one Parquet file as plain dicts, a row group at a time."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as parquet:
        for batch in parquet.iter_batches(batch_size=ROW_GROUP_ROWS):
            yield from batch.to_pylist()


@dataclass(frozen=True)
class Placed:
    """A clip that is published: where it lies, and what finalize decided on. caption None: its own."""

    id: str
    part: Path
    split: str
    caption: str | None = None


def write_shards(folder: Path, placed: list[Placed], rows_per_shard: int) -> Figures:
    """Gather clips from part files into folder/{split}-XXXXX-of-XXXXX.parquet, sorted by id."""
    import pyarrow as pa

    folder.mkdir(parents=True)
    figures = Figures()
    for split in SPLITS:
        chosen = sorted((clip for clip in placed if clip.split == split), key=lambda clip: clip.id)
        starts = range(0, len(chosen), rows_per_shard)
        for shard, start in enumerate(starts):
            clips = chosen[start : start + rows_per_shard]
            runs = [list(run) for _, run in itertools.groupby(clips, key=lambda clip: clip.part)]
            table = pa.concat_tables(_pick(run) for run in runs)
            for row in table.drop_columns(["video", "audio"]).to_pylist():
                figures.add(row)
            path = folder / f"{split}-{shard:05d}-of-{len(starts):05d}.parquet"
            _write_table(path, table.combine_chunks())
            figures.bytes += path.stat().st_size
    return figures


def _pick(clips: list[Placed]):
    """The rows of some clips of one part, in their order, with split and caption as decided."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(clips[0].part)
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
    metadata = dict(arrow_schema().metadata)
    if manifest is not None:
        metadata[MANIFEST_KEY] = json.dumps(manifest, ensure_ascii=False, allow_nan=False).encode()
    table = table.replace_schema_metadata(metadata)
    pq.write_table(table, path, row_group_size=ROW_GROUP_ROWS, compression="zstd")


def card(title: str, figures: Figures, settings: dict[str, Any], selection: Sequence[str] = ()) -> str:
    """README.md of a dataset: the YAML that names the splits' files, then the figures; selection: lines that
    say what was left out and why."""
    splits = [split for split in SPLITS if figures.clips[split]]
    licences = sorted(figures.licences)
    yaml = ["---", f"pretty_name: {json.dumps(title)}", "task_categories:", "- other"]
    yaml += [
        "tags:",
        "- binaural",
        "- spatial-audio",
        "- video-to-audio",
        "configs:",
        "- config_name: default",
    ]
    yaml += ["  data_files:"]
    for split in splits:
        yaml += [f"  - split: {split}", f"    path: data/{split}-*"]
    lines = [*yaml, "---", "", f"# {title}", ""]
    lines += [
        "Clips of a perspective view cut out of 360-degree video, with the binaural sound of that direction.",
        "Built by `bi_audio_dataset`; every row carries its own licence and provenance.",
        "",
        "```python",
        "import datasets",
        'rows = datasets.load_dataset("PATH_TO_THIS_FOLDER", split="'
        + (splits[0] if splits else "train")
        + '")',
        'flac = rows[0]["audio"]["bytes"]   # media come as bytes; with torchcodec installed:',
        'rows = rows.cast_column("audio", datasets.Audio()).cast_column("video", datasets.Video())',
        "```",
        "",
        f"Schema version {SCHEMA_VERSION}. Angles are in degrees in the camera's frame: azimuth positive to",
        "the left, elevation positive up, lateral = asin(sin azimuth cos elevation), positive left. Audio",
        "channel 0 is the left ear.",
        "",
        "| split | clips |",
        "|---|---|",
        *[f"| {split} | {figures.clips[split]} |" for split in splits],
        "",
        f"Total {sum(figures.clips.values())} clips, {figures.seconds / 3600:.2f} h.",
    ]
    names = sorted({name for name, _ in figures.classes})
    if names:
        lines += ["", "| class | " + " | ".join(splits) + " |", "|---" * (len(splits) + 1) + "|"]
        lines += [
            f"| {name} | " + " | ".join(str(figures.classes[name, split]) for split in splits) + " |"
            for name in names
        ]
        counts = ", ".join(f"{figures.sources[n]} with {n}" for n in sorted(figures.sources))
        lines += ["", f"Clips by number of sounding objects: {counts}. Clips with an object never on view: "]
        lines[-1] += f"{figures.off_screen}."
    lines += [
        "",
        "Licences: " + ", ".join(f"{name} ({figures.licences[name]} clips)" for name in licences) + ".",
    ]
    lines += ["Head-related impulse responses: " + ", ".join(sorted(figures.hrir_sets)) + "."]
    if selection:
        lines += ["", "## Selection", "", *selection]
    lines += [
        "",
        "Settings (`build.json`):",
        "",
        "```json",
        json.dumps(settings, indent=1, sort_keys=True),
        "```",
        "",
    ]
    return "\n".join(lines)
