"""How far a two-channel sound's waveform is from its reference: the measures of "2.5D visual sound".

Gao and Grauman, "2.5D Visual Sound" (CVPR 2019), and their published evaluation: sounds at 16 kHz, the
complex STFT (FFT of 512, periodic Hann window of 400, hop of 160, centred, the ends mirrored), means over
time and frequency, sums over the two ears. Magnitude, phase of the difference signal and the SNR came with
Xu et al., "Visually Informed Binaural Audio Generation without Binaural Audios" (CVPR 2021) and those after
it. Equations: docs/metrics.md, "Space".

Nothing is normalised: levels count as they are. All of this asks for the waveform of the reference: it suits
mono-to-binaural conversion, and hardly a generated sound, whose waveform is another one even where it sounds
the same.

Legend: S samples at RATE_HZ, T frames of the STFT, K bins.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import scipy.fft

RATE_HZ = 16000
FFT_SIZE = 512
WINDOW = 400
HOP = 160
# Added to both powers of the SNR, as the field has it: it bounds the SNR of a quiet or perfect sound.
SNR_POWER = 1e-4
# A scale-invariant SNR beyond this is cut: 16 bits hold no more.
SI_SNR_LIMIT_DB = 60.0
# Frames of one block of the STFT: what is worked on stays in the processor's cache.
BLOCK = 100


def distances(generated: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """(2, S), (2, S) at RATE_HZ -> all figures; the longer one is cut; nan where there is no sample.

    stft_distance, magnitude_distance, phase_distance_rad, envelope_distance, wave_distance: 0 is equal.
    snr_db; si_snr_db: nan for a silent reference.
    """
    samples = min(generated.shape[1], reference.shape[1])
    generated, reference = (np.asarray(a[:, :samples], np.float32) for a in (generated, reference))
    if not samples:
        return dict.fromkeys(FIGURES, math.nan)
    error_power = float(np.mean(np.square(generated - reference), dtype=np.float64))
    reference_power = float(np.mean(np.square(reference), dtype=np.float64))
    return spectral_distances(generated, reference) | {
        "envelope_distance": envelope_distance(generated, reference),
        "wave_distance": 2 * error_power,  # the sum over ears of the mean over time
        "snr_db": 10 * math.log10((reference_power + SNR_POWER) / (error_power + SNR_POWER)),
        "si_snr_db": si_snr_db(generated, reference),
    }


FIGURES = (
    "stft_distance",
    "magnitude_distance",
    "phase_distance_rad",
    "envelope_distance",
    "wave_distance",
    "snr_db",
    "si_snr_db",
)


# -------------------- of the STFT


def spectral_distances(generated: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """(2, S), (2, S), S > 0 -> stft_distance, magnitude_distance, phase_distance_rad.

    The spectra of the two sounds are made block by block and never kept.
    """
    ours, theirs = frames(generated), frames(reference)
    complex_sum = magnitude_sum = phase_sum = 0.0
    for start in range(0, ours.shape[1], BLOCK):
        p, g = (_spectra(a[:, start : start + BLOCK]) for a in (ours, theirs))
        error = p - g
        complex_sum += float(np.sum(error.real**2 + error.imag**2, dtype=np.float64))
        magnitude_sum += float(np.sum((np.abs(p) - np.abs(g)) ** 2, dtype=np.float64))
        # both angles by themselves: a spectrum of zero has angle 0
        turn = np.abs(np.angle(p[0] - p[1]) - np.angle(g[0] - g[1]))
        phase_sum += float(np.sum(np.minimum(turn, np.float32(2 * np.pi) - turn), dtype=np.float64))
    count = ours.shape[1] * (FFT_SIZE // 2 + 1)
    return {
        "stft_distance": complex_sum / (2 * count),  # the mean runs over real and imaginary parts
        "magnitude_distance": magnitude_sum / count,
        "phase_distance_rad": phase_sum / count,
    }


def frames(audio: np.ndarray) -> np.ndarray:
    """(2, S) -> (2, T, WINDOW), a view: frame t is centred on sample t HOP; the ends are mirrored."""
    half = FFT_SIZE // 2
    padded = np.pad(audio, ((0, 0), (half, half)), mode="reflect")
    inner = padded[:, half - WINDOW // 2 : padded.shape[1] - half + WINDOW // 2]
    return np.lib.stride_tricks.sliding_window_view(inner, WINDOW, axis=1)[:, : audio.shape[1] + 1 : HOP]


def _spectra(windows: np.ndarray) -> np.ndarray:
    """(2, T, WINDOW) -> (2, T, K): those of frames of FFT_SIZE centred alike, but for a phase that only
    depends on the bin, and so leaves every distance as it is."""
    padded = np.zeros((*windows.shape[:2], FFT_SIZE), np.float32)
    np.multiply(windows, _hann(), out=padded[..., :WINDOW])
    return scipy.fft.rfft(padded)


@lru_cache(maxsize=1)
def _hann() -> np.ndarray:
    """Periodic."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)


# -------------------- of the waveform


def envelope_distance(generated: np.ndarray, reference: np.ndarray) -> float:
    """Sum over ears of the RMS difference of Hilbert envelopes."""
    difference = envelopes(generated) - envelopes(reference)
    return float(np.sqrt(np.mean(np.square(difference), axis=1, dtype=np.float64)).sum())


def envelopes(audio: np.ndarray) -> np.ndarray:
    """(2, S) -> (2, S) magnitude of the analytic signal, both ears by one complex transform: the Hilbert
    transform is real, so that of left + j right is the left's + j the right's."""
    samples = audio.shape[1]
    spectrum = scipy.fft.fft(audio[0] + 1j * audio[1])
    positive = (samples + 1) // 2  # bins 1 ... positive - 1 turn by -90 degrees; 0 and Nyquist vanish
    spectrum[1:positive] *= np.complex64(-1j)
    spectrum[samples // 2 + 1 :] *= np.complex64(1j)
    spectrum[0] = 0
    if samples % 2 == 0:
        spectrum[samples // 2] = 0
    turned = scipy.fft.ifft(spectrum, overwrite_x=True)
    return np.sqrt(audio**2 + np.stack([turned.real, turned.imag]) ** 2)


def si_snr_db(generated: np.ndarray, reference: np.ndarray) -> float:
    """SNR after the one gain for both ears that suits best, within +-SI_SNR_LIMIT_DB."""
    energy = float(np.sum(np.square(reference), dtype=np.float64))
    if energy <= 0:
        return math.nan
    own = float(np.sum(np.square(generated), dtype=np.float64))
    shared = float(np.sum(generated * reference, dtype=np.float64))
    likeness = shared**2 / (energy * own) if own > 0 else 0.0
    least = 10 ** (-SI_SNR_LIMIT_DB / 10)
    return 10 * math.log10(max(likeness, least) / max(1 - likeness, least))
