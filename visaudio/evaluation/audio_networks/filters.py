"""Mel filters, of the two scales that the published networks were trained with."""

from __future__ import annotations

import numpy as np


def htk_filters(size: int, rate: int, bands: int, low_hz: float, high_hz: float) -> np.ndarray:
    """(size // 2 + 1, bands) float32: triangles whose sides are straight over 1127 ln(1 + f / 700).

    As VGGish and Kaldi define them: heights of 1, and nothing from 0 Hz. size: of the transform.
    """
    bins = _htk(np.linspace(0, rate / 2, size // 2 + 1))
    edges = np.linspace(_htk(low_hz), _htk(high_hz), bands + 2)
    filters = _triangles(bins, edges)
    filters[0] = 0.0
    return filters.astype(np.float32)


def slaney_filters(size: int, rate: int, bands: int, low_hz: float, high_hz: float) -> np.ndarray:
    """(size // 2 + 1, bands) float32: triangles straight over Hz, edges equally apart on Slaney's scale.

    As librosa's default: each of an area of 1 Hz. PANNs' checkpoints carry them.
    """
    edges = _slaney_hz(np.linspace(_slaney(low_hz), _slaney(high_hz), bands + 2))
    filters = _triangles(np.linspace(0, rate / 2, size // 2 + 1), edges)
    return (filters * (2 / (edges[2:] - edges[:-2]))).astype(np.float32)


def _triangles(bins: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """bins (F,), edges (M + 2,) -> (F, M): 1 at each inner edge, 0 at its neighbours and beyond."""
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    up = (bins[:, None] - low) / (centre - low)
    down = (high - bins[:, None]) / (high - centre)
    return np.maximum(0.0, np.minimum(up, down))


def _htk(hz):
    return 1127.0 * np.log1p(np.asarray(hz, np.float64) / 700.0)


# Slaney's Auditory Toolbox: linear to 1 kHz (15 mels), then 27 mels for each factor of 6.4
_LINEAR_HZ, _BREAK_HZ, _STEP = 200 / 3, 1000.0, np.log(6.4) / 27


def _slaney(hz):
    hz = np.asarray(hz, np.float64)
    above = _BREAK_HZ / _LINEAR_HZ + np.log(np.maximum(hz, _BREAK_HZ) / _BREAK_HZ) / _STEP
    return np.where(hz < _BREAK_HZ, hz / _LINEAR_HZ, above)


def _slaney_hz(mel):
    mel = np.asarray(mel, np.float64)
    above = _BREAK_HZ * np.exp(_STEP * (mel - _BREAK_HZ / _LINEAR_HZ))
    return np.where(mel < _BREAK_HZ / _LINEAR_HZ, mel * _LINEAR_HZ, above)
