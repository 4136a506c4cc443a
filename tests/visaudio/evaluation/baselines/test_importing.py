"""Other systems' outputs: which file is of which clip, and more channels than two."""

import json

import numpy as np
import pytest
import soundfile
from tqdm import tqdm

from bi_audio_dataset.ambisonics import encode
from bi_audio_dataset.binaural import BinauralDecoder
from bi_audio_dataset.hrtf import spherical_head
from bi_audio_dataset.schema import UserError
from visaudio.cli.baselines import main
from visaudio.evaluation import cues
from visaudio.evaluation.baselines.importing import Item, items_of, match, to_ears
from visaudio.evaluation.baselines.running import MAX_FAILED, run_jobs
from visaudio.evaluation.baselines.sources import read_mono

RATE = 16000


def noise(seconds: float = 0.5, seed: int = 0) -> np.ndarray:
    return 0.05 * np.random.default_rng(seed).standard_normal(round(seconds * RATE)).astype(np.float32)


def plane_wave(azimuth_deg: float) -> np.ndarray:
    return encode(noise(), np.radians(azimuth_deg), 0.0)


def surround(**feeds: np.ndarray) -> np.ndarray:
    """(6, S) in the order of WAV."""
    silence = np.zeros_like(noise())
    return np.stack([feeds.get(name, silence) for name in ("L", "R", "C", "LFE", "Ls", "Rs")])


def ild_db(ears: np.ndarray) -> float:
    return float(np.median(cues.ild_db(ears, RATE)))


def write(folder, names, channels: int = 1) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, np.zeros((100, channels)) + 0.1, RATE)


# -------------------- channels


def test_ambix_goes_through_the_builders_decoder():
    ears = to_ears(plane_wave(60), RATE, "ambix")
    np.testing.assert_array_equal(ears, BinauralDecoder(spherical_head(RATE)).render(plane_wave(60)))
    assert ild_db(ears) > 3 and ild_db(to_ears(plane_wave(-60), RATE, "ambix")) < -3


def test_other_orders_are_the_same_field():
    w, y, z, x = plane_wave(50)
    expected = to_ears(np.stack([w, y, z, x]), RATE, "ambix")
    fuma = np.stack([w / np.sqrt(2), x, y, z])
    np.testing.assert_allclose(to_ears(fuma, RATE, "fuma"), expected, atol=1e-6)
    n3d = np.stack([w, *(np.sqrt(3) * axis for axis in (y, z, x))])
    np.testing.assert_allclose(to_ears(n3d, RATE, "acn-n3d"), expected, atol=1e-6)


def test_the_camera_turns_the_field():
    """A source at 90 degrees, seen by a camera that looks there, is in front."""
    ears = to_ears(plane_wave(90), RATE, "ambix", yaw_deg=90)
    np.testing.assert_allclose(*ears, atol=1e-5)
    assert ild_db(to_ears(plane_wave(0), RATE, "ambix", yaw_deg=90)) < -3


def test_loudspeakers_are_heard_from_where_they_stand():
    front, back = (ild_db(to_ears(surround(**{name: noise()}), RATE, "5.1")) for name in ("L", "Ls"))
    assert back > front > 2
    for left, right in (("L", "R"), ("Ls", "Rs")):
        one, other = (to_ears(surround(**{name: noise()}), RATE, "5.1") for name in (left, right))
        np.testing.assert_allclose(one, other[::-1], atol=1e-6)
    left, right = to_ears(surround(C=noise()), RATE, "5.1")
    np.testing.assert_allclose(left, right, atol=1e-6)
    assert np.abs(left).max() > 0.05
    assert np.abs(to_ears(surround(LFE=noise()), RATE, "5.1")).max() == 0


def test_the_films_order_is_another():
    wav = surround(L=noise(), C=noise(seed=1), Rs=noise(seed=2))
    film = wav[[0, 2, 1, 4, 5, 3]]
    np.testing.assert_array_equal(to_ears(film, RATE, "5.1-film"), to_ears(wav, RATE, "5.1"))


