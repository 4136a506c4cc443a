"""Spectrogram pictures of both ears, drawn with NumPy and Pillow alone.

Rows are bands of equal width on the mel scale (O'Shaughnessy's formula); colours go from dark blue to pale
yellow through grey, made in OKLab so that lightness grows evenly with the level: it reads alike for
colour-blind readers, in print, and on light and dark pages.

Legend: S samples, T frames, K bins, M bands.
"""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
import scipy.fft

WINDOW_S = 0.032
RANGE_DB = 70.0
TOP_HZ = 16000.0
BANDS = 80
COLUMNS = 320


def mel(frequency_hz: np.ndarray | float) -> np.ndarray:
    return 2595.0 * np.log10(1 + np.asarray(frequency_hz, np.float64) / 700.0)


def levels_db(audio: np.ndarray, sample_rate: int, duration_s: float) -> np.ndarray:
    """(2, S) -> (2, M, T) band power in dB, band 0 lowest, T = `COLUMNS` over `duration_s`; where the sound
    has ended the level is -inf."""
    audio = np.asarray(audio, np.float32)
    window = max(8, round(WINDOW_S * sample_rate))
    centres = (np.arange(COLUMNS) + 0.5) / COLUMNS * duration_s * sample_rate
    starts = np.round(centres - window / 2).astype(int)
    padded = np.pad(audio, ((0, 0), (window, window + max(0, int(starts[-1]) + window - audio.shape[1]))))
    index = starts[:, None] + window + np.arange(window)[None]
    # scaled so that a sine of full scale has 0 dB
    spectrum = np.abs(scipy.fft.rfft(padded[:, index] * np.hanning(window).astype(np.float32))) ** 2
    power = spectrum * (4 / np.hanning(window).sum() ** 2) @ _bands(window, sample_rate)
    levels = 10 * np.log10(power.transpose(0, 2, 1) + 1e-12)
    levels[:, :, centres >= audio.shape[1]] = -np.inf
    return levels


@lru_cache(maxsize=8)
def _bands(window: int, sample_rate: int) -> np.ndarray:
    """(K, M) weights: the mean power of the bins in each band, the nearest bin where none is inside."""
    frequency = np.fft.rfftfreq(window, 1 / sample_rate)
    edges = np.linspace(0, mel(TOP_HZ), BANDS + 1)
    places = mel(frequency)
    weights = np.zeros((len(frequency), BANDS), np.float32)
    for band in range(BANDS):
        inside = (places >= edges[band]) & (places < edges[band + 1])
        if edges[band] > mel(sample_rate / 2):
            continue  # above what the file can hold: drawn as silence
        if not inside.any():
            inside = np.arange(len(places)) == np.abs(places - (edges[band] + edges[band + 1]) / 2).argmin()
        weights[inside, band] = 1 / inside.sum()
    return weights


def png(levels: np.ndarray, top_db: float) -> bytes:
    """(M, T) dB -> a PNG of one pixel a value, low bands at the bottom, `RANGE_DB` below `top_db` shown."""
    from PIL import Image

    shown = np.clip((levels - top_db) / RANGE_DB + 1, 0, 1)
    picture = Image.fromarray(np.round(shown[::-1] * 255).astype(np.uint8), mode=None)
    picture = picture.convert("P") if picture.mode != "P" else picture
    picture.putpalette(colours().tobytes())
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return out.getvalue()


@lru_cache(maxsize=1)
def colours() -> np.ndarray:
    """(256, 3) uint8 sRGB. Lightness 0.16 to 0.96 in even steps, hue from blue to yellow through grey."""
    place = np.linspace(0, 1, 256)
    lightness = 0.16 + 0.80 * place
    # b of OKLab runs from blue to yellow; the ends are bent in where sRGB has less room
    b = np.interp(place, [0, 0.12, 0.5, 0.88, 1], [-0.07, -0.13, -0.03, 0.13, 0.09])
    a = np.interp(place, [0, 0.5, 1], [0.0, 0.015, -0.015])
    lms = np.stack(
        [
            lightness + 0.3963377774 * a + 0.2158037573 * b,
            lightness - 0.1055613458 * a - 0.0638541728 * b,
            lightness - 0.0894841775 * a - 1.2914855480 * b,
        ]
    )
    linear = (
        np.array(
            [
                [4.0767416621, -3.3077115913, 0.2309699292],
                [-1.2684380046, 2.6097574011, -0.3413193965],
                [-0.0041960863, -0.7034186147, 1.7076147010],
            ]
        )
        @ lms**3
    )
    linear = np.clip(linear, 0, 1)
    curve = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(curve.T * 255).astype(np.uint8)
