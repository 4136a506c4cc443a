"""Datasets of schema version 1, written here as version 1 wrote them: its columns are spelled out below."""

import json
from pathlib import Path

import datasets
import fake_clips
import fake_sets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Audio, Features, Value, Video

from bi_audio_dataset import card_plots
from bi_audio_dataset.__main__ import main
from bi_audio_dataset.shards import MANIFEST_KEY, read_manifest, read_rows
from bi_audio_dataset.upgrade import upgrade
from bi_audio_dataset.validate import validate
from visaudio.data.dataset import open_dataset, read_clip

F32, TEXT = Value("float32"), Value("string")
VIEW = {
    **dict.fromkeys(("class_name", "member", "caption"), TEXT),
    **dict.fromkeys(("azimuth_deg", "elevation_deg", "lateral_deg", "distance_m", "size_deg"), [F32]),
    "visible": [Value("bool")], "onset_s": [F32], "envelope_db": [F32],
}  # fmt: skip
FILTERS = ("lr_difference", "direction_confidence", "level_gain_db", "rms_dbfs", "true_peak_dbfs")
VERSION_1 = Features({
    "schema_version": Value("int32"), "id": TEXT, "recording_id": TEXT, "split": TEXT,
    "video": Video(decode=False), "audio": Audio(sampling_rate=44100, decode=False),
    "caption": TEXT, "duration_s": F32, "width": Value("int32"), "height": Value("int32"), "fps": F32,
    "hfov_deg": F32, "camera": {"rate_hz": F32, "yaw_deg": [F32], "pitch_deg": [F32], "roll_deg": [F32]},
    "truth": {"rate_hz": F32, "sources": [VIEW]}, "hrir_set": TEXT, "hrir_symmetric": Value("bool"),
    "room": TEXT, "source_name": TEXT, "provenance": TEXT, "licence": TEXT,
    "filters": dict.fromkeys(FILTERS, F32),
})  # fmt: skip
#: What version 1's manifest says: c0 was cut out of a panorama, c1 and c2 had their two ears.
FACING = {"azimuth_deg": 95.125, "elevation_deg": -12.5, "confidence": 0.75, "elsewhere": True}
DIRECTION = {"azimuth_deg": 95.125, "elevation_deg": -12.5, "confidence": 0.75}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(card_plots, "draw", fake_sets.draw_quickly)


def rows_1() -> list[dict]:
    rows = fake_sets.rows(3, truth={"rate_hz": 25.0, "sources": [fake_clips.truth_source()]})
    return [{name: row[name] for name in VERSION_1} | {"schema_version": 1} for row in rows]


def manifest_1(rows: list[dict]) -> list[dict]:
    said = []
    for row in rows:
        clip = {"kind": "clip", "id": row["id"], "recording_id": row["recording_id"], "decision": "accept"}
        clip |= {"split": row["split"], "reasons": {}, "marks": {}}
        said.append(clip | ({"direction": FACING} if row["id"] == "c0-0" else {}))
    return said


