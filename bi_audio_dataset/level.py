"""Levels of a clip's two ears: one gain for both, and how far the ears differ."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from bi_audio_dataset.render import QUIET, LevelConfig, decibel, normalise
from bi_audio_dataset.schema import AUDIO_RATE_HZ

if TYPE_CHECKING:
    from bi_audio_dataset.build_config import BuildConfig


def normalise_level(ears: np.ndarray, config: BuildConfig) -> tuple[np.ndarray, float]:
    """One gain for both ears, so ILD never changes: level to rms_dbfs, but true peak at most true_peak_dbfs
    and gain at most max_gain_db. (2, N) -> (2, N) float32, gain in dB. Silence is left as it is."""
    level = LevelConfig(config.level_measure, config.rms_dbfs, config.true_peak_dbfs, config.max_gain_db)
    return normalise(ears, AUDIO_RATE_HZ, level)


def lr_difference(ears: np.ndarray) -> float:
    """sum((L-R)^2) / (2 sum(L^2+R^2)): 0 for equal ears, 0.5 for uncorrelated ones, 1 for opposite."""
    left, right = ears.astype(np.float64)
    total = float(np.sum(left**2 + right**2))
    return float(np.sum((left - right) ** 2)) / (2 * total) if total > QUIET else 0.0


def rms_dbfs(audio: np.ndarray) -> float:
    """Of (C, N), all channels together."""
    return decibel(math.sqrt(float(np.mean(np.square(audio, dtype=np.float64)))))
