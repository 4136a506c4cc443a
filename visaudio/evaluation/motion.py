"""What moves in a picture by itself: motion left over when the camera's own is taken out, column by column.

Of two pictures `1 / rate_hz` apart the first is warped onto the second by one homography (what a turning
camera does to anything far away), fitted by RANSAC to tracked corners. What still differs, and by more than
half a pixel of misfit explains, is motion of things. Legend: F pairs, X columns, H W pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bi_audio_dataset import media

RATE_HZ = 10.0
SIZE = (192, 108)  # pictures are squashed to it; columns keep their meaning
COLUMNS = 64
MISFIT_PX = 0.5
NOISE = 4.0  # of 255: what compression leaves
CORNERS = 200
MIN_INLIERS = 12


def column_motion(video: str | Path, duration_s: float, rate_hz: float = RATE_HZ) -> np.ndarray:
    """-> (F, X) float32: residual motion in pair k, between k / rate_hz and (k + 1) / rate_hz seconds.

    F as `cues.frames` counts over duration_s. Grey levels beyond the misfit, mean over each column's pixels.
    """
    count = round(duration_s * rate_hz)
    times = np.minimum(np.arange(count + 1) / rate_hz, max(0.0, duration_s - 1e-3))
    pictures = media.read_frames(str(video), times, size=SIZE, num_threads=1)
    return motion_of(pictures)


def motion_of(pictures: np.ndarray) -> np.ndarray:
    """(F + 1, H, W, 3) uint8 -> (F, X) float32."""
    import cv2

    grey = [cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) for p in pictures]
    width = pictures.shape[2]
    edges = np.linspace(0, width, COLUMNS + 1).round().astype(int)[:-1]
    share = np.diff(np.append(edges, width)) * pictures.shape[1]
    found = np.zeros((max(0, len(grey) - 1), COLUMNS), np.float32)
    for k, (before, after) in enumerate(zip(grey, grey[1:], strict=False)):
        left_over = residual(before, after)
        found[k] = np.add.reduceat(left_over.sum(axis=0), edges) / share
    return found


def residual(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(H, W), (H, W) uint8 -> (H, W) float32: difference that camera motion and misfit do not explain."""
    import cv2

    turn = camera_motion(before, after)
    height, width = after.shape
    soft = [cv2.GaussianBlur(x.astype(np.float32), (0, 0), 1.0) for x in (before, after)]
    if turn is not None:
        soft[0] = cv2.warpPerspective(soft[0], turn, (width, height), borderMode=cv2.BORDER_REPLICATE)
        seen = cv2.warpPerspective(np.ones_like(soft[0]), turn, (width, height))
    else:
        seen = np.ones_like(soft[0])
    slopes = [np.hypot(cv2.Sobel(x, cv2.CV_32F, 1, 0), cv2.Sobel(x, cv2.CV_32F, 0, 1)) / 8 for x in soft]
    slope = cv2.dilate(np.maximum(*slopes), np.ones((3, 3), np.uint8))
    beyond = np.abs(soft[1] - soft[0]) - MISFIT_PX * slope - NOISE
    return np.where(seen > 0.99, np.maximum(beyond, 0), 0).astype(np.float32)


def camera_motion(before: np.ndarray, after: np.ndarray) -> np.ndarray | None:
    """(3, 3) homography from `before` to `after`; None, a still camera, where too few corners agree."""
    import cv2

    corners = cv2.goodFeaturesToTrack(before, CORNERS, 0.005, 5)
    if corners is None or len(corners) < MIN_INLIERS:
        return None
    moved, found, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, None, winSize=(15, 15), maxLevel=3)
    kept = found[:, 0] == 1
    if kept.sum() < MIN_INLIERS:
        return None
    cv2.setRNGSeed(0)
    turn, inliers = cv2.findHomography(corners[kept], moved[kept], cv2.RANSAC, 1.0)
    if turn is None or inliers.sum() < MIN_INLIERS:
        return None
    return turn
