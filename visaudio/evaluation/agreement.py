"""How far a cue over time agrees with the reference's: sums over frames, which pool by adding.

A clip's row holds the sums of its counted frames under `NAME.KEY`; the sums of many clips give the pooled
figures. A clip with no counted frame adds zeros and has no figures of its own (nan).

Legend: F counted frames, x the reference, y the generated.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

KEYS = ("n", "x", "y", "xx", "yy", "xy", "error")


def sums(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """(F,), (F,) -> the sums of KEYS; error is of |y - x|."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    values = (x.size, x.sum(), y.sum(), x @ x, y @ y, x @ y, np.abs(y - x).sum())
    return dict(zip(KEYS, map(float, values), strict=True))


def mean_error(total: Mapping[str, float]) -> float:
    """Mean absolute error; nan without a frame."""
    return total["error"] / total["n"] if total["n"] else float("nan")


def correlation(total: Mapping[str, float], least_spread: float) -> float:
    """Pearson r. nan where the reference's standard deviation is below least_spread: there is nothing to
    follow. 0 where the generated one does not vary: it follows nothing."""
    n = total["n"]
    if n < 2:
        return float("nan")
    x_spread = max(total["xx"] / n - (total["x"] / n) ** 2, 0.0) ** 0.5
    y_spread = max(total["yy"] / n - (total["y"] / n) ** 2, 0.0) ** 0.5
    if x_spread < least_spread:
        return float("nan")
    if y_spread < 1e-3 * least_spread:
        return 0.0
    covariance = total["xy"] / n - total["x"] * total["y"] / n**2
    return float(np.clip(covariance / (x_spread * y_spread), -1.0, 1.0))


# -------------------- angles


def wrapped(angle_rad: np.ndarray) -> np.ndarray:
    """The same angle within [-pi, pi)."""
    return (angle_rad + np.pi) % (2 * np.pi) - np.pi


def circular_correlation(
    x_rad: np.ndarray, y_rad: np.ndarray, counted: np.ndarray, least_spread: float
) -> float:
    """(F, B) angles, (F, B) bool -> correlation over time, mean over bands: nan and 0 as in `correlation`.

    Jammalamadaka and SenGupta, "Topics in Circular Statistics" (2001), eq. 8.2.2: that of the sines of what
    an angle is off its band's circular mean. 1 if y is x plus a constant, -1 if it is a constant less x.
    """
    found = []
    for x, y, use in zip(x_rad.T, y_rad.T, counted.T, strict=True):
        if use.sum() < 2:
            continue
        p, q = (np.sin(a[use] - np.angle(np.exp(1j * a[use]).mean())) for a in (x, y))
        p_power, q_power = p @ p, q @ q
        if p_power < least_spread**2 * p.size:
            continue
        varies = q_power > (1e-3 * least_spread) ** 2 * q.size
        found.append(float(p @ q / np.sqrt(p_power * q_power)) if varies else 0.0)
    return float(np.mean(found)) if found else float("nan")
