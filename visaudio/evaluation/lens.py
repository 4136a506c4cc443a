"""Azimuths and columns of a rectilinear picture. Left edge 0, right edge 1; degrees, positive = left."""

from __future__ import annotations

import numpy as np

from visaudio.evaluation.measures import Scene


def hfov_of(scene: Scene, default_deg: float) -> float:
    """The lens of the clip where its row says it."""
    known = scene.truth is not None and np.isfinite(scene.truth.hfov_deg)
    return float(scene.truth.hfov_deg) if known else default_deg


def column_of(azimuth_deg: np.ndarray, hfov_deg: float) -> np.ndarray:
    """Azimuth, positive left -> column of a rectilinear picture; below 0 or above 1 outside the view.

    u = 1/2 - tan(azimuth) / (2 tan(hfov / 2)); what is at the side or behind lies far outside, +-inf.
    """
    azimuth = np.asarray(azimuth_deg, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        column = 0.5 - np.tan(np.radians(azimuth)) / (2 * np.tan(np.radians(hfov_deg) / 2))
    beside = np.abs((azimuth + 180) % 360 - 180) >= 90 - 1e-9
    left = (azimuth + 180) % 360 - 180 > 0
    return np.where(beside, np.where(left, -np.inf, np.inf), column)
