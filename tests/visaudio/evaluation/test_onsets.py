"""Onset detection on sounds that start when we say, and the matching of two lists."""

import numpy as np
import pytest

from visaudio.evaluation.onsets import detect_onsets, f1, match_onsets, onset_strength

RATE = 22050


def struck(onsets_s, decay_s: float, pitch_hz: float, seconds: float = 4.0) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    sound = np.zeros_like(time)
    for onset in onsets_s:
        after = np.maximum(time - onset, 0)
        sound += np.where(time >= onset, np.exp(-after / decay_s) * np.sin(2 * np.pi * pitch_hz * after), 0)
    return 0.3 * sound


@pytest.mark.parametrize("gain", [1.0, 0.05])
@pytest.mark.parametrize(("decay_s", "pitch_hz"), [(0.02, 1800.0), (0.15, 140.0), (0.4, 900.0)])
def test_strikes_are_found_where_they_are(decay_s, pitch_hz, gain):
    onsets = [0.31, 0.9, 1.53, 2.6]
    rng = np.random.default_rng(0)
    click = struck(onsets, 0.004, 3000.0) * rng.standard_normal(4 * RATE)
    audio = gain * (np.stack([struck(onsets, decay_s, pitch_hz)] * 2) + click)
    audio += 1e-4 * gain * rng.standard_normal(audio.shape)
    found = detect_onsets(audio, RATE)
    assert len(found) == len(onsets)
    assert np.abs(found - onsets).max() < 0.02


def test_a_hum_has_one_onset():
    time = np.arange(3 * RATE) / RATE
    hum = sum(np.sin(2 * np.pi * 90 * k * time + k) / k for k in range(1, 40))
    hum *= np.clip((time - 0.8) / 0.045, 0, 1) * (time < 2.4)
    found = detect_onsets(np.stack([hum, hum]) * 0.1, RATE)
    assert len(found) == 1 and abs(found[0] - 0.8) < 0.05


def test_silence_and_the_shortest_sounds_have_none():
    for samples in (0, 1, 300, RATE):
        assert len(detect_onsets(np.zeros((2, samples)), RATE)) == 0
    assert onset_strength(np.zeros((2, RATE)), RATE).max() == 0


@pytest.mark.parametrize(
    ("estimated", "true", "expected"),
    [
        ([], [], (0, 0, 0)),
        ([1.0], [], (0, 1, 0)),
        ([1.04, 2.0], [1.0, 2.06], (1, 2, 2)),
        ([1.05], [1.0], (1, 1, 1)),  # the tolerance itself counts
        ([0.98, 1.02], [1.0], (1, 2, 1)),  # a true onset is found once
        ([1.0], [0.98, 1.02], (1, 1, 2)),
        ([0.06, 0.0], [0.04, 0.1], (2, 2, 2)),  # any order; the greedy nearest pair would find one
    ],
)
def test_matching(estimated, true, expected):
    assert match_onsets(np.array(estimated), np.array(true)) == expected


def test_f1():
    assert f1(3, 4, 5) == pytest.approx(2 * (3 / 4) * (3 / 5) / (3 / 4 + 3 / 5))
    assert f1(0, 0, 0) == 1.0 and f1(0, 3, 0) == 0.0
