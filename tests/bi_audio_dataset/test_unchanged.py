"""Replaced recordings and damaged parts are made again; nothing else is."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from fake_sets import draw_quickly
from fake_source import tiny_config
from quick_maker import QuickMaker, digests

from bi_audio_dataset import card_plots, manifest, unit
from bi_audio_dataset.build import build
from bi_audio_dataset.finalize import finalize
from bi_audio_dataset.schema import UserError
from bi_audio_dataset.sound import file_digest, input_digest
from bi_audio_dataset.sources.base import Recording
from bi_audio_dataset.unchanged import files_of, replaced

MADE = QuickMaker.make


@dataclass(frozen=True)
class Films:
    folder: Path
    name: str = "films"

    def recording_ids(self):
        return sorted(path.stem for path in self.folder.glob("*.mp4"))

    def split(self, recording_id):
        return "train"

    def fetch(self, recording_id, workdir):
        sound = self.folder / f"{recording_id}.wav"
        return Recording(recording_id, self.folder / f"{recording_id}.mp4", sound, "CC0-1.0", "test")


@pytest.fixture
def made(monkeypatch):
    seen = []

    def make(self, recording, *rest):
        seen.append(recording.recording_id)
        result = MADE(self, recording, *rest)
        result.recording["input"] = input_digest(recording)
        return result

    monkeypatch.setattr(unit, "ClipMaker", QuickMaker)
    monkeypatch.setattr(QuickMaker, "make", make)
    monkeypatch.setattr(card_plots, "draw", draw_quickly)
    return seen


@pytest.fixture
def films(tmp_path):
    (tmp_path / "films").mkdir()
    for name in "abcd":
        (tmp_path / f"films/{name}.mp4").write_bytes(f"film {name}".encode())
        (tmp_path / f"films/{name}.wav").write_bytes(f"sound {name}".encode())
    return tmp_path / "films"


def make(films: Path, **more):
    folder = films.with_name("set")
    return build(Films(films), folder, tiny_config(), workers=0, progress=False, **more)


def test_replaced_recordings_are_made_again(films, made):
    make(films, finalize=False)
    make(films, finalize=False)
    assert made == ["a", "b", "c", "d"]
    (films / "a.mp4").write_bytes(b"FILM A")  # as long as before
    os.utime(films / "a.mp4", ns=(1, 1))
    (films / "b.wav").write_bytes(b"another sound")
    os.utime(films / "c.mp4", ns=(1, 1))  # copied anew: the same bytes
    make(films, finalize=False)
    assert made == ["a", "b", "c", "d", "a", "b"]
    make(films, finalize=False)
    assert made == ["a", "b", "c", "d", "a", "b"]
    make(films)
    text = (films.with_name("set") / "manifest.jsonl").read_text()
    assert '"files"' not in text and '"size"' not in text
    rows = {row["id"]: row for row in manifest.read(films.with_name("set") / "manifest.jsonl")}
    assert rows["a"]["input"]["video"] == file_digest(films / "a.mp4")


def test_recordings_that_have_moved_are_not(films, made):
    make(films, finalize=False)
    moved = films.with_name("films of mine")
    films.rename(moved)
    make(moved, finalize=False)
    assert made == ["a", "b", "c", "d"]
    (moved / "d.mp4").write_bytes(b"a longer film")
    make(moved, finalize=False)
    assert made[4:] == ["d"]


def test_a_file_that_is_gone_is_not_a_replaced_one(films, tmp_path):
    source = Films(films)
    files = files_of(source.fetch("a", tmp_path), source, tmp_path / "scratch")
    assert {name: (found[0], found[1]) for name, found in files.items()} == {
        "video": ("a.mp4", 6),
        "audio": ("a.wav", 7),
    }
    assert files_of(source.fetch("a", tmp_path), source, films) == {}  # put there by the source itself
    assert not replaced({"files": files}, source)
    (films / "a.mp4").unlink()
    assert not replaced({"files": files}, source) and not replaced({}, source)


def test_a_part_that_was_cut_is_made_again(films, made):
    make(films.parent / "films", finalize=False)
    folder = films.with_name("set")
    whole = (folder / ".work/parts/b.parquet").read_bytes()
    middle = len(whole) // 2
    for damaged in (whole[:4] + b"x" * middle + whole[4 + middle :], whole[:middle]):
        (folder / ".work/parts/b.parquet").write_bytes(damaged)
        refused(folder)
    make(films, finalize=False)
    assert made == ["a", "b", "c", "d", "b"]
    assert (folder / ".work/parts/b.parquet").read_bytes() == whole
    finalize(folder)
    before = digests(folder)
    made.clear()
    make(films)
    assert made == [] and digests(folder) == before


def refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"b.parquet: is damaged \(.*\): remove that file and run the build"):
        finalize(folder)
