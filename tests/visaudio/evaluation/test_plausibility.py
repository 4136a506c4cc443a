"""A blob that crosses the picture, and sounds that do and do not go with it."""

import binaural_scene as scene
import numpy as np
import pytest

from visaudio.evaluation import measures, plausibility
from visaudio.evaluation.measures import ClipSet, Scene, Settings, Sound

SECONDS = 3.0


@pytest.fixture(scope="module")
def crossing(tmp_path_factory):
    """The picture of a blob from 35 degrees left to 35 right, and the sound that belongs to it."""
    folder = tmp_path_factory.mktemp("plausibility")
    azimuth = np.linspace(35, -35, round(SECONDS * scene.FPS))
    video = scene.blob_video(folder / "a.mp4", azimuth)
    blocks = np.interp(np.arange(32) / 10, np.arange(len(azimuth)) / scene.FPS, azimuth)
    return Scene("a", SECONDS, video=video), scene.plane_wave(scene.noise(SECONDS), blocks)


def row_of(audio: np.ndarray, of: Scene):
    measure = measures.make("plausibility", Settings())
    return measure.compare(measure.hear(Sound(np.float32(audio), scene.RATE), of), None, of)


def test_the_sound_of_the_blob_follows_it(crossing):
    row = row_of(crossing[1], crossing[0])
    assert row["plausibility"] > 0.97 and row["plausibility_follow"] > 0.97
    assert row["plausibility_side"] > 0.95 and row["plausibility_judged"] > 0.9


def test_a_mirrored_sound_has_the_negative(crossing):
    right, wrong = row_of(crossing[1], crossing[0]), row_of(crossing[1][::-1], crossing[0])
    assert wrong["plausibility"] == pytest.approx(-right["plausibility"], abs=1e-9)
    assert wrong["plausibility_follow"] == pytest.approx(-right["plausibility_follow"], abs=1e-9)
    assert wrong["plausibility_side"] == pytest.approx(1 - right["plausibility_side"], abs=1e-9)


def test_mono_is_chance(crossing):
    row = row_of(np.repeat(crossing[1].mean(axis=0, keepdims=True), 2, axis=0), crossing[0])
    assert (row["plausibility"], row["plausibility_side"], row["plausibility_follow"]) == (0, 0.5, 0)


def test_a_sound_that_stays_follows_nothing(crossing):
    row = row_of(scene.plane_wave(scene.noise(SECONDS), 30.0), crossing[0])
    assert abs(row["plausibility"]) < 0.25 and abs(row["plausibility_follow"]) < 0.25
    assert row["plausibility_side"] == pytest.approx(0.5, abs=0.1)


def test_silence_and_stillness_say_nothing(crossing, tmp_path):
    silent = row_of(0 * crossing[1], crossing[0])
    assert all(np.isnan(silent[f"plausibility{end}"]) for end in ("", "_side", "_judged", "_follow"))
    scene.write_video(tmp_path / "still.mp4", [scene.texture()] * 75, scene.FPS)
    still = row_of(crossing[1], Scene("b", SECONDS, video=tmp_path / "still.mp4"))
    assert np.isnan(still["plausibility"]) and still["plausibility_judged"] == 0


def test_what_moves_in_time_with_the_sound_counts():
    """Column 10 moves all the time, column 50 when it sounds: the azimuth is that of column 50."""
    loud = np.arange(40) % 8 < 3
    columns = np.zeros((40, 64))
    columns[:, 10] = 1.0
    columns[loud, 50] = 1.0
    envelope = np.where(loud, -20.0, -50.0)
    weight = plausibility.follows(columns, envelope)
    assert weight[50] == pytest.approx(1, abs=0.01) and weight[10] == 0
    azimuth, total, spread = plausibility.seen_azimuth(columns, envelope, 90.0)
    expected = np.degrees(np.arctan(1 - 2 * 50.5 / 64))
    np.testing.assert_allclose(azimuth[loud], expected, atol=1e-6)
    assert spread[loud].max() < 1e-3
    # a sound that does not vary leaves both as they are
    assert plausibility.follows(columns, np.full(40, -20.0)).tolist() == [1.0] * 64


def test_motion_on_both_sides_counts_less():
    columns = np.zeros((20, 64))
    columns[:, 2] = columns[:, 61] = 1.0
    heard = {"lateral_deg": np.full(20, 20.0)}
    heard |= dict.fromkeys(("level_db", "envelope_db"), np.full(20, -20.0))
    apart, _ = plausibility.judge(heard | {"motion": columns}, 90.0)
    one = np.zeros((20, 64))
    one[:, 12] = 2.0
    alone, _ = plausibility.judge(heard | {"motion": one}, 90.0)
    weight = [sums["xx"] / 20.0**2 for sums in (apart, alone)]
    assert weight[1] == pytest.approx(20) and weight[0] < 0.1 * weight[1]


def test_clips_pool_by_their_sums(crossing):
    measure = measures.make("plausibility", Settings())
    rows = [row_of(crossing[1], crossing[0]), row_of(crossing[1][::-1], crossing[0])]
    clips = ClipSet(("a", "b"), {name: np.array([row[name] for row in rows]) for name in rows[0]})
    both = measure.summarise(clips, np.array([0, 1]))
    assert both["plausibility"] == pytest.approx(0, abs=1e-9)
    assert both["plausibility_side"] == pytest.approx(0.5, abs=1e-9)
    twice = measure.summarise(clips, np.array([0, 0]))
    assert twice["plausibility"] == pytest.approx(rows[0]["plausibility"])
    three = measure.summarise(clips, np.array([0, 0, 1]))
    assert three["plausibility"] == pytest.approx(rows[0]["plausibility"] / 3)


def test_the_lens_scales_the_azimuth(crossing):
    measure = measures.make("plausibility", Settings(hfov_deg=60.0))
    columns = np.zeros((1, 64))
    columns[0, 0] = 1.0
    edge = np.degrees(np.arctan((1 - 1 / 64) * np.tan(np.radians(30))))
    assert plausibility.seen_azimuth(columns, np.zeros(1), measure.hfov_deg)[0][0] == pytest.approx(edge)
