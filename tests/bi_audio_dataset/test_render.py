import numpy as np
import pytest
from scipy.signal import freqz

from bi_audio_dataset import ambisonics, render, sphere
from bi_audio_dataset.render import LevelConfig
from bi_audio_dataset.schema import UserError

RATE = 44100


def _tone(frequency_hz: float, amplitude: float, seconds: float = 2.0, rate: int = RATE) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * frequency_hz * np.arange(round(seconds * rate)) / rate)


def test_large_frames_come_in_small_blocks():
    assert render.block_frames(768, 384) == 32 and render.block_frames(1920, 960) == 6
    assert render.block_frames(3840, 1920) == 1  # 22 MB
    assert render.block_frames(16384, 8192) == 1


# --- level ---


def test_k_weighting_is_the_standards_at_48_kilohertz():
    (shelf_b, shelf_a), (pass_b, pass_a) = render.k_weighting(48000)
    for (b, a), (b_wanted, a_wanted) in zip(
        ((shelf_b, shelf_a), (pass_b, pass_a)),
        (
            (
                [1.53512485958697, -2.69169618940638, 1.19839281085285],
                [1, -1.69065929318241, 0.73248077421585],
            ),
            ([1, -2, 1], [1, -1.99004745483398, 0.99007225036621]),
        ),
        strict=True,
    ):
        # Normalised by a[0]; the standard leaves the high pass's numerator as it is.
        b = b / a[0] if b[0] != 1 else b
        np.testing.assert_allclose(b, b_wanted, atol=1e-8)
        np.testing.assert_allclose(a / a[0], a_wanted, atol=1e-8)