def set_1(folder: Path, with_manifest: bool = True) -> Path:
    rows = rows_1()
    (folder / "data").mkdir(parents=True)
    for split, count in (("train", 2), ("test", 1)):
        for number, row in enumerate(row for row in rows if row["split"] == split):
            table = pa.Table.from_pylist([row], schema=VERSION_1.arrow_schema)
            pq.write_table(table, folder / f"data/{split}-{number:05d}-of-{count:05d}.parquet")
    source, config = {"name": "fake", "recordings": 3}, {"seed": 0, "rows_per_shard": 1}
    record = {"schema_version": 1, "source": source, "config": config}
    (folder / "build.json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    if with_manifest:
        lines = [json.dumps(row) + "\n" for row in manifest_1(rows)]
        (folder / "manifest.jsonl").write_text("".join(lines))
    (folder / "README.md").write_text("a card of version 1\n")
    return folder


def test_upgraded_it_is_what_this_version_would_have_written(tmp_path, capsys):
    old = set_1(tmp_path / "set")
    assert main(["upgrade", str(old)]) == 0
    told = capsys.readouterr().out
    assert (
        "1 -> 2: new column direction, of most energy" in told
        and "3 clips upgraded to schema_version 2" in told
    )
    rows = [row | {"schema_version": 2, "direction": None} for row in rows_1()]
    rows[0]["direction"] = DIRECTION
    fresh = fake_sets.make_set(tmp_path / "fresh", rows)
    (fresh / "data.key").unlink()  # fake_sets writes shards outside of .work
    wanted, found = fake_sets.digests(fresh), fake_sets.digests(old)
    assert wanted.pop("manifest.jsonl") != found.pop("manifest.jsonl")  # it stays as it was
    assert found == wanted
    report = validate(old)
    assert report.problems == [] and "schema version" not in report.summary()


def test_upgraded_it_loads_with_a_typed_direction(tmp_path):
    old = set_1(tmp_path / "set")
    before = datasets.load_dataset(str(set_1(tmp_path / "old")), split="train", cache_dir=str(tmp_path / "a"))
    upgrade(old)
    after = datasets.load_dataset(str(old), split="train", cache_dir=str(tmp_path / "b"))
    assert after.features["direction"] == {name: F32 for name in DIRECTION}
    assert [row["direction"] for row in after] == [DIRECTION, None]
    same = [name for name in VERSION_1 if name != "schema_version"]
    for one, other in zip(before, after, strict=True):
        assert {name: one[name] for name in same} == {name: other[name] for name in same}
    streamed = datasets.load_dataset(str(old), split="train", streaming=True)
    assert [row["direction"] for row in streamed] == [DIRECTION, None]


def test_without_a_manifest_nobody_knows_the_direction(tmp_path):
    old = set_1(tmp_path / "set", with_manifest=False)
    assert upgrade(old).clips == 3
    assert [row["direction"] for shard in sorted((old / "data").iterdir()) for row in read_rows(shard)] == [
        None
    ] * 3
    assert validate(old, media=False).problems == []


def test_clips_that_wait_take_it_from_their_own_rows(tmp_path):
    rows = rows_1()[:2]
    part = tmp_path / "set/.work/parts/c.parquet"
    part.parent.mkdir(parents=True)
    said = manifest_1(rows)
    metadata = {**VERSION_1.arrow_schema.metadata, MANIFEST_KEY: json.dumps(said).encode()}
    pq.write_table(
        pa.Table.from_pylist(rows, schema=VERSION_1.arrow_schema).replace_schema_metadata(metadata), part
    )
    (tmp_path / "set/build.json").write_text('{"schema_version": 1, "source": {"name": "fake"}}')
    assert upgrade(tmp_path / "set").clips == 2
    assert [row["direction"] for row in read_rows(part)] == [DIRECTION, None]
    assert read_manifest(part) == said


def test_until_then_training_reads_it_and_what_writes_refuses_it(tmp_path, capsys):
    old = set_1(tmp_path / "set")
    before = fake_sets.digests(old)
    table = open_dataset(old)
    clip = read_clip(table[0], times_s=np.array([0.0]), sample_rate=44100)
    assert clip.audio.shape == (2, 35280) and clip.sources[0].azimuth_deg[0] == 30.0
    assert main(["validate", str(old)]) == 0
    assert "no problems (schema version 1; `upgrade` makes it 2)" in capsys.readouterr().out
    for command in (["card"], ["remove", "--id", "c0-0", "--reason", "asked"], ["finalize"]):
        assert main([command[0], str(old), *command[1:]]) == 2
        told = capsys.readouterr().err
        assert "has schema_version 1, this program reads 2: python -m bi_audio_dataset upgrade" in told
        assert told.count("\n") == 1
    assert fake_sets.digests(old) == before


def test_a_row_of_version_2_without_the_column_is_named(tmp_path):
    old = set_1(tmp_path / "set")
    shard = old / "data/test-00000-of-00001.parquet"
    table = pq.read_table(shard)
    two = pa.array([2], pa.int32())
    pq.write_table(table.set_column(0, table.schema.field(0), two), shard)
    assert validate(old, media=False).problems[0].endswith("lacks the columns ['direction']")
