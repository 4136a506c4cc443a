"""Pictures of a drawn world, poor in texture, that a turning camera sees, and a disc that moves in them."""

import cv2
import numpy as np

from bi_audio_dataset.sphere import focal_length_px, rotation_matrix

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
