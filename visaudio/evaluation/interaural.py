"""What two ears hear, frame by frame, in one pass: level, ILD, ITD, IPD of bands, IACC.

Conventions (DESIGN section 3): channel 0 = left ear; ILD in dB, positive = left louder; ITD in seconds and
IPD in radians, positive = left ear first. Frames are those of `cues`: 80 ms, centred on (k + 1/2) / 25 Hz.
All sounds are heard at RATE_HZ, whatever rate they came at: enough for the delays' band of 50 Hz to 10 kHz.
Equations: docs/metrics.md, "Space".

One gain for both ears changes nothing here: what is quiet is measured against the sound's own loudest frame
(RANGE_DB), not against full scale. Only a sound that is hardly there (SILENCE_DBFS) is silent throughout.

Legend: S samples, F frames, W window samples, K bins, B bands.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft

from visaudio.evaluation import lags
from visaudio.evaluation.cues import (
    FRAME_RATE_HZ,
    GCC_BAND_HZ,
    GCC_RANGE_DB,
    PHASE_BAND_HZ,
    SILENCE_DBFS,
    WINDOW_S,
)

RATE_HZ = 24000
# Below the loudest frame, louder ear: a frame under it is silent, and both ears' powers get it as a floor. At
# the level of most clips (loudest frame at -15 dBFS) that is the SILENCE_DBFS of `cues`.
RANGE_DB = 45.0
# The floor never goes below this: what 16 bits add is at about -98 dBFS.
FLOOR_DBFS = -90.0
# Third octaves (centres 125 Hz to 1.26 kHz): above, hearing does not follow the phase of the fine structure.
IPD_CENTRES_HZ = tuple(125.0 * 2 ** (i / 3) for i in range(11))
# Bands of a frame this far below its strongest say nothing of their phase.
IPD_RANGE_DB = 30.0
# Those of Hidaka's IACC_3, by ISO 3382-1 (annex B): in 80 ms lower ones have too few periods to differ.
IACC_OCTAVES_HZ = (500.0, 1000.0, 2000.0)
# Frames worked on at a time.
BLOCK = 50


@dataclass(frozen=True)
class Cues:
    """Arrays (F,), of bands (F, B).

    level_db: louder ear, dBFS, at least -120. silent: see the head of this file; a silent frame has ILD, ITD,
    IPD and IACC 0. ipd_heard: the band is within IPD_RANGE_DB of the frame's strongest. iacc: band of the
    delays (50 Hz to 10 kHz); iacc_octaves: mean of IACC_OCTAVES_HZ.
    """

    level_db: np.ndarray
    silent: np.ndarray
    ild_db: np.ndarray
    itd_gcc_s: np.ndarray
    itd_phase_s: np.ndarray
    ipd_rad: np.ndarray
    ipd_heard: np.ndarray
    iacc: np.ndarray
    iacc_octaves: np.ndarray


def analyse(audio: np.ndarray) -> Cues:
    """(2, S) at RATE_HZ -> the cues of its frames; at least one frame where there is a sample."""
    audio = np.asarray(audio, np.float32)
    if audio.ndim != 2 or audio.shape[0] != 2:
        raise ValueError(f"expected audio of shape (2, samples), got {audio.shape}")
    windows = _windows(audio)
    power = _power(windows)
    loudest = power.max(axis=1, initial=0.0)
    floor = _floor(loudest)
    silent = loudest < floor
    # blocks that stay in the processor's cache take half the time of all frames at once
    starts = range(0, max(len(silent), 1), BLOCK)
    parts = [_block(windows[:, i : i + BLOCK], silent[i : i + BLOCK]) for i in starts]
    return Cues(
        level_db=10 * np.log10(np.maximum(loudest, 1e-12)),
        silent=silent,
        ild_db=np.where(silent, 0.0, 10 * np.log10((power[:, 0] + floor) / (power[:, 1] + floor))),
        **{name: np.concatenate([part[name] for part in parts]) for name in parts[0]},
    )


def _block(windows: np.ndarray, silent: np.ndarray) -> dict[str, np.ndarray]:
    """The cues of some frames (2, F, W) that need a spectrum."""
    window = windows.shape[-1]
    padded = np.zeros((*windows.shape[:2], _fft_size(window)), np.float32)
    np.multiply(windows, _hann(window), out=padded[..., :window])
    padded[:, silent] = 0
    left, right = scipy.fft.rfft(padded)
    cross = right * np.conj(left)
    energy = _square(left), _square(right)
    ipd_rad, ipd_heard = _ipd(cross, energy[0] + energy[1])
    return {
        "itd_gcc_s": _itd(_whitened(cross[:, bins(GCC_BAND_HZ)]), GCC_BAND_HZ),
        "itd_phase_s": _itd(cross[:, bins(PHASE_BAND_HZ)], PHASE_BAND_HZ),
        "ipd_rad": ipd_rad,
        "ipd_heard": ipd_heard,
        "iacc": _iacc(cross, energy, GCC_BAND_HZ),
        "iacc_octaves": np.mean([_iacc(cross, energy, octave(f)) for f in IACC_OCTAVES_HZ], axis=0),
    }


# -------------------- frames and their levels


def _windows(audio: np.ndarray) -> np.ndarray:
    """(2, S) -> (2, F, W), a view: the frames of `cues.frames`, zeros beyond the ends."""
    window, hop = round(WINDOW_S * RATE_HZ), round(RATE_HZ / FRAME_RATE_HZ)
    samples = audio.shape[1]
    count = max(1, round(samples / RATE_HZ * FRAME_RATE_HZ)) if samples else 0
    before = (window - hop) // 2  # frame k spans k hop - before ... + window
    if not count:
        return np.zeros((2, 0, window), np.float32)
    padded = np.zeros((2, (count - 1) * hop + window), np.float32)
    taken = min(samples, padded.shape[1] - before)
    padded[:, before : before + taken] = audio[:, :taken]
    return np.lib.stride_tricks.sliding_window_view(padded, window, axis=1)[:, ::hop]


def _power(windows: np.ndarray) -> np.ndarray:
    """(2, F, W) -> (F, 2) mean square, float64."""
    return np.einsum("efw,efw->fe", windows, windows).astype(np.float64) / windows.shape[-1]


def _floor(loudest: np.ndarray) -> float:
    """Power under which a frame is silent, from the louder ear's (F,): more than any in a silent sound."""
    most = loudest.max(initial=0.0)
    if most < 10 ** (SILENCE_DBFS / 10):
        return 10 ** (SILENCE_DBFS / 10)
    return max(most * 10 ** (-RANGE_DB / 10), 10 ** (FLOOR_DBFS / 10))


