"""One folder of good and bad recordings, one build by the command line: each bad one is put aside with its
reason in one line, the good ones are built. A full disk stops a build, and the next one goes on."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from foa_films import panorama, signals, write_film
from PIL import Image

from bi_audio_dataset import manifest, media
from bi_audio_dataset.__main__ import main
from bi_audio_dataset.shards import read_rows

RATE = 48000


def film(folder, name, seconds=1.0, seed=1, **more):
    """A film of one panorama with four channels of PCM."""
    picture = more.pop("picture", None)
    picture = panorama(seed=seed) if picture is None else picture
    sound = signals(more.pop("channels", 4), seconds, more.pop("rate", RATE), seed)
    return write_film(folder / f"{name}.mkv", sound, RATE, "pcm_s16le", "quad", picture=picture, **more)


def beside(folder, name, sound, rate=RATE, seconds=1.0):
    """A silent film and a sound file."""
    write_film(folder / f"{name}.mp4", seconds=seconds, picture=panorama(seed=2))
    soundfile.write(folder / f"{name}.wav", sound.T, rate, subtype="FLOAT")


def truncated(folder):
    path = write_film(folder / "truncated.mp4", signals(4, 1.0, RATE), RATE)
    path.write_bytes(path.read_bytes()[:2000])  # the index stood at the end


def cut_in_the_middle(folder):
    path = write_film(folder / "cut_in_the_middle.mp4", signals(4, 4.0, RATE), RATE, movflags="+faststart")
    media.write_audio(path.with_suffix(".flac"), signals(4, 4.0, RATE), RATE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


def cut_matroska(folder):
    path = film(folder, "cut_matroska")
    path.write_bytes(path.read_bytes()[:700])


def empty(folder):
    (folder / "empty.mp4").touch()


def no_sound(folder):
    write_film(folder / "no_sound.mp4")


def channels_1(folder):
    beside(folder, "channels_1", signals(1, 1.0, RATE))


def channels_2(folder):
    beside(folder, "channels_2", signals(2, 1.0, RATE))


def channels_3(folder):
    beside(folder, "channels_3", signals(3, 1.0, RATE))


def channels_6(folder):
    beside(folder, "channels_6", signals(6, 1.0, RATE))


def rate_8k(folder):
    beside(folder, "rate_8k", signals(4, 1.0, 8000), 8000)


def rate_384k(folder):
    beside(folder, "rate_384k", np.zeros((4, 384_000), np.float32), 384_000)


def nan_beside(folder):
    sound = signals(4, 1.0, RATE)
    sound[2, 30_000:30_003] = np.nan
    beside(folder, "nan_beside", sound)


def inf_inside(folder):
    sound = signals(4, 1.0, RATE)
    sound[0, 100] = np.inf
    write_film(folder / "inf_inside.mkv", sound, RATE, "pcm_f32le", "quad")


def longer_sound(folder):
    beside(folder, "longer_sound", signals(4, 3.0, RATE))


def longer_picture(folder):
    beside(folder, "longer_picture", signals(4, 1.0, RATE), seconds=3.0)


def too_short(folder):
    film(folder, "too_short", seconds=0.4)


def widescreen(folder):
    film(folder, "widescreen", picture=panorama((128, 72)))


def flat(folder):
    row, column = np.mgrid[0:64, 0:128]
    ramp = np.uint8(np.clip(1.5 * column + row * np.sin(column / 9), 0, 255))
    film(folder, "flat", picture=np.stack([ramp] * 3, axis=2))


def top_bottom(folder):
    film(folder, "top_bottom", picture=panorama((128, 128)))


def top_bottom_squeezed(folder):
    eye = panorama((128, 32))
    film(folder, "top_bottom_squeezed", picture=np.concatenate([eye, eye]))


def top_bottom_stated(folder):
    film(folder, "top_bottom_stated", metadata={"stereo_mode": "top_bottom"})


def broken_link(folder):
    (folder / "broken_link.mp4").symlink_to(folder / "gone.mp4")


def link_to_itself(folder):
    (folder / "link_to_itself.mp4").symlink_to(folder / "link_to_itself.mp4")


def a_folder(folder):
    (folder / "a_folder.mp4").mkdir()


def sound_is_a_broken_link(folder):
    write_film(folder / "sound_is_a_broken_link.mp4")
    (folder / "sound_is_a_broken_link.flac").symlink_to(folder / "gone.flac")


def text(folder):
    (folder / "text.mp4").write_text("This is no film.\n" * 99)


def noise(folder):
    (folder / "noise.webm").write_bytes(np.random.default_rng(0).bytes(20_000))


def photo(folder):
    Image.new("RGB", (128, 64)).save(folder / "photo.png")
    (folder / "photo.png").rename(folder / "photo.mov")


def sound_only(folder):
    media.write_audio(folder / "sound_only.flac", signals(4, 1.0, RATE), RATE)
    (folder / "sound_only.flac").rename(folder / "sound_only.mkv")


def two_of_a_name(folder):
    film(folder, "two_of_a_name")
    write_film(folder / "two_of_a_name.mp4")


BAD = {
    truncated: "cut short",
    cut_in_the_middle: "4.00 s of sound and 1.* s of picture: is one cut short",
    cut_matroska: "cut short",
    empty: "the file is empty",
    no_sound: "has no sound that can be decoded, and none lies beside it",
    channels_1: "has 1 audio channels .mono",
    channels_2: "has 2 audio channels .stereo",
    channels_3: "has 3 audio channels",
    channels_6: "has 6 audio channels .5.1",
    rate_8k: "has sound at 8000 Hz, expected 16000 to 192000 Hz",
    rate_384k: "has sound at 384000 Hz",
    nan_beside: "holds NaN or infinity .3 samples",
    inf_inside: "holds NaN or infinity .1 samples",
    longer_sound: "3.00 s of sound and 1.00 s of picture",
    longer_picture: "1.00 s of sound and 3.00 s of picture",
    too_short: "lasts 0.40 s, shorter than one clip of 1 s",
    widescreen: "is 128x72, expected an equirectangular one",
    flat: "left and right edges do not meet",
    top_bottom: "128x128 .two eyes, top-bottom",
    top_bottom_squeezed: "shows the same twice, top-bottom",
    top_bottom_stated: "is stereo 360 .top-bottom",
    broken_link: "no such file",
    link_to_itself: "no such file|symbolic",
    a_folder: "is a folder, expected a media file",
    sound_is_a_broken_link: "sound_is_a_broken_link.flac: no such file",
    text: "cannot be read as media|is text",
    noise: "cannot be read as media",
    photo: "still image|no picture",
    sound_only: "has no picture",
    two_of_a_name: "several videos named 'two_of_a_name'",
}
#: Under which name the reason stands, where it is not that a file cannot be used at all.
NAMES = {
    no_sound: "no_sound",
    channels_1: "channels",
    channels_2: "channels",
    channels_3: "channels",
    channels_6: "channels",
    rate_8k: "sample_rate",
    rate_384k: "sample_rate",
    nan_beside: "not_finite",
    inf_inside: "not_finite",
    longer_sound: "length_mismatch",
    longer_picture: "length_mismatch",
    cut_in_the_middle: "length_mismatch",
    too_short: "too_short",
    widescreen: "not_equirectangular",
    flat: "not_equirectangular",
    top_bottom: "not_equirectangular",
    top_bottom_squeezed: "not_equirectangular",
    top_bottom_stated: "stereo_360",
}
ODD = [
    "-dash",
    "two words",
    "a:b",
    "käse 🎧",
    "100% 'odd' [x]*?\"",
    "semi;$(colon)`",
    "dot.dot..",
    "n" * 200,
    "道" * 80,
]


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """(folder of the dataset, exit code, stdout, stderr) of one build of all of it."""
    folder = tmp_path_factory.mktemp("films")
    for write in BAD:
        write(folder)
    film(folder, "good", seed=10)
    shutil.copy(folder / "good.mkv", folder / "good_again.mkv")
    for number, name in enumerate(ODD):
        film(folder, name, seed=20 + number)
    film(folder, "line\nbreak", seed=40)
    os.rename(film(folder, "tmp", seed=41), os.fsencode(folder) + b"/no \xff text.mkv")
    dataset = tmp_path_factory.mktemp("built") / "set"
    command = ["build", str(folder), "--output", str(dataset), "--channels", "ambix", "--clip-s", "1"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUTF8": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "bi_audio_dataset", *command, "--size", "64x36", "--mark", "weak_cue"],
        capture_output=True,
        env=environment,
    )
    return dataset, done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.slow
def test_the_build_ends_with_2_and_without_a_traceback(everything):
    _, code, out, err = everything
    assert code == 2, err
    assert "Traceback" not in err
    assert "clips, " in out
    (last,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert f"{len(BAD) + 2} recordings skipped" in last


@pytest.mark.slow
@pytest.mark.parametrize("write", BAD, ids=[write.__name__ for write in BAD])
def test_each_bad_recording_is_in_quarantine_with_its_reason(everything, write):
    dataset, _, _, err = everything
    rows = {row["id"]: row for row in manifest.read(dataset / "manifest.jsonl") if row["kind"] == "recording"}
    row = rows[write.__name__]
    assert row["decision"] == "quarantine" and row["clips"] == 0
    ((kind, reason),) = row["reasons"].items()
    assert kind == NAMES.get(write, "unusable")  # and not "failed": an exception that slipped through
    assert re.search(BAD[write], reason), reason
    assert "\n" not in reason
    assert f"skipped {write.__name__}: {reason}" in err


@pytest.mark.slow
def test_the_good_ones_are_built_whatever_their_names(everything, capsys):
    dataset, *_ = everything
    rows = [row for shard in sorted((dataset / "data").glob("*.parquet")) for row in read_rows(shard)]
    assert sorted(row["recording_id"] for row in rows) == sorted([*ODD, "good"])
    entries = {row["id"]: row for row in manifest.read(dataset / "manifest.jsonl") if row["kind"] == "clip"}
    assert entries["good_again"]["reasons"] == {"duplicate": "the same file as 'good'"}
    assert main(["validate", str(dataset)]) == 0
    assert main(["status", str(dataset)]) == 0
    assert f"{len(ODD) + 2} built, {len(BAD) + 2} quarantine" in capsys.readouterr().out
    assert "Traceback" not in json.dumps(entries)


@pytest.mark.slow
def test_names_that_no_table_can_hold_are_put_aside(everything):
    dataset, *_ = everything
    rows = {row["id"]: row for row in manifest.read(dataset / "manifest.jsonl") if row["kind"] == "recording"}
    for name in ("line\\nbreak", "no \\xff text"):
        assert "rename the file" in rows[name]["reasons"]["unusable"]


@pytest.mark.slow
def test_files_without_permission(tmp_path):
    """Root may read everything, unless it gives that right up."""
    as_root = os.geteuid() == 0
    if as_root and not shutil.which("setpriv"):
        pytest.skip("no setpriv, with which root gives up its right to read everything")
    films = tmp_path / "films"
    films.mkdir()
    film(films, "closed").chmod(0)
    film(films, "good")
    beside(films, "closed_sound", signals(4, 1.0, RATE))
    (films / "closed_sound.wav").chmod(0)
    command = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if as_root else []
    command += [sys.executable, "-m", "bi_audio_dataset", "build", str(films), "--clip-s", "1"]
    command += ["--output", str(tmp_path / "set"), "--channels", "ambix"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if as_root and "setpriv:" in done.stderr:
        pytest.skip(f"root cannot give up its rights here: {done.stderr.strip()}")
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    for name in ("closed.mkv", "closed_sound.wav"):
        assert f"{name}: no permission to read the file" in done.stderr
    assert "1 " in done.stdout and main(["validate", str(tmp_path / "set")]) == 0


@pytest.mark.slow
def test_a_full_disk_stops_the_build_in_one_line_and_the_next_goes_on(tmp_path):
    """A limit on the size of files stands for the disk; the clip's part is larger."""
    (tmp_path / "films").mkdir()
    film(tmp_path / "films", "good")
    command = [sys.executable, "-m", "bi_audio_dataset", "build", str(tmp_path / "films"), "--clip-s", "1"]
    command += ["--output", str(tmp_path / "set"), "--channels", "ambix", "--mark", "weak_cue"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    limit = (20_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    full = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=environment,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    assert full.returncode == 2 and "Traceback" not in full.stderr, full.stderr
    (last,) = [line for line in full.stderr.splitlines() if "error: " in line]
    assert "File too large" in last or "no space left" in last
    again = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert again.returncode == 0, again.stderr
    assert main(["validate", str(tmp_path / "set")]) == 0
