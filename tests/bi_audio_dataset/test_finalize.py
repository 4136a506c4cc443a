"""From clips to a dataset, with people in between, and with kills wherever something is written."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from fake_sets import draw_quickly
from fake_source import FakeSource, tiny_config
from quick_maker import QuickMaker, digests, quick_build, rows_in

from bi_audio_dataset import card_plots, manifest, unit
from bi_audio_dataset.__main__ import main
from bi_audio_dataset.build import build
from bi_audio_dataset.finalize import finalize
from bi_audio_dataset.review import decisions, evidence
from bi_audio_dataset.schema import UserError
from bi_audio_dataset.sources.base import Recording
from bi_audio_dataset.workplace import JOURNAL, WORK


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(unit, "ClipMaker", QuickMaker)
    monkeypatch.setattr(card_plots, "draw", draw_quickly)


def test_bad_recordings_are_in_quarantine_with_their_reasons_and_the_rest_is_built(tmp_path):
    result = quick_build(tmp_path / "set")
    assert result.skipped == {
        "fake-7": "'fake-7' is too short",
        "fake-17": "'fake-17' is too short",
        "fake-8": "RuntimeError: decoder gave up",
        "fake-18": "RuntimeError: decoder gave up",
    }
    rows = list(manifest.read(tmp_path / "set/manifest.jsonl"))
    found = {row["id"]: row for row in rows}
    assert found["fake-7"]["reasons"] == {"too_short": "'fake-7' is too short"}
    assert found["fake-7"]["measures"] == {"too_short.duration_s": 0.5}
    assert found["fake-8"]["reasons"] == {"failed": "RuntimeError: decoder gave up"}
    assert found["fake-5-1"]["decision"] == "reject" and found["fake-5-1"]["camera"]["yaw_deg"] == [1.0, 0.0]
    recordings = [row["id"] for row in rows if row["kind"] == "recording"]
    assert recordings == sorted(recordings) and len(recordings) == 20
    assert sum(result.figures.clips.values()) == 16 * 2 - 2 == len(rows_in(tmp_path / "set"))
    card = (tmp_path / "set/README.md").read_text()
    assert "30 of 32 clips of 16 recordings are published. 4 recordings could not be used." in card
    assert "| silent | 0 | 2 | 0 |" in card and "| too_short | 2 | 0 | 0 |" in card
    assert "seconds" not in (tmp_path / "set/manifest.jsonl").read_text()


def decide_on(folder: Path, clip_id: str, decision: str, who: str = "ann", at: int = 0, **more) -> None:
    row = decisions.Decision(f"2026-01-01T00:00:{at:02d}.000000Z", who, clip_id, decision, **more)
    decisions.append(folder / decisions.DECISIONS_FILE, row)


def test_people_decide_between_build_and_finalize(tmp_path, capsys):
    folder = tmp_path / "set"
    result = quick_build(folder, 4, finalize=False)
    assert result.waiting == 8 and not (folder / "data").exists()
    decide_on(folder, "fake-0-0", "reject")
    decide_on(folder, "fake-1-0", "accept", caption="Visible sound: a bell, Invisible sound: none")
    decide_on(folder, "fake-2-0", "rerender")
    (folder / "removed.txt").write_text("fake-3  # its author asked\n")

    assert main(["filter", str(folder)]) == 2  # one clip waits
    told = capsys.readouterr()
    assert "'fake-2-0' waits for another camera path" in told.err and "1 review" not in told.err
    assert "clips: 4 accept, 4 reject" in told.out and not (folder / "data").exists()

    quick_build(folder, 4, finalize=False)  # makes the other path
    assert "'fake-2-0' was rendered again" in finalize(folder, write=False).problems[0]
    decide_on(folder, "fake-2-0", "accept", at=9, render=1)
    assert main(["finalize", str(folder), "--keep"]) == 0
    assert quick_build(folder, 4).already_complete and (folder / ".work/parts").is_dir()
    rows = rows_in(folder)
    assert sorted(rows) == ["fake-0-1", "fake-1-0", "fake-1-1", "fake-2-0", "fake-2-1"]
    assert rows["fake-1-0"]["caption"] == "Visible sound: a bell, Invisible sound: none"
    assert rows["fake-2-0"]["camera"]["yaw_deg"][0] == 1.0 and rows["fake-2-1"]["camera"]["yaw_deg"][0] == 0.0
    found = {row["id"]: row for row in manifest.read(folder / "manifest.jsonl")}
    assert found["fake-3-1"]["reasons"] == {"removed": "its author asked"}
    assert found["fake-2-0"]["camera"]["yaw_deg"] == [1.0, 1.0]

    # the second reviewer's file, merged at finalize, objects to one more
    other = tmp_path / "ben.jsonl"
    decisions.append(other, decisions.Decision("2026-01-02T00:00:00.000000Z", "ben", "fake-1-0", "reject"))
    assert main(["finalize", str(folder), "--decisions", str(other)]) == 2
    assert "reviewers differ about 'fake-1-0' (ann and ben)" in capsys.readouterr().err
    assert sorted(rows_in(folder)) == ["fake-0-1", "fake-1-1", "fake-2-0", "fake-2-1"]
    assert not (folder / ".work").exists()
    with pytest.raises(UserError, match="holds no clips that wait"):
        finalize(folder)


def test_another_path_that_a_filter_leaves_out_is_no_dead_end(tmp_path, capsys, monkeypatch):
    class Strict(QuickMaker):
        """Whatever is rendered again is weak_cue's."""

        def make(self, recording, source_name, split, renders):
            made = super().make(recording, source_name, split, renders)
            again = {row["id"] for row in made.clips if row["draw"]["render"]}
            for row in made.clips:
                if row["id"] in again:
                    row |= {"decision": "reject", "reasons": {"weak_cue": "too alike"}}
            made.records = [record for record in made.records if record.id not in again]
            return made

    monkeypatch.setattr(unit, "ClipMaker", Strict)
    folder = tmp_path / "set"
    quick_build(folder, 2, finalize=False)
    decide_on(folder, "fake-1-0", "rerender")
    assert main(["finalize", str(folder), "--keep"]) == 2
    assert "'fake-1-0' waits for another camera path" in capsys.readouterr().err
    quick_build(folder, 2, finalize=False)
    assert main(["finalize", str(folder)]) == 0
    assert "'fake-1-0': ann asked for another camera path, which weak_cue left out" in capsys.readouterr().out
    assert sorted(rows_in(folder)) == ["fake-0-0", "fake-0-1", "fake-1-1"]
    found = {row["id"]: row for row in manifest.read(folder / "manifest.jsonl")}
    assert list(found["fake-1-0"]["reasons"]) == ["weak_cue", "review"]


