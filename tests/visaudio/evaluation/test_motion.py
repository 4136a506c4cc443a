"""Motion of things, with and without a camera that turns."""

import binaural_scene as scene
import numpy as np
import pytest

from visaudio.evaluation import motion

W, H = motion.SIZE


def blob_at(x: int, shift: int = 0, value: int = 250) -> np.ndarray:
    """A picture whose background has moved to the right by `shift`, with a blob at column x."""
    wide = scene.texture(W + 80, H)
    picture = wide[:, 40 - shift : 40 - shift + W].copy()
    picture[H // 2 - 7 : H // 2 + 7, x - 7 : x + 7] = value
    return picture


def centroid(columns: np.ndarray) -> float:
    """In shares of the width."""
    return float((columns * (np.arange(motion.COLUMNS) + 0.5)).sum() / columns.sum() / motion.COLUMNS)


def test_a_still_picture_does_not_move():
    assert not motion.motion_of(np.stack([blob_at(60)] * 3)).any()


def test_motion_is_where_the_blob_is():
    found = motion.motion_of(np.stack([blob_at(x) for x in (40, 44, 48)]))
    assert found.shape == (2, motion.COLUMNS)
    assert centroid(found[0]) == pytest.approx(42 / W, abs=0.02)
    assert centroid(found[1]) == pytest.approx(46 / W, abs=0.02)


@pytest.mark.parametrize("shift", [3, -5])
def test_the_camera_s_own_motion_is_taken_out(shift):
    before, after = (
        scene.texture(W + 80, H)[:, 40 : 40 + W],
        scene.texture(W + 80, H)[:, 40 - shift : 40 - shift + W],
    )
    turned = motion.motion_of(np.stack([before, after])).sum()
    moved = motion.motion_of(np.stack([blob_at(60), blob_at(64)])).sum()
    assert turned < 0.05 * moved
    # and the plain difference would not have been so calm
    plain = np.abs(before.astype(float) - after).mean(axis=(0, 2)).sum()
    assert plain > 20 * turned


def test_a_thing_that_moves_under_a_moving_camera_is_found():
    found = motion.motion_of(np.stack([blob_at(150, 0), blob_at(150 - 4, 4)]))
    assert centroid(found[0]) == pytest.approx(150 / W, abs=0.03)
    # a blob that the camera alone carries along is none
    carried = motion.motion_of(np.stack([blob_at(150, 0), blob_at(154, 4)]))
    assert carried.sum() < 0.1 * found.sum()


def test_a_change_of_light_in_place_is_motion():
    found = motion.motion_of(np.stack([blob_at(30, value=250), blob_at(30, value=200)]))
    assert centroid(found[0]) == pytest.approx(30 / W, abs=0.02)


def test_pictures_of_nothing_do_not_move():
    flat = np.full((2, H, W, 3), 90, np.uint8)
    assert not motion.motion_of(flat).any()


def test_a_file_has_a_row_for_each_frame_of_the_sound(tmp_path):
    video = scene.blob_video(tmp_path / "a.mp4", np.linspace(30, -30, 50))
    found = motion.column_motion(video, 2.0)
    assert found.shape == (20, motion.COLUMNS) and found.dtype == np.float32
    # the picture's azimuth falls from left to right: the columns grow
    assert centroid(found[2]) < 0.35 < 0.65 < centroid(found[-3])