def test_the_downmix_is_that_of_bs_775():
    feeds = {name: noise(seed=k) for k, name in enumerate(("L", "R", "C", "LFE", "Ls", "Rs"))}
    left, right = to_ears(surround(**feeds), RATE, "5.1", downmix=True)
    half = 10 ** (-3 / 20)
    np.testing.assert_allclose(left, feeds["L"] + half * (feeds["C"] + feeds["Ls"]), atol=1e-7)
    np.testing.assert_allclose(right, feeds["R"] + half * (feeds["C"] + feeds["Rs"]), atol=1e-7)


@pytest.mark.parametrize(
    ("channels", "layout", "said"),
    [
        (4, "ears", "has 4 channels, which the samples do not explain: give --layout ambix"),
        (6, "ears", "5.1 or 5.1-film"),
        (2, "ambix", "expected at least 4 for --layout ambix"),
        (5, "ambix", "expected 4 ambisonic ones"),
        (4, "5.1", "expected 6 for --layout 5.1"),
    ],
)
def test_channels_that_do_not_fit_are_one_line(channels, layout, said):
    with pytest.raises(UserError, match=said) as error:
        to_ears(np.zeros((channels, 100), np.float32), RATE, layout, file="a.wav")
    assert "a.wav" in str(error.value) and "\n" not in str(error.value)


# -------------------- names


def test_the_longest_id_takes_the_file(tmp_path):
    write(tmp_path, ["clip-1_0.wav", "clip-10_0.wav"])
    found = match(tmp_path, ["clip-1", "clip-10"], "{id}*.wav")
    assert {name: path.name for name, path in found.items()} == {
        "clip-1": "clip-1_0.wav",
        "clip-10": "clip-10_0.wav",
    }


def test_ids_are_found_in_file_and_folder_names(tmp_path):
    write(tmp_path, ["a.b/out.wav", "c/out.wav", "audio/d.wav", "audio/e.f.wav", ".hidden/g.wav"])
    assert set(match(tmp_path, None, "{id}/out.wav")) == {"a.b", "c"}
    assert set(match(tmp_path, None, "audio/{id}.*")) == {"d", "e.f"}
    assert set(match(tmp_path, ["d", "e.f", "g"])) == {"d", "e.f"}


def test_sound_comes_before_video_of_the_same_name(tmp_path):
    write(tmp_path, ["a.flac"])
    (tmp_path / "a.mp4").write_bytes(b"")
    assert match(tmp_path, None, "{id}.*")["a"].suffix == ".flac"


def test_a_mapping_names_files_layouts_and_yaws(tmp_path):
    write(tmp_path, ["x/0001.wav", "x/0002.wav"], channels=4)
    (tmp_path / "map.csv").write_text("file,id,layout,yaw_deg\nx/0001.wav,a,fuma,\nx/0002.wav,b,,-45\n")
    plain = Item(tmp_path, "", "ambix", 10.0)
    items, missing = items_of(tmp_path, ["a", "b", "c"], "", tmp_path / "map.csv", plain, allow_missing=True)
    assert [(i.id, i.layout, i.yaw_deg) for i in items] == [("a", "fuma", 10.0), ("b", "ambix", -45.0)]
    assert missing == ["c"]