def test_finalize_in_two_steps_is_finalize_in_one(tmp_path):
    quick_build(tmp_path / "one", 6)
    quick_build(tmp_path / "two", 6, finalize=False)
    finalize(tmp_path / "two")
    assert digests(tmp_path / "two") == digests(tmp_path / "one")


def test_quarantine_is_tried_again(tmp_path, monkeypatch):
    folder = tmp_path / "set"
    assert quick_build(folder, 8, finalize=False).skipped.keys() == {"fake-7"}
    seen = []
    make = QuickMaker.make

    def mended(self, recording, *rest):
        seen.append(recording.recording_id)
        return make(self, Recording("fake-77x", *[recording.video_path] * 2, "", ""), *rest)

    monkeypatch.setattr(QuickMaker, "make", mended)
    quick_build(folder, 8, finalize=False)
    assert seen == ["fake-7"]


def test_recordings_of_another_version_of_a_stage_are_made_again(tmp_path, monkeypatch):
    folder, seen = tmp_path / "set", []
    make = QuickMaker.make

    def stamped(self, recording, *rest):
        seen.append(recording.recording_id)
        made = make(self, recording, *rest)
        made.recording["stages"] = dict(manifest.STAGE_VERSIONS)
        return made

    monkeypatch.setattr(QuickMaker, "make", stamped)
    quick_build(folder, 3, finalize=False)
    quick_build(folder, 3, finalize=False)
    assert seen == ["fake-0", "fake-1", "fake-2"]
    monkeypatch.setitem(manifest.STAGE_VERSIONS, "render", manifest.STAGE_VERSIONS["render"] + 1)
    quick_build(folder, 3, finalize=False)
    assert seen == ["fake-0", "fake-1", "fake-2"] * 2


