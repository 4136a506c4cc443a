"""Equirectangular panorama -> perspective view (conventions: sphere.py)."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from .sphere import focal_length_px, view_directions

#: A panorama denser than this many times the view's centre is shrunk first, so that it does not alias.
MAX_DENSITY = 1.5


class Viewport:
    """A lens: renders views of `width` x `height` from panoramas of `pano_w` x `pano_h`.

    The rays are computed once. Interpolation is bilinear and wraps around the panorama's seam; a
    panorama with more than 1.5 times the view's pixels per radian is first area-averaged down to the
    view's own density (at the view's centre; towards the edges a perspective view is denser still).
    """

    def __init__(self, width: int, height: int, hfov_rad: float, pano_w: int, pano_h: int) -> None:
        self.width, self.height, self.hfov_rad = width, height, hfov_rad
        self.pano_w, self.pano_h = pano_w, pano_h
        self._rays = view_directions(width, height, hfov_rad).reshape(-1, 3).T.astype(np.float32)
        density = (pano_w / (2 * np.pi)) / focal_length_px(width, hfov_rad)
        shrink = density if density > MAX_DENSITY else 1.0
        self._source_w = max(1, round(pano_w / shrink))
        self._source_h = max(1, round(pano_h / shrink))

    def maps(self, rotation: NDArray[np.floating]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Source coordinates (u, v), each (height, width), for cv2.remap; u is one seam column up."""
        x, y, z = np.asarray(rotation, dtype=np.float32) @ self._rays
        azimuth = cv2.phase(x, y).reshape(-1)  # in [0, 2 pi), counter-clockwise
        elevation = np.arcsin(np.clip(z, -1.0, 1.0))
        # Half a turn less the azimuth, in columns; the padded column 0 repeats the last one.
        u = (0.5 - azimuth * np.float32(0.5 / np.pi)) * self._source_w - 0.5
        u = np.where(u < -0.5, u + self._source_w, u) + 1.0
        v = (0.5 - elevation * np.float32(1 / np.pi)) * self._source_h - 0.5
        v = np.clip(v, 0.0, self._source_h - 1.0)
        shape = (self.height, self.width)
        return u.astype(np.float32).reshape(shape), v.astype(np.float32).reshape(shape)

    def render(self, frame: NDArray[np.uint8], rotation: NDArray[np.floating]) -> NDArray[np.uint8]:
        """The view (height, width, 3) of panorama `frame` (pano_h, pano_w, 3) by a camera-to-world matrix."""
        if frame.shape[:2] != (self.pano_h, self.pano_w):
            raise ValueError(
                f"this viewport is for panoramas of {self.pano_w}x{self.pano_h}, got a frame of "
                f"{frame.shape[1]}x{frame.shape[0]}: make a Viewport for that size"
            )
        if (self._source_h, self._source_w) != frame.shape[:2]:
            frame = cv2.resize(frame, (self._source_w, self._source_h), interpolation=cv2.INTER_AREA)
        # BORDER_WRAP inside remap is slow and also wraps the poles: two more columns do the seam alone.
        padded = cv2.copyMakeBorder(frame, 0, 0, 1, 1, cv2.BORDER_WRAP)
        return cv2.remap(padded, *self.maps(rotation), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


@lru_cache(maxsize=8)
def _cached_viewport(width: int, height: int, hfov_rad: float, pano_w: int, pano_h: int) -> Viewport:
    return Viewport(width, height, hfov_rad, pano_w, pano_h)


def render_view(
    frame: NDArray[np.uint8], rotation: NDArray[np.floating], hfov_rad: float, width: int, height: int
) -> NDArray[np.uint8]:
    """One view (height, width, 3) of a panorama (H, W, 3) u8; rays are kept between calls."""
    lens = _cached_viewport(width, height, float(hfov_rad), frame.shape[1], frame.shape[0])
    return lens.render(frame, rotation)
