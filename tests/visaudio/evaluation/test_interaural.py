"""Frame cues of sounds whose cues are known: delays, gains, tones, unrelated noise, silence.

Tolerances are stated beside each case. `inner` frames lie wholly inside the sound.
"""

import numpy as np
import pytest
from ear_sounds import delayed, ears, noise, plane_wave, tone
from scipy.stats import norm

from visaudio.evaluation import cues, interaural, lags
from visaudio.evaluation.measures import Sound

RATE = interaural.RATE_HZ
RATES = (16000, 22050, 24000, 44100, 48000)


def hear(audio: np.ndarray, rate: int = RATE) -> interaural.Cues:
    return interaural.analyse(Sound(audio, rate).at(RATE))


def inner(frames: np.ndarray) -> np.ndarray:
    return frames[2:-2]


# -------------------- delays and gains


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("itd_s", [-9e-4, -333.3e-6, -1 / 48000, -3e-6, 0.0, 2e-6, 17e-6, 6 / 24000, 9.5e-4])
def test_itd_of_a_pure_delay(rate, itd_s):
    """Whole samples and fractions, both signs, several rates: 0.2 us by GCC-PHAT, 0.5 us by phase."""
    heard = hear(plane_wave(rate, itd_s, ild_db=5.0), rate)
    assert np.abs(inner(heard.itd_gcc_s) - itd_s).max() < 0.2e-6
    assert np.abs(inner(heard.itd_phase_s) - itd_s).max() < 0.5e-6


@pytest.mark.parametrize("ild_db", [-18.0, -3.0, -0.2, 0.0, 6.0, 12.0])
@pytest.mark.parametrize("rate", (16000, 44100))
def test_ild_of_a_pure_gain(rate, ild_db):
    """0.03 dB: a floor 45 dB below the louder ear is 0.01 dB of an ear that is 18 dB below it."""
    heard = hear(plane_wave(rate, 0.0, ild_db), rate)
    np.testing.assert_allclose(inner(heard.ild_db), ild_db, atol=0.03)
    np.testing.assert_allclose(inner(heard.iacc), 1.0, atol=1e-4)  # a gain does not decorrelate


def test_equal_ears():
    """IACC 1, everything else exactly 0."""
    signal = noise(RATE)
    heard = hear(ears(signal, signal))
    np.testing.assert_allclose(heard.iacc, 1.0, atol=1e-6)
    np.testing.assert_allclose(heard.iacc_octaves, 1.0, atol=1e-6)
    assert not heard.ild_db.any()
    assert max(np.abs(a).max() for a in (heard.itd_gcc_s, heard.itd_phase_s)) < 1e-9
    assert np.abs(heard.ipd_rad).max() < 1e-6


def test_opposite_ears_are_as_like_as_equal_ones():
    """ISO 3382-1 takes the magnitude of the correlation."""
    signal = noise(RATE)
    heard = hear(ears(signal, -signal))
    np.testing.assert_allclose(heard.iacc, 1.0, atol=1e-6)
    np.testing.assert_allclose(np.abs(heard.ipd_rad[heard.ipd_heard]), np.pi, atol=1e-3)


@pytest.mark.parametrize("frequency_hz", [300.0, 1700.0, 3100.0, 6100.0, 9300.0])
@pytest.mark.parametrize("ipd_rad", [0.0, 1.0, -2.0])
def test_of_a_tones_many_delays_the_nearest_counts(frequency_hz, ipd_rad):
    """A tone's peaks lie a period apart and are equally high: the same one in every frame. Within 2 us."""
    heard = inner(hear(tone(RATE, frequency_hz, ipd_rad)).itd_gcc_s)
    expected = ipd_rad / (2 * np.pi * frequency_hz)
    if abs(expected) < lags.MAX_ITD_S:
        np.testing.assert_allclose(heard, expected, atol=2e-6)


# -------------------- phase of bands


