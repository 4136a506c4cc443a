import math

import pytest
from fake_clips import dataset, row, truth_source, write

from bi_audio_dataset.clip_rows import ClipFolder
from bi_audio_dataset.schema import UserError


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
    import os

    clips = ClipFolder(dataset(tmp_path, [row("a")]))
    os.utime(tmp_path / "data", (1e9, 1e9))  # long settled
    clips.index()
    monkeypatch.setattr(ClipFolder, "_paths", lambda self: pytest.fail("listed again"))
    assert list(clips.index()) == ["a"]
    monkeypatch.undo()
    dataset(tmp_path, [row("a"), row("b")])
    os.utime(tmp_path / "data")  # what a rename into it does
    assert list(clips.index()) == ["a", "b"]
