import os
import subprocess
import sys

import av
import numpy as np
import pytest
from fake_source import scene, ticks

from bi_audio_dataset import ambisonics, manifest, media
from bi_audio_dataset.__main__ import main
from bi_audio_dataset.schema import AUDIO_RATE_HZ
from bi_audio_dataset.shards import read_rows
from bi_audio_dataset.sources.folder import FolderSource


def write_recording(folder, name="walk", azimuth_deg=45.0, channels=4, seconds=1.0):
    frames, _ = scene(azimuth_deg, seconds)
    media.write_video(folder / f"{name}.mp4", frames, fps=25, crf=10, preset="ultrafast")
    signal = ticks(round(seconds * AUDIO_RATE_HZ), 0)
    foa = ambisonics.encode(signal, np.radians(azimuth_deg), 0.0)[:channels]
    media.write_audio(folder / f"{name}.flac", foa, AUDIO_RATE_HZ)
    (folder / "ambisonics.json").write_text('{"channels": "ambix"}')


def one_line(capsys) -> str:
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and "\n" not in error and "Traceback" not in error
    return error


def test_folder_of_recordings_becomes_a_dataset_that_validates(tmp_path, capsys):
    films = tmp_path / "films"
    films.mkdir()
    write_recording(films)
    command = [
        "build",
        str(films),
        "--clip-s",
        "1",
        "--licence",
        "CC0-1.0",
        "--output",
        str(tmp_path / "set"),
    ]
    assert main(command) == 0
    assert main(["validate", str(tmp_path / "set")]) == 0
    assert "1 train clips, 0.00 h: no problems" in capsys.readouterr().out
    row = next(read_rows(tmp_path / "set/data/train-00000-of-00001.parquet"))
    assert (row["recording_id"], row["licence"], row["provenance"]) == ("walk", "CC0-1.0", "walk.mp4")
    assert row["truth"]["sources"] == []

    assert main(command) == 0
    assert "already complete, nothing to do" in capsys.readouterr().out


