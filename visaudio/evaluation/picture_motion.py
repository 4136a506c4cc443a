"""What moves in a picture by itself: the difference of two pictures that the camera's own motion leaves over.

A turning camera maps one picture onto the next by a homography. It is fitted here to all pixels, coarse to
fine, by Gauss-Newton steps whose weights fall with the misfit (Cauchy; iteratively reweighted), so that
the many still pixels outvote the moving things. Corners alone would not do: a drawn scene has few, most of
them on the things that move, while its horizon is one long edge. Such steps find only
what is a pixel or two away at the coarsest level, so a faster camera is looked for first, among all shifts
there by whole pixels. (Phase correlation does not do: it whitens, and follows the sharpest thing that moves.)

Legend: H W pixels. Pictures are grey, 0 to 255.
"""

from __future__ import annotations

import cv2
import numpy as np

LEVELS = 3  # each half as large as the one before
ITERATIONS = 4  # per level
LEAST_SCALE = 2.0  # grey levels of misfit that count fully: what compression leaves
MISFIT_PX = 0.5  # of the fit: differences that so small a shift explains do not count
NOISE = 4.0  # grey levels
DAMPING = 1e-4
FARTHEST = (1 / 6, 1 / 16)  # of the width to either side, up and down: shifts to start from


def residual(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(H, W), (H, W) uint8 -> (H, W) float32: grey levels beyond what camera, misfit and noise explain.

    0 where the earlier picture did not show the place.
    """
    old, new = (cv2.GaussianBlur(p.astype(np.float32), (0, 0), 1.0) for p in (before, after))
    warped, shown = warp(old, camera_motion(old, new))
    slope = np.maximum(np.hypot(*gradients(warped)), np.hypot(*gradients(new)))
    slope = cv2.dilate(slope, np.ones((3, 3), np.uint8))
    beyond = np.abs(warped - new) - MISFIT_PX * slope - NOISE
    return np.where(shown, np.maximum(beyond, 0), 0).astype(np.float32)


def camera_motion(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(3, 3) float64: places of `after` -> places of `before`, in halves of the width from the middle."""
    pyramid = [(before.astype(np.float32), after.astype(np.float32))]
    while len(pyramid) < LEVELS and min(pyramid[-1][0].shape) >= 32:
        pyramid.append(tuple(cv2.pyrDown(p) for p in pyramid[-1]))
    turn = _start(*pyramid[-1])
    for old, new in reversed(pyramid):
        for _ in range(ITERATIONS):
            step = _step(old, new, turn)
            turn = turn @ (np.eye(3) + step)
            turn /= turn[2, 2]
            if np.abs(step).max() < 1e-4:
                break
    return turn


def _start(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """(3, 3) to start from: of the shifts by whole pixels the one whose differences, by Cauchy's cost, are
    least; of equal ones the smallest.
    """
    height, width = new.shape
    across, down = (range(-round(share * width), round(share * width) + 1) for share in FARTHEST)
    shifts = sorted(((x, y) for x in across for y in down), key=lambda s: s[0] ** 2 + s[1] ** 2)
    costs = []
    for x, y in shifts:
        there = old[max(0, y) : height + min(0, y), max(0, x) : width + min(0, x)]
        here = new[max(0, -y) : height + min(0, -y), max(0, -x) : width + min(0, -x)]
        costs.append(np.log1p(((there - here) / LEAST_SCALE) ** 2).mean())
    start = np.eye(3)
    start[:2, 2] = np.array(shifts[int(np.argmin(costs))]) / (width / 2)
    return start


def _step(old: np.ndarray, new: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """(3, 3) the Gauss-Newton step (forward compositional) from `turn`; zero in its last corner."""
    warped, shown = warp(old, turn)
    slope_x, slope_y = gradients(warped)
    wrong = warped - new
    counts = shown & (np.hypot(slope_x, slope_y) > 0.5)
    if counts.sum() < 32:
        return np.zeros((3, 3))
    half = new.shape[1] / 2
    x, y = (axis[counts] for axis in _places(new.shape))
    across, down, wrong = slope_x[counts] * half, slope_y[counts] * half, wrong[counts]
    along = across * x + down * y
    jacobian = np.stack([across * x, across * y, across, down * x, down * y, down, -along * x, -along * y])
    scale = max(LEAST_SCALE, 1.48 * float(np.median(np.abs(wrong))))
    weighted = jacobian / (1 + (wrong / scale) ** 2)
    normal = weighted @ jacobian.T
    normal[np.diag_indices(8)] += DAMPING * np.trace(normal) / 8
    return -np.append(np.linalg.solve(normal, weighted @ wrong), 0.0).reshape(3, 3)


def warp(picture: np.ndarray, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The picture (H, W) as `turn` moves it, and where (H, W) bool it shows something."""
    height, width = picture.shape
    scale = np.array([[width / 2, 0, (width - 1) / 2], [0, width / 2, (height - 1) / 2], [0, 0, 1]])
    matrix = scale @ turn @ np.linalg.inv(scale)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpPerspective(
        picture, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    shown = cv2.warpPerspective(np.ones_like(picture), matrix, (width, height), flags=flags) > 0.99
    return moved, shown


def gradients(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) grey levels per pixel to the right, and down."""
    return tuple(cv2.Sobel(picture, cv2.CV_32F, *order, scale=1 / 8) for order in ((1, 0), (0, 1)))


def _places(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """x and y (H, W) of the pixels, in halves of the width from the middle."""
    height, width = shape
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    return (columns - (width - 1) / 2) / (width / 2), (rows - (height - 1) / 2) / (width / 2)
