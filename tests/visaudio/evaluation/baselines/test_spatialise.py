"""A mono sound and a direction -> two ears, against the head's own delay and side."""

import numpy as np
import pytest

from bi_audio_dataset.hrtf import HEAD_RADIUS_M, SPEED_OF_SOUND
from bi_audio_dataset.sphere import direction
from visaudio.evaluation import cues
from visaudio.evaluation.baselines.spatialise import Path, decoder, spatialise

RATE = 22050


def noise(seconds: float = 1.0, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE)).astype(np.float32)


def still(azimuth_deg: float, elevation_deg: float = 0.0) -> Path:
    return Path(direction(np.radians([azimuth_deg]), np.radians([elevation_deg])), 25.0)


@pytest.mark.parametrize("azimuth_deg", [-90, -45, -20, 20, 45, 90])
def test_delay_is_the_rigid_spheres_below_400_hz(azimuth_deg):
    """Kuhn (1977): 3 (a / c) sin(lateral angle); the decoder keeps it within a tenth."""
    ears = spatialise(noise(), RATE, still(azimuth_deg))
    itd_s = np.median(cues.itd_from_phase(ears, RATE, (100.0, 400.0)))
    expected_s = 3 * HEAD_RADIUS_M / SPEED_OF_SOUND * np.sin(np.radians(azimuth_deg))
    assert itd_s == pytest.approx(expected_s, abs=75e-6)


def test_level_is_on_the_sources_side_and_grows_with_the_angle():
    ild = [np.median(cues.ild_db(spatialise(noise(), RATE, still(a)), RATE)) for a in (10, 30, 60)]
    assert 0.5 < ild[0] < ild[1] < ild[2]
    right = np.median(cues.ild_db(spatialise(noise(), RATE, still(-30)), RATE))
    assert right == pytest.approx(-ild[1], abs=1e-4)


def test_front_back_up_and_nowhere_are_alike_in_both_ears():
    paths = [still(0), still(180), still(0, 90), Path(np.zeros((1, 3)), 25.0)]
    for path in paths:
        left, right = spatialise(noise(0.2), RATE, path)
        np.testing.assert_allclose(left, right, atol=1e-6)
        assert np.abs(left).max() > 0.05


def test_a_mirrored_path_swaps_the_ears():
    azimuth = np.radians(np.linspace(-70, 40, 26))
    path, mirrored = (Path(direction(sign * azimuth, np.full(26, 0.2)), 25.0) for sign in (1, -1))
    ears, swapped = (spatialise(noise(), RATE, p) for p in (path, mirrored))
    np.testing.assert_allclose(ears, swapped[::-1], atol=1e-6)


def test_a_moving_source_is_followed():
    azimuth_deg = np.linspace(60, -60, 51)  # 2 s at 25 Hz, the middle at 1 s
    ears = spatialise(noise(2.0), RATE, Path(direction(np.radians(azimuth_deg), np.zeros(51)), 25.0))
    ild = cues.ild_db(ears, RATE)
    times = (np.arange(len(ild)) + 0.5) / 25
    assert cues.pearson(ild, np.interp(times, np.arange(51) / 25, azimuth_deg)) > 0.97
    crossing = times[np.argmax(ild < 0)]
    assert crossing == pytest.approx(1.0, abs=0.1)


def test_moving_does_not_click():
    """A low tone from steps 30 degrees apart stays a low tone: the way between them is gone, not jumped."""
    time = np.arange(RATE) / RATE
    tone = np.sin(2 * np.pi * 200 * time).astype(np.float32)
    azimuth = np.radians(np.where(np.arange(26) % 2, 30.0, -30.0))
    ears = spatialise(tone, RATE, Path(direction(azimuth, np.zeros(26)), 25.0))
    power = np.abs(np.fft.rfft(ears[:, 2000:-2000] * np.hanning(RATE - 4000))) ** 2
    hz = np.fft.rfftfreq(RATE - 4000, 1 / RATE)
    assert power[:, hz > 2000].sum() < 1e-6 * power.sum()


def test_a_path_is_linear_between_steps_and_held_at_its_ends():
    path = Path(np.array([[1.0, 0, 0], [0, 1.0, 0]]), 10.0)
    np.testing.assert_allclose(path.at([-1, 0.05, 9]).T, [[1, 0, 0], [0.5, 0.5, 0], [0, 1, 0]], atol=1e-12)
    for wrong in (np.zeros((0, 3)), np.zeros((2, 2)), np.full((1, 3), np.nan)):
        with pytest.raises(ValueError, match="finite vectors"):
            Path(wrong, 10.0)


def test_measured_ears_are_made_symmetric(shared_dir):
    sofa = shared_dir / "media" / "hrir" / "MIT_KEMAR_normal_pinna.sofa"
    if not sofa.is_file():
        pytest.skip("no SOFA file")
    ears, swapped = (spatialise(noise(0.3), RATE, still(side), str(sofa)) for side in (60, -60))
    np.testing.assert_allclose(ears, swapped[::-1], atol=1e-6)
    assert np.median(cues.ild_db(ears, RATE)) > 2
    assert decoder(RATE, str(sofa)).hrir_set.symmetric
