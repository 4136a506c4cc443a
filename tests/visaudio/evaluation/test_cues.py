"""Cues against delays and gains that are known because they were put there."""

import numpy as np
import pytest

from visaudio.evaluation import cues

RATE = 22050


def noise(seconds: float = 0.4, low_hz: float = 60.0, high_hz: float = 9000.0, seed: int = 0) -> np.ndarray:
    """(S,) periodic noise of a band, RMS 0.1."""
    samples = round(seconds * RATE)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(samples))
    frequency = np.fft.rfftfreq(samples, 1 / RATE)
    spectrum[(frequency < low_hz) | (frequency > high_hz)] = 0
    signal = np.fft.irfft(spectrum, samples)
    return 0.1 * signal / signal.std()


def delayed(signal: np.ndarray, delay_s: float) -> np.ndarray:
    """The periodic signal later by delay_s, to a fraction of a sample."""
    frequency = np.fft.rfftfreq(len(signal), 1 / RATE)
    return np.fft.irfft(np.fft.rfft(signal) * np.exp(-2j * np.pi * frequency * delay_s), len(signal))


def inner(frames: np.ndarray) -> np.ndarray:
    return frames[2:-2]  # windows that lie wholly inside the sound


@pytest.mark.parametrize("itd_us", [-700.0, -333.3, -12.5, 0.0, 17.0, 250.0, 650.0])
@pytest.mark.parametrize("cue", [cues.itd_gcc_phat, cues.itd_from_phase])
def test_itd_of_a_plane_wave(cue, itd_us):
    """Positive: the left ear first, so the right one is later; to the grid of 5 us, a tenth of a sample."""
    left = noise()
    audio = np.stack([left, delayed(left, itd_us * 1e-6)])
    error_us = inner(cue(audio, RATE)) * 1e6 - itd_us
    assert np.abs(error_us).max() <= (8.0 if cue is cues.itd_from_phase else 5.0)


@pytest.mark.parametrize("cue", [cues.itd_gcc_phat, cues.itd_from_phase])
def test_exchanging_the_ears_turns_the_itd_over(cue):
    audio = np.stack([noise(), 0.5 * delayed(noise(), 3.1e-4)])
    np.testing.assert_allclose(inner(cue(audio[::-1], RATE)), -inner(cue(audio, RATE)), atol=1e-9)


@pytest.mark.parametrize("cue", [cues.itd_gcc_phat, cues.itd_from_phase])
def test_silence_has_no_itd(cue):
    assert not cue(np.zeros((2, RATE // 2)), RATE).any()


def test_itd_from_phase_hears_the_low_band_alone():
    """Low sound from the left and louder high sound from the right: the phase follows the low one."""
    low, high = noise(low_hz=100, high_hz=1200), 3 * noise(low_hz=3000, high_hz=9000, seed=1)
    audio = np.stack([low + delayed(high, 4e-4), delayed(low, 4e-4) + high])
    assert np.abs(inner(cues.itd_from_phase(audio, RATE)) - 4e-4).max() < 2e-5


@pytest.mark.parametrize("gain_db", [-18.0, -3.0, 0.0, 6.0, 12.0])
def test_ild_is_the_gain_between_the_ears(gain_db):
    audio = np.stack([noise() * 10 ** (gain_db / 20), noise()])
    np.testing.assert_allclose(inner(cues.ild_db(audio, RATE)), gain_db, atol=0.04)  # the -60 dB floor
    np.testing.assert_allclose(cues.ild_db(audio[::-1], RATE), -cues.ild_db(audio, RATE), atol=1e-9)


def test_frames_are_centred_on_the_middle_of_truth_samples():
    """A click at 0.5 s lies in the middle between frames 12 and 13 of 25 Hz: (k + 1/2) / 25 = 0.5, 0.54."""
    audio = np.zeros((2, RATE))
    audio[0, round(0.5 * RATE)] = 1.0
    windows = cues.frames(audio, RATE)
    assert windows.shape == (25, 2, round(0.08 * RATE))
    place = windows[12, 0].argmax() / RATE
    assert abs(place - cues.WINDOW_S / 2) < 1.5 / RATE


def test_silent_frames():
    audio = np.stack([noise(), noise()])
    audio[:, : RATE // 5] *= 1e-4  # -80 dB below: under SILENCE_DBFS
    silent = cues.is_silent(audio, RATE)
    assert silent[:3].all() and not silent[6:].any()
    assert np.abs(cues.ild_db(np.zeros((2, RATE)), RATE)).max() == 0


def test_side_counts_silence_and_the_wrong_sign_as_wrong():
    ild = np.array([3.0, -3.0, 3.0, 5.0, 0.0])
    lateral = np.array([30.0, 30.0, -30.0, 10.0, 30.0])  # the fourth is not beyond 20 degrees
    silent = np.array([False, False, False, False, False])
    assert cues.side_correct(ild, lateral, silent) == (1, 4)
    assert cues.side_correct(ild, lateral, ~silent) == (0, 4)


def test_pearson():
    x = np.arange(5.0)
    assert cues.pearson(x, 3 - 2 * x) == pytest.approx(-1)
    assert np.isnan(cues.pearson(x, np.ones(5)))


def test_shape_is_checked():
    with pytest.raises(ValueError, match="shape"):
        cues.ild_db(np.zeros((3, 100)), RATE)
