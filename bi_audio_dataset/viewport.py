"""Equirectangular panorama -> perspective view (conventions: sphere.py).

What makes it quick: source coordinates are kept while the camera stands still, and only moved sideways while
it turns about the vertical alone; of the panorama only the part that is on view is touched; a panorama that
is much denser than the view is shrunk by whole numbers. ffmpeg's v360 takes commands between frames too, but
each one computes its whole map anew (benchmarks/viewport.py measures both).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from .sphere import focal_length_px, view_directions

#: A panorama denser than this many times the view's centre is shrunk first, so that it does not alias.
MAX_DENSITY = 1.5
#: Largest error of cv2.phase in radians (OpenCV 4 and 5).
PHASE_ERROR_RAD = 1.7e-4
#: cv2.phase will do where it errs by less than this many pixels; this is also the grid of fixed-point maps.
PIXEL_GRID = 1 / 32
#: Rows whose coordinates are computed together: the intermediate results stay in the cache.
BAND_ROWS = 32


@dataclass(frozen=True)
class _Aim:
    """What a pose needs: a part of the (shrunk) panorama, and maps into it for cv2.remap."""

    rows: slice
    columns: slice
    seam: bool  # the part is as wide as the panorama and gets one more column on each side
    maps: tuple[NDArray, NDArray]


class Viewport:
    """A lens: renders views of `width` x `height` from panoramas of `pano_w` x `pano_h`.

    Interpolation is bilinear and wraps around the panorama's seam. With `antialias`, a panorama of more than
    1.5 times the view's pixels per radian is first area-averaged to about the view's own density (at the
    view's centre; towards the edges a perspective view is denser still). Without, it is sampled as it is, as
    ffmpeg's v360 does.

    Small panoramas (up to 1154 columns: BiAudio-Synth's) take cv2.phase and maps in floating point, the way
    their datasets were first built, so that these rebuild to the same bytes; larger ones take exact
    arctangents and fixed-point maps.
    """

    def __init__(
        self, width: int, height: int, hfov_rad: float, pano_w: int, pano_h: int, antialias: bool = True
    ) -> None:
        self.width, self.height, self.hfov_rad = width, height, hfov_rad
        self.pano_w, self.pano_h = pano_w, pano_h
        density = (pano_w / (2 * np.pi)) / focal_length_px(width, hfov_rad)
        self.shrink = _shrink(pano_w, pano_h, density) if antialias else 1
        # No whole number will do: all of the panorama goes to the view's own density.
        self._resampled = self.shrink == 0
        self._source_w = max(1, round(pano_w / (self.shrink or density)))
        self._source_h = max(1, round(pano_h / (self.shrink or density)))
        self.exact = self._source_w / (2 * np.pi) * PHASE_ERROR_RAD > PIXEL_GRID
        rays = view_directions(width, height, hfov_rad)
        if self.exact:
            # Scaled to x = 1, a ray is (1, left of its column, up of its row).
            self._left = (rays[0, :, 1] / rays[0, :, 0]).astype(np.float32)
            self._up = (rays[:, 0, 2] / rays[:, 0, 0]).astype(np.float32)
        else:
            self._rays = rays.reshape(-1, 3).T.astype(np.float32)
        self._base: tuple[NDArray, NDArray, NDArray] | None = None  # rotation and maps of the last computed
        self._last: tuple[NDArray, _Aim] | None = None

    def maps(self, rotation: NDArray[np.floating]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Source coordinates (u, v), each (height, width), for cv2.remap; u is one seam column up."""
        rotation = np.asarray(rotation, dtype=np.float64)
        if not self.exact:
            return self._quick_maps(rotation)
        base = self._base
        if base is not None and np.abs(rotation[2] - base[0][2]).max() < 1e-9:
            # The same height above the horizon in every pixel: a turn about the vertical, by this yaw.
            turn = rotation @ base[0].T
            u = base[1] - np.float32(np.arctan2(turn[1, 0], turn[0, 0]) * self._source_w / (2 * np.pi))
            u[u < 0.5] += self._source_w
            u[u > self._source_w + 0.5] -= self._source_w
            return u, base[2]
        u, v = self._exact_maps(rotation)
        self._base = (rotation.copy(), u, v)
        return u, v

    def _quick_maps(self, rotation: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        x, y, z = rotation.astype(np.float32) @ self._rays
        azimuth = cv2.phase(x, y).reshape(-1)  # in [0, 2 pi), counter-clockwise
        elevation = np.arcsin(np.clip(z, -1.0, 1.0))
        # Half a turn less the azimuth, in columns; the padded column 0 repeats the last one.
        u = (0.5 - azimuth * np.float32(0.5 / np.pi)) * self._source_w - 0.5
        u = np.where(u < -0.5, u + self._source_w, u) + 1.0
        v = (0.5 - elevation * np.float32(1 / np.pi)) * self._source_h - 0.5
        v = np.clip(v, 0.0, self._source_h - 1.0)
        shape = (self.height, self.width)
        return u.astype(np.float32).reshape(shape), v.astype(np.float32).reshape(shape)

    def _exact_maps(self, rotation: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        u, v = (np.empty((self.height, self.width), np.float32) for _ in range(2))
        across = (rotation[:, :1] + rotation[:, 1:2] * self._left).astype(np.float32)
        turns = rotation[:, 2].astype(np.float32)
        per_radian = np.float32([-self._source_w / (2 * np.pi), -self._source_h / np.pi])
        for top in range(0, self.height, BAND_ROWS):
            band = slice(top, top + BAND_ROWS)
            x, y, z = (across[axis] + turns[axis] * self._up[band, None] for axis in range(3))
            np.arctan2(y, x, out=u[band])
            u[band] *= per_radian[0]
            u[band] += np.float32(0.5 * self._source_w + 0.5)
            np.arctan2(z, np.sqrt(x * x + y * y), out=v[band])
            v[band] *= per_radian[1]
            v[band] += np.float32(0.5 * self._source_h - 0.5)
            np.clip(v[band], 0.0, self._source_h - 1.0, out=v[band])
        return u, v

    def render(self, frame: NDArray[np.uint8], rotation: NDArray[np.floating]) -> NDArray[np.uint8]:
        """The view (height, width, 3) of panorama `frame` (pano_h, pano_w, 3) by a camera-to-world matrix."""
        if frame.shape[:2] != (self.pano_h, self.pano_w):
            raise ValueError(
                f"this viewport is for panoramas of {self.pano_w}x{self.pano_h}, got a frame of "
                f"{frame.shape[1]}x{frame.shape[0]}: make a Viewport for that size"
            )
        aim = self._aim(np.asarray(rotation, dtype=np.float64))
        part = self._part(frame, aim)
        if aim.seam:
            # BORDER_WRAP inside remap is slow and also wraps the poles: two more columns do the seam alone.
            part = cv2.copyMakeBorder(part, 0, 0, 1, 1, cv2.BORDER_WRAP)
        return cv2.remap(part, *aim.maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    def _part(self, frame: NDArray[np.uint8], aim: _Aim) -> NDArray[np.uint8]:
        """The part of the shrunk panorama that the pose looks at."""
        if self._resampled:
            frame = cv2.resize(frame, (self._source_w, self._source_h), interpolation=cv2.INTER_AREA)
        if self.shrink <= 1:
            return frame[aim.rows, aim.columns]
        rows, columns = (
            slice(part.start * self.shrink, part.stop * self.shrink) for part in (aim.rows, aim.columns)
        )
        size = (aim.columns.stop - aim.columns.start, aim.rows.stop - aim.rows.start)
        return cv2.resize(frame[rows, columns], size, interpolation=cv2.INTER_AREA)

    def _aim(self, rotation: NDArray[np.float64]) -> _Aim:
        last = self._last
        if last is not None and np.array_equal(last[0], rotation):
            return last[1]
        u, v = self.maps(rotation)
        # One pixel to spare on every side, and one for the second of two neighbours.
        rows = slice(max(0, int(v.min()) - 1), min(self._source_h, int(v.max()) + 3))
        columns = slice(max(0, int(u.min()) - 2), min(self._source_w, int(u.max()) + 2))
        seam = u.min() < 1 or u.max() > self._source_w
        if seam:
            columns = slice(0, self._source_w)
        # Whole numbers are taken off, which is exact: the fractions, and so the pixels, stay the same.
        maps = (u - np.float32(0 if seam else columns.start + 1), v - np.float32(rows.start))
        if self.exact:
            maps = cv2.convertMaps(*maps, cv2.CV_16SC2)
        aim = _Aim(rows, columns, bool(seam), maps)
        self._last = (rotation.copy(), aim)
        return aim


def _shrink(pano_w: int, pano_h: int, density: float) -> int:
    """The whole number to shrink by so that about `density` 1 is left: 1 for none; 0 where none fits."""
    if density <= MAX_DENSITY:
        return 1
    common = math.gcd(pano_w, pano_h)
    fitting = [k for k in range(2, math.ceil(density) + 1) if common % k == 0]
    fitting = [k for k in fitting if 1 / MAX_DENSITY <= density / k <= MAX_DENSITY]
    return min(fitting, key=lambda k: abs(math.log(density / k)), default=0)


@lru_cache(maxsize=8)
def _cached_viewport(width: int, height: int, hfov_rad: float, pano_w: int, pano_h: int) -> Viewport:
    return Viewport(width, height, hfov_rad, pano_w, pano_h)


def render_view(
    frame: NDArray[np.uint8], rotation: NDArray[np.floating], hfov_rad: float, width: int, height: int
) -> NDArray[np.uint8]:
    """One view (height, width, 3) of a panorama (H, W, 3) u8; rays are kept between calls."""
    lens = _cached_viewport(width, height, float(hfov_rad), frame.shape[1], frame.shape[0])
    return lens.render(frame, rotation)
