"""The spatial measures in a whole evaluation: odd files have values or are counted."""

import math

import numpy as np
import pytest
from ear_sounds import plane_wave

from bi_audio_dataset import media
from visaudio.evaluation.html_report import write_report
from visaudio.evaluation.runner import Options, evaluate

OPTIONS = Options(measures=("space",), progress=False, resamples=50)


def swinging(rate: int, seed: int, seconds: float = 1.0, swing_db: float = 8.0) -> np.ndarray:
    """Noise that moves from left to right."""
    audio = plane_wave(rate, 0.0, 0.0, seconds=seconds, seed=seed)
    place = np.linspace(1, -1, audio.shape[1])
    return audio * 10 ** (np.stack([place, -place]) * swing_db / 40)


@pytest.fixture
def folders(tmp_path):
    """Six clips: good, at another rate, longer, of one channel, silent, against a silent reference."""
    generated, reference = tmp_path / "generated", tmp_path / "reference"
    for folder in (generated, reference):
        folder.mkdir()
    names = ("good", "rate", "longer", "mono", "silent", "nothing")
    for number, name in enumerate(names):
        sound = swinging(24000, number)
        media.write_audio(reference / f"{name}.wav", 0 * sound if name == "nothing" else sound, 24000)
    media.write_audio(generated / "good.wav", swinging(24000, 0, swing_db=4.0), 24000)
    media.write_audio(generated / "rate.wav", swinging(16000, 1), 16000)
    media.write_audio(generated / "longer.wav", np.pad(swinging(24000, 2), ((0, 0), (0, 9000))), 24000)
    media.write_audio(generated / "mono.wav", swinging(24000, 3)[:1], 24000)
    media.write_audio(generated / "silent.wav", np.zeros((2, 24000)), 24000)
    media.write_audio(generated / "nothing.wav", swinging(24000, 5), 24000)
    return generated, reference


@pytest.fixture
def results(folders, tmp_path):
    return evaluate({"s": folders[0]}, folders[1], tmp_path / "out", OPTIONS)


def test_every_clip_is_scored_and_every_oddity_told(results):
    assert {clip.id for clip in results.clips} == {"good", "rate", "longer", "mono", "silent", "nothing"}
    told = {(problem.kind, name) for problem in results.problems for name in problem.names}
    assert told == {
        ("rate", "rate"),
        ("length", "longer"),
        ("mono", "mono"),
        ("silent", "silent"),
        ("silent_reference", "nothing"),
    }


def test_values_of_odd_clips(results):
    of = {clip.id: clip.sounds["s"].values for clip in results.clips}
    assert of["good"]["ild_r"] > 0.98 and of["good"]["ild_error_db"] == pytest.approx(2.0, abs=0.3)
    assert of["rate"]["ild_r"] > 0.98 and of["rate"]["ild_error_db"] < 0.7  # another noise, another rate
    assert of["longer"]["ild_error_db"] < 0.1 and of["longer"]["stft_distance"] < 1e-6
    assert of["mono"]["ild_r"] == 0.0 and of["mono"]["ild_side"] == 0.0
    assert of["silent"]["silent_share"] == 1.0 and of["silent"]["ild_side"] == 0.0
    assert math.isnan(of["silent"]["mean_abs_ild_db"]) and math.isfinite(of["silent"]["itd_error_s"])
    assert math.isnan(of["nothing"]["ild_error_db"]) and math.isfinite(of["nothing"]["stft_distance"])


def test_clips_with_nothing_to_say_are_counted_and_move_no_figure(results):
    figures = results.figures["s"]
    assert figures["ild_error_db"].clips == 5  # without the silent reference
    assert figures["mean_abs_ild_db"].clips == 5  # without the silent sound
    assert figures["stft_distance"].clips == 6
    assert figures["silent_share"].value == pytest.approx(1 / 5)
    assert figures["ild_side"].value == pytest.approx(3 / 5, abs=0.02)
    # only levels move here: delays and likeness over time have nothing to say, and all else has a value
    nan = {name for name, figure in figures.items() if math.isnan(figure.value)}
    assert nan == {n for n in figures if n.endswith(("_r", "_r_pooled")) and not n.startswith("ild")}
    assert not any(math.isinf(figure.value) for figure in figures.values())
    assert figures["ild_r_pooled"].low <= figures["ild_r_pooled"].value <= figures["ild_r_pooled"].high


