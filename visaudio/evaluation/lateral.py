"""From which lateral angle a binaural sound comes, frame by frame, by what a spherical head does to it.

For every angle t on a grid, the level differences of 16 bands are compared with those of the head, and the
phase difference below 1.5 kHz with the head's delay:

    J(t) = mean_b (ILD_b - ILD_b(t))^2 / (2 SIGMA_DB^2)
           - PHASE_WEIGHT Re sum_f X_f e^(j 2 pi f ITD(t, f)) / sum_f |X_f|

and the angle is the t with the least J. X is the cross spectrum of right and left; bands further than
`RANGE_DB` below the frame's strongest do not count. ILD_b(t): the one-pole, one-zero head shadow of Brown
and Duda (IEEE TSAP 1998, eqs. 3-6). ITD: Woodworth's (a / c)(t + sin t) at high frequencies and
3 (a / c) sin t at low ones (Kuhn, JASA 1977). One cue is not enough: levels alone are ambiguous beyond 60
degrees, where the shadow shrinks again, and the phase alone is wrong by whole periods.

One angle a frame, of whatever is loudest: no second source, no front and back, no height. Equal ears give
exactly 0. Set on renders of the training split of BiAudio-Synth; error: docs/metrics.md.

Legend: F frames, W window samples, K bins, B bands, A angles. Degrees, positive = left.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.fft

from visaudio.evaluation import cues

ANALYSIS_RATE_HZ = 22050
FRAME_RATE_HZ = 10.0
WINDOW_S = 0.2
GRID_DEG = np.arange(-90.0, 90.1, 2.0)
HEAD_RADIUS_M = 0.0875
SPEED_OF_SOUND = 343.0
BAND_EDGES_HZ = np.geomspace(200.0, 10000.0, 17)
PHASE_BAND_HZ = (100.0, 1500.0)
CROSSOVER_HZ = 1500.0  # as the builder's spherical head has it
RANGE_DB = 20.0
CLIP_DB = 25.0
SIGMA_DB = 3.0
PHASE_WEIGHT = 3.0


def lateral_deg(
    audio: np.ndarray, sample_rate: int, rate_hz: float = FRAME_RATE_HZ, window_s: float = WINDOW_S
) -> np.ndarray:
    """(2, S) -> (F,) lateral angle in degrees, positive left; frames as in `cues.frames`. Silence gives 0."""
    windows = cues.frames(audio, sample_rate, rate_hz, window_s)
    if not len(windows):
        return np.zeros(0)
    length = windows.shape[-1]
    spectrum = scipy.fft.rfft(windows * np.hanning(length), scipy.fft.next_fast_len(2 * length), axis=-1)
    frequency = np.fft.rfftfreq(scipy.fft.next_fast_len(2 * length), 1 / sample_rate)
    cost = _level_cost(np.abs(spectrum) ** 2, frequency) / (2 * SIGMA_DB**2)
    cost -= PHASE_WEIGHT * _phase_fit(spectrum, frequency)
    # of equal costs the angle nearest to the front: a frame without energy gives 0
    order = np.argsort(np.abs(GRID_DEG), kind="stable")
    return GRID_DEG[order][cost[:, order].argmin(axis=1)]


def is_active(
    audio: np.ndarray, sample_rate: int, rate_hz: float = FRAME_RATE_HZ, window_s: float = WINDOW_S,
    range_db: float = 30.0,
) -> np.ndarray:  # fmt: skip
    """(2, S) -> (F,) bool: above `cues.SILENCE_DBFS` and within `range_db` of the loudest frame."""
    level = cues.levels_db(audio, sample_rate, rate_hz=rate_hz, window_s=window_s).max(axis=1)
    return (level >= cues.SILENCE_DBFS) & (level >= level.max(initial=-np.inf) - range_db)


def _level_cost(power: np.ndarray, frequency: np.ndarray) -> np.ndarray:
    """(F, 2, K) -> (F, A) mean squared difference in dB^2 over the bands that count."""
    inside = (frequency[:, None] >= BAND_EDGES_HZ[:-1]) & (frequency[:, None] < BAND_EDGES_HZ[1:])
    band = power @ inside.astype(power.dtype)  # (F, 2, B)
    total = band.sum(axis=1)
    counts = total > total.max(axis=1, keepdims=True) * 10 ** (-RANGE_DB / 10)
    ild = 10 * np.log10(np.maximum(band[:, 0], 1e-20) / np.maximum(band[:, 1], 1e-20))
    ild = np.clip(ild, -CLIP_DB, CLIP_DB)
    squares = (ild[:, None] - _head_ild()[None]) ** 2 * counts[:, None]
    return squares.sum(axis=-1) / np.maximum(counts.sum(axis=-1), 1)[:, None]


def _phase_fit(spectrum: np.ndarray, frequency: np.ndarray) -> np.ndarray:
    """(F, 2, K) -> (F, A) in [-1, 1]: how well the head's delay explains the phase below 1.5 kHz."""
    band = (frequency >= PHASE_BAND_HZ[0]) & (frequency <= PHASE_BAND_HZ[1])
    cross = spectrum[:, 1, band] * np.conj(spectrum[:, 0, band])
    turn = 2 * np.pi * frequency[band][:, None] * itd_s(GRID_DEG, frequency[band][:, None])
    fit = cross.real @ np.cos(turn) - cross.imag @ np.sin(turn)
    return fit / np.maximum(np.abs(cross).sum(axis=1), 1e-20)[:, None]


def itd_s(lateral: np.ndarray, frequency: np.ndarray) -> np.ndarray:
    """Degrees, Hz -> the sphere's ITD in s, positive = left ear first: Kuhn's below, Woodworth's above."""
    angle, crossing_s = np.radians(lateral), HEAD_RADIUS_M / SPEED_OF_SOUND
    low, high = 3 * np.sin(angle), angle + np.sin(angle)
    return crossing_s * (high + (low - high) / (1 + (frequency / CROSSOVER_HZ) ** 4))


@lru_cache(maxsize=1)
def _head_ild() -> np.ndarray:
    """(A, B) dB, positive = left louder: mean over each band of the head's shadow."""
    frequency = np.geomspace(BAND_EDGES_HZ[0], BAND_EDGES_HZ[-1] * 0.999, 512)
    side = np.sin(np.radians(GRID_DEG))
    shadow = 20 * np.log10(_shadow(side, frequency) / _shadow(-side, frequency))
    band = np.searchsorted(BAND_EDGES_HZ, frequency, side="right") - 1
    return np.stack([shadow[:, band == b].mean(axis=1) for b in range(len(BAND_EDGES_HZ) - 1)], axis=1)


def _shadow(cosine: np.ndarray, frequency: np.ndarray) -> np.ndarray:
    """|H| (A, K) at an ear; cosine (A,) of the angle between source and ear."""
    degrees = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    alpha = 1.05 + 0.95 * np.cos(np.radians(degrees / 150 * 180))
    turn = 2 * np.pi * frequency * HEAD_RADIUS_M / (2 * SPEED_OF_SOUND)
    return np.abs((1 + 1j * alpha[:, None] * turn) / (1 + 1j * turn))
