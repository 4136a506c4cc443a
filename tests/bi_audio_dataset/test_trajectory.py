import numpy as np
import pytest

from bi_audio_dataset import ambisonics, sphere
from bi_audio_dataset.trajectory import (
    CameraPath,
    TrajectoryConfig,
    mean_separation_deg,
    path_from_energy,
    random_path,
)

RATE_HZ = 25.0
MOVING = TrajectoryConfig(static_probability=0.0)


def test_same_generator_state_gives_the_same_path():
    first, again, other = (random_path(np.random.default_rng(seed), 200, RATE_HZ) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.yaw_rad, again.yaw_rad)
    assert np.abs(first.yaw_rad - other.yaw_rad).max() > 1e-3


@pytest.mark.parametrize("seed", range(8))
def test_rates_and_ranges_hold(seed):
    path = random_path(np.random.default_rng(seed), 400, RATE_HZ, 2.0, 0.3, MOVING)
    limits = (MOVING.max_yaw_rate_deg, MOVING.max_pitch_rate_deg, MOVING.max_roll_rate_deg)
    for angle, limit in zip((path.yaw_rad, path.pitch_rad, path.roll_rad), limits, strict=True):
        assert np.rad2deg(np.abs(np.diff(angle))).max() * RATE_HZ <= limit + 1e-9
    low, high = MOVING.pitch_range_deg
    assert low - 1e-9 <= np.rad2deg(path.pitch_rad).min() and np.rad2deg(path.pitch_rad).max() <= high + 1e-9
    assert np.rad2deg(abs(path.yaw_rad[0] - 2.0)) <= MOVING.first_yaw_offset_deg


def test_paths_are_piecewise_linear_without_drift():
    config = TrajectoryConfig(static_probability=0.0, drift_rate_deg=0.0, hold_probability=0.0)
    path = random_path(np.random.default_rng(1), 500, RATE_HZ, config=config)
    bends = np.abs(np.diff(path.yaw_rad, n=2)) > 1e-9
    # 20 s of segments of 1.5 to 4 s: 5 to 13 knots, each of which bends at most two second differences.
    assert 4 <= bends.sum() <= 26


def test_drift_makes_each_frame_differ():
    path = random_path(np.random.default_rng(1), 200, RATE_HZ, config=MOVING)
    assert np.abs(np.diff(path.yaw_rad, n=2)).min() > 0


@pytest.mark.parametrize("probability, expected", [(0.0, 0), (1.0, 20)])
def test_static_probability(probability, expected):
    config = TrajectoryConfig(static_probability=probability)
    rng = np.random.default_rng(0)
    paths = [random_path(rng, 50, RATE_HZ, config=config) for _ in range(20)]
    assert sum(np.ptp(path.yaw_rad) == 0 for path in paths) == expected


def test_fixed_path_and_rotations():
    path = CameraPath.fixed(3, RATE_HZ, 0.4, 0.1, -0.2)
    assert len(path) == 3
    np.testing.assert_allclose(path.rotations()[2], sphere.rotation_matrix(0.4, 0.1, -0.2))


def test_within_view_keeps_the_first_direction_in_the_picture():
    hfov_deg = 50.0
    config = TrajectoryConfig(static_probability=0.0).within_view(hfov_deg)
    seen = []
    for seed in range(30):
        path = random_path(np.random.default_rng(seed), 200, RATE_HZ, 1.0, 0.0, config)
        seen.append(np.rad2deg(np.abs(path.yaw_rad - 1.0)) < hfov_deg / 2)
    assert np.mean(seen) > 0.8


FIELD_RATE = 16000


def _field(azimuth_deg: float, elevation_deg: float = 0.0) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(FIELD_RATE)
    return ambisonics.encode(noise, *np.deg2rad([azimuth_deg, elevation_deg]))