# -------------------- kills


def kill_at(number: int, folder: Path, half: bool) -> bool:
    """Build in a child that dies (SIGKILL) just before its so-manieth write or rename; whether it got so far.

    half: where that is the writing of a Parquet file, half of it is left behind.
    """
    child = os.fork()
    if child:
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    try:
        left = [number]

        def counted(function, name):
            def call(*arguments, **options):
                left[0] -= 1
                if left[0] == 0:
                    if half and name == "write_table":
                        function(*arguments, **options)
                        os.truncate(arguments[1], os.path.getsize(arguments[1]) // 2)
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **options)

            return call

        os.replace, os.fsync = counted(os.replace, "replace"), counted(os.fsync, "fsync")
        pyarrow.parquet.write_table = counted(pyarrow.parquet.write_table, "write_table")
        quick_build(folder)
    finally:
        os._exit(0)


def test_killed_anywhere_it_ends_with_the_same_bytes(tmp_path):
    """20 recordings; the same folder is killed over and over, at random writes, until it is complete."""
    quick_build(tmp_path / "whole")
    rng = np.random.default_rng(1)
    folder, kills, in_shards = tmp_path / "killed", 0, 0
    while True:
        # small steps at first, so that many kills fall into one build
        died = kill_at(int(rng.integers(1, 16)), folder, half=bool(rng.integers(2)))
        if not died:
            break
        kills += 1
        in_shards += (folder / ".work/data").is_dir()
    assert kills >= 10 and in_shards >= 1
    quick_build(folder)
    assert digests(folder) == digests(tmp_path / "whole")


def test_finalize_goes_on_after_the_shards_that_are_written(tmp_path, monkeypatch):
    folder, written = tmp_path / "set", []
    quick_build(tmp_path / "whole", 20)
    quick_build(folder, 20, finalize=False)
    write = pyarrow.parquet.write_table

    def dies_at(number):
        def call(table, path, **options):
            if len(written) == number:
                raise KeyboardInterrupt
            written.append(Path(path).name)
            write(table, path, **options)

        monkeypatch.setattr(pyarrow.parquet, "write_table", call)

    for number in (2, 3):
        dies_at(number)
        with pytest.raises(KeyboardInterrupt):
            finalize(folder)
    dies_at(100)
    finalize(folder)
    assert len(written) == len(set(written)) == len(list((folder / "data").iterdir())) > 3
    assert digests(folder) == digests(tmp_path / "whole")


def test_shards_of_other_decisions_are_written_anew(tmp_path, monkeypatch):
    folder = tmp_path / "set"
    quick_build(folder, 20, finalize=False)
    write, left = pyarrow.parquet.write_table, [2]

    def dies(*arguments, **options):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        write(*arguments, **options)

    monkeypatch.setattr(pyarrow.parquet, "write_table", dies)
    with pytest.raises(KeyboardInterrupt):
        finalize(folder)
    (kept,) = (folder / ".work/data").glob("*.parquet")
    first = pyarrow.parquet.read_table(kept, columns=["id"])["id"][0].as_py()
    (folder / "removed.txt").write_text(f"{first}\n")
    finalize(folder)
    assert first not in rows_in(folder)


