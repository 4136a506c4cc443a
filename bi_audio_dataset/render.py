"""What rendering needs beside the lens and the ears: how many frames at a time, denoising, level.

Views are rendered while the panorama is decoded, in blocks of about BLOCK_BYTES: memory does not grow with
the recording, and a 4k source costs what a few of its frames do.
"""

from __future__ import annotations

import difflib
import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.signal import butter, istft, lfilter, sosfilt, stft

from bi_audio_dataset.ambisonics import check_foa
from bi_audio_dataset.limits import LEVEL_MEASURES
from bi_audio_dataset.schema import UserError

#: Decoded panorama frames held at a time: one at 3840 x 1920, which then need not be copied.
BLOCK_BYTES = 32 * 2**20
MAX_BLOCK_FRAMES = 32
#: Mean square of a sound that counts as silence.
QUIET = 1e-12

#: A function of a field (4, N) and its sample rate that gives the field without its noise, (4, N).
Denoiser = Callable[[NDArray[np.float32], int], NDArray[np.floating]]


def block_frames(width: int, height: int) -> int:
    """Frames of this size that are decoded together."""
    return min(MAX_BLOCK_FRAMES, max(1, BLOCK_BYTES // (width * height * 3)))


@dataclass(frozen=True)
class LevelConfig:
    """Where the level goes. measure "rms": dBFS of both ears; "lufs": loudness after ITU-R BS.1770.

    The gain is one for both ears. It stops where the true peak would pass true_peak_dbfs, and at max_gain_db.
    """

    measure: str = "rms"
    target_db: float = -20.0
    true_peak_dbfs: float = -1.0
    max_gain_db: float = 40.0

    def __post_init__(self) -> None:
        if self.measure not in LEVEL_MEASURES:
            raise UserError(
                f"level measure {self.measure!r} is unknown: give one of {', '.join(LEVEL_MEASURES)}"
            )


def normalise(
    ears: ArrayLike, sample_rate: int, config: LevelConfig = LevelConfig()
) -> tuple[NDArray[np.float32], float]:
    """Ears (2, N) at the config's level, float32, and the gain in dB. Silence is left as it is."""
    ears = np.asarray(ears)
    mean_square = float(np.mean(np.square(ears, dtype=np.float64))) if ears.size else 0.0
    if math.sqrt(mean_square) < QUIET:
        return ears.astype(np.float32), 0.0
    level_db = (
        decibel(math.sqrt(mean_square)) if config.measure == "rms" else loudness_lufs(ears, sample_rate)
    )
    gain_db = min(
        config.target_db - level_db, config.true_peak_dbfs - decibel(true_peak(ears)), config.max_gain_db
    )
    return (ears * 10 ** (gain_db / 20)).astype(np.float32), float(gain_db)


def true_peak(audio: ArrayLike) -> float:
    """Peak of the band-limited waveform, by fourfold oversampling (after ITU-R BS.1770). (C, N) -> linear."""
    import soxr

    audio = np.asarray(audio)
    upsampled = soxr.resample(audio.T, 1.0, 4.0, quality="HQ")
    return float(max(np.abs(audio).max(initial=0), np.abs(upsampled).max(initial=0)))


def loudness_lufs(audio: ArrayLike, sample_rate: int) -> float:
    """Integrated loudness of (C, N) sound after ITU-R BS.1770-4; -inf for silence.

    K-weighting, blocks of 400 ms every 100 ms, gates at -70 LUFS and 10 LU below what passes the first. Sound
    shorter than a block is one block. All channels weigh the same.
    """
    weighted = np.asarray(audio, np.float64)
    for b, a in k_weighting(sample_rate):
        weighted = lfilter(b, a, weighted, axis=-1)
    power = np.sum(weighted**2, axis=0)
    hop = round(0.1 * sample_rate)
    if len(power) < 4 * hop:
        blocks = power.mean(keepdims=True) if len(power) else np.zeros(1)
    else:
        tenths = power[: len(power) // hop * hop].reshape(-1, hop).mean(axis=1)
        blocks = np.convolve(tenths, np.full(4, 0.25), mode="valid")
    blocks = blocks[blocks > _power(-70.0)]
    if not len(blocks):
        return -math.inf
    blocks = blocks[blocks > 0.1 * blocks.mean()]
    return -0.691 + 10 * math.log10(blocks.mean())


def k_weighting(sample_rate: float) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """(b, a) of the two filters of ITU-R BS.1770-4: a shelf for the head, and a high pass (RLB).

    The standard gives coefficients at 48 kHz alone; these are the bilinear transforms of the analogue filters
    behind them: shelf 1681.97 Hz, Q 0.7072, +4.0 dB; high pass 38.14 Hz, Q 0.5003.
    """
    k, q = math.tan(math.pi * 1681.974450955533 / sample_rate), 0.7071752369554196
    high = 10 ** (3.999843853973347 / 20)
    band, norm = high**0.4996667741545416, 1 + k / q + k * k
    shelf_b = np.array([high + band * k / q + k * k, 2 * (k * k - high), high - band * k / q + k * k]) / norm
    shelf_a = np.array([norm, 2 * (k * k - 1), 1 - k / q + k * k]) / norm
    k, q = math.tan(math.pi * 38.13547087602444 / sample_rate), 0.5003270373238773
    norm = 1 + k / q + k * k
    pass_a = np.array([norm, 2 * (k * k - 1), 1 - k / q + k * k]) / norm
    return [(shelf_b, shelf_a), (np.array([1.0, -2.0, 1.0]), pass_a)]


def denoise(foa: ArrayLike, sample_rate: int, name: str | None) -> NDArray[np.float32]:
    """The field (4, N) through the denoiser of that name (load_denoiser); None leaves it untouched.

    UserError if the denoiser gives something else than finite samples of the same shape.
    """
    foa = check_foa(foa).astype(np.float32, copy=False)
    if name is None:
        return foa
    clean = np.asarray(load_denoiser(name)(foa.copy(), sample_rate))
    if clean.shape != foa.shape or not np.isfinite(clean).all():
        given = "samples that are not finite" if clean.shape == foa.shape else str(clean.shape)
        raise UserError(
            f"denoiser '{name}' gave {given} for a field of {foa.shape}: "
            "it must give finite samples of the same shape"
        )
    return clean.astype(np.float32)


def high_passed(sound: NDArray[np.floating], sample_rate: int, from_hz: float) -> NDArray[np.floating]:
    """(C, N) without what lies under from_hz (Butterworth, 24 dB an octave); 0 leaves it untouched."""
    if not from_hz:
        return sound
    return sosfilt(butter(4, from_hz, "highpass", fs=sample_rate, output="sos"), sound).astype(sound.dtype)


def load_denoiser(name: str) -> Denoiser:
    """The built-in "wiener", or the function that "package.module:function" names. UserError if none."""
    if name in DENOISERS:
        return DENOISERS[name]
    module, colon, function = name.partition(":")
    if not colon:
        near = difflib.get_close_matches(name, DENOISERS)
        raise UserError(
            f"denoiser '{name}' is unknown: give {' or '.join(near or DENOISERS)}, or package.module:function"
        )
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"denoiser '{name}' cannot be loaded ({error}): give package.module:function"
        ) from error
    if not callable(found):
        raise UserError(f"denoiser '{name}' is no function: give package.module:function")
    return found


def wiener(foa: NDArray[np.float32], sample_rate: int, floor_db: float = -15.0) -> NDArray[np.float32]:
    """Steady noise turned down by at most floor_db, one gain for all channels, so that directions stay.

    The noise of each frequency is the lower quartile over time of the field's power, smoothed over 0.1 s; a
    Wiener gain follows from it. For recording noise that does not change; a steady sound that was meant (a
    motor, rain) is taken for noise too, which is why this is off unless asked for.
    """
    length = max(64, 4 * round(0.006 * sample_rate))
    if foa.shape[1] < 8 * length:
        return foa
    spectrum = stft(foa.astype(np.float64), nperseg=length, noverlap=3 * length // 4)[2]  # (4, bins, frames)
    power = np.sum(np.abs(spectrum) ** 2, axis=0)
    span = max(1, round(0.1 * sample_rate / (length // 4)))
    edge = np.pad(power, ((0, 0), (span // 2, span - 1 - span // 2)), mode="edge")
    totals = np.cumsum(np.pad(edge, ((0, 0), (1, 0))), axis=1)
    smooth = (totals[:, span:] - totals[:, :-span]) / span
    # half as much again: the quartile lies below the mean, and what noise rises above its mean would pass
    noise = 1.5 * np.quantile(smooth, 0.25, axis=1, keepdims=True)
    gain = np.maximum(1 - noise / np.maximum(smooth, 1e-30), 10 ** (floor_db / 20))
    gain = np.where(noise > 0, gain, 1.0)
    clean = istft(spectrum * gain, nperseg=length, noverlap=3 * length // 4)[1]
    return clean[:, : foa.shape[1]].astype(np.float32)


DENOISERS: dict[str, Denoiser] = {"wiener": wiener}


def decibel(value: float) -> float:
    """20 log10 of an amplitude, at least -180."""
    return 20 * math.log10(max(value, 1e-9))


def _power(lufs: float) -> float:
    return 10 ** ((lufs + 0.691) / 10)
