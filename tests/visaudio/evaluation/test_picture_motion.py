"""The camera's motion, and what is left over, in pictures whose camera is known."""

import cv2
import numpy as np
import pytest
from drawn_scene import HEIGHT, WIDTH, scene, turn, world

from visaudio.evaluation import motion
from visaudio.evaluation.picture_motion import camera_motion, residual


def in_pixels(turned: np.ndarray) -> np.ndarray:
    scale = np.array([[WIDTH / 2, 0, (WIDTH - 1) / 2], [0, WIDTH / 2, (HEIGHT - 1) / 2], [0, 0, 1]])
    return scale @ turned @ np.linalg.inv(scale)


def assert_camera(before: np.ndarray, after: np.ndarray, expected: np.ndarray) -> None:
    """Places of `after` are places of `before` by `expected`, to half a pixel."""
    found = in_pixels(camera_motion(before.astype(np.float32), after.astype(np.float32)))
    for place in ((40, 30, 1), (96, 54, 1), (150, 80, 1)):
        was, wanted = found @ place, expected @ place
        np.testing.assert_allclose(was[:2] / was[2], wanted[:2] / wanted[2], atol=0.5)


@pytest.mark.parametrize("angles", [(2.0, 0, 0), (-3.0, 1.0, 0), (1.0, -1.0, 2.0)])
def test_the_cameras_motion_is_recovered(angles):
    before = scene(np.zeros(1), np.zeros(1))[0, ..., 0]
    after = cv2.warpPerspective(before, turn(*angles), (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE)
    assert_camera(before, after, np.linalg.inv(turn(*angles)))


def test_a_turning_camera_alone_moves_nothing():
    still, moving = scene(np.array([0.0, 2.5]), None), scene(np.array([0.0, 2.5]), np.array([10.0, 4.0]))
    alone, with_disc = (residual(*(p[..., 0] for p in pair)) for pair in (still, moving))
    assert (alone**2).mean() < 0.05 < 5 < (with_disc**2).mean()


def board(picture: np.ndarray, x: int) -> np.ndarray:
    """The picture with a chequered board of 24 by 24 about column x: nearly all corners are its own."""
    rows, columns = np.mgrid[:24, :24] // 6
    picture = picture.copy()
    picture[42:66, x - 12 : x + 12] = np.where((rows + columns) % 2, 240, 20)
    return picture


@pytest.mark.parametrize(("yaw_deg", "step"), [(2.0, -4), (-2.0, 5), (0.0, 4), (1.0, 0)])
def test_a_thing_with_most_corners_is_not_taken_for_the_camera(yaw_deg, step):
    """The world has none: corners would follow the board, and find the world moving by 4 to 10 pixels."""
    before, after = scene(np.array([0.0, yaw_deg]), None)[..., 0]
    before, after = board(before, 60), board(after, 60 + step)
    assert_camera(before, after, np.linalg.inv(turn(yaw_deg)))
    columns = motion.motion_of(np.repeat(np.stack([before, after])[..., None], 3, axis=-1))[0]
    places = (np.arange(motion.COLUMNS) + 0.5) * WIDTH / motion.COLUMNS
    about = np.abs(places - 60) < 12 + abs(step) + 4
    assert columns[about].sum() > 0.95 * columns.sum() and columns[about].mean() > 2


@pytest.mark.parametrize("shift", [12, 20, -20])
def test_a_fast_pan_is_followed(shift):
    wide = world()
    before, after = (np.round(wide[:, WIDTH - by : 2 * WIDTH - by]).astype(np.uint8) for by in (0, shift))
    assert_camera(before, after, np.array([[1, 0, -shift], [0, 1, 0], [0, 0, 1]]))
    left_over, plain = residual(before, after), np.abs(before.astype(float) - after)
    assert left_over.mean() < 0.03 < 5 < plain.mean()


def test_a_thing_is_found_in_a_fast_pan():
    """The world goes 20 pixels to the right, a disc 6 to the left: the sharpest thing is not the camera."""
    wide = world().astype(np.uint8)
    before, after = (np.ascontiguousarray(wide[:, WIDTH - by : 2 * WIDTH - by]) for by in (0, 20))
    for picture, x in ((before, 130), (after, 124)):
        cv2.circle(picture, (x, 40), 8, 255, -1)
    left_over = residual(before, after).sum(axis=0)
    near = np.abs(np.arange(WIDTH) - 137) < 24  # between where it is and where the world took it
    assert left_over[near].sum() > 0.99 * left_over.sum() and left_over[near].mean() > 100


def test_pictures_that_have_nothing_in_common_or_nothing_at_all():
    flat = np.full((HEIGHT, WIDTH), 90, np.uint8)
    np.testing.assert_array_equal(camera_motion(flat, flat), np.eye(3))
    noise = np.random.default_rng(0).integers(0, 255, (2, HEIGHT, WIDTH), np.uint8)
    assert np.isfinite(camera_motion(*noise)).all() and residual(*noise).mean() > 1
