"""Loudness after ITU-R BS.1770-5 and EBU R 128, and one gain for both ears that brings sounds to one level.

Integrated loudness of two channels: K weighting (a shelf for the head, a high pass), mean square over blocks
of 0.4 s that overlap by three quarters, gates at -70 LUFS and 10 LU below what passed the first. The filters
are the recommendation's at 48 kHz and of the same analogue form at other rates (bilinear transform).

Legend: audio (2, S), B blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import scipy.signal
import soxr

TARGET_LUFS = -23.0
PEAK_DBFS = -1.0
BLOCK_S, STEP = 0.4, 0.25
ABSOLUTE_GATE, RELATIVE_GATE = -70.0, -10.0
OFFSET_DB = -0.691
OVERSAMPLING = 4


def loudness_lufs(audio: np.ndarray, sample_rate: int) -> float:
    """Integrated loudness; -inf where nothing passes the gates. A sound shorter than a block is one block."""
    weighted = np.asarray(audio, np.float64)
    for numerator, denominator in _weighting(sample_rate):
        weighted = scipy.signal.lfilter(numerator, denominator, weighted, axis=-1)
    block = min(round(BLOCK_S * sample_rate), weighted.shape[1])
    if not block:
        return -math.inf
    total = np.concatenate([np.zeros((len(weighted), 1)), np.cumsum(weighted**2, axis=1)], axis=1)
    starts = np.arange(0, weighted.shape[1] - block + 1, max(1, round(STEP * BLOCK_S * sample_rate)))
    power_B = ((total[:, starts + block] - total[:, starts]) / block).sum(axis=0)
    power_B = power_B[_level(power_B) > ABSOLUTE_GATE]
    if not power_B.size:
        return -math.inf
    gate = _level(power_B.mean()) + RELATIVE_GATE
    return float(_level(power_B[_level(power_B) > gate].mean()))


def true_peak(audio: np.ndarray, sample_rate: int) -> float:
    """Largest magnitude between the samples too, four times oversampled."""
    audio = np.ascontiguousarray(np.asarray(audio, np.float32).T)
    if not audio.size:
        return 0.0
    between = soxr.resample(audio, sample_rate, OVERSAMPLING * sample_rate)
    return float(max(np.abs(audio).max(), np.abs(between).max()))


def matching_gains_db(loudness: Sequence[float], peaks: Sequence[float]) -> tuple[list[float], float]:
    """Gains that bring sounds to one loudness, and that loudness: TARGET_LUFS, or as much less as the
    sound with the highest peak for its loudness needs to stay below PEAK_DBFS. A silent one keeps gain 0."""
    heard = [(level, peak) for level, peak in zip(loudness, peaks, strict=True) if math.isfinite(level)]
    reachable = [level + PEAK_DBFS - 20 * math.log10(peak) for level, peak in heard if peak > 0]
    target = min([TARGET_LUFS, *reachable])
    return [target - level if math.isfinite(level) else 0.0 for level in loudness], target


def _level(power: np.ndarray | float) -> np.ndarray:
    return OFFSET_DB + 10 * np.log10(np.maximum(power, 1e-30))


@lru_cache(maxsize=16)
def _weighting(sample_rate: int) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Numerators and denominators of the two filters. At 48 kHz they are the recommendation's tables 1 and 2;
    the corner frequencies, qualities and gain below are those tables' own, solved for the analogue form."""
    return (
        _shelf(1681.974450955533, 0.7071752369554196, 3.999843853973347, sample_rate),
        _high_pass(38.13547087602444, 0.5003270373238773, sample_rate),
    )


def _shelf(corner_hz: float, quality: float, gain_db: float, rate: int) -> tuple[np.ndarray, np.ndarray]:
    k = math.tan(math.pi * corner_hz / rate)
    high = 10 ** (gain_db / 20)
    band = high**0.4996667741545416
    a0 = 1 + k / quality + k * k
    numerator = [high + band * k / quality + k * k, 2 * (k * k - high), high - band * k / quality + k * k]
    denominator = [a0, 2 * (k * k - 1), 1 - k / quality + k * k]
    return np.array(numerator) / a0, np.array(denominator) / a0


def _high_pass(corner_hz: float, quality: float, rate: int) -> tuple[np.ndarray, np.ndarray]:
    k = math.tan(math.pi * corner_hz / rate)
    a0 = 1 + k / quality + k * k
    return np.array([1.0, -2.0, 1.0]), np.array([a0, 2 * (k * k - 1), 1 - k / quality + k * k]) / a0
