import json
import os
import subprocess
import sys

import pytest

from bi_audio_dataset import jsonl
from bi_audio_dataset.schema import UserError


def test_rows_come_back_with_their_line_numbers(tmp_path):
    path = tmp_path / "new" / "rows.jsonl"
    assert jsonl.read_rows(path) == []
    jsonl.append_rows(path, [{"id": "é"}, {"id": "b", "x": None}])
    jsonl.append_rows(path, [])
    jsonl.append_rows(path, [{"id": "c"}])
    assert jsonl.read_rows(path) == [(1, {"id": "é"}), (2, {"id": "b", "x": None}), (3, {"id": "c"})]


@pytest.mark.parametrize("torn", ['{"id": "t', '{"id": "whole but no newline"}', "x" * 200_000])
def test_a_torn_last_line_is_left_out_and_then_removed(tmp_path, torn):
    path = tmp_path / "rows.jsonl"
    jsonl.append_rows(path, [{"id": "a"}])
    with open(path, "a") as handle:
        handle.write(torn)
    assert jsonl.read_rows(path) == [(1, {"id": "a"})]
    jsonl.append_rows(path, [{"id": "b"}])
    assert path.read_text() == '{"id": "a"}\n{"id": "b"}\n'


def test_a_file_that_holds_a_torn_line_alone(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id"')
    jsonl.append_rows(path, [{"id": "b"}])
    assert jsonl.read_rows(path) == [(1, {"id": "b"})]


@pytest.mark.parametrize("line", ["{", "[1]", '"text"'])
def test_a_bad_line_is_named(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"id": "a"}}\n\n{line}\n{{"id": "b"}}\n')
    with pytest.raises(UserError, match=r"rows\.jsonl:3: not a JSON object"):
        jsonl.read_rows(path)


def test_nan_is_refused_before_anything_is_written(tmp_path):
    path = tmp_path / "rows.jsonl"
    with pytest.raises(ValueError):
        jsonl.append_rows(path, [{"id": "a"}, {"x": float("nan")}])
    assert not path.exists()


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    jsonl.append_rows(path, [{"id": "a"}])

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        jsonl.append_rows(path, [{"id": "b"}])
    assert path.read_text() == '{"id": "a"}\n'


def test_two_processes_do_not_tear_each_others_rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    code = (
        "import sys; from pathlib import Path; from bi_audio_dataset import jsonl\n"
        "for i in range(30): jsonl.append_rows(Path(sys.argv[1]), [{'who': sys.argv[2], 'i': i}])"
    )
    runs = [subprocess.Popen([sys.executable, "-c", code, str(path), who]) for who in "ab"]
    assert [run.wait(60) for run in runs] == [0, 0]
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for who in "ab":
        assert [row["i"] for row in rows if row["who"] == who] == list(range(30))
