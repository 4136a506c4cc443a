"""Angles of plane waves through a head that the localiser was not given, and of measured heads."""

import binaural_scene as scene
import numpy as np
import pytest

from bi_audio_dataset.hrtf import load_sofa
from visaudio.evaluation import lateral

RATE = scene.RATE


def heard(audio: np.ndarray) -> float:
    return float(np.median(lateral.lateral_deg(audio, RATE)[1:-1]))


@pytest.mark.parametrize("azimuth", [-45.0, -30.0, -10.0, 0.0, 10.0, 30.0, 45.0])
def test_plane_waves_in_the_middle(azimuth):
    assert heard(scene.plane_wave(scene.noise(1.0), azimuth)) == pytest.approx(azimuth, abs=2.0)


@pytest.mark.parametrize(("azimuth", "tolerance"), [(60.0, 4.0), (-60.0, 4.0), (90.0, 10.0)])
def test_the_side_is_told_less_well(azimuth, tolerance):
    assert heard(scene.plane_wave(scene.noise(1.0), azimuth)) == pytest.approx(azimuth, abs=tolerance)


def test_a_low_tone_is_placed_by_its_phase():
    tone = 0.1 * np.sin(2 * np.pi * 500 * np.arange(RATE) / RATE)
    assert heard(scene.plane_wave(tone, 30.0)) == pytest.approx(30.0, abs=4.0)


def test_a_moving_source_is_followed():
    azimuth = np.linspace(45, -45, 42)
    found = lateral.lateral_deg(scene.plane_wave(scene.noise(4.0), azimuth), RATE)
    true = np.interp((np.arange(40) + 0.5) / 10, np.arange(42) / 10, azimuth)
    assert np.abs(found - true)[1:-1].max() < 8.0


def test_exchanged_ears_are_the_negative_angle():
    audio = scene.plane_wave(scene.noise(1.0), 35.0)
    np.testing.assert_array_equal(lateral.lateral_deg(audio[::-1], RATE), -lateral.lateral_deg(audio, RATE))


def test_equal_ears_and_silence_are_in_front_exactly():
    mono = scene.noise(1.0)
    assert not lateral.lateral_deg(np.stack([mono, mono]), RATE).any()
    assert not lateral.lateral_deg(np.zeros((2, RATE)), RATE).any()
    assert lateral.lateral_deg(np.zeros((2, 0)), RATE).shape == (0,)


def test_activity_ends_with_the_sound():
    audio = np.zeros((2, 2 * RATE), np.float32)
    audio[:, :RATE] = scene.noise(1.0)
    active = lateral.is_active(audio, RATE)
    assert active[:9].all() and not active[12:].any()
    assert not lateral.is_active(1e-4 * audio, RATE).any()


@pytest.mark.parametrize("name", ["FHK_KU100_L2354", "CIPIC_subject_003", "LISTEN_IRC_1002"])
def test_measured_heads_within_ten_degrees(shared_dir, name):
    path = shared_dir / "media" / "hrir" / f"{name}.sofa"
    if not path.is_file():
        pytest.skip(f"{name} is not here")
    head, mono = load_sofa(path, RATE), scene.noise(0.6)
    for azimuth in (-60, -45, -30, -10, 0, 10, 30, 45, 60):
        audio = np.stack([np.convolve(mono, ear) for ear in head.nearest(np.radians(azimuth))])
        assert heard(audio) == pytest.approx(azimuth, abs=10.0), azimuth
