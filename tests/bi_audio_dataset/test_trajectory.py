import numpy as np
import pytest

from bi_audio_dataset import sphere
from bi_audio_dataset.trajectory import CameraPath, TrajectoryConfig, random_path

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