def test_nothing_is_cached_of_waveforms(results, tmp_path):
    """What the measure hears is as large as the file; only facts about files are kept."""
    kept = sum(path.stat().st_size for path in (tmp_path / "out" / "cache").rglob("*.npz"))
    assert kept < 20_000


def test_without_a_reference_only_descriptions(folders, tmp_path):
    results = evaluate({"s": folders[0]}, None, tmp_path / "alone", OPTIONS)
    figures = results.figures["s"]
    finite = {name for name, figure in figures.items() if math.isfinite(figure.value)}
    assert finite == {"lr_ratio_db", "lr_difference", "mean_abs_ild_db", "lateral_share", "mean_iacc"}
    assert figures["lr_ratio_db"].clips == 5


def test_samples_far_beyond_full_scale_cost_their_own_clip_alone(tmp_path):
    """Up to the largest level what does not hang on the scale stays; beyond it the IACC would be 0, or the
    command end."""
    gains = {"a": 1.0, "b": 1e6, "c": 2.0**31, "d": 1e30}
    whole = swinging(24000, 0)
    whole = (whole / np.abs(whole).max()).astype(np.float32)
    for name, gain in gains.items():
        for folder, sound in (("generated", whole), ("reference", 0.5 * whole[::-1])):
            (tmp_path / folder).mkdir(exist_ok=True)
            loud = sound * np.float32(gain)
            media.write_audio(tmp_path / folder / f"{name}.wav", loud, 24000, subtype="FLOAT")
    found = evaluate({"s": tmp_path / "generated"}, tmp_path / "reference", tmp_path / "out", OPTIONS)
    first, largest = (clip.sounds["s"].values for clip in found.clips)
    assert [clip.id for clip in found.clips] == ["a", "b"]
    assert first["mean_iacc"] > 0.5
    for figure in ("mean_iacc", "iacc_octaves_error", "ild_error_db", "itd_error_s", "ipd_error_rad"):
        assert largest[figure] == pytest.approx(first[figure], rel=1e-3, abs=1e-6), figure
    (refused,) = [problem for problem in found.problems if problem.kind == "too_large"]
    assert refused.names == ("c", "d") and refused.serious
    assert "peak 1.07e+09 of full scale" in refused.details[0] and "peak 5e+29" in refused.details[1]


def test_low_sampling_rates_on_the_way_to_the_page(tmp_path):
    """1 kHz is measured and drawn, also where it is as short as can be; what is below was scored, and the
    page then failed."""
    rng = np.random.default_rng(0)
    clips = {"a": (1000, 1000), "b": (1000, 100), "c": (999, 999), "d": (100, 500), "e": (1, 9)}
    for name, (rate, samples) in clips.items():
        for folder in ("generated", "reference"):
            (tmp_path / folder).mkdir(exist_ok=True)
            media.write_audio(tmp_path / folder / f"{name}.wav", rng.normal(0, 0.1, (2, samples)), rate)
    found = evaluate({"s": tmp_path / "generated"}, tmp_path / "reference", tmp_path / "out", OPTIONS)
    assert [clip.id for clip in found.clips] == ["a", "b"]
    assert [(p.kind, p.names) for p in found.problems if p.serious] == [("low_rate", ("c", "d", "e"))]
    page = write_report(found, tmp_path / "out").read_text()
    assert page.count('class="picture"') == 2 and "sampling rate 100 Hz, expected at least 1000 Hz" in page


@pytest.mark.parametrize("rate", [1, 100])
def test_a_page_of_results_that_hold_a_low_rate(folders, tmp_path, rate):
    """As an earlier version scored it: the sound that cannot be drawn is named beside the others."""
    found = evaluate({"<s>": folders[0]}, folders[1], tmp_path / "out", OPTIONS)
    media.write_audio(folders[0] / "good.wav", np.full((2, 300), 0.1), rate)
    page = write_report(found, tmp_path / "out").read_text()
    assert page.count('class="picture"') == 6
    assert f"&lt;s&gt; is not drawn: sampling rate {rate} Hz, expected at least 1000 Hz" in page
