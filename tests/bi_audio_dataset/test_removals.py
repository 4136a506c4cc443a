"""The removal list, read and applied: before finalize and to a finished dataset."""

import json
import os
import shutil

import pytest
from quick_maker import QuickMaker, digests, quick_build, rows_in

from bi_audio_dataset import card_plots, manifest, removals, unit
from bi_audio_dataset import remove as remove_module
from bi_audio_dataset.__main__ import main
from bi_audio_dataset.finalize import finalize
from bi_audio_dataset.remove import remove
from bi_audio_dataset.schema import UserError
from bi_audio_dataset.validate import validate


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(unit, "ClipMaker", QuickMaker)
    monkeypatch.setattr(card_plots, "draw", lambda *_: [])  # matplotlib would take most of the time


def test_text_and_json_lines_are_read(tmp_path):
    (tmp_path / "removed.txt").write_text("# asked for in May\na-1  # its author asked\n\nb\nc # old\n")
    rows = [{"id": "c", "reason": "a face\nis seen"}, {"id": "d", "by": "eva"}]
    (tmp_path / "removals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "more.txt").write_text('{"id": "b", "reason": "court order"}\ne')
    assert removals.load(tmp_path, [tmp_path / "more.txt"]) == {
        "a-1": "its author asked",
        "b": "court order",
        "c": "a face is seen",
        "d": "on the removal list",
        "e": "on the removal list",
    }
    removals.append(tmp_path, {"c": "a face is seen", "f": "new"})
    assert (tmp_path / "removals.jsonl").read_text().count("\n") == 3
    assert removals.load(tmp_path)["f"] == "new"


@pytest.mark.parametrize("line", ['{"id": "a"', '{"reason": "x"}', '{"id": 7}', '{"id": "a", "reason": 7}'])
def test_line_that_names_nothing_is_refused_not_passed_over(tmp_path, line):
    (tmp_path / "list.txt").write_text(f"good\n{line}\n")
    with pytest.raises(UserError, match=r"list\.txt:2: expected"):
        removals.read(tmp_path / "list.txt")


def test_missing_list_is_refused(tmp_path):
    with pytest.raises(UserError, match="none.txt' cannot be read"):
        removals.load(tmp_path, [tmp_path / "none.txt"])


def test_clip_recording_and_group_may_be_named():
    listed = {"clip": "one", "home": "two", "film": "three"}
    asked = [("clip", "home", "film"), ("x", "home", "film"), ("x", "y", "film"), ("x", "y", "")]
    assert [removals.reason_for(listed, *names) for names in asked] == ["one", "two", "three", None]


def test_finalize_takes_lists_of_the_folder_and_others(tmp_path):
    folder = tmp_path / "set"
    quick_build(folder, 3, finalize=False)
    removals.append(folder, {"fake-0": "its author asked"})
    (tmp_path / "more.txt").write_text("fake-1-1 # too loud")
    finalize(folder, more_removals=[tmp_path / "more.txt"])
    assert sorted(rows_in(folder)) == ["fake-1-0", "fake-2-0", "fake-2-1"]
    found = {row["id"]: row for row in manifest.read(folder / "manifest.jsonl")}
    assert found["fake-0-1"]["reasons"] == {"removed": "its author asked"}
    assert (found["fake-1-1"]["decision"], found["fake-1-1"]["reasons"]) == (
        "reject",
        {"removed": "too loud"},
    )


@pytest.fixture
def finished(tmp_path):
    folder = tmp_path / "set"
    quick_build(folder, 8)
    return folder


def test_remove_takes_clips_out_of_a_finished_dataset_and_says_why(finished, capsys):
    before = rows_in(finished)
    whole = (finished / "README.md").read_text()
    assert main(["remove", str(finished), "--id", "fake-2", "--id", "fake-5-0", "--reason", "faces"]) == 0
    assert "3 clips removed, 10 left" in capsys.readouterr().out
    left = rows_in(finished)
    assert set(before) - set(left) == {"fake-2-0", "fake-2-1", "fake-5-0"}
    assert all(left[name] == before[name] for name in left)
    found = {row["id"]: row for row in manifest.read(finished / "manifest.jsonl")}
    assert found["fake-2-1"]["decision"] == "reject" and found["fake-2-1"]["reasons"] == {"removed": "faces"}
    assert found["fake-2-1"]["camera"] == {"rate_hz": 25.0, "yaw_deg": [1.0, 0.0]}
    assert found["fake-3-0"]["decision"] == "accept"
    assert validate(finished, media=False).problems == []
    assert not (finished / ".work").exists()
    assert (finished / "README.md").read_text() != whole
    assert "| removed | 0 | 3 | 0 |" in (finished / "README.md").read_text()

    done = digests(finished)
    assert main(["remove", str(finished), "--id", "nobody"]) == 0
    told = capsys.readouterr()
    assert (
        "0 clips removed, 10 left" in told.out and "1 ids on the list name nothing here: nobody" in told.err
    )
    assert {**digests(finished), "removals.jsonl": ""} == {**done, "removals.jsonl": ""}


def test_remove_killed_anywhere_ends_the_same(finished, tmp_path, monkeypatch):
    whole = shutil.copytree(finished, tmp_path / "whole")
    remove(whole, {"fake-1": "why"})
    renames = 0
    real = os.replace
    for number in range(1, 8):
        folder = shutil.copytree(finished, tmp_path / f"killed-{number}")
        left = [number]

        def dying(*arguments, left=left):
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
            return real(*arguments)

        monkeypatch.setattr(os, "replace", dying)
        try:
            remove(folder, {"fake-1": "why"})
        except KeyboardInterrupt:
            renames += 1
        monkeypatch.setattr(os, "replace", real)
        remove(folder, {"fake-1": "why"})
        assert digests(folder) == digests(whole)
    assert renames >= 4


def test_remove_refuses_what_it_cannot_do(finished, tmp_path):
    with pytest.raises(UserError, match="nothing of .* would be left"):
        remove(finished, {f"fake-{i}": "all" for i in range(8)})
    assert len(rows_in(finished)) == 13 and not (finished / removals.REMOVALS_FILE).exists()
    quick_build(tmp_path / "waiting", 2, finalize=False)
    with pytest.raises(UserError, match="its build is not finished"):
        remove(tmp_path / "waiting", {"fake-0": "why"})
    finalize(tmp_path / "waiting")  # which honours what was written down all the same
    assert sorted(rows_in(tmp_path / "waiting")) == ["fake-1-0", "fake-1-1"]
    with pytest.raises(UserError, match="holds no build.json"):
        remove(tmp_path)


def test_group_of_a_recording_is_removed_as_a_whole(finished, monkeypatch):
    rows = list(manifest.read(finished / "manifest.jsonl"))
    for row in rows:
        if row["kind"] == "recording" and row["id"] in ("fake-3", "fake-4"):
            row["group"] = "film"
    manifest.write(finished / "manifest.jsonl", map(manifest.dumps, rows))
    assert remove_module.remove(finished, {"film": "why"}).clips == tuple(
        f"fake-{i}-{n}" for i in (3, 4) for n in (0, 1)
    )
