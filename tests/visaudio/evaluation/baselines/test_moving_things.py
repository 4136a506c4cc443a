"""What moves in the picture under a moving camera, against scenes made here."""

import cv2
import numpy as np
import pytest

from bi_audio_dataset import media
from bi_audio_dataset.sphere import focal_length_px, rotation_matrix
from visaudio.evaluation.baselines.saliency import motion_path, of_moments
from visaudio.evaluation.picture_motion import camera_motion, residual

WIDTH, HEIGHT, FPS, HFOV = 192, 108, 12.5, np.radians(90)
FOCAL = focal_length_px(WIDTH, HFOV)
CAMERA = np.array([[FOCAL, 0, (WIDTH - 1) / 2], [0, FOCAL, (HEIGHT - 1) / 2], [0, 0, 1]])
AXES = np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]])  # right, down, forward of (front, left, up)


def turn(yaw_deg: float, pitch_deg: float = 0.0, roll_deg: float = 0.0) -> np.ndarray:
    """Homography of picture places when the camera turns from rest: v_camera = R^T v_world."""
    rotation = rotation_matrix(*np.radians([yaw_deg, pitch_deg, roll_deg])).T
    return CAMERA @ AXES @ rotation @ AXES.T @ np.linalg.inv(CAMERA)


def world(seed: int = 0) -> np.ndarray:
    """(H, 3 W) grey: soft noise over a horizon, few corners, as drawn scenes are."""
    rng = np.random.default_rng(seed)
    picture = (
        cv2.GaussianBlur(rng.uniform(0, 255, (HEIGHT, 3 * WIDTH)).astype(np.float32), (0, 0), 6) * 2 - 130
    )
    picture[HEIGHT // 2 :] -= 60
    return np.clip(picture, 0, 255).astype(np.float32)


def scene(yaw_deg: np.ndarray, blob_deg: np.ndarray | None) -> np.ndarray:
    """(T, H, W, 3) uint8: the world as the camera turns, and a disc at the camera's azimuth blob_deg (T,)."""
    shift = np.array([[1, 0, WIDTH], [0, 1, 0], [0, 0, 1]])
    pictures = []
    for k, yaw in enumerate(yaw_deg):
        picture = cv2.warpPerspective(
            world(), turn(yaw) @ np.linalg.inv(shift), (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE
        )
        picture = picture.astype(np.uint8)
        if blob_deg is not None:
            x = (WIDTH - 1) / 2 - FOCAL * np.tan(np.radians(blob_deg[k]))
            cv2.circle(picture, (round(x), 40 + 3 * (k % 3)), 6, 255, -1)
        pictures.append(picture)
    return np.repeat(np.stack(pictures)[..., None], 3, axis=-1)


@pytest.mark.parametrize("angles", [(2.0, 0, 0), (-3.0, 1.0, 0), (1.0, -1.0, 2.0)])
def test_the_cameras_motion_is_recovered(angles):
    before = scene(np.zeros(1), np.zeros(1))[0, ..., 0]
    after = cv2.warpPerspective(before, turn(*angles), (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE)
    found = camera_motion(before.astype(np.float32), after.astype(np.float32))
    scale = np.array([[WIDTH / 2, 0, (WIDTH - 1) / 2], [0, WIDTH / 2, (HEIGHT - 1) / 2], [0, 0, 1]])
    found = scale @ found @ np.linalg.inv(scale)  # in pixels: of `after` -> of `before`
    for place in ((40, 30, 1), (96, 54, 1), (150, 80, 1)):
        was, expected = found @ place, np.linalg.inv(turn(*angles)) @ place
        np.testing.assert_allclose(was[:2] / was[2], expected[:2] / expected[2], atol=0.5)


def test_a_turning_camera_alone_moves_nothing():
    still, moving = scene(np.array([0.0, 2.5]), None), scene(np.array([0.0, 2.5]), np.array([10.0, 4.0]))
    alone, with_disc = (residual(*(p[..., 0] for p in pair)) for pair in (still, moving))
    assert (alone**2).mean() < 0.05 < 5 < (with_disc**2).mean()


@pytest.mark.parametrize("camera", ["still", "turning"])
def test_the_path_follows_a_moving_disc(camera, tmp_path):
    count = 40
    yaw_deg = np.linspace(0, 40, count) if camera == "turning" else np.zeros(count)
    blob_deg = 30 * np.sin(np.linspace(0, 2 * np.pi, count))
    media.write_video(tmp_path / "a.mp4", scene(yaw_deg, blob_deg), FPS)
    path = motion_path(tmp_path / "a.mp4", 90.0)
    found = np.degrees(np.arcsin(path.at(np.arange(count) / FPS)[1]))
    assert np.corrcoef(found, blob_deg)[0, 1] > 0.97
    inner = slice(4, -4)
    assert np.sqrt(np.mean((found - blob_deg)[inner] ** 2)) < 8  # a second of smoothing lowers the peaks


def test_a_still_picture_leads_to_the_front(tmp_path):
    media.write_video(tmp_path / "a.mp4", scene(np.zeros(20), np.full(20, 35.0))[:1].repeat(20, axis=0), FPS)
    np.testing.assert_allclose(motion_path(tmp_path / "a.mp4").vectors, [[1, 0, 0]] * 20, atol=1e-6)


def test_the_wider_the_lens_the_farther_aside(tmp_path):
    media.write_video(tmp_path / "a.mp4", scene(np.zeros(25), np.full(25, 30.0)), FPS)
    narrow, wide = (motion_path(tmp_path / "a.mp4", hfov).vectors[:, 1].mean() for hfov in (60.0, 90.0))
    assert np.degrees(np.arcsin(wide)) == pytest.approx(30, abs=2)
    assert np.degrees(np.arcsin(narrow)) == pytest.approx(
        np.degrees(np.arctan(np.tan(np.pi / 6) ** 2)), abs=2
    )


def test_weak_motion_is_drawn_to_the_front():
    left = np.tile([0.0, 1.0, 0.0], (10, 1))
    strong, weak = (of_moments(np.full(10, w), w * left).vectors for w in (10.0, 0.001))
    assert strong[5, 1] > 0.99 and weak[5, 1] < 0.1 and len(strong) == 11
