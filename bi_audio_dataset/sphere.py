"""The angle convention of the whole project: angles, vectors, pixels and rotations.

Axes            x front, y left, z up (right-handed).
Azimuth         counter-clockwise seen from above, +90 degrees = left. Elevation: up is positive.
Units           radians inside; degrees only in manifests and on command lines.
Lateral angle   asin(sin az cos el), positive left: what ILD and ITD are compared with.
Camera          yaw positive to the left, pitch positive up, roll positive right ear down;
                camera-to-world R = Rz(yaw) Ry(-pitch) Rx(roll). The same R turns picture and sound:
                v_world = R v_camera.
Panorama        equirectangular; a growing column is a falling azimuth, the centre is azimuth 0, a
                growing row is a falling elevation.
Pixels          coordinates are pixel indices: u = i is the centre of pixel i, at (i + 0.5) / W of the
                width. The left edge of the picture is therefore u = -0.5.
View            perspective, square pixels, x_pixel grows to the right (towards -y), y_pixel grows down;
                hfov is the full horizontal angle between the picture's outer edges.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.floating]


def direction(azimuth_rad: ArrayLike, elevation_rad: ArrayLike) -> Array:
    """Unit vectors (..., 3) of broadcast azimuths and elevations."""
    azimuth, elevation = np.broadcast_arrays(
        np.asarray(azimuth_rad, dtype=np.float64), np.asarray(elevation_rad, dtype=np.float64)
    )
    horizontal = np.cos(elevation)
    return np.stack([np.cos(azimuth) * horizontal, np.sin(azimuth) * horizontal, np.sin(elevation)], axis=-1)


def angles(vector: ArrayLike) -> tuple[Array, Array]:
    """(azimuth_rad in [-pi, pi], elevation_rad) of vectors (..., 3) of any non-zero length."""
    v = np.asarray(vector, dtype=np.float64)
    return np.arctan2(v[..., 1], v[..., 0]), np.arctan2(v[..., 2], np.hypot(v[..., 0], v[..., 1]))


def lateral_angle(azimuth_rad: ArrayLike, elevation_rad: ArrayLike) -> Array:
    """Angle from the median plane in [-pi/2, pi/2], positive left."""
    return np.arcsin(np.clip(np.sin(azimuth_rad) * np.cos(elevation_rad), -1.0, 1.0))


def wrap_angle(angle_rad: ArrayLike) -> Array:
    """The same angle in [-pi, pi)."""
    return np.mod(np.asarray(angle_rad, dtype=np.float64) + np.pi, 2 * np.pi) - np.pi


def angle_between(a: ArrayLike, b: ArrayLike) -> Array:
    """Angle in radians between vectors (..., 3); accurate for small and for nearly opposite ones."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    return np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), np.sum(a * b, axis=-1))


def rotation_matrix(yaw_rad: ArrayLike, pitch_rad: ArrayLike = 0.0, roll_rad: ArrayLike = 0.0) -> Array:
    """Camera-to-world matrices (..., 3, 3) = Rz(yaw) Ry(-pitch) Rx(roll) of broadcast angles."""
    yaw, pitch, roll = np.broadcast_arrays(
        *(np.asarray(angle, dtype=np.float64) for angle in (yaw_rad, pitch_rad, roll_rad))
    )
    cy, sy, cp, sp, cr, sr = (
        np.cos(yaw),
        np.sin(yaw),
        np.cos(pitch),
        np.sin(pitch),
        np.cos(roll),
        np.sin(roll),
    )
    front = np.stack([cy * cp, sy * cp, sp], axis=-1)
    left = np.stack([-sy * cr - cy * sp * sr, cy * cr - sy * sp * sr, cp * sr], axis=-1)
    up = np.stack([sy * sr - cy * sp * cr, -cy * sr - sy * sp * cr, cp * cr], axis=-1)
    return np.stack([front, left, up], axis=-1)


def to_camera(vector: ArrayLike, rotation: ArrayLike) -> Array:
    """World vectors (..., 3) in the frame of cameras (..., 3, 3): R^T v."""
    return np.einsum("...ji,...j->...i", np.asarray(rotation), np.asarray(vector))


def pixel_to_angles(u: ArrayLike, v: ArrayLike, width: int, height: int) -> tuple[Array, Array]:
    """(azimuth_rad, elevation_rad) of equirectangular pixel coordinates (column u, row v)."""
    azimuth = np.pi - 2 * np.pi * (np.asarray(u, dtype=np.float64) + 0.5) / width
    elevation = np.pi / 2 - np.pi * (np.asarray(v, dtype=np.float64) + 0.5) / height
    return azimuth, elevation


def angles_to_pixel(
    azimuth_rad: ArrayLike, elevation_rad: ArrayLike, width: int, height: int
) -> tuple[Array, Array]:
    """Equirectangular (column u in [-0.5, width - 0.5), row v); the azimuth is wrapped first."""
    u = np.mod(0.5 - np.asarray(azimuth_rad, dtype=np.float64) / (2 * np.pi), 1.0) * width - 0.5
    v = (0.5 - np.asarray(elevation_rad, dtype=np.float64) / np.pi) * height - 0.5
    return u, v


def focal_length_px(width: int, hfov_rad: float) -> float:
    """Focal length in pixels of a view whose outer edges span hfov_rad (0 < hfov < pi)."""
    if not 0.0 < hfov_rad < np.pi:
        raise ValueError(f"hfov_rad must lie in (0, pi) for a perspective view, got {hfov_rad}")
    return 0.5 * width / float(np.tan(0.5 * hfov_rad))


def view_directions(width: int, height: int, hfov_rad: float) -> Array:
    """Unit vectors (height, width, 3) through the pixel centres of a view, in the camera frame."""
    focal = focal_length_px(width, hfov_rad)
    left = -(np.arange(width) + 0.5 - 0.5 * width) / focal
    up = -(np.arange(height) + 0.5 - 0.5 * height) / focal
    rays = np.stack(np.broadcast_arrays(1.0, left[None, :], up[:, None]), axis=-1)
    return rays / np.linalg.norm(rays, axis=-1, keepdims=True)


def direction_to_view(
    vector: ArrayLike, width: int, height: int, hfov_rad: float
) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Pixel coordinates (x, y) of camera-frame vectors (..., 3), and whether they lie in front.

    Vectors behind the camera (x <= 0) give nan coordinates and in_front False.
    """
    v = np.asarray(vector, dtype=np.float64)
    focal = focal_length_px(width, hfov_rad)
    in_front = v[..., 0] > 1e-9
    depth = np.where(in_front, v[..., 0], np.nan)
    return (
        0.5 * width - 0.5 - focal * v[..., 1] / depth,
        0.5 * height - 0.5 - focal * v[..., 2] / depth,
        in_front,
    )


def fibonacci_sphere(count: int) -> Array:
    """Nearly uniform unit vectors (count, 3) on a golden spiral about z; each stands for 4 pi / count."""
    index = np.arange(count) + 0.5
    return direction(np.pi * (1 + 5**0.5) * index, np.arcsin(1 - 2 * index / count))
