import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from fake_source import FakeSource, tiny_config

from bi_audio_dataset import media
from bi_audio_dataset.build import build
from bi_audio_dataset.schema import AUDIO_RATE_HZ, ClipRecord, TruthTrack, UserError
from bi_audio_dataset.shards import read_rows, write_rows
from bi_audio_dataset.validate import validate


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("valid") / "set"
    build(FakeSource(), output, tiny_config(), workers=0, progress=False)
    return output


@pytest.fixture
def copy(built, tmp_path) -> Path:
    return shutil.copytree(built, tmp_path / "copy")


TRAIN = "data/train-00000-of-00001.parquet"


def change_first(folder: Path, **changes) -> None:
    records = [ClipRecord.from_row(row) for row in read_rows(folder / TRAIN)]
    records[0] = dataclasses.replace(records[0], **changes)
    write_rows(folder / TRAIN, records)


def test_a_fresh_build_is_sound(built):
    report = validate(built)
    assert report.problems == []
    assert report.summary().endswith("2 shards, 2 train, 1 test clips, 0.00 h: no problems")
    assert report.figures.classes == {("square", "train"): 2, ("square", "test"): 1}


def test_broken_video_is_found(copy):
    video = next(read_rows(copy / TRAIN))["video"]["bytes"]
    change_first(copy, video=video[: len(video) // 3])
    (problem,) = validate(copy).problems
    assert "clip 'fake-1': video" in problem
    assert validate(copy, media=False).problems == []


def test_short_video_is_found(copy):
    frames = np.zeros((10, 36, 64, 3), np.uint8)
    change_first(copy, video=media.encode_video_bytes(frames, 25))
    assert validate(copy).problems == [
        "train-00000-of-00001.parquet: clip 'fake-1': video has 10 frames, expected 20"
    ]


@pytest.mark.parametrize(
    ("channels", "samples", "words"),
    [(1, 35280, "1 channels x 35280 samples"), (2, 35000, "2 channels x 35000 samples, expected 2 x 35280")],
)
def test_wrong_audio_shape_is_found(copy, channels, samples, words):
    audio = np.zeros((channels, samples), np.float32)
    media.write_audio(copy / "a.flac", audio, AUDIO_RATE_HZ)
    change_first(copy, audio=(copy / "a.flac").read_bytes())
    (problem,) = validate(copy).problems
    assert words in problem


def test_broken_audio_is_found(copy):
    change_first(copy, audio=b"no sound")
    (problem,) = validate(copy).problems
    assert "audio does not decode" in problem


def test_visible_flag_outside_the_view_is_found(copy):
    row = next(read_rows(copy / TRAIN))
    view = ClipRecord.from_row(row).truth.sources[0]
    behind = dataclasses.replace(
        view,
        azimuth_deg=(180.0,) * 20,
        elevation_deg=(0.0,) * 20,
        lateral_deg=(0.0,) * 20,
        visible=(True,) * 20,
    )
    change_first(copy, truth=TruthTrack(sources=(behind,)))
    (problem,) = validate(copy).problems
    assert "truth.sources[0].visible is true in 20 frames outside the view" in problem


def test_repeated_id_is_found(copy):
    change_first(copy, id="fake-2", recording_id="fake-2")
    (problem,) = validate(copy).problems
    assert "clip 'fake-2': id occurs also in train-00000-of-00001.parquet" in problem


def test_recording_in_two_splits_is_found(copy):
    change_first(copy, recording_id="fake-0")
    (problem,) = validate(copy).problems
    assert "recording 'fake-0' is in 'train' and in 'test'" in problem


def test_row_in_the_wrong_file_is_found(copy):
    change_first(copy, split="validation")
    (problem,) = validate(copy).problems
    assert "split 'validation' in a file of 'train'" in problem


def test_missing_column_is_found(copy):
    import pyarrow.parquet as pq

    table = pq.read_table(copy / TRAIN)
    pq.write_table(table.drop_columns(["licence"]), copy / TRAIN)
    (problem,) = validate(copy).problems
    assert "columns missing: licence" in problem


def test_missing_and_truncated_shards_are_found(copy):
    shutil.move(copy / TRAIN, copy / "data/train-00001-of-00002.parquet")
    test = copy / "data/test-00000-of-00001.parquet"
    test.write_bytes(test.read_bytes()[:1000])
    first, second = validate(copy).problems
    assert "files of 'train' are not" in first
    assert "test-00000-of-00001.parquet: not a Parquet file" in second


def test_what_is_no_dataset_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        validate(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no data"):
        validate(tmp_path)
    (tmp_path / ".work").mkdir()
    with pytest.raises(UserError, match="not finished: run the same build command again"):
        validate(tmp_path)


def test_manifest_and_shards_must_agree(copy):
    lines = (copy / "manifest.jsonl").read_text().splitlines()
    clips = [number for number, line in enumerate(lines) if '"kind": "clip"' in line]
    assert len(clips) == 3
    changed = list(lines)
    changed[clips[0]] = lines[clips[0]].replace('"id": "fake-0"', '"id": "ghost"')
    changed[clips[1]] = lines[clips[1]].replace('"split": "train"', '"split": "validation"')
    (copy / "manifest.jsonl").write_text("\n".join(changed) + "\n")
    assert validate(copy, media=False).problems == [
        "manifest.jsonl: 1 clips are published but in no shard: ghost",
        "manifest.jsonl: 1 clips are in a shard but not published: fake-0",
        "manifest.jsonl: 1 clips are of another split than its shard: fake-1",
    ]
    (copy / "manifest.jsonl").write_text("nonsense\n")
    assert "line 1 is not a manifest row" in validate(copy, media=False).problems[0]
    (copy / "manifest.jsonl").unlink()
    assert validate(copy, media=False).problems == []
