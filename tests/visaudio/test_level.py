import numpy as np
import pytest

from bi_audio_dataset.schema import UserError
from visaudio.level import OUTPUT_RATE_HZ, FinishedSound, PeakMeter

RATE = 22050


def tone(frequency_hz, gains, seconds=1.0, rate=RATE, phase=0.0):
    time = np.arange(round(seconds * rate)) / rate
    return (np.array(gains)[:, None] * np.sin(2 * np.pi * frequency_hz * time + phase)).astype(np.float32)


def finish(audio, seconds=1.0, block=1000):
    with FinishedSound(RATE, seconds) as sound:
        for start in range(0, audio.shape[1], block):
            sound.add(audio[:, start : start + block])
        sound.close()
        return sound.array(), sound.gain


def test_a_quiet_sound_keeps_its_level_and_its_wave():
    found, gain = finish(tone(1000, (0.5, 0.1)))
    expected = tone(1000, (0.5, 0.1), rate=OUTPUT_RATE_HZ)
    assert gain == 1.0 and found.shape == (2, OUTPUT_RATE_HZ)
    inner = slice(500, -500)
    assert np.abs(found[:, inner] - expected[:, inner]).max() < 2e-3


def test_a_loud_sound_comes_down_by_one_gain_for_both_ears():
    found, gain = finish(tone(1000, (1.6, 0.4)))
    assert gain == pytest.approx(10 ** (-1 / 20) / 1.6, rel=0.01)
    ild_db = 10 * np.log10(np.mean(found[0] ** 2) / np.mean(found[1] ** 2))
    assert ild_db == pytest.approx(20 * np.log10(4), abs=0.01)


def test_the_peak_between_samples_counts():
    """A tone at a quarter of the rate, sampled at 45 degrees, peaks 3 dB above its samples."""
    meter = PeakMeter(OUTPUT_RATE_HZ)
    audio = tone(OUTPUT_RATE_HZ / 4, (1.0, 1.0), rate=OUTPUT_RATE_HZ, phase=np.pi / 4)
    assert np.abs(audio).max() == pytest.approx(np.sqrt(0.5), abs=1e-3)
    fade = np.minimum(1, np.minimum(np.arange(44100), np.arange(44100)[::-1]) / 4000)
    for start in range(0, 44100, 7000):
        meter.add((audio * fade)[:, start : start + 7000].astype(np.float32))
    meter.add(np.zeros((2, 0), np.float32), last=True)
    assert meter.peak == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("seconds", [0.0401, 0.3, 1.0, 1.3])
def test_length_is_right_to_the_sample(seconds):
    found, _ = finish(tone(300, (0.3, 0.3), seconds=1.0), seconds)
    assert found.shape == (2, round(seconds * OUTPUT_RATE_HZ))
    assert np.all(found[:, OUTPUT_RATE_HZ + 200 :] == 0)


def test_silence_stays_silence_and_nan_is_refused():
    found, gain = finish(np.zeros((2, RATE), np.float32))
    assert gain == 1.0 and not found.any()
    with pytest.raises(UserError, match="not finite"):
        finish(np.full((2, 10), np.nan, np.float32))
    with pytest.raises(UserError, match="cannot be written"):
        FinishedSound(RATE, 1.0, "/no/such/folder")
