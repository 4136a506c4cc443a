"""Each baseline from the command line to a folder of sounds, on a model too small to sound like anything."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from visaudio import hub
from visaudio.cli.baselines import main
from visaudio.evaluation import cues, synth_outputs
from visaudio.evaluation.baselines import NAMES, making, sources
from visaudio.evaluation.baselines.making import seen_windows

IDS = ("fake-000", "fake-001", "fake-002")  # 30, -30 and 10 degrees


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("output")


@pytest.fixture(scope="module")
def make(heldout, micro_model, spatialiser, output):
    def make(name: str, *more, into: Path = output) -> int:
        words = [name, "--dataset", heldout, "--output", into, *more]
        words += ["--model", micro_model, "--device", "cpu"] if "--model" not in more else []
        words += ["--spatialiser", spatialiser] if name == "two-stage-learned" else []
        return main([str(word) for word in words])

    return make


@pytest.fixture(scope="module")
def truths(heldout, tmp_path_factory) -> Path:
    """The clips' own sounds as a folder."""
    folder = tmp_path_factory.mktemp("truths")
    rows = sources.rows_of(heldout, "test")
    for index, name in enumerate(rows.ids):
        (folder / f"{name}.flac").write_bytes(rows[index]["audio"]["bytes"])
    return folder


def read(folder: Path, name: str) -> tuple[np.ndarray, int]:
    ears, rate = soundfile.read(folder / f"{name}.flac", always_2d=True)
    return ears.T, rate


def note(folder: Path, name: str) -> dict:
    return json.loads((folder / f"{name}.json").read_text())


def loud_ild_db(ears: np.ndarray, rate: int) -> float:
    """Where it sounds."""
    level = cues.levels_db(ears, rate).max(axis=1)
    return float(np.median(cues.ild_db(ears, rate)[level > level.max() - 10]))


def test_mono_is_the_models_own_sound_with_equal_ears(make, output, capsys):
    assert make("mono") == 0
    assert capsys.readouterr().out.strip() == str(output / "mono")
    for name in IDS:
        own, rate = read(output / "model", name)
        ears, _ = read(output / "mono", name)
        assert rate == 4000 and ears.shape == own.shape == (2, 8000)
        np.testing.assert_array_equal(ears[0], ears[1])
        assert np.abs(cues.ild_db(ears, rate)).max() == 0
        gain = note(output / "mono", name)["gain"]
        np.testing.assert_allclose(ears[0], gain * own.mean(axis=0), atol=1e-4)
        assert note(output / "mono", name)["how"] == NAMES["mono"]


def test_a_second_run_makes_nothing_again(make, output, monkeypatch):
    assert make("mono") == 0

    def never(*_):
        raise AssertionError("it is done")

    monkeypatch.setattr(making, "make", never)
    assert make("mono") == 0
    (output / "mono" / "fake-001.json").unlink()
    with pytest.raises(AssertionError, match="it is done"):
        make("mono")
    monkeypatch.undo()
    assert make("mono") == 0 and note(output / "mono", "fake-001")["id"] == "fake-001"


def test_shuffled_is_told_of_another_clip(make, output, micro_model, heldout):
    assert make("shuffled") == 0
    partners = {name: note(output / "shuffled", name)["conditions_of"] for name in IDS}
    assert sorted(partners.values()) == list(IDS)
    assert all(name != other for name, other in partners.items())
    # the clip's own noise, the other's picture
    components = hub.load_pretrained(micro_model)
    (kept,) = (output / ".work").iterdir()
    told = synth_outputs.kept_conditions(kept / f"{partners['fake-000']}.pt", components, list)
    noise = synth_outputs.clip_noise(components, "fake-000", 0, 2.0)
    expected = synth_outputs.sample(components, [told], [noise], [2.0])[0]
    found, _ = read(output / "shuffled", "fake-000")
    np.testing.assert_allclose(found, note(output / "shuffled", "fake-000")["gain"] * expected, atol=1e-4)


def test_codec_is_the_benchmarks(make, output, micro_model, truths):
    """The round trip that synth_outputs stores, to the bit."""
    assert make("codec") == 0
    components = hub.load_pretrained(micro_model)
    for name in IDS:
        sound = synth_outputs.codec_round_trip(components, truths / f"{name}.flac")
        synth_outputs.store(output / f"{name}.flac", sound, components.codec.sample_rate, {})
        assert (output / f"{name}.flac").read_bytes() == (output / "codec" / f"{name}.flac").read_bytes()


@pytest.mark.parametrize("name", ["two-stage-truth", "two-stage-motion", "two-stage-learned"])
def test_two_stages_keep_the_mono_sound(name, make, tmp_path, truths):
    """Of the true mono mix: sides by truth, still pictures to the front, ears whose mean it is."""
    assert make(name, "--sounds", truths, into=tmp_path) == 0
    for clip, azimuth_deg in zip(IDS, (30, -30, 10), strict=True):
        ears, rate = read(tmp_path / name, clip)
        assert rate == 44100 and note(tmp_path / name, clip)["mono_sha256"]
        ild = loud_ild_db(ears, rate)
        if name == "two-stage-truth":
            assert np.sign(ild) == np.sign(azimuth_deg) and abs(ild) > 0.5
        if name == "two-stage-motion":  # nothing moves in these clips
            assert abs(ild) < 0.05
        if name == "two-stage-learned":
            truth, _ = read(truths, clip)
            gain = note(tmp_path / name, clip)["gain"]
            np.testing.assert_allclose(ears.mean(axis=0), gain * truth.mean(axis=0), atol=2e-4)


