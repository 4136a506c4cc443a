"""Sounds at two ears whose cues are known because they were put there: (2, S) float32, left first."""

import numpy as np


def noise(
    rate: int, seconds: float = 0.6, low_hz: float = 60.0, high_hz: float = 7000.0, seed: int = 0
) -> np.ndarray:
    """(S,) periodic noise of a band, RMS 0.1."""
    samples = round(seconds * rate)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(samples))
    frequency = np.fft.rfftfreq(samples, 1 / rate)
    spectrum[(frequency < low_hz) | (frequency > high_hz)] = 0
    signal = np.fft.irfft(spectrum, samples)
    return 0.1 * signal / signal.std()


def delayed(signal: np.ndarray, rate: int, delay_s: float) -> np.ndarray:
    """The periodic signal later by delay_s, to any fraction of a sample."""
    frequency = np.fft.rfftfreq(len(signal), 1 / rate)
    return np.fft.irfft(np.fft.rfft(signal) * np.exp(-2j * np.pi * frequency * delay_s), len(signal))


def ears(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.stack([left, right]).astype(np.float32)


def plane_wave(rate: int, itd_s: float = 0.0, ild_db: float = 0.0, **settings) -> np.ndarray:
    """Noise that reaches the left ear itd_s before the right one and ild_db louder."""
    signal, half = noise(rate, **settings), 10 ** (ild_db / 40)
    return ears(half * signal, delayed(signal, rate, itd_s) / half)


def tone(rate: int, frequency_hz: float, ipd_rad: float, seconds: float = 0.6) -> np.ndarray:
    """A tone whose left phase is ahead by ipd_rad."""
    phase = 2 * np.pi * frequency_hz * np.arange(round(seconds * rate)) / rate
    return ears(0.1 * np.cos(phase), 0.1 * np.cos(phase - ipd_rad))
