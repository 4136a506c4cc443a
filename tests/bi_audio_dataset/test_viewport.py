import time

import numpy as np
import pytest

from bi_audio_dataset import sphere
from bi_audio_dataset.viewport import Viewport, render_view

PANO_W, PANO_H = 768, 384


def _angle_panorama() -> np.ndarray:
    """A panorama whose three channels code its own directions: 127.5 (1 + x), (1 + y), (1 + z)."""
    u, v = np.meshgrid(np.arange(PANO_W), np.arange(PANO_H))
    vectors = sphere.direction(*sphere.pixel_to_angles(u, v, PANO_W, PANO_H))
    return np.round(127.5 * (1 + vectors)).astype(np.uint8)


def _marked(azimuth_deg: float, elevation_deg: float, radius_deg: float = 1.5) -> np.ndarray:
    """A black panorama with one white disc."""
    u, v = np.meshgrid(np.arange(PANO_W), np.arange(PANO_H))
    vectors = sphere.direction(*sphere.pixel_to_angles(u, v, PANO_W, PANO_H))
    centre = sphere.direction(np.deg2rad(azimuth_deg), np.deg2rad(elevation_deg))
    disc = sphere.angle_between(vectors, centre) < np.deg2rad(radius_deg)
    return np.repeat(255 * disc[..., None].astype(np.uint8), 3, axis=2)


@pytest.mark.parametrize(
    "yaw_deg, pitch_deg, roll_deg", [(0, 0, 0), (60, 20, 0), (180, 0, 5), (-95, -30, -8)]
)
@pytest.mark.parametrize("hfov_deg", [50, 90, 110])
def test_every_pixel_shows_the_direction_of_its_ray(yaw_deg, pitch_deg, roll_deg, hfov_deg):
    rotation = sphere.rotation_matrix(*np.deg2rad([yaw_deg, pitch_deg, roll_deg]))
    view = render_view(_angle_panorama(), rotation, np.deg2rad(hfov_deg), 256, 144)
    expected = sphere.view_directions(256, 144, np.deg2rad(hfov_deg)) @ rotation.T
    # Rounding to 8 bits twice: 1 of 127.5.
    np.testing.assert_allclose(view / 127.5 - 1, expected, atol=0.012)


@pytest.mark.parametrize("offset_deg", [-44.0, -30.0, 0.0, 20.0, 44.0])
@pytest.mark.parametrize("yaw_deg", [0.0, 150.0, 180.0])
def test_a_mark_lands_where_the_angles_say(offset_deg, yaw_deg):
    view = render_view(
        _marked(yaw_deg + offset_deg, 0), sphere.rotation_matrix(np.deg2rad(yaw_deg)), np.pi / 2, 256, 144
    )
    rows, columns = np.nonzero(view[..., 0] > 127)
    # A 90 degree view: tan of the offset to the left, in half widths; the disc itself is 4 to 8 pixels wide.
    assert columns.mean() == pytest.approx(127.5 - 128 * np.tan(np.deg2rad(offset_deg)), abs=1.0)
    assert rows.mean() == pytest.approx(71.5, abs=0.5)


def test_yaw_moves_the_picture_right_and_pitch_moves_it_down():
    mark = _marked(0, 0)
    still = np.argwhere(render_view(mark, np.eye(3), np.pi / 2, 256, 144)[..., 0] > 127).mean(axis=0)
    turned = sphere.rotation_matrix(np.deg2rad(20), np.deg2rad(10))
    moved = np.argwhere(render_view(mark, turned, np.pi / 2, 256, 144)[..., 0] > 127).mean(axis=0)
    assert moved[1] - still[1] > 40 and moved[0] - still[0] > 20


def test_no_seam_behind():
    view = render_view(_angle_panorama(), sphere.rotation_matrix(np.pi), np.pi / 2, 256, 144).astype(int)
    assert np.abs(np.diff(view, axis=1)).max() <= 3


def test_dense_panoramas_do_not_alias():
    stripes = np.zeros((1024, 2048, 3), np.uint8)
    stripes[:, ::2] = 255  # finer than the view can show: must come out grey
    view = render_view(stripes, np.eye(3), np.pi / 2, 64, 36)
    assert np.abs(view[10:26].astype(int) - 128).max() < 40


def test_wrong_panorama_size_is_named():
    lens = Viewport(64, 36, 1.0, 128, 64)
    with pytest.raises(ValueError, match="128x64.*32x16"):
        lens.render(np.zeros((16, 32, 3), np.uint8), np.eye(3))


def test_a_frame_takes_milliseconds():
    lens = Viewport(256, 144, np.pi / 2, PANO_W, PANO_H)
    panorama = _angle_panorama()
    times = []
    for k in range(10):
        start = time.perf_counter()
        lens.render(panorama, sphere.rotation_matrix(0.1 * k))
        times.append(time.perf_counter() - start)
    # Some 1 ms alone on a core; the bound leaves room for a busy machine.
    assert min(times) < 0.02
