"""Spatial AV-Align where the answer can be counted by hand."""

import binaural_scene as scene
import numpy as np
import pytest

from visaudio.evaluation import align, measures
from visaudio.evaluation.measures import ClipSet, Scene, Settings, Sound

EVERY = np.ones(10, bool)


def boxes_at(first: float, last: float, pictures=range(4)) -> np.ndarray:
    return np.array([(p, first, last) for p in pictures], float)


def test_the_tolerance_is_40_of_256_columns():
    # 90 degrees: column = 1/2 - tan / 2; the box's right edge is at 0.25
    for margin, expected in ((-1e-3, 10), (1e-3, 0)):
        angle = np.degrees(np.arctan(2 * (0.5 - (0.25 + 40 / 256 + margin))))
        hits, *_ = align.count(np.full(10, angle), EVERY, boxes_at(0.2, 0.25), 90.0)
        assert hits == expected


def test_a_sound_from_the_side_or_behind_meets_no_box():
    assert align.count(np.full(10, 90.0), EVERY, boxes_at(0.0, 1.0), 90.0)[0] == 0
    assert align.count(np.full(10, -80.0), EVERY, boxes_at(0.0, 1.0), 90.0)[0] == 0


def test_a_box_counts_one_picture_before_and_after_its_own():
    # sound frame k belongs to picture round(0.4 k); the box is in picture 2 alone
    hits, _, middle, frames, sounding = align.count(np.zeros(10), EVERY, boxes_at(0.4, 0.6, [2]), 90.0)
    near = [k for k in range(10) if abs(round(0.4 * k) - 2) <= 1]
    assert (hits, middle, frames, sounding) == (len(near), len(near), 10, 10) and 0 < len(near) < 10


def test_only_frames_that_sound_are_asked():
    active = np.arange(10) < 4
    assert align.count(np.zeros(10), active, boxes_at(0.4, 0.6), 90.0)[3:] == (10, 4)


def test_chance_is_the_share_of_columns_that_would_do():
    assert align.covered(np.array([0.1, 0.2, 0.9]), np.array([0.3, 0.4, 1.2])) == pytest.approx(0.4)
    assert align.covered(np.array([-0.5]), np.array([0.25])) == pytest.approx(0.25)
    assert align.covered(np.zeros(0), np.zeros(0)) == 0
    _, expected, *_ = align.count(np.zeros(10), EVERY, boxes_at(0.4, 0.6), 90.0)
    assert expected / 10 == pytest.approx(0.2 + 80 / 256)


@pytest.fixture(scope="module")
def moving():
    """Azimuth (25 Hz) that jumps from left to right in a pause of its sound; the sound."""
    azimuth = np.where(np.arange(100) < 50, 35.0, -30.0)
    mono = scene.noise(4.0)
    mono[round(1.85 * scene.RATE) : round(2.15 * scene.RATE)] = 0
    return azimuth, scene.plane_wave(mono, np.where(np.arange(42) < 20, 35.0, -30.0))


def score(audio, azimuth, **changes):
    measure = measures.make("align", Settings())
    of = Scene("a", audio.shape[1] / scene.RATE, truth=scene.clip_of(azimuth, **changes))
    row = measure.compare(measure.hear(Sound(audio, scene.RATE), of), None, of)
    return row, measure


def test_the_true_sound_is_aligned_its_mirror_image_is_not(moving):
    azimuth, audio = moving
    assert score(audio, azimuth)[0]["align"] == 1
    mirrored = score(audio[::-1], azimuth)[0]
    assert mirrored["align"] < 0.15  # frames next to the jump see the other side's box
    assert mirrored["align_chance"] < 0.5 and mirrored["align_heard"] >= 0.9


def test_mono_has_the_score_of_the_middle(moving):
    azimuth, audio = moving
    for at, expected in ((azimuth, 0.0), (azimuth / 3, 1.0)):
        row, _ = score(np.repeat(audio.mean(axis=0, keepdims=True), 2, axis=0), at)
        assert row["align"] == row["align_middle"] == expected


def test_no_box_no_hit_and_silence_says_nothing(moving):
    azimuth, audio = moving
    unseen = score(audio, azimuth, visible=False)[0]
    assert unseen["align"] == 0 and unseen["align_chance"] == 0
    silent, _ = score(0 * audio, azimuth)
    assert np.isnan(silent["align"]) and silent["align_heard"] == 0


def test_clips_are_pooled_by_frames(moving):
    azimuth, audio = moving
    half = audio.copy()
    half[:, : audio.shape[1] // 2] = 0
    rows = [score(audio, azimuth)[0], score(half[::-1], azimuth)[0]]
    measure = score(audio, azimuth)[1]
    clips = ClipSet(("a", "b"), {name: np.array([row[name] for row in rows]) for name in rows[0]})
    figures = measure.summarise(clips, np.array([0, 1]))
    total = sum(row["align_sounding_sum"] for row in rows)
    assert figures["align"] == pytest.approx(sum(row["align_hits_sum"] for row in rows) / total)
    assert figures["align_heard"] == pytest.approx(total / 80)
    assert measure.summarise(clips, np.array([0, 0]))["align"] == 1


def test_a_model_detector_is_asked_of_the_picture_once(monkeypatch, tmp_path, moving):
    azimuth, audio = moving
    asked = []

    class Fake:
        digest = "abc"

        def __init__(self, name, labels, device):
            asked.append((name, labels, device))

        def __call__(self, of):
            asked.append(of.video)
            return boxes_at(0.0, 0.2, range(16))

    monkeypatch.setattr(align.detectors, "TransformersDetector", Fake)
    measure = measures.make(
        "align", Settings(weights={"detector": "some"}, detector_labels=("cat",), hfov_deg=70)
    )
    assert measure.needs == {"video"} and not measure.parallel and "abc-cat-70" in measure.key
    of = Scene("a", 4.0, video=tmp_path / "a.mp4")
    for sound in (audio, audio[::-1]):
        heard = measure.hear(Sound(sound, scene.RATE), of)
    assert asked == [("some", ("cat",), "cpu"), of.video]
    # no row: the lens is the one of the settings, whose picture ends at 35 degrees
    assert measure.compare(heard, None, of)["align_chance"] == pytest.approx(0.2 + 40 / 256)
