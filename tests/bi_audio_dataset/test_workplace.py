"""Part files on disks, mounted folders and object stores."""

import os
import pickle

import fsspec
import pytest
from quick_maker import QuickMaker, digests, quick_build

from bi_audio_dataset import unit
from bi_audio_dataset.finalize import finalize
from bi_audio_dataset.schema import UserError
from bi_audio_dataset.selection import index_rows
from bi_audio_dataset.status import status
from bi_audio_dataset.workplace import Parts, clear, file_stem, is_digest, part_file


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(unit, "ClipMaker", QuickMaker)


@pytest.fixture
def store():
    """An object store that lives in this process."""
    fs = fsspec.filesystem("memory")
    yield fs
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


def addresses(tmp_path) -> list[str]:
    return [str(tmp_path / "here"), "memory://bucket/parts", f"local://{tmp_path}/moved"]


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_a_part_is_there_whole_or_not_at_all(kind, tmp_path, store):
    parts = pickle.loads(pickle.dumps(Parts.parse(addresses(tmp_path)[kind])))
    parts.prepare()
    assert parts.sizes() == {} and not parts.exists("a/b")
    with parts.writing("a/b") as path:
        path.write_bytes(b"first")
        assert not parts.exists("a/b")
    with pytest.raises(ZeroDivisionError), parts.writing("a/b") as path:
        path.write_bytes(b"half of the sec")
        raise ZeroDivisionError
    with part_file(parts.locate("a/b")) as handle:
        assert handle.read() == b"first"
    with parts.writing("a/b") as path:
        path.write_bytes(b"second")
    assert parts.exists("a/b") and parts.sizes() == {"a%2Fb.parquet": 6} and parts.sizes(".tmp") == {}
    parts.remove("a/b")
    parts.remove("a/b")
    assert not parts.exists("a/b")


def test_upload_that_breaks_off_is_one_line_and_leaves_the_part_as_it_was(tmp_path, store, monkeypatch):
    parts = Parts("memory://bucket/parts")
    with parts.writing("a") as path:
        path.write_bytes(b"first")

    def broken(self, local, remote, **more):
        raise ConnectionResetError("connection reset by peer")

    monkeypatch.setattr(type(store), "put_file", broken)
    with (
        pytest.raises(UserError, match=r"'memory://bucket/parts' cannot be used \(connection reset"),
        parts.writing("a") as path,
    ):
        path.write_bytes(b"second")
    with part_file(parts.locate("a")) as handle:
        assert handle.read() == b"first"


def test_half_written_parts_of_a_killed_build_go(tmp_path):
    parts = Parts(str(tmp_path))
    (tmp_path / "a.parquet.0123.tmp").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    parts.prepare()
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_unknown_file_system_is_one_line():
    with pytest.raises(UserError, match="'nosuch://x' cannot be used"):
        Parts("nosuch://x").prepare()
    with pytest.raises(UserError, match="address is empty"):
        Parts.parse(" ")


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_where_the_parts_lie_changes_no_byte(kind, tmp_path, store):
    quick_build(tmp_path / "plain", 9)
    address = addresses(tmp_path)[kind]
    quick_build(tmp_path / "set", 9, parts=address)
    assert digests(tmp_path / "set") == digests(tmp_path / "plain")
    parts = Parts.parse(address)
    assert parts.sizes() == {} and parts.sizes(".json") == {}  # they go with .work


def test_interrupted_build_finds_its_parts_again(tmp_path, store, monkeypatch):
    """Of a journal that was lost, and of an address that is not given again."""
    quick_build(tmp_path / "plain", 6)
    folder, made = tmp_path / "set", []
    make = QuickMaker.make

    def stops(self, recording, *rest):
        made.append(recording.recording_id)
        if len(made) == 4:
            raise MemoryError
        return make(self, recording, *rest)

    monkeypatch.setattr(QuickMaker, "make", stops)
    with pytest.raises(MemoryError):
        quick_build(folder, 6, parts="memory://bucket/parts")
    assert len(Parts("memory://bucket/parts").sizes()) == 3
    assert any("MB so far" in line and not line.startswith("0.0") for line in status(folder))
    (folder / ".work/journal.jsonl").unlink()
    quick_build(folder, 6)
    assert made == [f"fake-{i}" for i in (0, 1, 2, 3, 3, 4, 5)]
    assert digests(folder) == digests(tmp_path / "plain")


def test_a_lost_part_is_made_again(tmp_path, monkeypatch):
    folder = tmp_path / "set"
    quick_build(folder, 3, finalize=False)
    before = index_rows(folder / ".work/journal.jsonl")
    Parts.of(folder / ".work").remove("fake-1")
    quick_build(folder, 3, finalize=False)
    after = index_rows(folder / ".work/journal.jsonl")
    assert [after[name].offset != before[name].offset for name in before] == [False, True, False]
    assert after["fake-1"].unit == before["fake-1"].unit and len(after["fake-1"].unit) == 64


def test_address_of_other_parts_is_refused(tmp_path, store):
    address = "memory://bucket/parts"
    quick_build(tmp_path / "one", 3, parts=address)
    Parts(address).claim("{}\n")
    with pytest.raises(UserError, match="holds the parts of another build"):
        quick_build(tmp_path / "two", 3, parts=address)
    store.pipe("/films/mine.parquet", b"mine")
    with pytest.raises(UserError, match="holds .parquet files of no build"):
        quick_build(tmp_path / "three", 3, parts="memory://films")
    assert store.cat("/films/mine.parquet") == b"mine"


def test_a_build_keeps_to_its_address(tmp_path, store):
    folder = tmp_path / "set"
    quick_build(folder, 3, finalize=False)
    with pytest.raises(UserError, match="the parts of this build lie at '.*set/.work/parts'"):
        quick_build(folder, 3, parts="memory://bucket/parts")


def test_clearing_twice_is_clearing_once(tmp_path, store):
    folder = tmp_path / "set"
    quick_build(folder, 3, parts="memory://bucket/parts")
    (folder / ".work").mkdir()
    (folder / ".work/parts_at").write_text("memory://bucket/parts\n")
    with Parts("memory://bucket/parts").writing("left") as path:
        path.write_bytes(b"over")
    assert quick_build(folder, 3).already_complete  # what a kill before the end of finalize leaves
    assert Parts("memory://bucket/parts").sizes() == {} and not (folder / ".work").exists()
    clear(folder / ".work")


def test_finalize_names_a_part_that_is_gone(tmp_path):
    folder = tmp_path / "set"
    quick_build(folder, 3, finalize=False)
    Parts.of(folder / ".work").remove("fake-1")
    with pytest.raises((UserError, FileNotFoundError), match="fake-1"):
        finalize(folder)


def test_any_id_has_a_file_name_of_its_own():
    names = ["a", "a/b", "a%2Fb", "n" * 180, "n" * 181, "n" * 182, "道" * 80, "道" * 81]
    stems = [file_stem(name) for name in names]
    assert len(set(stems)) == len(names)
    assert max(len(f"{stem}.parquet.{'0' * 12}.tmp") for stem in stems) < 255
    assert [is_digest(stem) for stem in stems] == [False] * 4 + [True] * 4
    assert stems[:3] == ["a", "a%2Fb", "a%252Fb"]