@pytest.mark.parametrize("band", range(len(interaural.IPD_CENTRES_HZ)))
@pytest.mark.parametrize("ipd_rad", [-3.0, -1.2, 0.4, 2.9])
def test_ipd_of_a_tone(band, ipd_rad):
    """0.002 rad in the tone's own band."""
    heard = hear(tone(RATE, interaural.IPD_CENTRES_HZ[band], ipd_rad))
    np.testing.assert_allclose(inner(heard.ipd_rad)[:, band], ipd_rad, atol=2e-3)
    assert inner(heard.ipd_heard)[:, band].all()


def test_ipd_of_a_pure_delay_grows_with_the_frequency():
    """2 pi f itd at the centres; within 8 %, as a band is a fourth as wide as its centre is high."""
    heard = hear(plane_wave(RATE, 3e-4))
    expected = 2 * np.pi * np.array(interaural.IPD_CENTRES_HZ) * 3e-4
    np.testing.assert_allclose(np.median(inner(heard.ipd_rad), axis=0), expected, rtol=0.08)


def test_bands_without_sound_say_nothing():
    heard = hear(tone(RATE, 250.0, 1.0))
    used = inner(heard.ipd_heard)
    assert used[:, 3].all() and not used[:, 7:].any()
    assert not inner(heard.ipd_rad)[:, 7:].any()


# -------------------- unrelated ears


def most_of_unrelated(low_hz: float, high_hz: float) -> float:
    """Expected IACC of unrelated white noise: the mean of the largest |x(lag)| within 1 ms either way.

    x is Gaussian with s^2 = sum w^4 / (sum w^2)^2, for a window w of 80 ms, over the band's share of the
    spectrum; by Rice (1944) it crosses a level u s upwards exp(-u^2 / 2) sqrt((h^3 - l^3) / (3 (h - l)))
    times a second, and as often its negative downwards: at high levels, crossings are independent.
    """
    window = np.hanning(round(cues.WINDOW_S * RATE))
    spread = np.sqrt((window**4).sum() / (window**2).sum() ** 2 * (RATE / 2) / (high_hz - low_hz))
    crossings = np.sqrt((high_hz**3 - low_hz**3) / (3 * (high_hz - low_hz))) * 2 * lags.MAX_ITD_S
    u = np.linspace(0, 8, 4000)
    below = (2 * norm.cdf(u) - 1) * np.exp(-2 * crossings * np.exp(-(u**2) / 2))
    return spread * np.trapezoid(1 - below, u)


def test_iacc_of_unrelated_noise():
    """About its expectation: within 3 % over 500 frames. In an octave crossings come in clumps, and Rice's
    figure is too large by up to 12 %."""
    rng = np.random.default_rng(3)
    heard = hear(0.1 * rng.standard_normal((2, 20 * RATE)).astype(np.float32))
    assert heard.iacc.mean() == pytest.approx(most_of_unrelated(*cues.GCC_BAND_HZ), rel=0.03)
    octaves = np.mean([most_of_unrelated(*interaural.octave(f)) for f in interaural.IACC_OCTAVES_HZ])
    assert 0.88 * octaves < heard.iacc_octaves.mean() < octaves
    assert np.abs(heard.itd_gcc_s).mean() == pytest.approx(lags.MAX_ITD_S / 2, rel=0.1)  # anywhere


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_iacc_of_partly_shared_noise(share):
    """Of equal powers with a common part: the common part's share of the power, within 0.03."""
    rng = np.random.default_rng(4)
    common, *own = 0.1 * rng.standard_normal((3, 8 * RATE))
    a, b = np.sqrt(share), np.sqrt(1 - share)
    heard = hear(ears(a * common + b * own[0], a * common + b * own[1]))
    assert heard.iacc.mean() == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("delay_samples", [0, 5, -17])
