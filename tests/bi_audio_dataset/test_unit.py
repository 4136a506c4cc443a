"""The unit of work: what it is addressed by, and that it is pure."""

from pathlib import Path

import pytest
from fake_source import tiny_config
from quick_maker import QuickMaker, QuickSource, quick_build
from test_main import write_recording

from bi_audio_dataset import card_plots, manifest, unit
from bi_audio_dataset.build import build
from bi_audio_dataset.clip import ClipMaker
from bi_audio_dataset.schema import UserError
from bi_audio_dataset.selection import index_rows
from bi_audio_dataset.shards import read_manifest
from bi_audio_dataset.sources.folder import FolderSource
from bi_audio_dataset.unit import Task, Work, unit_key, work_key
from bi_audio_dataset.workplace import Parts


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(unit, "ClipMaker", QuickMaker)


def test_key_tells_apart_what_changes_the_clips_and_nothing_else(monkeypatch):
    source, config = {"name": "fake", "settings": {"a": 1, "b": 2}}, {"seed": 0}
    key = work_key(source, config)
    assert work_key({"settings": {"b": 2, "a": 1}, "name": "fake"}, config) == key
    others = {
        key,
        work_key({**source, "name": "other"}, config),
        work_key({**source, "settings": {"a": 1}}, config),
        work_key(source, {"seed": 1}),
    }
    monkeypatch.setitem(manifest.STAGE_VERSIONS, "render", 99)
    assert len(others | {work_key(source, config)}) == 5
    keys = {unit_key(k, i, r) for k in "ab" for i in "cd" for r in ({}, {"c-0": 1}, {"c-0": 2}, {"c-1": 1})}
    assert len(keys) == 16
    assert unit_key("a", "c", {"c-0": 0, "c-1": 1}) == unit_key("a", "c", {"c-1": 1})  # 0 is as it comes


def test_unit_run_twice_gives_the_same_bytes(tmp_path):
    parts = Parts(str(tmp_path))
    task = Task(Work(QuickSource((1.0, 2.0)), tiny_config(), parts, key="k"))
    first = task("fake-1")
    written = (tmp_path / "fake-1.parquet").read_bytes()
    second = task("fake-1")
    assert (tmp_path / "fake-1.parquet").read_bytes() == written
    for rows in (first, second):
        assert rows[0].pop("seconds") >= 0 and rows[0].pop("size") == len(written)
        assert rows[0].pop("files") == {}
    assert first == second == read_manifest(parts.locate("fake-1"))
    assert first[0]["unit"] == unit_key("k", "fake-1", {})


def test_worker_of_another_version_makes_nothing(tmp_path, monkeypatch):
    work = Work(QuickSource((1.0,)), tiny_config(), Parts(str(tmp_path)))
    monkeypatch.setitem(manifest.STAGE_VERSIONS, "select", 99)
    with pytest.raises(UserError, match="install the same version everywhere"):
        work.task()


def test_crashed_recording_has_a_row_and_no_part(tmp_path):
    work = Work(QuickSource((1.0,)), tiny_config(), Parts(str(tmp_path)))
    work.task()("fake-0")
    (row,) = work.crashed("fake-0", "it died")
    assert (row["decision"], row["reasons"], row["split"]) == ("quarantine", {"crashed": "it died"}, "test")
    assert not work.parts.exists("fake-0")


def test_part_made_of_something_else_is_made_again(tmp_path):
    """A key in the journal that is not the one asked for, whatever the stages in the row say."""
    folder = tmp_path / "set"
    quick_build(folder, 3, finalize=False)
    journal = folder / ".work/journal.jsonl"
    before = index_rows(journal)
    journal.write_text(journal.read_text().replace(before["fake-1"].unit, "0" * 64))
    quick_build(folder, 3, finalize=False)
    after = index_rows(journal)
    assert {name: entry.unit for name, entry in after.items()} == {n: e.unit for n, e in before.items()}
    assert [after[name].offset > before[name].offset for name in before] == [False, True, False]
    for name in ("unit", "seconds", "at", "size", "files"):
        assert f'"{name}":' in journal.read_text()
    quick_build(folder, 3)
    for name in ("unit", "seconds", "at", "size", "files"):
        assert f'"{name}":' not in (folder / "manifest.jsonl").read_text()


def test_quarantine_says_the_same_wherever_the_recordings_lie(tmp_path, monkeypatch):
    """Empty, damaged and missing files in two folders, one relative with spaces; a failure in scratch."""

    class Films(FolderSource):
        def fetch(self, recording_id, workdir):
            if recording_id == "odd":
                raise RuntimeError(f"{workdir}/half of it.bin at {object()} is gone")
            return super().fetch(recording_id, workdir)

    monkeypatch.chdir(tmp_path)
    found = []
    for folder in (tmp_path / "one", Path("two more/films of mine")):
        folder.mkdir(parents=True)
        (folder / "empty.mp4").touch()
        (folder / "odd.mp4").touch()
        (folder / "text.mkv").write_text("no film")
        task = Task(Work(Films(folder), tiny_config(), Parts(str(tmp_path / f"parts{len(found)}"))))
        (tmp_path / f"parts{len(found)}").mkdir()
        found.append([task(name) for name in ("empty", "odd", "text", "none")])
    assert found[0] == found[1]
    (empty,), (odd,), *_ = found[0]
    assert empty["reasons"] == {"unusable": "empty.mp4: the file is empty"}
    assert odd["reasons"] == {"failed": "RuntimeError: half of it.bin at <object object> is gone"}


def test_manifests_of_two_folders_are_equal(tmp_path, monkeypatch):
    monkeypatch.setattr(unit, "ClipMaker", ClipMaker)
    monkeypatch.setattr(card_plots, "draw", lambda *_: [])
    for name in ("one", "two films"):
        folder = tmp_path / name
        folder.mkdir()
        write_recording(folder)
        (folder / "empty.mp4").touch()
        config = tiny_config(height=32)
        build(FolderSource(folder), tmp_path / f"{name} set", config, workers=0, progress=False)
    one, two = ((tmp_path / f"{name} set/manifest.jsonl").read_bytes() for name in ("one", "two films"))
    assert one == two and b"empty.mp4: the file is empty" in one
