import json

import pytest

from bi_audio_dataset import manifest
from bi_audio_dataset.schema import UserError

CAMERA = {"rate_hz": 25.0, "yaw_deg": [1.5, 2.25], "pitch_deg": [0.0, 0.0], "roll_deg": [0.0, 0.0]}
# a text that holds what the line's last value begins with, and stages of its name
CLIP = {"kind": "clip", "id": 'a", "camera": {"rate_hz": 1}', "camera": CAMERA, "stages": {"camera": 1}}
RECORDING = {"kind": "recording", "id": "rue Étienne", "decision": "built"}


def test_what_is_appended_is_read_back(tmp_path):
    path = tmp_path / "journal.jsonl"
    manifest.append(path, [RECORDING, CLIP])
    assert list(manifest.read(path)) == [RECORDING, CLIP]
    light = list(manifest.read(path, camera=False))
    assert light[1] == {key: value for key, value in CLIP.items() if key != "camera"}
    for line in path.read_text().splitlines():
        json.loads(line)  # each line is plain JSON to any other program


def test_a_changed_row_keeps_its_camera_path():
    row, tail = manifest.split_line(manifest.dumps(CLIP))
    assert "camera" not in row
    assert json.loads(manifest.join_line(row | {"decision": "reject"}, tail)) == CLIP | {"decision": "reject"}
    row, tail = manifest.split_line(manifest.dumps(RECORDING))
    assert (row, tail) == (RECORDING, "")
    assert json.loads(manifest.join_line(row, tail)) == RECORDING


def test_a_torn_line_is_passed_over_and_then_removed(tmp_path):
    path = tmp_path / "journal.jsonl"
    manifest.append(path, [RECORDING, CLIP])
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    assert list(manifest.read(path)) == [RECORDING]
    manifest.append(path, [CLIP])
    assert path.read_bytes() == whole


def test_offsets_are_those_of_the_lines(tmp_path):
    path = tmp_path / "journal.jsonl"
    manifest.append(path, [RECORDING, CLIP, RECORDING])
    found = list(manifest.rows_at(path))
    with open(path, "rb") as handle:
        for offset, row in found:
            handle.seek(offset)
            assert manifest.split_line(handle.readline().decode())[0] == row
    assert len(found) == 3


def test_a_line_in_the_middle_that_is_no_row_is_named(tmp_path):
    path = tmp_path / "manifest.jsonl"
    path.write_text('{"kind": "clip"}\nnonsense\n{"kind": "clip"}\n')
    with pytest.raises(UserError, match="line 2 is not a manifest row"):
        list(manifest.read(path))
    with pytest.raises(UserError, match="does not exist: expected a manifest"):
        list(manifest.read(tmp_path / "none.jsonl"))


def test_numbers_that_are_none_are_refused(tmp_path):
    with pytest.raises(ValueError):
        manifest.append(tmp_path / "j", [{"kind": "clip", "value": float("nan")}])
    assert not (tmp_path / "j").exists() or (tmp_path / "j").read_bytes() == b""


def test_write_replaces_the_whole_file(tmp_path):
    path = tmp_path / "manifest.jsonl"
    path.write_text("old\n" * 9)
    manifest.write(path, [manifest.dumps(RECORDING)])
    assert list(manifest.read(path)) == [RECORDING]
    assert [p.name for p in tmp_path.iterdir()] == ["manifest.jsonl"]