def test_iacc_against_the_correlation_in_time(delay_samples):
    """numpy.correlate of windowed frames, all lags within 1 ms (whole samples: 2 %)."""
    common, own = (delayed(noise(RATE, 1.0, 100, 9000, seed), RATE, 0) for seed in (1, 2))
    audio = ears(common, np.roll(0.8 * common + 0.4 * own, delay_samples)).astype(np.float64)
    window = np.hanning(round(cues.WINDOW_S * RATE))
    most = round(lags.MAX_ITD_S * RATE)
    for frame, value in zip(inner(cues.frames(audio, RATE)), inner(hear(audio).iacc), strict=True):
        left, right = frame * window
        every = np.correlate(right, left, "full")[len(left) - 1 - most : len(left) + most]
        assert value == pytest.approx(
            np.abs(every).max() / np.sqrt((left @ left) * (right @ right)), rel=0.02
        )


# -------------------- symmetries


def scene(seed: int = 0) -> np.ndarray:
    """Two sources in unrelated noise, 2 s, one of them moving in level."""
    swell = np.linspace(0.1, 1.0, 2 * RATE)
    one = plane_wave(RATE, 3.1e-4, 7.0, seconds=2.0, seed=seed) * swell
    two = plane_wave(RATE, -4.4e-4, -3.0, seconds=2.0, seed=seed + 1)
    rng = np.random.default_rng(seed + 2)
    return (one + 0.4 * two + 0.01 * rng.standard_normal(one.shape)).astype(np.float32)


def test_exchanging_the_ears_turns_every_cue_over():
    ours, mirrored = hear(scene()), hear(scene()[::-1])
    for name in ("ild_db", "itd_gcc_s", "itd_phase_s", "ipd_rad"):
        np.testing.assert_allclose(getattr(mirrored, name), -getattr(ours, name), atol=2e-5, err_msg=name)
    np.testing.assert_allclose(mirrored.iacc, ours.iacc, atol=1e-5)


@pytest.mark.parametrize("gain_db", [-20.0, -6.0, 15.0])
def test_a_common_gain_changes_nothing(gain_db):
    """Also of quiet frames: their floor moves along."""
    ours, louder = hear(scene()), hear(scene() * np.float32(10 ** (gain_db / 20)))
    for name in ("ild_db", "itd_gcc_s", "itd_phase_s", "ipd_rad", "iacc", "iacc_octaves"):
        np.testing.assert_allclose(getattr(louder, name), getattr(ours, name), atol=1e-4, err_msg=name)
    np.testing.assert_array_equal(louder.silent, ours.silent)
    np.testing.assert_allclose(louder.level_db, ours.level_db + gain_db, atol=1e-4)


# -------------------- the same as `cues`, finer


def test_agrees_with_the_cues_of_the_published_table():
    """GCC-PHAT to half a step of 5 us, but for frames whose two best peaks are as good as equal; ILD where
    the floors differ only by 0.02 dB."""
    audio, heard = scene(), hear(scene())
    off = np.abs(heard.itd_gcc_s - cues.itd_gcc_phat(audio, RATE))
    assert (off < 0.51 * cues.ITD_STEP_S).mean() >= 0.96
    off = np.abs(heard.itd_phase_s - cues.itd_from_phase(audio, RATE))
    assert (off < 0.51 * cues.ITD_STEP_S).mean() >= 0.98
    np.testing.assert_allclose(heard.ild_db, cues.ild_db(audio, RATE), atol=0.02)


def test_a_parabola_is_finer_than_the_grid():
    """Delays anywhere between the steps: the grid alone is off by up to 2.5 us, this by less than 0.1."""
    delays = np.linspace(1e-4, 1.05e-4, 9)
    ours = [np.median(hear(plane_wave(RATE, d)).itd_gcc_s) for d in delays]
    grid = [np.median(cues.itd_gcc_phat(plane_wave(RATE, d), RATE)) for d in delays]
    assert np.abs(np.array(ours) - delays).max() < 1e-7
    assert np.abs(np.array(grid) - delays).max() > 2e-6