def test_ambisonics_inside_the_video_file_are_found(tmp_path):
    """Channels must come in file order: a source at +60 degrees stays at the left."""
    frames, _ = scene(60.0, 1.0)
    signal = ticks(AUDIO_RATE_HZ, 0)
    foa = np.round(ambisonics.encode(signal, np.radians(60.0), 0.0) * 32767).astype(np.int16)
    with av.open(str(tmp_path / "film.mkv"), "w") as film:
        picture = film.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        picture.width, picture.height, picture.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        sound = film.add_stream("pcm_s16le", rate=AUDIO_RATE_HZ, layout="4.0")
        for frame in frames:
            film.mux(picture.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        film.mux(picture.encode())
        block = av.AudioFrame.from_ndarray(foa.T.reshape(1, -1), format="s16", layout="4.0")
        block.sample_rate = AUDIO_RATE_HZ
        film.mux(sound.encode(block))
        film.mux(sound.encode())

    recording = FolderSource(tmp_path, channels="ambix").fetch("film", tmp_path)
    assert recording.audio_path == recording.video_path
    read, rate = media.read_audio(recording.audio_path)
    np.testing.assert_allclose(read, foa / 32768, atol=1e-6)
    azimuth, _, _ = ambisonics.max_energy_direction(read, rate)
    assert np.degrees(azimuth) == pytest.approx(60.0, abs=1.0)


@pytest.mark.parametrize("action", ["mark", "off"])
def test_pictures_and_lengths_that_are_refused_are_built_on_request(tmp_path, action):
    films = tmp_path / "films"
    films.mkdir()
    write_recording(films, "good", -45.0)
    write_recording(films, seconds=2.5)
    media.write_video(films / "walk.mp4", scene(45.0, 1.0)[0][:, 4:76], fps=25, preset="ultrafast")
    command = ["build", str(films), "--clip-s", "1", "--output", str(tmp_path / "set")]
    assert main(command) == 2
    (row,) = [row for row in manifest.read(tmp_path / "set" / "manifest.jsonl") if row["id"] == "walk"]
    assert row["decision"] == "quarantine"
    assert sorted(row["reasons"]) == ["length_mismatch", "not_equirectangular"]
    assert row["measures"]["not_equirectangular.aspect"] == pytest.approx(160 / 72, abs=1e-4)
    assert row["measures"]["length_mismatch.audio_s"] == 2.5
    other = [*command[:-1], str(tmp_path / "other")]
    assert main([*other, f"--{action}", "not_equirectangular", f"--{action}", "length_mismatch"]) == 0
    rows = manifest.read(tmp_path / "other" / "manifest.jsonl")
    (clip,) = [row for row in rows if row.get("recording_id") == "walk"]
    assert clip["decision"] == "accept"
    assert ("length_mismatch" in clip["marks"]) is (action == "mark")


def test_skipped_recording_is_named_and_gives_2(tmp_path, capsys):
    films = tmp_path / "films"
    films.mkdir()
    write_recording(films)
    write_recording(films, "stereo", channels=2)
    assert main(["build", str(films), "--clip-s", "1", "--output", str(tmp_path / "set")]) == 2
    error = capsys.readouterr().err
    assert "'stereo.flac' has 2 audio channels" in error and "expected 4 ambisonic ones" in error
    assert "error: 1 recordings skipped: stereo" in error


def test_a_picture_that_looks_wrong_can_be_overruled(tmp_path, capsys):
    films = tmp_path / "films"
    films.mkdir()
    write_recording(films)
    frames, _ = scene(45.0, 1.0)
    half = frames[:, ::2]
    media.write_video(films / "walk.mp4", np.concatenate([half, half], axis=1), fps=25, preset="ultrafast")
    command = ["build", str(films), "--clip-s", "1", "--output", str(tmp_path / "set")]
    assert main(command) == 2
    assert "shows the same twice" in capsys.readouterr().err
    assert main([*command[:-1], str(tmp_path / "other"), "--trust-picture"]) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["synth", "--clips", "0", "--output", "x"], "must be at least 1, got 0"),
        (["synth", "--clips", "1", "--output", "x", "--seed", "-1"], "must be at least 0, got -1"),
        (["synth", "--output", "x"], "--clips"),
        (["synth", "--clips", "4", "--output", "x", "--clip", "9", "--colour", "red"], "--colour"),
        (["frobnicate"], "frobnicate"),
        ([], "COMMAND"),
    ],
)
def test_wrong_flags_give_one_line_and_2(arguments, words, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert words in one_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["validate", "nowhere"], "'nowhere' is not a folder"),
        (["build", "nowhere", "--output", "out"], "'nowhere' is not a folder"),
        (["build", ".", "--output", "out"], "holds no video"),
        (["build", ".", "--output", "out", "--clip-s", "-1"], "clip_s is -1, expected 0.5 to 600"),
        (["build", ".", "--output", "out", "--clip-s", "1e-9"], "clip_s is 1e-09, expected 0.5 to 600"),
        (["build", ".", "--output", "out", "--clip-s", "0.01"], "clip_s is 0.01, expected 0.5 to 600"),
        (["build", ".", "--output", "out", "--clip-s", "inf"], "clip_s is inf, expected a finite number"),
        (["build", ".", "--output", "out", "--clip-s", "nan"], "clip_s is nan, expected a finite number"),
        (["synth", "--clips", "2", "--sounds", "nowhere", "--output", "out"], "'nowhere' is not a folder"),
    ],
)
def test_wrong_folders_give_one_line_and_2(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert words in one_line(capsys)
    assert list(tmp_path.iterdir()) == []


def test_output_that_is_a_file_is_refused(tmp_path, capsys):
    films = tmp_path / "films"
    films.mkdir()
    write_recording(films)
    (tmp_path / "set").write_text("mine")
    assert main(["build", str(films), "--output", str(tmp_path / "set")]) == 2
    assert "is a file, expected a folder" in one_line(capsys)
    assert (tmp_path / "set").read_text() == "mine"


def test_module_runs_and_starts_without_the_heavy_libraries():
    code = (
        "import sys; from bi_audio_dataset.__main__ import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('datasets', 'torch', 'pyarrow', 'cv2', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert done.stdout.strip().endswith("[]"), done.stderr
