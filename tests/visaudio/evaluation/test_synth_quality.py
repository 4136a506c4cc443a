"""The benchmark from dataset to table, on a model too small to sound like anything."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from micro import micro_components

from visaudio import hub
from visaudio.evaluation import classifier as classifiers
from visaudio.evaluation import synth_outputs
from visaudio.evaluation.synth_outputs import clip_noise, conditions

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "synth_quality.py"


@pytest.fixture(scope="module")
def synth_quality():
    spec = importlib.util.spec_from_file_location("synth_quality", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def heldout(fake_biaudio, tmp_path_factory) -> Path:
    """The fake rows, all in the test split."""
    from bi_audio_dataset.schema import ClipRecord
    from bi_audio_dataset.shards import read_rows, write_rows

    folder = tmp_path_factory.mktemp("heldout")
    (folder / "data").mkdir()
    rows = [row for path in sorted(fake_biaudio.rglob("*.parquet")) for row in read_rows(path)][:3]
    write_rows(
        folder / "data" / "test-00000-of-00001.parquet",
        [replace(ClipRecord.from_row(row), split="test") for row in rows],
    )
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    classifiers.save(classifiers.SoundClassifier(["bell", "drum"]), folder / "classifier.safetensors")
    return hub.save_pretrained(folder / "micro", micro_components(num_steps=1))


@pytest.fixture(scope="module")
def finished(synth_quality, heldout, model, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("quality")
    (output / "results.md").write_text(
        f"before\n{synth_quality.MARKS[0]}\nold\n{synth_quality.MARKS[1]}\nafter\n"
    )
    assert synth_quality.main(arguments(heldout, model, output)) == 0
    return output


def arguments(heldout: Path, model: Path, output: Path) -> list[str]:
    options = {"--dataset": heldout, "--model": model, "--output": output, "--workers": 1, "--plots": 0}
    options |= {"--classifier": model.parent / "classifier.safetensors", "--write-to": output / "results.md"}
    return [str(word) for pair in options.items() for word in pair]


def test_every_system_has_every_clip(finished):
    figures = json.loads((finished / "report.json").read_text())
    assert figures["clips"] == {
        "all": 3, "gated": 3, "camera_only": 0, "leaves_view": 0, "several": 0, "off_screen": 0,
    }  # fmt: skip
    for system in synth_outputs.SYSTEMS:
        for path in sorted((finished / "clips").glob("*.flac")):
            info = soundfile.info(finished / "sounds" / system / path.name)
            assert (info.channels, info.samplerate, info.frames) == (2, 4000, 8000)
    # the fake truth: 0.3 dB a degree, still sources at 30, -30 and 10 degrees
    assert figures["rows"]["truth"]["r"][0] == pytest.approx(1)
    assert figures["rows"]["truth"]["side"][0] == 1
    assert figures["rows"]["mono"]["side"][0] == 0 and figures["rows"]["mono"]["r"][0] == 0
    assert figures["rows"]["mono"]["ild_error_db"][0] == pytest.approx(0.3 * (30 + 30 + 10) / 3, abs=0.6)


def test_shuffled_clips_see_another_clip(finished):
    for path in (finished / "sounds" / "shuffled").glob("*.json"):
        notes = json.loads(path.read_text())
        assert notes["conditions_of"] != notes["id"]
    for path in (finished / "sounds" / "model").glob("*.json"):
        notes = json.loads(path.read_text())
        assert notes["conditions_of"] == notes["id"]


def test_the_table_goes_between_the_marks(finished):
    text = (finished / "results.md").read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| **model** (3 clips) |" in text and "| side correct |" in text
    assert str(finished.parent) not in text  # no path of this machine


def test_a_second_run_makes_no_sound_again(finished, synth_quality, heldout, model, monkeypatch):
    before = (finished / "report.json").read_text()

    def never(job):
        raise AssertionError(f"{job} is done")

    monkeypatch.setattr(synth_outputs, "run_job", never)
    assert synth_quality.main(arguments(heldout, model, finished)) == 0
    assert json.loads((finished / "report.json").read_text()) == json.loads(before)


def test_another_model_is_refused_in_the_same_folder(finished, synth_quality, heldout, model, capsys):
    other = hub.save_pretrained(model.parent / "other", micro_components(seed=1))
    words = arguments(heldout, model, finished)
    words[words.index(str(model))] = str(other)
    assert synth_quality.main(words) == 2
    assert "give another --output" in capsys.readouterr().err


def test_the_model_row_is_what_the_pipeline_makes(finished, model):
    """Same noise, same sound, to the 16 bits stored."""
    from visaudio.sampling import encode_conditions, generate

    components = hub.load_pretrained(model)
    name = "fake-001"
    noise = clip_noise(components, name, 0, 2.0)
    defaults = components.sampling
    audio = generate(
        components.network,
        components.codec,
        encode_conditions(components, finished / "clips" / f"{name}.mp4"),
        sequence=components.preset.sequence,
        duration_s=2.0,
        num_steps=defaults.num_steps,
        guidance_scale=defaults.cfg_strength,
        overlap_s=defaults.overlap_s,
        noise=noise[None],
    )[0].numpy()
    stored, _ = soundfile.read(finished / "sounds" / "model" / f"{name}.flac")
    gain = json.loads((finished / "sounds" / "model" / f"{name}.json").read_text())["gain"]
    np.testing.assert_allclose(stored.T, gain * audio, atol=1e-3)


def test_noise_belongs_to_the_clip_and_swaps_by_ear(model):
    components = hub.load_pretrained(model)
    noise = clip_noise(components, "a", 0, 1.0)
    torch.testing.assert_close(clip_noise(components, "a", 0, 1.0, swap=True), noise.flip(0))
    assert not torch.equal(noise[0], noise[1])
    for other in (clip_noise(components, "b", 0, 1.0), clip_noise(components, "a", 1, 1.0)):
        assert not torch.equal(other, noise)


def test_flipped_conditions_are_those_of_mirrored_frames(model, tmp_path):
    """Against the decoded pictures turned round by hand, at their own size."""
    from micro import FPS, moving_square

    from bi_audio_dataset import media
    from visaudio.sampling import encode_conditions

    components = hub.load_pretrained(model)
    (tmp_path / "clips").mkdir()
    video = tmp_path / "clips" / "a.mp4"
    media.write_video(video, moving_square(FPS), FPS)
    frames = media.read_frames(video, np.arange(FPS) / FPS)
    expected = next(encode_conditions(components, np.ascontiguousarray(frames[:, :, ::-1]), fps=FPS))
    plain, flipped = (conditions(components, tmp_path, "a", flip)[0] for flip in (False, True))
    again = conditions(components, tmp_path, "a", flipped=True)[0]  # read back from its file
    for name in ("clip_features", "sync_features", "spatial_features"):
        got = getattr(flipped, name)
        scale = float((got - getattr(plain, name)).abs().mean())
        assert float((got - getattr(expected, name)).abs().mean()) < 0.2 * scale  # pixels are rounded
        torch.testing.assert_close(got, getattr(again, name), atol=0, rtol=0)