def test_delay_against_pyroomacoustics():
    """Its GCC-PHAT of the whole sound, all frequencies, interpolated 16 times: to its step of 2.6 us."""
    tdoa = pytest.importorskip("pyroomacoustics.experimental").tdoa
    rng = np.random.default_rng(6)
    for delay_s in (-5.37e-4, -1.1e-5, 2.03e-4):
        left = 0.1 * rng.standard_normal(RATE)
        right = delayed(left, RATE, delay_s)
        theirs = -tdoa(left, right, interp=16, fs=RATE)
        assert theirs == pytest.approx(delay_s, abs=1 / 16 / RATE)
        np.testing.assert_allclose(inner(hear(ears(left, right)).itd_gcc_s), theirs, atol=1 / 16 / RATE)


# -------------------- silence and short sounds


def test_silent_frames_have_no_cues():
    audio = plane_wave(RATE, 4e-4, 9.0, seconds=1.0)
    audio[:, RATE // 2 :] *= 10 ** (-55 / 20)  # beyond the range of 45 dB
    heard = hear(audio)
    assert not heard.silent[:11].any() and heard.silent[14:].all()
    for name in ("ild_db", "itd_gcc_s", "itd_phase_s", "ipd_rad", "iacc", "iacc_octaves"):
        assert not getattr(heard, name)[heard.silent].any(), name
        assert getattr(heard, name)[~heard.silent].all(), name
    assert not heard.ipd_heard[heard.silent].any()


@pytest.mark.parametrize("level", [0.0, 1e-9, 5e-4])
def test_a_sound_below_the_threshold_is_silent_throughout(level):
    """-60 dBFS in its loudest frame, as in `cues`; no warning, no nan."""
    rng = np.random.default_rng(0)
    heard = hear((level * rng.standard_normal((2, RATE))).astype(np.float32))
    assert heard.silent.all()
    assert all(
        np.isfinite(a).all() and not a.any()
        for n, a in vars(heard).items()
        if n not in ("silent", "level_db")
    )


def test_a_dead_ear():
    """As far to the side as the floor lets it be; no delay, no likeness."""
    heard = hear(ears(noise(RATE), np.zeros_like(noise(RATE))))
    np.testing.assert_allclose(inner(heard.ild_db), interaural.RANGE_DB, atol=2.5)
    assert not any(a.any() for a in (heard.itd_gcc_s, heard.itd_phase_s, heard.iacc, heard.ipd_rad))


@pytest.mark.parametrize("samples", [0, 1, 2, 100, 479, 961, 1921])
@pytest.mark.parametrize("rate", [16000, 24000, 48000])
def test_short_sounds(samples, rate):
    """At least one frame where there is a sample; everything finite."""
    heard = hear(np.full((2, samples), 0.5, np.float32) * [[1.0], [0.5]], rate)
    frames = len(cues.frames(np.zeros((2, samples)), rate)) if samples else 0
    assert len(heard.silent) == max(frames, min(samples, 1))
    assert all(np.isfinite(a).all() for a in vars(heard).values())
    if samples * RATE // rate > 1:
        np.testing.assert_allclose(heard.ild_db[0], 6.02, atol=0.1)


def test_blocks_do_not_show():
    """What is heard of a frame does not depend on how many there are before it."""
    audio = scene()
    whole, tail = hear(audio), hear(audio[:, RATE // 2 * 2 :])  # a whole number of frames later
    np.testing.assert_allclose(tail.itd_gcc_s[2:], whole.itd_gcc_s[27:], atol=1e-8)
    np.testing.assert_allclose(tail.iacc[2:], whole.iacc[27:], atol=1e-5)


def test_shape_is_checked():
    with pytest.raises(ValueError, match="shape"):
        interaural.analyse(np.zeros((1, 100)))