@pytest.mark.parametrize("rate", [44100, 48000])
def test_loudness_of_the_standards_tone(rate):
    """997 Hz at full scale in one channel reads -3.01 LUFS; in both, 3.01 more; 20 dB less, 20 less."""
    tone = _tone(997, 1.0, rate=rate)
    assert render.loudness_lufs(tone[None], rate) == pytest.approx(-3.01, abs=0.02)
    assert render.loudness_lufs(0.1 * np.stack([tone, tone]), rate) == pytest.approx(-20.0, abs=0.02)
    assert render.loudness_lufs(tone[None, : rate // 5], rate) == pytest.approx(-3.01, abs=0.1)
    assert render.loudness_lufs(np.zeros((2, rate)), rate) == -np.inf


def test_loudness_leaves_pauses_out():
    tone = _tone(997, 0.1, 4.0)
    with_pause = np.concatenate([tone, np.zeros(4 * RATE)])
    # Of some 40 blocks that pass the gates three hold some of the pause.
    assert render.loudness_lufs(with_pause[None], RATE) == pytest.approx(-23.01, abs=0.2)


def test_weighting_turns_rumble_down():
    b, a = render.k_weighting(RATE)[1]
    gain_db = 20 * np.log10(np.abs(freqz(b, a, [20, 1000], fs=RATE)[1]))
    assert gain_db[0] < -12 and abs(gain_db[1]) < 0.1


@pytest.mark.parametrize("measure", ["rms", "lufs"])
def test_one_gain_for_both_ears(measure):
    ears = np.stack([_tone(997, 0.02), _tone(997, 0.005)])
    out, gain_db = render.normalise(ears, RATE, LevelConfig(measure, -23.0))
    np.testing.assert_allclose(out, ears * 10 ** (gain_db / 20), rtol=1e-6, atol=1e-9)
    level = (
        10 * np.log10(np.mean(out.astype(float) ** 2))
        if measure == "rms"
        else render.loudness_lufs(out, RATE)
    )
    assert level == pytest.approx(-23, abs=0.02)
    assert 20 * np.log10(np.abs(out[0]).max() / np.abs(out[1]).max()) == pytest.approx(12.04, abs=0.01)


def test_peaks_and_the_largest_gain_come_first():
    click = np.zeros((2, RATE))
    click[0, 100] = 0.25
    out, gain_db = render.normalise(click, RATE, LevelConfig(target_db=-10, true_peak_dbfs=-2.0))
    assert gain_db < 12 and render.true_peak(out) == pytest.approx(10 ** (-2 / 20), rel=1e-3)
    faint = 1e-5 * np.random.default_rng(0).standard_normal((2, RATE))
    assert render.normalise(faint, RATE, LevelConfig(max_gain_db=30))[1] == 30
    silence, gain_db = render.normalise(np.zeros((2, 50)), RATE)
    assert gain_db == 0 and not silence.any()


def test_unknown_measures_are_named():
    with pytest.raises(UserError, match="'loud' is unknown: give one of rms, lufs"):
        LevelConfig("loud")


# --- denoising ---


def _noisy_bursts() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(signal, noise, where the signal sounds): bursts from 60 degrees left in a steady diffuse noise."""
    rng = np.random.default_rng(0)
    on = (np.arange(3 * RATE) // (RATE // 4)) % 3 == 0
    signal = ambisonics.encode(_tone(700, 0.3, 3.0) * on, np.deg2rad(60), 0.1)
    noise = 0.02 * rng.standard_normal((4, 3 * RATE)) * np.array([1, 1 / 3, 1 / 3, 1 / 3])[:, None] ** 0.5
    return signal, noise.astype(np.float32), on


def test_wiener_takes_steady_noise_and_leaves_sound_and_direction():
    signal, noise, on = _noisy_bursts()
    clean = render.denoise(signal + noise, RATE, "wiener")
    inside = np.convolve(on, np.ones(RATE // 10), mode="same")  # away from the bursts' ends
    pause, sound = inside < 0.5, inside > RATE // 10 - 0.5
    before, after = (np.mean(f[:, pause].astype(float) ** 2) for f in (noise, clean))
    assert 10 * np.log10(before / after) > 9
    error, power = (np.mean(f[:, sound].astype(float) ** 2) for f in (clean - signal, signal))
    assert 10 * np.log10(error / power) < -20
    azimuth, elevation, confidence = ambisonics.max_energy_direction(clean[:, sound], RATE)
    assert np.rad2deg(azimuth) == pytest.approx(60, abs=0.5) and elevation == pytest.approx(0.1, abs=0.01)
    assert confidence > ambisonics.max_energy_direction(signal + noise, RATE)[2]


def test_wiener_is_one_gain_for_all_channels():
    """Turning the field and denoising it may change places."""
    signal, noise, _ = _noisy_bursts()
    foa, turn = (signal + noise)[:, :RATE], sphere.rotation_matrix(0.7, -0.4, 0.2)
    a = render.wiener(ambisonics.rotate(foa, turn), RATE)
    b = ambisonics.rotate(render.wiener(foa, RATE), turn)
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_off_silent_and_short_fields_stay():
    foa = np.random.default_rng(0).standard_normal((4, 500)).astype(np.float32)
    np.testing.assert_array_equal(render.denoise(foa, RATE, None), foa)
    np.testing.assert_array_equal(render.denoise(foa, RATE, "wiener"), foa)  # too short to know its noise
    assert not render.denoise(np.zeros((4, RATE)), RATE, "wiener").any()


def half(foa, sample_rate):
    return 0.5 * foa


def mono(foa, sample_rate):
    return foa[:1]


def test_a_function_of_ones_own_is_loaded_by_name():
    foa = np.ones((4, 10), np.float32)
    np.testing.assert_array_equal(render.denoise(foa, RATE, f"{__name__}:half"), 0.5 * foa)
    with pytest.raises(UserError, match=r"gave \(1, 10\) for a field of \(4, 10\)"):
        render.denoise(foa, RATE, f"{__name__}:mono")


@pytest.mark.parametrize(
    "name, line",
    [("weiner", "unknown: give wiener"), ("no.such:thing", "cannot be loaded"), ("math:pi", "no function")],
)
def test_wrong_denoisers_are_named(name, line):
    with pytest.raises(UserError, match=line):
        render.load_denoiser(name)


def test_high_pass_takes_what_is_low_and_nothing_else():
    times_s = np.arange(44100) / 44100
    tones = np.stack([np.sin(2 * np.pi * hz * times_s) for hz in (25, 100, 1000)])
    passed = render.high_passed(tones, 44100, 100.0)[:, 22050:]
    level_db = 10 * np.log10(2 * np.mean(passed**2, axis=1))
    np.testing.assert_allclose(level_db, [-48.2, -3.0, 0.0], atol=0.1)
    assert render.high_passed(tones, 44100, 0.0) is tones