def test_what_is_not_through_is_not_finished(tmp_path):
    """Neither a build nor a retry that was interrupted, whose other clips would be lost."""
    folder = tmp_path / "set"
    quick_build(folder, 6, finalize=False)
    journal = folder / WORK / JOURNAL
    text = journal.read_text()
    kept = "".join(line for line in text.splitlines(keepends=True) if "fake-3" not in line)
    journal.write_text(kept)
    with pytest.raises(UserError, match="5 of 6 recordings of .* are done: run the same build again first"):
        finalize(folder)
    assert not (folder / "data").exists() and journal.read_text() == kept
    assert any("5 of 6 recordings" in line for line in finalize(folder, write=False).problems)
    quick_build(folder, 6, finalize=False)
    finalize(folder)
    assert "fake-3-0" in rows_in(folder)


def test_clips_that_wait_for_review_are_not_thrown_away(tmp_path):
    folder = tmp_path / "set"
    quick_build(folder, 4, finalize=False)
    decided = decisions.Decision("2026-01-01T00:00:00Z", "eva", "fake-1-0", "rerender", render=1)
    decisions.append(folder / decisions.DECISIONS_FILE, decided)
    done = finalize(folder)
    assert done.plan.waiting == ["fake-1-0"] and any("stay in" in note for note in done.notes)
    assert (folder / ".work").is_dir() and "fake-1-0" not in rows_in(folder)
    quick_build(folder, 4, finalize=False)  # makes the other path
    decided = decisions.Decision("2026-01-02T00:00:00Z", "eva", "fake-1-0", "accept", render=1)
    decisions.append(folder / decisions.DECISIONS_FILE, decided)
    assert finalize(folder).plan.waiting == []
    assert "fake-1-0" in rows_in(folder) and not (folder / ".work").exists()


# -------------------- the rest


def test_status_counts_while_and_after(tmp_path, capsys):
    folder = tmp_path / "set"
    quick_build(folder, 9, finalize=False)
    assert main(["status", str(folder)]) == 0
    told = capsys.readouterr().out
    assert "9 of 9 recordings done" in told and "recordings: 7 built, 2 quarantine" in told
    assert "clips: 13 accept, 1 reject" in told and "quarantine: 1 failed, 1 too_short" in told
    finalize(folder)
    assert main(["status", str(folder)]) == 0
    assert "complete\nrecordings: 7 built, 2 quarantine" in capsys.readouterr().out
    with pytest.raises(UserError, match="holds no build.json"):
        finalize(tmp_path)


def test_folder_of_an_older_version_is_still_the_same_build(tmp_path):
    folder = tmp_path / "set"
    quick_build(folder, 2)
    record = json.loads((folder / "build.json").read_text())
    del record["config"]["selection"], record["config"]["views_per_recording"]
    (folder / "build.json").write_text(json.dumps(record))
    assert quick_build(folder, 2).already_complete
    record["config"]["views_per_recording"] = 2
    (folder / "build.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="views_per_recording is 2 there, 1 here"):
        quick_build(folder, 2)


def test_nothing_left_says_why(tmp_path):
    quick_build(tmp_path, 2, finalize=False)
    (tmp_path / "removed.txt").write_text("fake-0\nfake-1\n")
    with pytest.raises(UserError, match="no clip could be built into .*: 4 clips by 'removed'"):
        finalize(tmp_path)


def test_review_keeps_evidence_of_the_recording(tmp_path, monkeypatch):
    from bi_audio_dataset.clip import ClipMaker

    monkeypatch.setattr(unit, "ClipMaker", ClipMaker)
    folder = tmp_path / "set"
    build(FakeSource((30.0,)), folder, tiny_config(), workers=0, progress=False, finalize=False)
    kept = evidence.load(folder, "fake-0")
    energy = kept.energy_map(72, 36)
    row, column = np.unravel_index(energy.argmax(), energy.shape)
    assert abs(column - (0.5 - 30 / 360) * 72) < 2 and abs(row - 18) < 2
    grey = kept.panorama.astype(float).mean(axis=2)
    assert grey.argmax() % 512 == pytest.approx((0.5 - 30 / 360) * 512, abs=12)
