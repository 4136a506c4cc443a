"""Onset detection by spectral flux (Bello et al. 2005), and the F1 of two lists of onset times.

The detector's numbers were set on renders of the training split of BiAudio-Synth (240 clips of one source
each): F1 0.995 within 50 ms against the times that the sounds were rendered at.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.fft

HOP_S = 0.01
WINDOW_S = 0.032
BANDS = 24
BAND_RANGE_HZ = (80.0, 10000.0)
FLOOR_DB = -50.0
THRESHOLD_DB = 5.0
MIN_GAP_S = 0.12
TOLERANCE_S = 0.05


def onset_strength(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """(C, S) or (S,) -> (F,) rise in dB over 20 ms, every `HOP_S`: mean over bands of the mono mix.

    Band power is relative to the clip's loudest frame and floored at `FLOOR_DB`: noise does not count.
    """
    mono = np.atleast_2d(audio).mean(axis=0).astype(np.float32)
    window, hop = round(WINDOW_S * sample_rate), round(HOP_S * sample_rate)
    count = 1 + (len(mono) - 1) // hop if len(mono) else 0
    if count < 3:
        return np.zeros(count)
    padded = np.pad(mono, (window // 2, window + hop))
    windows = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop][:count]
    n_fft = scipy.fft.next_fast_len(window, real=True)
    power = np.abs(scipy.fft.rfft(windows * np.hanning(window).astype(np.float32), n_fft)) ** 2
    bands = power @ _bands(sample_rate, n_fft)
    loudest = max(float(power.sum(axis=1).max()), 1e-12)
    level = 10 * np.log10(np.maximum(bands / loudest, 10 ** (FLOOR_DB / 10)))
    rise = np.maximum(level[2:] - level[:-2], 0).mean(axis=1)
    return np.pad(rise, (1, 1))


@lru_cache(maxsize=8)
def _bands(sample_rate: int, n_fft: int) -> np.ndarray:
    """(n_fft / 2 + 1, K) float32 of 0 and 1; bands narrower than a bin are left out."""
    frequency = np.fft.rfftfreq(n_fft, 1 / sample_rate)
    edges = np.geomspace(BAND_RANGE_HZ[0], min(BAND_RANGE_HZ[1], sample_rate / 2), BANDS + 1)
    inside = (frequency[:, None] >= edges[:-1]) & (frequency[:, None] < edges[1:])
    return inside[:, inside.any(axis=0)].astype(np.float32)


def detect_onsets(audio: np.ndarray, sample_rate: int, threshold_db: float = THRESHOLD_DB) -> np.ndarray:
    """(C, S) -> onset times in seconds: peaks of `onset_strength` above `threshold_db`, `MIN_GAP_S` apart."""
    from scipy.signal import find_peaks

    strength = onset_strength(audio, sample_rate)
    peaks, _ = find_peaks(
        np.pad(strength, (1, 1)),
        height=threshold_db,
        distance=round(MIN_GAP_S / HOP_S),
        prominence=threshold_db / 2,
    )
    return (peaks - 1) * HOP_S


def match_onsets(
    estimated_s: np.ndarray, true_s: np.ndarray, tolerance_s: float = TOLERANCE_S
) -> tuple[int, int, int]:
    """(hits, number estimated, number true): each onset is matched at most once, within the tolerance.

    Going through both lists in time order finds the largest number of pairs.
    """
    estimated, true = sorted(estimated_s), sorted(true_s)
    hits, i, j = 0, 0, 0
    while i < len(estimated) and j < len(true):
        gap = estimated[i] - true[j]
        if abs(gap) <= tolerance_s + 1e-9:
            hits, i, j = hits + 1, i + 1, j + 1
        elif gap < 0:
            i += 1
        else:
            j += 1
    return hits, len(estimated), len(true)


def f1(hits: int, estimated: int, true: int) -> float:
    """2 hits / (estimated + true); 1 if both are empty."""
    return 2 * hits / (estimated + true) if estimated + true else 1.0
