"""Interaural cues of two-channel audio, frame by frame.

Conventions (DESIGN section 3): channel 0 is the left ear; ILD in dB, positive = left louder; ITD in seconds,
positive = left ear first. Frames are centred on (k + 1/2) / rate_hz: frame k belongs to truth sample k.

The first table (synth_benchmark.py), validation while training and the report's pictures hear by this file,
whose published numbers must not move; the suite's measures of space hear by interaural.py, which has IPD and
IACC too, counts silence against the sound's own level, and takes one pass for all of it.

Legend: S samples, F frames, W window samples, K bins, G delays tried.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.fft

FRAME_RATE_HZ = 25.0
WINDOW_S = 0.08
SILENCE_DBFS = -60.0
MAX_ITD_S = 1.0e-3
ITD_STEP_S = 5e-6
GCC_BAND_HZ = (50.0, 10000.0)
# Bins further below the frame's strongest do not count: with them, the room's diffuse noise puts the delay of
# half the frames at 0. Set on training renders against Woodworth's formula: r 0.14 with all bins, 0.29 so.
GCC_RANGE_DB = 20.0
PHASE_BAND_HZ = (100.0, 1500.0)


def frames(
    audio: np.ndarray, sample_rate: int, rate_hz: float = FRAME_RATE_HZ, window_s: float = WINDOW_S
) -> np.ndarray:
    """(2, S) -> (F, 2, W): windows of `window_s` centred on (k + 1/2) / rate_hz, zeros beyond the ends."""
    audio = np.asarray(audio, np.float64)
    if audio.ndim != 2 or audio.shape[0] != 2:
        raise ValueError(f"expected audio of shape (2, samples), got {audio.shape}")
    window = round(window_s * sample_rate)
    count = round(audio.shape[1] / sample_rate * rate_hz)
    starts = np.round((np.arange(count) + 0.5) / rate_hz * sample_rate - window / 2).astype(int)
    padded = np.pad(audio, ((0, 0), (window, 2 * window)))
    index = starts[:, None] + window + np.arange(window)[None]
    return padded[:, index].transpose(1, 0, 2)


def levels_db(audio: np.ndarray, sample_rate: int, **frame_settings) -> np.ndarray:
    """(2, S) -> (F, 2) RMS level in dBFS, at least -120."""
    power = (frames(audio, sample_rate, **frame_settings) ** 2).mean(axis=-1)
    return 10 * np.log10(np.maximum(power, 1e-12))


def ild_db(audio: np.ndarray, sample_rate: int, **frame_settings) -> np.ndarray:
    """(2, S) -> (F,) interaural level difference in dB, positive = left louder.

    A floor at `SILENCE_DBFS` is added to both ears' powers, so that silence has ILD 0 and never infinity.
    """
    power = (frames(audio, sample_rate, **frame_settings) ** 2).mean(axis=-1) + 10 ** (SILENCE_DBFS / 10)
    return 10 * np.log10(power[:, 0] / power[:, 1])


def is_silent(audio: np.ndarray, sample_rate: int, **frame_settings) -> np.ndarray:
    """(2, S) -> (F,) bool: the louder ear is below `SILENCE_DBFS`."""
    return levels_db(audio, sample_rate, **frame_settings).max(axis=1) < SILENCE_DBFS


def itd_gcc_phat(
    audio: np.ndarray, sample_rate: int, band_hz: tuple[float, float] = GCC_BAND_HZ, **frame_settings
) -> np.ndarray:
    """(2, S) -> (F,) interaural time difference in seconds by GCC-PHAT (Knapp and Carter 1976).

    Each bin of the band within `GCC_RANGE_DB` of the strongest counts alike. Silent frames give 0.
    """
    return _best_delay(*_cross_spectrum(audio, sample_rate, band_hz, **frame_settings), whiten=True)


def itd_from_phase(
    audio: np.ndarray, sample_rate: int, band_hz: tuple[float, float] = PHASE_BAND_HZ, **frame_settings
) -> np.ndarray:
    """(2, S) -> (F,) ITD in seconds that best explains the interaural phase in `band_hz`, bins weighted by
    their energy: the part of the delay that hearing uses (fine structure, below about 1.5 kHz)."""
    return _best_delay(*_cross_spectrum(audio, sample_rate, band_hz, **frame_settings), whiten=False)


def _cross_spectrum(
    audio: np.ndarray, sample_rate: int, band_hz: tuple[float, float], **frame_settings
) -> tuple[np.ndarray, np.ndarray]:
    """(F, K) right times conjugate left, Hann-windowed, and the K frequencies in Hz.

    Left first by itd: right(t) = left(t - itd), so the phase is -2 pi f itd.
    """
    windows = frames(audio, sample_rate, **frame_settings)
    length = windows.shape[-1]
    n_fft = 1 << int(np.ceil(np.log2(2 * length)))
    spectrum = scipy.fft.rfft((windows * np.hanning(length)).astype(np.float32), n_fft)
    frequency = np.fft.rfftfreq(n_fft, 1 / sample_rate)
    band = (frequency >= band_hz[0]) & (frequency <= min(band_hz[1], 0.45 * sample_rate))
    return spectrum[:, 1, band] * np.conj(spectrum[:, 0, band]), frequency[band]


def _best_delay(cross: np.ndarray, frequency: np.ndarray, whiten: bool) -> np.ndarray:
    """The delay on a grid of `ITD_STEP_S` over +-`MAX_ITD_S` that maximises Re sum_k X_k exp(j 2 pi f_k itd).

    A small inverse Fourier transform near lag zero: as fine as one wishes, without a long zero-padded one.
    """
    if whiten:
        size = np.abs(cross)
        heard = size > size.max(axis=1, keepdims=True) * 10 ** (-GCC_RANGE_DB / 10)
        cross = np.where(heard, cross / np.maximum(size, 1e-15), 0)
    grid, cosine, sine = _delay_table(tuple(frequency))
    return grid[(cross.real @ cosine - cross.imag @ sine).argmax(axis=1)]


@lru_cache(maxsize=8)
def _delay_table(frequency: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Delays (G,) and cos, sin of 2 pi f delay (K, G) float32.

    The delays are sorted by magnitude, so that a frame without any energy (all score 0) gives 0.
    """
    steps = round(MAX_ITD_S / ITD_STEP_S)
    grid = np.array(sorted(np.arange(-steps, steps + 1) * ITD_STEP_S, key=abs))
    angle = 2 * np.pi * np.array(frequency)[:, None] * grid
    return grid, np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of two (N,) arrays; nan if either does not vary or N < 2."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.size < 2 or a.std() < 1e-9 or b.std() < 1e-9:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def side_correct(
    ild: np.ndarray, lateral_deg: np.ndarray, silent: np.ndarray, beyond_deg: float = 20.0
) -> tuple[int, int]:
    """(correct, counted) over frames with |lateral angle| > beyond_deg: sign of ILD against the true side.

    A silent frame counts as wrong. All arrays (F,).
    """
    counted = np.abs(lateral_deg) > beyond_deg
    right_side = (np.sign(ild) == np.sign(lateral_deg)) & ~silent
    return int((right_side & counted).sum()), int(counted.sum())
