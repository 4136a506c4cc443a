"""Options of the command line that change what is built."""

import json

import cv2
import numpy as np
import pytest
from test_main import one_line, write_recording

from bi_audio_dataset import media
from bi_audio_dataset.__main__ import main
from bi_audio_dataset.hrtf import spherical_head
from bi_audio_dataset.schema import ClipRecord
from bi_audio_dataset.shards import read_rows, write_rows


def first_row(dataset) -> dict:
    (shard,) = sorted((dataset / "data").glob("*.parquet"))
    return next(read_rows(shard))


@pytest.fixture
def films(tmp_path):
    folder = tmp_path / "films"
    folder.mkdir()
    write_recording(folder)
    return folder


def test_provenance_is_recorded_beside_the_file_name(films, tmp_path):
    command = ["build", str(films), "--clip-s", "1", "--output", str(tmp_path / "set")]
    assert main([*command, "--provenance", "our field trip"]) == 0
    provenance = first_row(tmp_path / "set")["provenance"]
    assert "our field trip" in provenance and "walk.mp4" in provenance


def test_sofa_file_is_the_head_that_hears(films, tmp_path):
    """A head without any level difference, as a SOFA file: the ears come out equally loud."""
    import sofar

    head = spherical_head(44100)
    keep = np.arange(0, len(head.directions), 5)
    sofa = sofar.Sofa("SimpleFreeFieldHRIR")
    flat = np.zeros((len(keep), 2, 64))
    flat[:, :, 16] = 1.0
    x, y, z = head.directions[keep].T
    azimuth_deg, elevation_deg = np.degrees(np.arctan2(y, x)) % 360, np.degrees(np.arcsin(z))
    sofa.Data_IR, sofa.Data_SamplingRate = flat, 44100
    sofa.SourcePosition = np.stack([azimuth_deg, elevation_deg, np.full(len(keep), 1.5)], axis=1)
    sofar.write_sofa(tmp_path / "flat.sofa", sofa)
    command = ["build", str(films), "--clip-s", "1", "--sofa", str(tmp_path / "flat.sofa")]
    command += ["--mark", "weak_cue"]  # such a head gives nothing else
    assert main([*command, "--output", str(tmp_path / "set")]) == 0
    row = first_row(tmp_path / "set")
    assert row["hrir_set"].startswith("flat")
    assert row["filters"]["lr_difference"] < 1e-3
    record = json.loads((tmp_path / "set" / "build.json").read_text())
    assert record["config"]["sofa"]["name"] == "flat.sofa"


def test_quick_leaves_out_decoding(films, tmp_path, capsys):
    assert main(["build", str(films), "--clip-s", "1", "--output", str(tmp_path / "set")]) == 0
    (shard,) = (tmp_path / "set" / "data").glob("*.parquet")
    record = ClipRecord.from_row(first_row(tmp_path / "set"))
    write_rows(shard, [ClipRecord(**{**vars(record), "video": b"no film"})])
    assert main(["validate", str(tmp_path / "set"), "--quick"]) == 0
    assert main(["validate", str(tmp_path / "set")]) == 2
    assert "video does not decode" in capsys.readouterr().err


@pytest.mark.slow
def test_synth_takes_sprites_and_holds_out(tmp_path):
    """Every object is drawn as the one picture in the folder, and all clips are test clips."""
    sprites = tmp_path / "sprites"
    sprites.mkdir()
    picture = np.zeros((64, 64, 4), np.uint8)
    picture[8:56, 8:56] = (255, 0, 255, 255)
    cv2.imwrite(str(sprites / "magenta.png"), picture)
    command = ["synth", "--clips", "1", "--seed", "3", "--held-out", "--sprites", str(sprites)]
    assert main([*command, "--output", str(tmp_path / "set")]) == 0
    row = first_row(tmp_path / "set")
    assert row["split"] == "test" and row["licence"] == "CC0-1.0"
    (source, *_) = row["truth"]["sources"]
    frame = int(np.argmax(source["visible"]))
    assert source["visible"][frame]
    (tmp_path / "view.mp4").write_bytes(row["video"]["bytes"])
    view = media.read_frames(tmp_path / "view.mp4", [frame / 25])[0].astype(int)
    magenta = (view[..., 0] > 150) & (view[..., 2] > 150) & (view[..., 1] < 110)
    assert magenta.sum() > 20
    focal = row["width"] / 2 / np.tan(np.radians(row["hfov_deg"]) / 2)
    column = row["width"] / 2 - focal * np.tan(np.radians(source["azimuth_deg"][frame]))
    assert np.abs(np.nonzero(magenta)[1] - column).min() < 4


def test_sprites_without_pictures_are_refused(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    command = ["synth", "--clips", "1", "--sprites", str(tmp_path / "empty")]
    assert main([*command, "--output", str(tmp_path / "set")]) == 2
    assert "no .png file" in one_line(capsys)