@pytest.mark.parametrize(
    ("names", "arguments", "said"),
    [
        ([], [], "no such folder"),
        (["a.txt"], [], "no sound or video there fits"),
        (["a_1.wav", "a_2.wav"], ["--pattern", "{id}_*.wav"], "2 files are of clip 'a'"),
        (["a.wav"], ["--pattern", "*.wav"], "expected {id} in it, once"),
        (["a.wav"], ["--pattern", "/x/{id}.wav"], "--pattern '/x/{id}.wav': cannot be looked for in"),
        (["a.wav"], ["--pattern", "[z-a]{id}.wav"], "--pattern '[z-a]{id}.wav'"),
        (["a.wav"], ["--yaw_deg", "inf"], "yaw_deg is inf, expected degrees"),
        (["a.wav"], ["--mapping", "MAP:file,id,yaw_deg\na.wav,a,inf"], "yaw_deg is inf, expected degrees"),
        (["a.wav"], ["--pattern", "x*{id}.wav"], "no sound or video there fits"),
        (["xa.wav"], ["--pattern", "x*{id}.wav"], "leaves open where an id begins"),
        (["a.wav"], ["--layout", "7.1"], "layout '7.1' is unknown"),
        (["a.wav"], ["--mapping", "MAP:name,id"], "has the columns name, id"),
        (["a.wav"], ["--mapping", "MAP:file,id\nb.wav,b"], "line 2: no file 'b.wav'"),
        (["a.wav"], ["--mapping", "MAP:file,id\na.wav,a\na.wav,a"], "names clip 'a' more than once"),
        (["a.wav"], ["--mapping", "MAP:file,id,yaw_deg\na.wav,a,left"], "expected degrees"),
        (
            ["a.wav"],
            ["--name", "../../evil"],
            "--name '../../evil': the name '../../evil' cannot be a folder's",
        ),
        (["a.wav"], ["--name", ".."], "--name '..': "),
        (["a.wav"], ["--name", ""], "--name '': "),
        (["a.wav"], ["--dataset", "clips/tru"], "no dataset at 'clips/tru': there is no such folder here"),
    ],
)
def test_mistakes_are_one_line(names, arguments, said, tmp_path, capsys):
    folder = tmp_path / "from"
    for name in names:
        folder.mkdir(exist_ok=True)
        write(folder, [name]) if name.endswith(".wav") else (folder / name).write_text("no sound")
    words = [tmp_path / "map.csv" if word.startswith("MAP:") else word for word in arguments]
    for word in arguments:
        if word.startswith("MAP:"):
            (tmp_path / "map.csv").write_text(word[4:] + "\n")
    command = ["import", "--from", folder, "--output", tmp_path / "out", "--name", "other", *words]
    assert main([str(word) for word in command]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists() and not list(tmp_path.parent.glob("evil"))


def test_a_datasets_clips_are_asked_for(heldout, tmp_path, capsys):
    """Two of three clips, in 5.1; the third's absence ends it unless it is allowed; other files are left."""
    folder = tmp_path / "from"
    write(folder, ["fake-000_5_1.wav", "fake-002_5_1.wav", "other_5_1.wav"], channels=6)
    command = ["import", "--from", folder, "--pattern", "{id}_5_1.wav", "--layout", "5.1", "--downmix"]
    command += ["--name", "see2sound", "--output", tmp_path / "out", "--dataset", heldout]
    words = [str(word) for word in (*command, "--split", "test", "--config", "default", "--workers", 1)]
    assert main(words) == 2
    assert "1 of 3 clips have no file there, the first is 'fake-001'" in capsys.readouterr().err
    assert main([*words, "--allow-missing"]) == 0
    assert "note: 1 clips have no file" in capsys.readouterr().err
    made = tmp_path / "out" / "see2sound"
    assert sorted(p.name for p in made.glob("*.flac")) == ["fake-000.flac", "fake-002.flac"]
    ears, _ = soundfile.read(made / "fake-000.flac")
    expected = 0.1 * (1 + 2 * 10 ** (-3 / 20))
    np.testing.assert_allclose(ears, np.full((100, 2), expected), atol=1e-4)
    assert json.loads((made / "fake-000.json").read_text())["downmix"] is True


def test_import_writes_a_folder_and_goes_on(tmp_path, capsys):
    folder = tmp_path / "from"
    write(folder, ["a.wav"])
    soundfile.write(folder / "b.wav", plane_wave(60).T, RATE)
    (folder / "map.csv").write_text("file,id,layout\na.wav,a,\nb.wav,b,ambix\n")
    command = ["import", "--from", folder, "--mapping", folder / "map.csv", "--name", "other"]
    command = [str(word) for word in (*command, "--output", tmp_path / "out")]
    assert main(command) == 0
    made = tmp_path / "out" / "other"
    assert soundfile.info(made / "a.flac").channels == 1  # mono stays mono: the evaluation says so
    ears, rate = soundfile.read(made / "b.flac")
    assert rate == RATE and ild_db(ears.T) > 3
    note = json.loads((made / "b.json").read_text())
    assert note["layout"] == "ambix" and note["file"] == "b.wav" and note["yaw_deg"] == 0
    times = {path: path.stat().st_mtime_ns for path in made.iterdir()}
    assert main(command) == 0
    assert times == {path: path.stat().st_mtime_ns for path in made.iterdir()}
    capsys.readouterr()
    assert main([*command, "--yaw_deg", "20"]) == 2
    assert "holds sounds made otherwise (yaw_deg 0.0, now 20.0, clip b)" in capsys.readouterr().err


@pytest.mark.parametrize("workers", ["1", "2"])
def test_one_run_names_all_files_that_are_of_no_use(workers, tmp_path, capsys):
    folder = tmp_path / "from"
    write(folder, ["a.wav", "b.wav"])
    (folder / "c.wav").write_bytes(b"no sound")
    soundfile.write(folder / "d.wav", np.zeros((0, 2)), RATE)
    command = ["import", "--from", str(folder), "--name", "other", "--workers", workers]
    assert main([*command, "--pattern", "{id}.wav", "--output", str(tmp_path / "out")]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert line.startswith("error: 2 failed, what is finished stays: ")
    assert "c.wav" in line and "d.wav: holds no samples" in line
    assert sorted(path.name for path in (tmp_path / "out" / "other").glob("*.flac")) == ["a.flac", "b.flac"]


def test_a_file_that_is_cut_short_is_refused_as_the_evaluation_does(tmp_path, capsys):
    folder = tmp_path / "from"
    write(folder, ["a.wav", "b.wav"])
    cut = (folder / "b.wav").read_bytes()
    (folder / "b.wav").write_bytes(cut[: len(cut) - 100])
    command = ["import", "--from", str(folder), "--name", "other", "--output", str(tmp_path / "out")]
    assert main(command) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and "b.wav: is cut short" in error
    assert "b.wav: 100 bytes short of what its header says" in error
    assert sorted(path.name for path in (tmp_path / "out" / "other").iterdir()) == ["a.flac", "a.json"]
    with pytest.raises(UserError, match="100 bytes short"):
        read_mono(folder / "b.wav")  # what the baselines are made of


def test_a_file_far_beyond_full_scale_is_refused_as_the_evaluation_does(tmp_path, capsys):
    """A 16 bit file would hold it under some gain, and be scored as if nothing were wrong with it."""
    folder = tmp_path / "from"
    write(folder, ["a.wav"])
    soundfile.write(folder / "b.wav", 1e30 * noise()[:, None], RATE, subtype="FLOAT")
    command = ["import", "--from", str(folder), "--name", "other", "--output", str(tmp_path / "out")]
    assert main(command) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and "b.wav: peak " in error and "expected at most 1e+06" in error
    assert sorted(path.name for path in (tmp_path / "out" / "other").iterdir()) == ["a.flac", "a.json"]
    with pytest.raises(UserError, match="b.wav: peak .* of full scale"):
        read_mono(folder / "b.wav")


@pytest.mark.parametrize("blocked", ["/proc/none", "file"])
def test_a_folder_that_cannot_be_written_is_one_line(blocked, tmp_path, capsys):
    write(tmp_path / "from", ["a.wav"])
    (tmp_path / "file").write_text("mine")
    output = tmp_path / blocked  # of a whole path: that path
    command = ["import", "--from", str(tmp_path / "from"), "--name", "other", "--output", str(output)]
    assert main(command) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert error.startswith(f"error: {output}/other: cannot be made a folder to write to (")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("text", ["{", "[1]", '"a"', "\xff"])
def test_a_damaged_note_is_one_line(text, tmp_path, capsys):
    write(tmp_path / "from", ["a.wav"])
    command = ["import", "--from", str(tmp_path / "from"), "--name", "other", "--output", str(tmp_path)]
    assert main(command) == 0
    (tmp_path / "other" / "a.json").write_text(text, encoding="latin-1")
    capsys.readouterr()
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path}/other/a.json: is damaged") and error.count("\n") == 1
    assert "remove it: the same command makes that sound again" in error
    (tmp_path / "other" / "a.json").unlink()
    assert main(command) == 0


def test_what_fails_for_every_file_ends_before_all_are_tried():
    tried = []

    def fail(number: int) -> int:
        tried.append(number)
        raise UserError(f"file {number}: no")

    with pytest.raises(UserError, match=f"^{MAX_FAILED} or more failed.*; and {MAX_FAILED - 6} more$"):
        run_jobs(fail, [(number,) for number in range(100)], 1, tqdm(disable=True))
    assert len(tried) == MAX_FAILED
