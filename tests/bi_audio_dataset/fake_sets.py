"""Finished dataset folders of a few hand-made rows, and the same as a version 0 would have written them.

Version 0 is made up for the tests: it called hfov_deg "fov", and had neither hrir_symmetric nor direction.
"""

import hashlib
import json
from pathlib import Path

import fake_clips
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bi_audio_dataset import card_command, card_plots
from bi_audio_dataset.schema import SCHEMA_VERSION
from bi_audio_dataset.shards import MANIFEST_KEY, Placed, write_shards


def rows(count: int = 3, **changes) -> list[dict]:
    """Sound clips c0-0, c1-0, ...: the last is a test clip."""
    names = ("lr_difference", "direction_confidence", "level_gain_db", "rms_dbfs", "true_peak_dbfs")
    changes = {"filters": dict(zip(names, (0.25, 0.5, 0.0, -20.0, -1.0), strict=True)), **changes}
    made = []
    for number in range(count):
        split = "test" if number == count - 1 else "train"
        made.append(fake_clips.row(f"c{number}-0", hrir_symmetric=False, split=split, **changes))
    return made


def make_set(folder: Path, clips: list[dict], name: str = "fake", rows_per_shard: int = 1) -> Path:
    """Shards, build.json, manifest.jsonl and card, as finalize leaves them."""
    (folder / "scratch").mkdir(parents=True)
    part = folder / "scratch" / "part.parquet"
    fake_clips.write(part, clips)
    write_shards(folder / "data", [Placed(c["id"], part, c["split"]) for c in clips], rows_per_shard)
    part.unlink()
    part.parent.rmdir()
    source = {"name": name, "recordings": len(clips)}
    config = {"seed": 0, "rows_per_shard": rows_per_shard}
    record = {"schema_version": SCHEMA_VERSION, "source": source, "config": config}
    (folder / "build.json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    lines = [
        {"kind": "clip", "id": c["id"], "decision": "accept", "split": c["split"], "reasons": {}, "marks": {}}
        for c in clips
    ]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    card_command.remake(folder)
    return folder


def features(folder: Path, clips: list[dict]) -> None:
    """What feature extraction will write: a row a clip, by id, with arrays of its own."""
    (folder / "features").mkdir()
    for split in sorted({clip["split"] for clip in clips}):
        chosen = [clip["id"] for clip in clips if clip["split"] == split]
        arrays = [np.full(4, len(clip_id), np.float32).tolist() for clip_id in chosen]
        table = pa.table({"id": chosen, "sync_features": pa.array(arrays, pa.list_(pa.float32()))})
        pq.write_table(table, folder / "features" / f"{split}-00000-of-00001.parquet")


def to_version_0(path: Path) -> None:
    """Rewrite a shard or part file."""
    table = pq.read_table(path)
    kept = {k: v for k, v in (table.schema.metadata or {}).items() if k == MANIFEST_KEY}
    names = [name for name in table.column_names if name not in ("hrir_symmetric", "direction")]
    columns = {name: table.column(name) for name in names}
    columns["schema_version"] = pa.array([0] * len(table), pa.int32())
    columns["fov"] = columns.pop("hfov_deg")
    pq.write_table(pa.table(columns).replace_schema_metadata(kept), path)


def set_to_version_0(folder: Path) -> Path:
    for path in folder.rglob("*.parquet"):
        if path.parent.name != "features":
            to_version_0(path)
    for path in folder.rglob("build.json"):
        now = f'"schema_version": {SCHEMA_VERSION}'
        path.write_text(path.read_text().replace(now, '"schema_version": 0'))
    return folder


def from_version_0(row: dict, said: dict) -> dict:
    """The step 0 -> 1."""
    fov = row.pop("fov")
    return row | {"hfov_deg": fov, "hrir_symmetric": False}


def draw_quickly(figures, folder: Path) -> list[card_plots.Plot]:
    """In card_plots.draw's place where many cards are written: one file, without matplotlib."""
    (folder / "assets").mkdir(parents=True, exist_ok=True)
    (folder / card_plots.FILES[-1]).write_bytes(b"picture")
    return [card_plots.Plot(card_plots.FILES[-1], "a picture")]


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
