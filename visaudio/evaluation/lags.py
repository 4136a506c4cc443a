"""The interaural cross-correlation at fine delays, from the cross-spectrum, and where it is largest.

With X_k = R_k conj(L_k), sum_k Re(X_k exp(j 2 pi f_k d)) is the correlation of left(t) and right(t + d) in
the band of the bins k: a delay d > 0 means that the left ear is first. A small inverse Fourier transform
near lag zero: as fine as one wishes, without a long zero-padded one.

Legend: F frames, K bins, D delays of the grid.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from visaudio.evaluation.cues import MAX_ITD_S

# An eighth of the period of the highest frequency (10 kHz): the parabola through three such points finds a
# pure delay to 0.3 us and the height of a peak to 0.3 % (tests).
STEP_S = 12.5e-6


def delays_s(step_s: float = STEP_S) -> np.ndarray:
    """(D,) from -MAX_ITD_S to +MAX_ITD_S."""
    steps = round(MAX_ITD_S / step_s)
    return np.arange(-steps, steps + 1) * step_s


def correlation(cross: np.ndarray, frequency_hz: np.ndarray, step_s: float = STEP_S) -> np.ndarray:
    """(F, K) complex cross-spectrum -> (F, D) float32, not normalised."""
    cosine, sine = _table(frequency_hz.tobytes(), step_s)
    # cosine is even in the delay and sine odd: half of the table serves both signs
    even = np.ascontiguousarray(cross.real) @ cosine
    odd = np.ascontiguousarray(cross.imag) @ sine
    return np.concatenate([(even + odd)[:, :0:-1], even - odd], axis=1)


@lru_cache(maxsize=16)
def _table(frequency_hz: bytes, step_s: float) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin (K, (D + 1) / 2) float32 of 2 pi f d, d from 0 up; frequencies as float64 bytes."""
    steps = round(MAX_ITD_S / step_s)
    angle = 2 * np.pi * np.frombuffer(frequency_hz)[:, None] * (np.arange(steps + 1) * step_s)
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def peak(scores: np.ndarray, step_s: float = STEP_S) -> tuple[np.ndarray, np.ndarray]:
    """(F, D) -> delay in s and height of the largest score, each (F,) float64.

    A parabola through it and its neighbours gives a fraction of a step; none at the ends of the range. A
    frame whose scores are all zero (an ear without sound) has delay 0.
    """
    last = scores.shape[1] - 1
    best = scores.argmax(axis=1)
    rows = np.arange(len(scores))
    inner = (best > 0) & (best < last)
    middle = scores[rows, best].astype(np.float64)
    before = scores[rows, np.maximum(best - 1, 0)].astype(np.float64)
    after = scores[rows, np.minimum(best + 1, last)].astype(np.float64)
    bend = 2 * middle - before - after
    usable = inner & (bend > 0)
    offset = np.where(usable, 0.5 * (after - before) / np.where(usable, bend, 1.0), 0.0)
    height = middle + 0.25 * (after - before) * offset
    delay = (best - last // 2 + offset) * step_s
    return np.where(middle > 0, delay, 0.0), height