@pytest.mark.parametrize("azimuth_deg, elevation_deg", [(-120, 10), (75, -15), (179, 60)])
@pytest.mark.parametrize("hfov_deg", [50.0, 90.0])
def test_a_path_starts_at_the_sound_and_keeps_its_rates(azimuth_deg, elevation_deg, hfov_deg):
    foa = _field(azimuth_deg, elevation_deg)
    offsets = []
    for seed in range(12):
        path, aim = path_from_energy(
            foa, FIELD_RATE, 200, RATE_HZ, np.random.default_rng(seed), MOVING, hfov_deg=hfov_deg
        )
        found_deg = np.rad2deg([aim.azimuth_rad, aim.elevation_rad])
        assert found_deg == pytest.approx([azimuth_deg, elevation_deg], abs=0.01)
        assert aim.confidence > 0.99 and not aim.elsewhere
        offsets.append(np.rad2deg(path.yaw_rad[0]) - azimuth_deg)
        limits = (MOVING.max_yaw_rate_deg, MOVING.max_pitch_rate_deg, MOVING.max_roll_rate_deg)
        for angle, limit in zip((path.yaw_rad, path.pitch_rad, path.roll_rad), limits, strict=True):
            assert np.rad2deg(np.abs(np.diff(angle))).max() * RATE_HZ <= limit + 1e-9
        reachable = np.clip(elevation_deg, *MOVING.pitch_range_deg)
        assert np.rad2deg(np.abs(path.pitch_rad[0] - np.deg2rad(reachable))) <= 0.07 * hfov_deg + 1e-9
    widest = min(MOVING.first_yaw_offset_deg, 0.26 * hfov_deg)
    assert 0.3 * widest < np.std(offsets) and np.abs(offsets).max() <= widest


def test_a_path_elsewhere_says_so_and_leaves_later_chance_alone():
    foa, still = _field(40), TrajectoryConfig(static_probability=1.0, first_yaw_offset_deg=0.0)
    drawn = [
        path_from_energy(
            foa, FIELD_RATE, 5, RATE_HZ, np.random.default_rng(3), still, elsewhere_probability=p
        )
        for p in (0.0, 1.0)
    ]
    (there, aim), (elsewhere, other) = drawn
    assert np.rad2deg(there.yaw_rad[0]) == pytest.approx(40, abs=0.01)
    assert not aim.elsewhere and other.elsewhere and other.azimuth_rad == aim.azimuth_rad
    assert abs(elsewhere.yaw_rad[0] - there.yaw_rad[0]) > 0.05
    np.testing.assert_array_equal(elsewhere.pitch_rad, there.pitch_rad)
    np.testing.assert_array_equal(elsewhere.roll_rad, there.roll_rad)


def test_silence_has_no_confidence():
    _, aim = path_from_energy(np.zeros((4, 100)), FIELD_RATE, 5, RATE_HZ, np.random.default_rng(0))
    assert (aim.azimuth_rad, aim.elevation_rad, aim.confidence) == (0.0, 0.0, 0.0)


def test_views_of_one_recording_are_distinct_and_the_first_is_the_only_ones_own():
    foa = _field(-70)
    single, _ = path_from_energy(foa, FIELD_RATE, 100, RATE_HZ, np.random.default_rng(9), hfov_deg=90.0)
    rng, views = np.random.default_rng(9), []
    for _ in range(4):
        views.append(
            path_from_energy(foa, FIELD_RATE, 100, RATE_HZ, rng, hfov_deg=90.0, apart_from=tuple(views))[0]
        )
    np.testing.assert_array_equal(views[0].yaw_rad, single.yaw_rad)
    pairs = [(a, b) for i, a in enumerate(views) for b in views[:i]]
    assert len(views) == 4 and min(mean_separation_deg(a, b) for a, b in pairs) >= 10
    # Still near the sound: each starts with it in a view of 90 degrees.
    assert max(abs(np.rad2deg(view.yaw_rad[0]) + 70) for view in views) <= 0.26 * 90


def test_where_no_distinct_view_exists_the_farthest_of_the_draws_is_taken():
    tight = TrajectoryConfig(static_probability=1.0, first_yaw_offset_deg=2.0, first_pitch_offset_deg=0.0)
    foa, rng = _field(0), np.random.default_rng(0)
    first, _ = path_from_energy(foa, FIELD_RATE, 5, RATE_HZ, rng, tight)
    second, _ = path_from_energy(foa, FIELD_RATE, 5, RATE_HZ, rng, tight, apart_from=[first])
    # Two draws from +-2 degrees lie 1.3 apart on the mean; the farthest of 32 nearly as far as can be.
    assert mean_separation_deg(first, second) > 2


def test_separation_is_the_angle_between_axes():
    ahead, left = (CameraPath.fixed(3, RATE_HZ, yaw) for yaw in (0.0, np.pi / 2))
    assert mean_separation_deg(ahead, left) == pytest.approx(90)
    assert mean_separation_deg(ahead, CameraPath.fixed(3, RATE_HZ, 0.0, 0.0, 0.5)) == pytest.approx(0)
