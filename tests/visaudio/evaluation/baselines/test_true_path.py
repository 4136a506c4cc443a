"""The direction of a clip as a whole, from its ground truth."""

import numpy as np
import pytest

from bi_audio_dataset.schema import UserError
from visaudio.data.dataset import Clip, SourceTrack
from visaudio.evaluation.baselines.directions import smooth, true_path

FRAMES = 50


def source(azimuth_deg=30.0, elevation_deg=0.0, envelope_db=0.0, distance_m=2.0) -> SourceTrack:
    def track(value) -> np.ndarray:
        return np.broadcast_to(np.asarray(value, np.float32), FRAMES).copy()

    lateral = np.degrees(np.arcsin(np.sin(np.radians(azimuth_deg)) * np.cos(np.radians(elevation_deg))))
    return SourceTrack(
        "bell", "bell", "a bell", track(azimuth_deg), track(elevation_deg), track(lateral), track(distance_m),
        track(10), np.ones(FRAMES, bool), np.zeros(0), track(envelope_db),
    )  # fmt: skip


def clip(*sources: SourceTrack) -> Clip:
    return Clip("a", "test", "", 2.0, 90.0, 256, 144, True, 25.0, sources)


def lateral_deg(path) -> np.ndarray:
    return np.degrees(np.arcsin(path.vectors[:, 1]))


def test_one_source_is_its_own_direction_while_silent_too():
    azimuth = np.linspace(-170, 170, FRAMES)
    envelope = np.where(np.arange(FRAMES) % 9 < 4, 0, -80)
    only = source(azimuth, 20.0, envelope)
    path = true_path(clip(only))
    np.testing.assert_allclose(np.linalg.norm(path.vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(lateral_deg(path), only.lateral_deg, atol=1e-3)
    assert path.rate_hz == 25.0


def test_several_sources_are_weighted_by_energy_and_distance():
    left, right = source(90, envelope_db=-6), source(-90, distance_m=2.0)
    weights = np.array([10**-0.6, 1.0])
    expected = (weights[0] - weights[1]) / weights.sum()
    np.testing.assert_allclose(true_path(clip(left, right)).vectors[:, 1], expected, atol=1e-6)
    far = source(-90, distance_m=4.0)  # twice as far, a quarter of the energy
    np.testing.assert_allclose(true_path(clip(source(90), far)).vectors[:, 1], 0.6, atol=1e-6)


def test_equal_sources_on_both_sides_are_in_the_middle():
    np.testing.assert_allclose(true_path(clip(source(70), source(-70))).vectors[:, 1], 0, atol=1e-7)


def test_energies_that_alternate_do_not_throw_the_direction_about():
    """Frame by frame it would jump from side to side by sin 60 degrees."""
    turns = np.arange(FRAMES) % 2
    left, right = source(60, envelope_db=-80.0 * turns), source(-60, envelope_db=-80.0 * (1 - turns))
    assert np.abs(true_path(clip(left, right)).vectors[3:-3, 1]).max() < 0.1


def test_without_truth_it_says_so():
    with pytest.raises(UserError, match="clip a has no ground truth"):
        true_path(clip())


def test_smoothing_keeps_sums_and_constants():
    impulse = np.zeros((2, 41))
    impulse[:, 20] = 1
    np.testing.assert_allclose(smooth(impulse, 8.0).sum(axis=1), 1)
    assert np.count_nonzero(smooth(impulse, 8.0)[0] > 1e-9) == 7
    np.testing.assert_allclose(smooth(np.full((1, 20), 3.0), 12.5), 3)
