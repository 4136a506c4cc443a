"""Waveform distances: against torch, SciPy, librosa and fast_bss_eval; cases that are known."""

import math

import numpy as np
import pytest
import scipy.signal
import torch
from ear_sounds import noise

from visaudio.evaluation import fairplay

RATE = fairplay.RATE_HZ


def pair(samples: int = 12345, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A generated sound and a reference that are alike, (2, samples) each."""
    rng = np.random.default_rng(seed)
    reference = 0.1 * rng.standard_normal((2, samples))
    generated = 0.7 * reference + 0.05 * rng.standard_normal((2, samples))
    return generated.astype(np.float32), reference.astype(np.float32)


def torch_stft(audio: np.ndarray) -> np.ndarray:
    """(2, S) -> (2, 257, T), with the options that the published evaluation gives librosa."""
    window = torch.hann_window(400, periodic=True)
    spectrum = torch.stft(
        torch.from_numpy(audio), 512, 160, 400, window, center=True, pad_mode="reflect", return_complex=True
    )
    return spectrum.numpy().astype(np.complex128)


def by_definition(stft, generated: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """The three distances of the spectra, written as the papers' code has them."""
    p, g = stft(generated), stft(reference)
    parts = [np.stack([x.real, x.imag]) for x in (p[0] - g[0], p[1] - g[1])]
    angle_p, angle_g = np.angle(p[0] - p[1]), np.angle(g[0] - g[1])
    turn = np.abs(angle_p - angle_g)
    return {
        "stft_distance": np.mean(parts[0] ** 2) + np.mean(parts[1] ** 2),
        "magnitude_distance": sum(np.mean((np.abs(p[e]) - np.abs(g[e])) ** 2) for e in (0, 1)),
        "phase_distance_rad": np.mean(np.minimum(turn, np.clip(2 * np.pi - turn, 0, 2 * np.pi))),
    }


@pytest.mark.parametrize("samples", [300, 512, 16000, 12345, 40001])
def test_spectral_distances_against_torch(samples):
    expected = by_definition(torch_stft, *pair(samples))
    for name, value in fairplay.spectral_distances(*pair(samples)).items():
        assert value == pytest.approx(expected[name], rel=1e-4), name


def test_spectral_distances_against_librosa():
    librosa = pytest.importorskip("librosa")

    def stft(audio):
        settings = dict(n_fft=512, hop_length=160, win_length=400, center=True, pad_mode="reflect")
        return np.stack([librosa.stft(ear, **settings) for ear in audio])

    expected = by_definition(stft, *pair())
    for name, value in fairplay.spectral_distances(*pair()).items():
        assert value == pytest.approx(expected[name], rel=1e-4), name


@pytest.mark.parametrize("samples", [1, 2, 3, 1000, 12345])
def test_envelopes_against_scipy(samples):
    audio = pair(samples)[0]
    expected = np.abs(scipy.signal.hilbert(audio.astype(np.float64), axis=1))
    np.testing.assert_allclose(fairplay.envelopes(audio), expected, atol=2e-6)


def test_envelope_distance_is_a_sum_over_ears_of_rms():
    generated, reference = pair()
    gap = np.abs(scipy.signal.hilbert(generated, axis=1)) - np.abs(scipy.signal.hilbert(reference, axis=1))
    expected = np.sqrt(np.mean(gap[0] ** 2)) + np.sqrt(np.mean(gap[1] ** 2))
    assert fairplay.envelope_distance(generated, reference) == pytest.approx(expected, rel=1e-4)


def test_a_modulated_tone_has_its_modulation_as_envelope():
    time = np.arange(RATE) / RATE
    swell = 0.3 + 0.2 * np.cos(2 * np.pi * 4 * time)
    audio = np.stack([swell * np.sin(2 * np.pi * 1000 * time), 0.5 * np.sin(2 * np.pi * 440 * time)])
    envelope = fairplay.envelopes(audio.astype(np.float32))
    np.testing.assert_allclose(envelope[0], swell, atol=1e-5)
    np.testing.assert_allclose(envelope[1], 0.5, atol=1e-5)


def test_snr_as_the_field_has_it():
    generated, reference = pair()
    error = np.mean((generated.astype(np.float64) - reference) ** 2)
    expected = 10 * np.log10((np.mean(reference.astype(np.float64) ** 2) + 1e-4) / (error + 1e-4))
    assert fairplay.distances(generated, reference)["snr_db"] == pytest.approx(expected, abs=1e-3)


def test_si_snr_against_fast_bss_eval():
    si_sdr = pytest.importorskip("fast_bss_eval").si_sdr
    generated, reference = (sound.astype(np.float64).reshape(1, -1) for sound in pair())
    theirs = float(np.squeeze(si_sdr(reference, generated)))
    assert fairplay.si_snr_db(generated, reference) == pytest.approx(theirs, abs=1e-4)


# -------------------- what the definitions imply


def test_equal_sounds():
    sound = pair()[0]
    found = fairplay.distances(sound, sound)
    assert [found[name] for name in fairplay.FIGURES[:5]] == pytest.approx([0.0] * 5, abs=1e-9)
    power = np.mean(sound.astype(np.float64) ** 2)
    assert found["snr_db"] == pytest.approx(10 * math.log10((power + 1e-4) / 1e-4), abs=1e-3)
    assert found["si_snr_db"] == fairplay.SI_SNR_LIMIT_DB


@pytest.mark.parametrize("gain", [0.25, 3.0])
def test_levels_count_as_they_are(gain):
    """A gain of both sounds scales distances of power by its square, of amplitude by itself; phase and the
    scale-invariant SNR stay. A gain of one alone does not leave the plain distances as they are."""
    generated, reference = pair()
    before = fairplay.distances(generated, reference)
    after = fairplay.distances(generated * np.float32(gain), reference * np.float32(gain))
    for name in ("stft_distance", "magnitude_distance", "wave_distance"):
        assert after[name] == pytest.approx(before[name] * gain**2, rel=1e-4), name
    assert after["envelope_distance"] == pytest.approx(before["envelope_distance"] * gain, rel=1e-4)
    for name in ("phase_distance_rad", "si_snr_db"):
        assert after[name] == pytest.approx(before[name], rel=1e-3), name
    alone = fairplay.distances(generated * np.float32(gain), reference)
    assert alone["si_snr_db"] == pytest.approx(before["si_snr_db"], abs=1e-3)
    assert abs(alone["stft_distance"] / before["stft_distance"] - 1) > 0.2


def test_magnitude_is_blind_to_the_sign_and_the_stft_is_not():
    reference = pair()[1]
    found = fairplay.distances(-reference, reference)
    assert found["magnitude_distance"] == pytest.approx(0.0, abs=1e-9)
    assert found["envelope_distance"] == pytest.approx(0.0, abs=1e-6)
    silence = fairplay.distances(np.zeros_like(reference), reference)
    assert found["stft_distance"] == pytest.approx(4 * silence["stft_distance"], rel=1e-4)  # |-g - g|^2
    assert found["si_snr_db"] == fairplay.SI_SNR_LIMIT_DB  # the best gain may be negative


def test_a_mono_copy_is_a_quarter_turn_off_in_phase():
    """It has no difference signal: angle 0, so the mean of |angle| of the reference's, pi / 2."""
    reference = pair(4 * RATE)[1]
    mono = np.repeat(reference.mean(axis=0, keepdims=True), 2, axis=0)
    assert fairplay.distances(mono, reference)["phase_distance_rad"] == pytest.approx(np.pi / 2, rel=0.01)


def test_exchanged_ears():
    """Both sounds mirrored: everything is as before."""
    generated, reference = pair()
    before, after = (
        fairplay.distances(generated, reference),
        fairplay.distances(generated[::-1], reference[::-1]),
    )
    assert after == pytest.approx(before, rel=1e-4)


@pytest.mark.parametrize("frequency_hz", [500.0, 3000.0])
def test_a_tone_in_the_stft(frequency_hz):
    """Its energy per frame is sum(w^2) a^2 / 2 over both halves of the spectrum: the distance to silence."""
    tone = 0.2 * np.sin(2 * np.pi * frequency_hz * np.arange(4 * RATE) / RATE)
    audio = np.stack([tone, 0 * tone]).astype(np.float32)
    window_energy = 400 * 3 / 8
    expected = 0.5 * (512 * window_energy * 0.2**2 / 2) / 2 / 257  # half the bins, two parts a bin
    found = fairplay.distances(np.zeros_like(audio), audio)
    assert found["stft_distance"] == pytest.approx(expected, rel=0.01)


# -------------------- short and silent sounds


@pytest.mark.parametrize("samples", [1, 2, 100, 257, 513])
def test_short_sounds_have_values(samples):
    found = fairplay.distances(*pair(samples))
    assert set(found) == set(fairplay.FIGURES)
    assert all(math.isfinite(value) for value in found.values())


def test_no_samples():
    found = fairplay.distances(np.zeros((2, 0)), np.zeros((2, 5)))
    assert set(found) == set(fairplay.FIGURES) and all(math.isnan(v) for v in found.values())


def test_silence():
    """A silent reference: no scale-invariant SNR. A silent generated sound: the worst."""
    sound, silence = pair()[0], np.zeros((2, 12345), np.float32)
    assert math.isnan(fairplay.distances(sound, silence)["si_snr_db"])
    assert fairplay.distances(silence, sound)["si_snr_db"] == -fairplay.SI_SNR_LIMIT_DB
    assert fairplay.distances(silence, sound)["snr_db"] == pytest.approx(0.0)
    assert fairplay.distances(silence, silence)["stft_distance"] == 0.0


def test_the_longer_sound_is_cut():
    generated, reference = pair()
    longer = np.concatenate([generated, np.ones((2, 500), np.float32)], axis=1)
    assert fairplay.distances(longer, reference) == fairplay.distances(generated, reference)


def test_blocks_do_not_show(monkeypatch):
    generated, reference = (np.stack([noise(RATE, seed=s), noise(RATE, seed=s + 1)]) for s in (0, 5))
    whole = fairplay.distances(generated, reference)
    monkeypatch.setattr(fairplay, "BLOCK", 7)
    assert fairplay.distances(generated, reference) == pytest.approx(whole, rel=1e-6)