@lru_cache(maxsize=1)
def _hann(window: int) -> np.ndarray:
    return np.hanning(window).astype(np.float32)


# -------------------- bins and bands


def _fft_size(window: int) -> int:
    """As `cues` has it: what is correlated does not wrap around."""
    return 1 << int(np.ceil(np.log2(2 * window)))


@lru_cache(maxsize=1)
def frequencies_hz() -> np.ndarray:
    """(K,) of the frames' spectra."""
    return scipy.fft.rfftfreq(_fft_size(round(WINDOW_S * RATE_HZ)), 1 / RATE_HZ)


def bins(band_hz: tuple[float, float]) -> slice:
    """Bins within a band, both ends included."""
    frequency = frequencies_hz()
    return slice(
        int(np.searchsorted(frequency, band_hz[0])), int(np.searchsorted(frequency, band_hz[1], "right"))
    )


def octave(centre_hz: float, share: int = 1) -> tuple[float, float]:
    """Edges of an octave band, or of a third octave (share 3)."""
    half = 2 ** (1 / (2 * share))
    return centre_hz / half, centre_hz * half


def _square(spectrum: np.ndarray) -> np.ndarray:
    return spectrum.real**2 + spectrum.imag**2


# -------------------- cues of the cross-spectrum R conj(L) (F, K)


def _whitened(cross: np.ndarray) -> np.ndarray:
    """Each bin within GCC_RANGE_DB of the frame's strongest with size 1, the others 0 (see `cues`)."""
    size = np.abs(cross)
    heard = size > size.max(axis=1, keepdims=True, initial=0.0) * np.float32(10 ** (-GCC_RANGE_DB / 10))
    return np.where(heard, cross / np.maximum(size, np.float32(1e-30)), np.complex64(0))


def _itd(cross: np.ndarray, band_hz: tuple[float, float]) -> np.ndarray:
    """(F,) s."""
    return lags.peak(lags.correlation(cross, frequencies_hz()[bins(band_hz)]))[0]


def _iacc(
    cross: np.ndarray, energy: tuple[np.ndarray, np.ndarray], band_hz: tuple[float, float]
) -> np.ndarray:
    """(F,) max of |normalised cross-correlation| within 1 ms, in a band; 0 where an ear has no sound."""
    band = bins(band_hz)
    scores = np.abs(lags.correlation(cross[:, band], frequencies_hz()[band]))
    height = lags.peak(scores)[1]
    whole = np.sqrt(energy[0][:, band].sum(axis=1) * energy[1][:, band].sum(axis=1)).astype(np.float64)
    return np.where(whole > 0, np.minimum(height / np.where(whole > 0, whole, 1.0), 1.0), 0.0)


def _ipd(cross: np.ndarray, energy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """IPD (F, B) of third octaves in radians, and whether each is heard (F, B)."""
    bands = [bins(octave(centre, share=3)) for centre in IPD_CENTRES_HZ]
    total = np.stack([cross[:, band].sum(axis=1) for band in bands], axis=1)
    power = np.stack([energy[:, band].sum(axis=1) for band in bands], axis=1)
    least = power.max(axis=1, keepdims=True) * 10 ** (-IPD_RANGE_DB / 10)
    heard = (power > 0) & (power >= least)
    return np.where(heard, -np.angle(total), 0.0), heard
