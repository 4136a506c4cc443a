"""The measure group `space` as the suite calls it: rows of clips, what many come to, and odd input."""

import math

import numpy as np
import pytest
from ear_sounds import delayed, ears, noise, plane_wave

from visaudio.evaluation import agreement, measures
from visaudio.evaluation.measures import ClipSet, Scene, Settings, Sound
from visaudio.evaluation.space import SpaceConfig, SpaceMeasure

RATE = 24000
MEASURE = measures.make("space", Settings())
DESCRIBES = ("lr_ratio_db", "lr_difference", "mean_abs_ild_db", "lateral_share", "mean_iacc")


def scene(audio: np.ndarray, rate: int = RATE) -> Scene:
    return Scene("clip", audio.shape[1] / rate)


def hear(audio: np.ndarray, rate: int = RATE) -> dict[str, np.ndarray]:
    return MEASURE.hear(Sound(audio, rate), scene(audio, rate))


def row(generated: np.ndarray, reference: np.ndarray | None, rate: int = RATE) -> dict[str, float]:
    heard = None if reference is None else hear(reference, rate)
    return MEASURE.compare(hear(generated, rate), heard, scene(generated, rate))


def moving(swing_db: float = 8.0, seconds: float = 2.0, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """Noise that goes from left to right and back: ILD swing_db cos(pi t), ITD alike up to 0.4 ms."""
    signal = noise(rate, seconds, seed=seed)
    place = np.cos(np.pi * np.arange(len(signal)) / rate)
    gain = 10 ** (swing_db * place / 40)
    # the delay moves as a mix of two fixed ones
    late, soon = delayed(signal, rate, 4e-4), delayed(signal, rate, -4e-4)
    right = np.where(place > 0, late, soon) / gain
    return ears(gain * signal, right)


def clip_set(rows: list[dict[str, float]]) -> ClipSet:
    """As the runner does it: nan where a row has nothing."""
    names = {name for r in rows for name in r}
    columns = {name: np.array([r.get(name, math.nan) for r in rows]) for name in names}
    return ClipSet(tuple(f"clip{i}" for i in range(len(rows))), columns)


def summary(*rows: dict[str, float], index=None) -> dict[str, float]:
    return MEASURE.summarise(clip_set(list(rows)), np.arange(len(rows)) if index is None else np.array(index))


# -------------------- against a reference


def test_a_sound_against_itself():
    found = row(moving(), moving())
    for name in ("ild_error_db", "itd_error_s", "itd_phase_error_s", "iacc_error", "iacc_octaves_error",
                 "ipd_error_rad", "silent_share", "lr_ratio_error_db", "stft_distance"):  # fmt: skip
        assert found[name] == 0.0, name
    for name in ("ild_r", "itd_r", "itd_phase_r", "ipd_r", "ild_side"):
        assert found[name] == pytest.approx(1.0, abs=1e-6), name


def test_exchanged_ears_are_on_the_wrong_side():
    found = row(moving()[::-1], moving())
    assert found["ild_r"] == pytest.approx(-1.0, abs=1e-3)
    assert found["itd_r"] == pytest.approx(-1.0, abs=1e-3)
    assert found["ild_side"] == 0.0
    assert found["ild_error_db"] == pytest.approx(2 * np.abs(hear(moving())["ild_db"]).mean(), rel=0.01)


def test_known_errors():
    """4 dB and 150 us off throughout, of a still source: to 0.05 dB and 1 us. No correlation over time."""
    found = row(plane_wave(RATE, 1.5e-4, 2.0, seconds=2.0), plane_wave(RATE, 3e-4, 6.0, seconds=2.0))
    assert found["ild_error_db"] == pytest.approx(4.0, abs=0.05)
    assert found["lr_ratio_error_db"] == pytest.approx(4.0, abs=0.01)
    assert found["itd_error_s"] == pytest.approx(1.5e-4, abs=1e-6)
    assert found["itd_phase_error_s"] == pytest.approx(1.5e-4, abs=1e-6)
    assert found["ild_side"] == 1.0
    assert math.isnan(found["ild_r"]) and math.isnan(found["itd_r"])


def test_a_phase_difference_goes_the_short_way_round():
    """3.0 and -3.0 rad are 0.283 apart."""
    time = np.arange(2 * RATE) / RATE
    waves = [ears(np.cos(2 * np.pi * 500 * time), np.cos(2 * np.pi * 500 * time - p)) for p in (3.0, -3.0)]
    assert row(*waves)["ipd_error_rad"] == pytest.approx(2 * np.pi - 6.0, abs=0.01)


@pytest.mark.parametrize("gain_db", [-20.0, 6.0])
def test_a_common_gain_changes_no_cue_and_every_level(gain_db):
    generated, reference = moving(6.0, seed=1), moving()
    before = row(generated, reference)
    after = row(generated * np.float32(10 ** (gain_db / 20)), reference)
    levels = ("stft_distance", "magnitude_distance", "wave_distance", "envelope_distance", "snr_db")
    for name, value in before.items():
        if name in levels:
            assert after[name] != pytest.approx(value, rel=0.05), name
        else:
            assert after[name] == pytest.approx(value, rel=1e-3, abs=1e-3, nan_ok=True), name


def test_a_mono_copy():
    """It follows nothing and has no side, but is not silent."""
    reference = moving()
    mono = np.repeat(reference.mean(axis=0, keepdims=True), 2, axis=0)
    found = row(mono, reference)
    assert found["ild_side"] == 0.0 and found["silent_share"] == 0.0
    assert found["ild_r"] == 0.0 and found["itd_r"] == 0.0
    assert found["lr_difference"] == 0.0 and found["mean_iacc"] == pytest.approx(1.0, abs=1e-5)


def test_side_counts_frames_beyond_1_db():
    """Half of the time centred, half 5 dB to the left; the generated sound is left throughout."""
    centred, left = plane_wave(RATE, 0, 0.0, seconds=1.0), plane_wave(RATE, 0, 5.0, seconds=1.0)
    found = row(np.concatenate([left, left], axis=1), np.concatenate([centred, left], axis=1))
    assert found["ild_side"] == 1.0
    assert found["side.n"] in (25.0, 26.0)  # a frame that spans the change


def test_rates_may_differ():
    """44.1 and 16 kHz of one scene (band limited to 7 kHz): the same cues within 0.1 dB and 5 us."""
    heard = [MEASURE.hear(Sound(moving(rate=r), r), scene(moving(rate=r), r)) for r in (44100, 16000)]
    # each rate draws noise of its own, so levels are compared over the whole; still sources for delays
    assert heard[0]["ild_db"].shape == heard[1]["ild_db"].shape
    waves = [plane_wave(r, 2e-4, 5.0, seconds=1.0) for r in (44100, 16000)]
    found = MEASURE.compare(hear(waves[0], 44100), hear(waves[1], 16000), scene(waves[0], 44100))
    assert found["ild_error_db"] < 0.1 and found["itd_error_s"] < 5e-6


# -------------------- the whole clip, without a reference


def test_descriptions():
    found = row(plane_wave(RATE, 0.0, 6.0, seconds=2.0), None)
    assert set(found) == set(DESCRIBES)
    assert found["lr_ratio_db"] == pytest.approx(6.0, abs=0.01)
    assert found["mean_abs_ild_db"] == pytest.approx(6.0, abs=0.1)
    assert found["lateral_share"] == 1.0
    a, b = 10 ** (6 / 40), 10 ** (-6 / 40)
    assert found["lr_difference"] == pytest.approx((a - b) ** 2 / (2 * (a**2 + b**2)), rel=1e-3)


def test_difference_of_the_ears_as_the_builders_filter_has_it():
    from bi_audio_dataset.level import lr_difference

    assert row(moving(), None)["lr_difference"] == pytest.approx(lr_difference(moving()), rel=1e-4)


def test_a_dead_ear_has_a_bounded_ratio():
    silent_right = moving() * np.array([[1.0], [0.0]], np.float32)
    assert row(silent_right, None)["lr_ratio_db"] == pytest.approx(90.0, abs=0.1)


# -------------------- silence, short sounds, different lengths


def test_a_silent_generated_sound():
    """Wrong wherever something should sound; nothing to say of itself; a value for every error."""
    reference = moving()
    found = row(np.zeros_like(reference), reference)
    assert found["silent_share"] == 1.0 and found["ild_side"] == 0.0
    assert found["ild_r"] == 0.0 and found["itd_r"] == 0.0 and found["ipd_r"] == 0.0
    assert found["ild_error_db"] == pytest.approx(np.abs(hear(reference)["ild_db"]).mean())
    assert found["lr_ratio_error_db"] == pytest.approx(abs(row(reference, None)["lr_ratio_db"]))
    assert all(math.isnan(found[name]) for name in DESCRIBES)
    assert all(math.isfinite(v) for k, v in found.items() if k not in DESCRIBES)


def test_a_silent_reference_has_nothing_to_say_of_space():
    """nan, and zero in every sum, so that it moves no pooled figure; distances of waveforms are defined."""
    silence = np.zeros_like(moving())
    found, good = row(moving(), silence), row(moving(6.0, seed=2), moving())
    spatial = [f.name for f in MEASURE.figures if f.better and f.per_clip and f.name in found]
    waveform = ("stft_distance", "envelope_distance", "magnitude_distance", "wave_distance",
                "phase_distance_rad", "snr_db")  # fmt: skip
    for name in spatial:
        assert math.isfinite(found[name]) == (name in waveform), name
    assert not any(found[k] for k in found if "." in k)
    alone, both = summary(good), summary(good, found)
    for name in ("ild_error_db", "ild_r", "ild_r_pooled", "itd_error_s", "ild_side", "ipd_error_rad"):
        assert both[name] == pytest.approx(alone[name]), name


@pytest.mark.parametrize("samples", [1, 2, 50, 700])
@pytest.mark.parametrize("rate", [16000, 48000])
def test_very_short_sounds(samples, rate):
    """A row without infinity, and no error from it."""
    audio = np.full((2, samples), 0.5, np.float32) * np.array([[1.0], [0.7]], np.float32)
    found = row(audio, audio, rate)
    assert not any(math.isinf(v) for v in found.values())
    assert found["lr_ratio_db"] == pytest.approx(3.098, abs=1e-3)
    assert math.isnan(found["ild_r"])


def test_no_samples():
    nothing = np.zeros((2, 0), np.float32)
    found = row(nothing, nothing)
    assert math.isnan(found["ild_error_db"]) and math.isnan(found["stft_distance"])
    assert not any(math.isinf(v) for v in found.values())


def test_the_shorter_sound_counts():
    reference = moving()
    longer = np.concatenate([reference, np.zeros((2, RATE), np.float32)], axis=1)
    found = row(longer, reference)
    assert found["ild_db.n"] == 50
    assert found["ild_error_db"] < 0.05  # the last window hears what follows


def test_one_channel_given_to_both_ears():
    signal = noise(RATE, 1.0)
    found = row(ears(signal, signal), moving(seconds=1.0))
    assert found["mean_abs_ild_db"] == 0.0 and found["lateral_share"] == 0.0


# -------------------- many clips


def test_rows_hold_every_figure_of_a_clip():
    found = row(moving(6.0, seed=1), moving())
    assert {f.name for f in MEASURE.figures if f.per_clip} <= set(found)
    assert all(isinstance(v, float) for v in found.values())
    assert {f.name for f in MEASURE.figures} == set(summary(found))


def test_errors_and_correlations_pool_frames():
    """A clip of 3 s weighs three times one of 1 s; the pooled r is that of all frames put together."""
    clips = [(moving(5.0, 3.0, seed=1), moving(8.0, 3.0)), (moving(-5.0, 1.0, seed=3), moving(8.0, 1.0))]
    rows = [row(*clip) for clip in clips]
    found = summary(*rows)
    x, y = (np.concatenate([hear(clip[i])["ild_db"] for clip in clips]) for i in (1, 0))
    assert found["ild_error_db"] == pytest.approx(np.abs(x - y).mean())
    assert found["ild_r_pooled"] == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert found["ild_r"] == pytest.approx((rows[0]["ild_r"] + rows[1]["ild_r"]) / 2)
    right, sides = (sum(r[f"side.{k}"] for r in rows) for k in ("right", "n"))
    assert found["ild_side"] == right / sides
    assert found["stft_distance"] == pytest.approx(np.mean([r["stft_distance"] for r in rows]))


def test_an_index_may_repeat_clips():
    rows = [row(moving(5.0, seed=1), moving()), row(moving(-5.0, seed=3), moving())]
    assert summary(*rows, index=[0, 0, 0])["ild_error_db"] == pytest.approx(rows[0]["ild_error_db"])
    weighted = (2 * rows[0]["ild_error_db"] + rows[1]["ild_error_db"]) / 3
    assert summary(*rows, index=[0, 1, 0])["ild_error_db"] == pytest.approx(weighted)


def test_clips_without_reference_among_others():
    good, bare = row(moving(6.0, seed=1), moving()), row(moving(), None)
    found = summary(good, bare)
    assert found["ild_error_db"] == pytest.approx(good["ild_error_db"])
    assert found["mean_abs_ild_db"] == pytest.approx((good["mean_abs_ild_db"] + bare["mean_abs_ild_db"]) / 2)
    alone = summary(bare)
    assert math.isnan(alone["ild_error_db"]) and math.isnan(alone["ild_r_pooled"])
    assert alone["lr_ratio_db"] == bare["lr_ratio_db"]


# -------------------- the contract


def test_the_key_changes_with_the_settings():
    assert MEASURE.key == SpaceMeasure().key
    assert SpaceMeasure(SpaceConfig(side_db=2.0)).key != MEASURE.key
    assert MEASURE.key.startswith("space-") and "/" not in MEASURE.key


def test_hearing_gives_numeric_arrays_and_leaves_the_sound_alone():
    audio = moving()
    before = audio.copy()
    heard = hear(audio)
    np.testing.assert_array_equal(audio, before)
    assert all(isinstance(a, np.ndarray) and a.dtype.kind in "bf" for a in heard.values())
    kept = {k: v.copy() for k, v in heard.items()}
    MEASURE.compare(heard, hear(moving(seed=1)), scene(audio))
    for name, value in heard.items():
        np.testing.assert_array_equal(value, kept[name])


def test_figures_have_names_of_their_own_and_cues_their_columns():
    names = [figure.name for figure in MEASURE.figures]
    assert len(names) == len(set(names))
    assert set(agreement.KEYS) == {k.split(".")[1] for k in row(moving(), moving()) if k.startswith("iacc.")}


def test_side_threshold_is_a_setting():
    strict = SpaceMeasure(SpaceConfig(side_db=6.0))
    reference = hear(plane_wave(RATE, 0.0, 5.0, seconds=1.0))
    assert math.isnan(strict.compare(reference, reference, scene(moving()))["ild_side"])
    assert MEASURE.compare(reference, reference, scene(moving()))["ild_side"] == 1.0
