import math
import os

import fsspec
import pytest
from fake_clips import dataset, row, truth_source, write

from bi_audio_dataset.clip_rows import ClipFolder
from bi_audio_dataset.schema import UserError
from bi_audio_dataset.workplace import Parts


def test_index_and_rows_of_shards(tmp_path):
    known = row("c", caption="Visible sound: a bell, Invisible sound: none")
    known["truth"]["sources"] = [truth_source()]
    dataset(tmp_path, [row("b", 0.25), known, row("a", None)])
    clips = ClipFolder(tmp_path)
    infos = clips.index()
    assert list(infos) == ["a", "b", "c"]
    assert infos["b"].confidence == 0.25 and math.isnan(infos["a"].confidence)
    assert [info.has_truth for info in infos.values()] == [False, False, True]
    for clip_id in "abc":  # row groups hold two rows each
        assert clips.row(clip_id)["id"] == clip_id
        assert clips.row(clip_id)["video"]["path"] == f"{clip_id}.mp4"


def test_parts_of_a_build_are_seen_as_they_come(tmp_path):
    parts = tmp_path / ".work" / "parts"
    write(parts / "a.parquet", [row("a-0"), row("a-1")])
    clips = ClipFolder(tmp_path)
    assert list(clips.index()) == ["a-0", "a-1"]
    write(parts / "b.parquet", [row("b-0")])
    assert list(clips.index()) == ["a-0", "a-1", "b-0"]
    (parts / "a.parquet").unlink()
    assert list(clips.index()) == ["b-0"]
    dataset(tmp_path, [row("z")])  # parts that were kept hold more than the shards
    assert list(clips.index()) == ["b-0"]
    (parts / "b.parquet").unlink()
    assert list(clips.index()) == ["z"]


def test_parts_elsewhere_are_fetched_when_a_row_is_asked_for_and_once(tmp_path):
    """The index reads columns over there; a part that is replaced is fetched again, and its copy goes."""
    store, work = fsspec.filesystem("memory"), tmp_path / ".work"
    store.store.clear()
    parts = Parts("memory://rows/parts")
    work.mkdir()
    (work / "parts_at").write_text(parts.address)

    def put(name, rows):
        with parts.writing(name) as path:
            write(path, rows)
        with open(work / "journal.jsonl", "a") as journal:
            journal.write("{}\n")

    put("a", [row("a-0"), row("a-1", left=0.3)])
    put("b", [row("b-0")])
    clips = ClipFolder(tmp_path)
    assert list(clips.index()) == ["a-0", "a-1", "b-0"] and not (work / "cache").exists()
    assert clips.row("a-1")["audio"]["bytes"] == row("a-1", left=0.3)["audio"]["bytes"]
    (copy,) = (work / "cache").iterdir()
    before = copy.stat().st_ino
    assert clips.row("a-0")["id"] == "a-0"
    assert [path.stat().st_ino for path in (work / "cache").iterdir()] == [before]  # not another time

    put("a", [row("a-1", left=0.2)])
    assert list(clips.index()) == ["a-1", "b-0"]
    assert clips.row("a-1")["audio"]["bytes"] == row("a-1", left=0.2)["audio"]["bytes"]
    (other,) = (work / "cache").iterdir()
    assert other != copy
    os.utime(work / "journal.jsonl", (1e9, 1e9))  # long settled
    clips.index()
    store.rm("/rows/parts/b.parquet")  # behind our back
    with pytest.raises(UserError, match="'memory://rows/parts' cannot be used .not found"):
        clips.row("b-0")
    store.store.clear()


def test_part_replaced_behind_the_index_is_not_taken_for_another_clip(tmp_path):
    """Between the listing and the reading of a row."""
    parts = tmp_path / ".work" / "parts"
    write(parts / "a.parquet", [row("a-0"), row("a-1")])
    clips = ClipFolder(tmp_path)
    index, calls = clips.index, []

    def replaced():
        found = index()
        if not calls:
            write(parts / "a.parquet", [row("a-1"), row("a-2")])
        calls.append(1)
        return found

    clips.index = replaced
    assert clips.row("a-1")["id"] == "a-1" and len(calls) == 2


def test_folders_that_hold_no_clips_are_refused(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        ClipFolder(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no clips"):
        ClipFolder(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(UserError, match="train.parquet: not a Parquet file"):
        ClipFolder(tmp_path)


def test_one_id_twice_is_refused(tmp_path):
    with pytest.raises(UserError, match="clip id 'a' more than once"):
        ClipFolder(dataset(tmp_path, [row("a"), row("b"), row("a")]))


def test_a_folder_that_has_not_changed_is_not_looked_through_again(tmp_path, monkeypatch):
    clips = ClipFolder(dataset(tmp_path, [row("a")]))
    os.utime(tmp_path / "data", (1e9, 1e9))  # long settled
    clips.index()
    monkeypatch.setattr(Parts, "stamps", lambda self: pytest.fail("listed again"))
    assert list(clips.index()) == ["a"]
    monkeypatch.undo()
    dataset(tmp_path, [row("a"), row("b")])
    os.utime(tmp_path / "data")  # what a rename into it does
    assert list(clips.index()) == ["a", "b"]
