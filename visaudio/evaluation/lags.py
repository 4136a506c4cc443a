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

# An eighth of the period of the highest frequency (10 kHz): the parabola through three such points finds the
# delay of noise to 0.2 us (tests).
STEP_S = 12.5e-6
# Peaks lower than the largest by less than this share count as equal: at 10 kHz parabolas are off by 0.8 %.
TIE = 0.01


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
    """(F, D) -> delay in s and height of the largest peak, each (F,) float64.

    A parabola through each peak and its neighbours gives its height between the steps, and a fraction of a
    step; none at the ends of the range. Of peaks as good as equal (a tone's) the one nearest to 0 counts. A
    frame whose scores are all zero (an ear without sound) has delay 0.
    """
    scores = scores.astype(np.float64)
    before, middle, after = scores[:, :-2], scores[:, 1:-1], scores[:, 2:]
    slope, bend = after - before, 2 * middle - before - after
    is_peak = (middle >= before) & (middle >= after) & (bend > 0)
    bend = np.where(is_peak, bend, 1.0)
    heights = scores.copy()
    heights[:, 1:-1] += np.where(is_peak, slope**2 / (8 * bend), 0.0)
    far = np.abs(np.arange(scores.shape[1]) - scores.shape[1] // 2)
    most = heights.max(axis=1, keepdims=True)
    candidate = np.pad(is_peak, ((0, 0), (1, 1)), constant_values=True) & (heights >= (1 - TIE) * most)
    best = np.where(candidate, far, far.size).argmin(axis=1)
    rows, inner = np.arange(len(scores)), np.clip(best - 1, 0, scores.shape[1] - 3)
    inside = is_peak[rows, inner] & (best == inner + 1)
    offset = np.where(inside, 0.5 * slope[rows, inner] / bend[rows, inner], 0.0)
    delay = (best - scores.shape[1] // 2 + offset) * step_s
    return np.where(most[:, 0] > 0, delay, 0.0), most[:, 0]