@pytest.mark.slow
def test_several_processes_make_the_same_and_say_what_is_wrong(make, output, tmp_path, capsys):
    assert make("two-stage-truth", "--sounds", output / "model", into=tmp_path / "one") == 0
    more = ("--sounds", output / "model", "--workers", 2, "--batch", 2)
    assert make("two-stage-truth", *more, into=tmp_path / "two") == 0
    for name in IDS:
        one, two = ((tmp_path / k / "two-stage-truth" / f"{name}.flac").read_bytes() for k in ("one", "two"))
        assert one == two
    soundfile.write(tmp_path / "three.wav", np.zeros((100, 3)), 4000)
    for name in IDS:
        (tmp_path / "sounds").mkdir(exist_ok=True)
        (tmp_path / "sounds" / f"{name}.wav").write_bytes((tmp_path / "three.wav").read_bytes())
    capsys.readouterr()
    wrong = ("--sounds", tmp_path / "sounds", "--workers", 2, "--batch", 1)
    assert make("mono", *wrong, into=tmp_path / "three") == 2
    assert "has 3 channels, expected 1 or 2" in capsys.readouterr().err.splitlines()[-1]


def test_what_the_head_sees_is_what_it_learned_from(micro_model, micro_features, fake_biaudio, tmp_path):
    """Features of a video, computed as a baseline does, against those of the features folder."""
    from visaudio.data.feature_store import FeatureDataset

    features = FeatureDataset(micro_features, "train")
    rows = sources.rows_of(fake_biaudio, "train")
    (tmp_path / "a.mp4").write_bytes(rows[0]["video"]["bytes"])
    components = hub.load_pretrained(micro_model)
    start_s, seen = seen_windows(components, tmp_path / "a.mp4")[0]
    place = features.ids.index(rows.ids[0])
    assert start_s == 0
    for view, ending in enumerate(("", "_mirror")):
        for name in ("sync", "grid"):
            stored = features.tensor(place, name + ending).float()
            found = getattr(seen, name)[0, view]
            assert (found - stored).abs().mean() < 0.15 * stored.std()


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("mono", ["--sounds", "nowhere"], "no such folder"),
        ("mono", ["--sounds", "EMPTY"], "holds no sound or video"),
        ("mono", ["--sounds", "OTHER"], "3 of 3 clips have no sound there, the first is 'fake-000'"),
        ("mono", ["--split", "validation"], "has no rows in splits validation"),
        ("mono", ["--model", "nobody"], "no model 'nobody'"),
        ("two-stage-motion", ["--hfov_deg", "200"], "expected 10 to 170 degrees"),
        ("two-stage-truth", ["--sofa", "none.sofa", "--sounds", "TRUTHS"], "none.sofa"),
        ("shuffled", ["--limit", "1"], "shuffled needs at least two clips"),
        ("shuffled", ["--seed", "5"], "holds sounds made otherwise (seed 0, now 5"),
    ],
)
def test_mistakes_are_one_line(name, arguments, said, make, output, truths, tmp_path, capsys):
    if "--seed" in arguments:
        assert make(name) == 0
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.flac").write_bytes(b"")
    places = {"EMPTY": tmp_path / "empty", "OTHER": tmp_path / "other", "TRUTHS": truths}
    into = output if "--seed" in arguments else tmp_path / "out"
    capsys.readouterr()
    assert make(name, *(places.get(word, word) for word in arguments), into=into) == 2
    error = re.sub(r".*\r", "", capsys.readouterr().err)  # less the progress bar
    assert said in error and error.count("\n") <= 2 and error.splitlines()[-1].startswith("error: ")


def test_a_head_of_other_encoders_is_refused(make, heldout, spatialiser, truths, tmp_path, capsys):
    from micro import micro_components

    other = hub.save_pretrained(tmp_path / "other", micro_components(seed=1))
    words = ["--sounds", truths, "--model", other]
    assert make("two-stage-learned", *words, into=tmp_path / "out") == 2
    assert "trained on features of other encoders (clip, synchformer)" in capsys.readouterr().err


def test_unknown_names_and_missing_options_are_one_line(capsys):
    for words in (["stereo"], ["two-stage-learned", "--dataset", "a", "--output", "b"], ["mono"]):
        with pytest.raises(SystemExit) as error:
            main(words)
        assert error.value.code == 2 and capsys.readouterr().err.count("\n") == 1


def test_clips_without_truth_have_no_true_direction(heldout, make, truths, tmp_path, capsys, monkeypatch):
    from visaudio.data.rows import ParquetRows

    read_row = ParquetRows.__getitem__
    monkeypatch.setattr(ParquetRows, "__getitem__", lambda self, k: {**read_row(self, k), "truth": None})
    assert make("two-stage-truth", "--sounds", truths, into=tmp_path) == 2
    assert "clip fake-000 has no ground truth" in capsys.readouterr().err
