import numpy as np
import pytest

from bi_audio_dataset import sphere

RNG = np.random.default_rng(0)


def _elementary(axis: int, angle: float) -> np.ndarray:
    """Right-handed rotation about x, y or z, written out independently of sphere.py."""
    c, s = np.cos(angle), np.sin(angle)
    return {
        0: np.array([[1, 0, 0], [0, c, -s], [0, s, c]]),
        1: np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]),
        2: np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]),
    }[axis]


def test_axes_are_front_left_up():
    quarter = np.pi / 2
    np.testing.assert_allclose(sphere.direction(0, 0), [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(sphere.direction(quarter, 0), [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(sphere.direction(0, quarter), [0, 0, 1], atol=1e-12)


@pytest.mark.parametrize("azimuth_deg", [-135, -45, 45, 135])
@pytest.mark.parametrize("elevation_deg", [-40, 40])
def test_angles_invert_direction_in_all_octants(azimuth_deg, elevation_deg):
    vector = 2.5 * sphere.direction(np.deg2rad(azimuth_deg), np.deg2rad(elevation_deg))
    np.testing.assert_allclose(np.rad2deg(sphere.angles(vector)), [azimuth_deg, elevation_deg], atol=1e-9)


def test_lateral_angle_is_the_angle_from_the_median_plane():
    azimuth, elevation = RNG.uniform(-np.pi, np.pi, 50), RNG.uniform(-1.5, 1.5, 50)
    lateral = sphere.lateral_angle(azimuth, elevation)
    np.testing.assert_allclose(np.sin(lateral), sphere.direction(azimuth, elevation)[:, 1], atol=1e-12)
    assert np.rad2deg(sphere.lateral_angle(np.deg2rad(150), 0)) == pytest.approx(30)
    assert sphere.lateral_angle(-azimuth, elevation) == pytest.approx(-lateral)


def test_rotation_is_yaw_then_pitch_then_roll():
    yaw, pitch, roll = 0.7, -0.4, 0.3
    expected = _elementary(2, yaw) @ _elementary(1, -pitch) @ _elementary(0, roll)
    np.testing.assert_allclose(sphere.rotation_matrix(yaw, pitch, roll), expected, atol=1e-12)
    path = sphere.rotation_matrix([0.0, yaw], [0.0, pitch], [0.0, roll])
    np.testing.assert_allclose(path, [np.eye(3), expected], atol=1e-12)


def test_signs_of_camera_angles():
    front, left = np.array([1.0, 0, 0]), np.array([0, 1.0, 0])
    azimuth, _ = sphere.angles(sphere.rotation_matrix(0.3) @ front)
    _, elevation = sphere.angles(sphere.rotation_matrix(0, 0.3) @ front)
    _, left_elevation = sphere.angles(sphere.rotation_matrix(0, 0, 0.3) @ left)
    # Yaw turns to the left, pitch up; roll lowers the right ear, so it lifts the left one.
    assert (azimuth, elevation, left_elevation) == pytest.approx((0.3, 0.3, 0.3))
    # What the camera turned towards is in front of it.
    seen = sphere.to_camera(sphere.direction(0.3, 0.2), sphere.rotation_matrix(0.3, 0.2, 1.0))
    np.testing.assert_allclose(seen, front, atol=1e-12)


def test_panorama_pixels():
    # Width 8: the centre of pixel 0 is 1/16 of a turn in from the left edge, which is azimuth +180.
    assert np.rad2deg(sphere.pixel_to_angles(0, 0, 8, 4)) == pytest.approx([157.5, 67.5])
    assert np.rad2deg(sphere.pixel_to_angles(3.5, 1.5, 8, 4)) == pytest.approx([0, 0])
    u, v = RNG.uniform(-0.4, 99.4, 40), RNG.uniform(-0.4, 49.4, 40)
    np.testing.assert_allclose(
        sphere.angles_to_pixel(*sphere.pixel_to_angles(u, v, 100, 50), 100, 50), (u, v)
    )


def test_view_pixels_and_rays_are_inverse():
    rays = sphere.view_directions(64, 36, np.deg2rad(100))
    x, y, in_front = sphere.direction_to_view(3 * rays, 64, 36, np.deg2rad(100))
    np.testing.assert_allclose(x, np.broadcast_to(np.arange(64), (36, 64)), atol=1e-9)
    np.testing.assert_allclose(y, np.broadcast_to(np.arange(36)[:, None], (36, 64)), atol=1e-9)
    assert in_front.all()
    x, _, in_front = sphere.direction_to_view([-1.0, 0.2, 0], 64, 36, 1.0)
    assert np.isnan(x) and not in_front


@pytest.mark.parametrize("hfov_deg", [50, 90, 110])
def test_outer_edges_of_a_view_span_the_field_of_view(hfov_deg):
    half = np.deg2rad(hfov_deg) / 2
    left = sphere.direction_to_view(sphere.direction(half, 0), 256, 144, 2 * half)
    right = sphere.direction_to_view(sphere.direction(-half, 0), 256, 144, 2 * half)
    assert (left[0], left[1], right[0]) == pytest.approx((-0.5, 71.5, 255.5))


def test_impossible_field_of_view_is_named():
    with pytest.raises(ValueError, match="hfov_rad"):
        sphere.view_directions(8, 8, np.pi)


def test_fibonacci_sphere_is_even():
    points = sphere.fibonacci_sphere(500)
    np.testing.assert_allclose(points.T @ points / 500, np.eye(3) / 3, atol=2e-3)
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=2e-3)


def test_wrap_angle_and_angle_between():
    assert sphere.wrap_angle([np.pi, -np.pi, 3.5 * np.pi]) == pytest.approx([-np.pi, -np.pi, -0.5 * np.pi])
    assert sphere.angle_between([1, 0, 0], [0, 2, 0]) == pytest.approx(np.pi / 2)
    assert sphere.angle_between([1, 0, 0], [1, 1e-9, 0]) == pytest.approx(1e-9)
