"""Recordings in quarantine of a finished dataset: named, tried again, taken in."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from fake_sets import draw_quickly
from fake_source import tiny_config
from quick_maker import QuickMaker, QuickSource, digests, quick_build, rows_in
from test_main import write_recording

from bi_audio_dataset import card_plots, executors, manifest, retry, unit
from bi_audio_dataset.__main__ import main
from bi_audio_dataset.build import build
from bi_audio_dataset.finalize import finalize
from bi_audio_dataset.review import decisions
from bi_audio_dataset.schema import UserError

MADE = QuickMaker.make


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(unit, "ClipMaker", QuickMaker)
    monkeypatch.setattr(card_plots, "draw", draw_quickly)


class Mendable(QuickSource):
    """Recordings whose numbers stand in the file 'broken' cannot be fetched."""

    @property
    def settings(self):
        return {}

    def fetch(self, recording_id, workdir):
        broken = Path(self.name).read_text().split() if Path(self.name).exists() else []
        if recording_id.split("-")[1] in broken:
            raise UserError(f"'{recording_id}' cannot be had")
        return super().fetch(recording_id, workdir)


def make(folder: Path, broken: str = "", count: int = 10, **more):
    name = folder.with_name("broken")
    name.write_text(broken)
    source = Mendable(tuple(range(count)), name=str(name))
    return build(source, folder, tiny_config(rows_per_shard=8), workers=0, progress=False, **more)


@pytest.fixture
def made(monkeypatch):
    """Ids of the recordings that are rendered."""
    seen = []

    def make(self, recording, *rest):
        seen.append(recording.recording_id)
        return MADE(self, recording, *rest)

    monkeypatch.setattr(QuickMaker, "make", make)
    return seen


def test_a_mended_recording_is_taken_in_and_no_other_is_rendered_again(tmp_path, made):
    whole, folder = tmp_path / "whole", tmp_path / "set"
    make(whole)
    make(folder, "2 3")
    del made[:]
    told = make(folder, "2 3", retry_quarantined=False)
    assert told.already_complete and {"fake-2", "fake-3"} < told.skipped.keys() and made == []
    before = digests(folder)
    told = make(folder, "2 3", retry_quarantined=True)  # nothing can be used yet
    assert told.already_complete and {"fake-2", "fake-3"} < told.skipped.keys()
    assert digests(folder) == before and made == ["fake-7", "fake-8"]  # QuickMaker never takes these
    del made[:]
    told = make(folder, "3", retry_quarantined=True)
    assert told.skipped.keys() == {"fake-3", "fake-7", "fake-8"} and "fake-2-0" in rows_in(folder)
    assert made == ["fake-2", "fake-7", "fake-8"]
    make(folder, retry_quarantined=True)
    assert digests(folder) == digests(whole)


def test_what_people_decided_holds(tmp_path, made):
    folder, whole = tmp_path / "set", tmp_path / "whole"
    row = decisions.Decision("2026-01-01T00:00:00.000000Z", "ann", "fake-1-0", "reject")
    for target, broken in ((whole, ""), (folder, "2")):
        make(target, broken, finalize=False)
        decisions.append(target / decisions.DECISIONS_FILE, row)
        (target / "removed.txt").write_text("fake-4-1  # its author asked\n")
        finalize(target)
    del made[:]
    make(folder, retry_quarantined=True)
    # of fake-1 and fake-4 a clip was in no shard: they are rendered again
    assert made == ["fake-2", "fake-7", "fake-8", "fake-1", "fake-4"]
    assert digests(folder) == digests(whole)
    assert not {"fake-1-0", "fake-4-1"} & rows_in(folder).keys()


def test_decisions_of_another_file_are_not_forgotten(tmp_path):
    folder, other = tmp_path / "set", tmp_path / "ben.jsonl"
    make(folder, "2", finalize=False)
    row = decisions.Decision("2026-01-01T00:00:00.000000Z", "ben", "fake-1-0", "reject")
    decisions.append(other, row)
    finalize(folder, [other])
    before = digests(folder / "data")
    with pytest.raises(UserError, match=r"'fake-1-0' was left out \(rejected by ben\) by a list that is not"):
        make(folder, retry_quarantined=True)
    assert digests(folder / "data") == before
    decisions.append(folder / decisions.DECISIONS_FILE, row)
    make(folder, retry_quarantined=True)
    assert {"fake-2-0", "fake-1-1"} < rows_in(folder).keys() and "fake-1-0" not in rows_in(folder)


def test_splits_and_captions_of_people_are_made_anew(tmp_path, monkeypatch):
    """What finalize wrote into the shards is undone before it decides again."""

    def grouped(self, recording, *rest):
        result = MADE(self, recording, *rest)
        if recording.recording_id in ("fake-0", "fake-1"):
            result.recording["group"] = "one event"
        return result

    monkeypatch.setattr(QuickMaker, "make", grouped)
    whole, folder = tmp_path / "whole", tmp_path / "set"
    caption = "Visible sound: a bell, Invisible sound: none"
    row = decisions.Decision("2026-01-01T00:00:00.000000Z", "ann", "fake-3-0", "accept", caption)
    for target, broken in ((whole, ""), (folder, "0")):
        target.mkdir()
        make(target, broken, 5, finalize=False)
        decisions.append(target / decisions.DECISIONS_FILE, row)
        finalize(target)
    assert rows_in(folder)["fake-1-0"]["split"] == "train"
    make(folder, "", 5, retry_quarantined=True)
    assert rows_in(folder)["fake-1-0"]["split"] == "test"
    assert rows_in(folder)["fake-3-0"]["caption"] == caption
    assert digests(folder) == digests(whole)


def test_kept_clips_stay_kept(tmp_path):
    folder = tmp_path / "set"
    make(folder, "2", finalize=False)
    finalize(folder, keep=True)
    make(folder, retry_quarantined=True)
    assert "fake-2-0" in rows_in(folder) and (folder / ".work/parts/fake-2.parquet").exists()


def test_with_review_it_is_refused(tmp_path):
    make(tmp_path / "set", "2")
    with pytest.raises(UserError, match="leave out --review"):
        make(tmp_path / "set", retry_quarantined=True, finalize=False)


def test_killed_anywhere_it_ends_with_the_same_bytes(tmp_path):
    whole, folder = tmp_path / "whole", tmp_path / "set"
    make(whole)
    make(folder, "2")
    (tmp_path / "broken").write_text("")
    rng, kills = np.random.default_rng(0), 0
    while (retry.quarantined(folder).keys() & {"fake-2"}) or (folder / ".work").exists():
        child = os.fork()
        if not child:
            left = [int(rng.integers(1, 12))]

            def counted(function, left=left):
                def call(*arguments, **options):
                    left[0] -= 1
                    if left[0] == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return function(*arguments, **options)

                return call

            try:
                os.replace, os.fsync = counted(os.replace), counted(os.fsync)
                make(folder, retry_quarantined=True)
            finally:
                os._exit(0)
        rng.integers(1, 12)
        kills += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        assert kills < 100
    assert kills >= 3
    assert digests(folder) == digests(whole)


def test_through_the_command_line(tmp_path, monkeypatch, capsys):
    from bi_audio_dataset.clip import ClipMaker

    monkeypatch.setattr(unit, "ClipMaker", ClipMaker)
    monkeypatch.setattr(executors, "choose", lambda *_: executors.Inline())
    films, output = tmp_path / "films", str(tmp_path / "set")
    films.mkdir()
    write_recording(films)
    (films / "run.mp4").touch()
    command = ["build", str(films), "--clip-s", "1", "--output", output]
    assert main(command) == 2
    capsys.readouterr()
    assert main(command) == 0
    assert "already complete, nothing to do; 1 recording is in quarantine" in capsys.readouterr().out
    assert main([*command, "--retry", "--dry-run"]) == 2
    assert "--dry-run knows nothing of --retry" in capsys.readouterr().err
    assert main([*command, "--retry"]) == 2
    assert "already complete; 1 recording is in quarantine still" in capsys.readouterr().out
    assert main(["status", output]) == 0
    assert "\n  run: run.mp4: the file is empty" in capsys.readouterr().out
    write_recording(films, "run", azimuth_deg=-60.0)
    assert main([*command, "--retry"]) == 0
    rows = list(manifest.read(tmp_path / "set/manifest.jsonl"))
    assert [row["decision"] for row in rows if row["kind"] == "recording"] == ["built", "built"]
    assert main(command) == 0
    assert capsys.readouterr().out.endswith("already complete, nothing to do\n")


def test_status_names_twenty_or_all(tmp_path, capsys):
    folder = tmp_path / "set"
    quick_build(folder, 110, finalize=False)
    for _ in range(2):
        assert main(["status", str(folder)]) == 0
        told = capsys.readouterr().out
        assert "\n  fake-107: 'fake-107' is too short\n" in told and "  fake-97" not in told
        assert "\n  and 2 more in quarantine: --all names them" in told
        assert main(["status", str(folder), "--all"]) == 0
        told = capsys.readouterr().out
        assert "\n  fake-98: RuntimeError: decoder gave up\n" in told and "more in quarantine" not in told
        if not (folder / "data").exists():
            finalize(folder)
    assert json.loads((folder / "build.json").read_text())["source"]["recordings"] == 110
