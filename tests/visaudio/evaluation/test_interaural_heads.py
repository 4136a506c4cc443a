"""Plane waves through heads that are known: the builder's sphere, and measured ones where they are at hand.

The sphere follows Woodworth's delay high up and Kuhn's low down (bi_audio_dataset/hrtf.py). A measured head
is its own truth: what its pair of impulse responses says, without frames, noise or resampling.
"""

import numpy as np
import pytest
from ear_sounds import noise

from bi_audio_dataset.hrtf import HEAD_RADIUS_M, SPEED_OF_SOUND, HrirSet, load_sofa, spherical_head
from bi_audio_dataset.sphere import direction
from visaudio.evaluation import cues, interaural
from visaudio.evaluation.measures import Sound

SOFA = ("MIT_KEMAR_normal_pinna", "CIPIC_subject_003", "LISTEN_IRC_1002", "FHK_KU100_L2354")
AZIMUTHS_DEG = (-90.0, -60.0, -30.0, -7.5, 0.0, 15.0, 45.0, 75.0, 90.0)


def wave_from(head: HrirSet, azimuth_deg: float) -> tuple[interaural.Cues, np.ndarray]:
    """Cues of white noise from that azimuth on the horizon, inner frames' medians; and the HRIR (2, L)."""
    hrir = head.nearest(np.radians(azimuth_deg))
    signal = noise(head.sample_rate, seconds=1.0, low_hz=0.0, high_hz=head.sample_rate / 2)
    spectrum = np.fft.rfft(signal) * np.fft.rfft(hrir, len(signal))
    sound = Sound(np.fft.irfft(spectrum, len(signal)).astype(np.float32), head.sample_rate)
    heard = interaural.analyse(sound.at(interaural.RATE_HZ))
    return interaural.Cues(**{k: np.median(v[2:-2], axis=0) for k, v in vars(heard).items()}), hrir


def delay_of(hrir: np.ndarray, rate: int, band_hz: tuple[float, float], whiten: bool) -> float:
    """The delay that best aligns the two responses in a band, on a grid of 2 us."""
    left, right = np.fft.rfft(hrir, 1 << 12)
    frequency = np.fft.rfftfreq(1 << 12, 1 / rate)
    use = (frequency >= band_hz[0]) & (frequency <= band_hz[1])
    cross = right[use] * np.conj(left[use])
    if whiten:
        size = np.abs(cross)
        cross = np.where(size > size.max() * 10 ** (-cues.GCC_RANGE_DB / 10), cross / size, 0)
    grid = np.arange(-500, 501) * 2e-6
    return grid[(np.exp(2j * np.pi * np.outer(grid, frequency[use])) @ cross).real.argmax()]


@pytest.fixture(scope="module", params=[24000, 44100])
def sphere(request):
    return spherical_head(request.param)


@pytest.mark.parametrize("azimuth_deg", AZIMUTHS_DEG)
def test_sphere(sphere, azimuth_deg):
    """GCC-PHAT within 25 us of Woodworth's (a/c)(t + sin t); IPD of the third octave at 250 Hz within 2 % of
    Kuhn's 2 pi f 3 (a/c) sin t."""
    heard, _ = wave_from(sphere, azimuth_deg)
    lateral, crossing_s = np.radians(azimuth_deg), HEAD_RADIUS_M / SPEED_OF_SOUND
    assert heard.itd_gcc_s == pytest.approx(crossing_s * (lateral + np.sin(lateral)), abs=25e-6)
    kuhn_rad = 2 * np.pi * 250 * 3 * crossing_s * np.sin(lateral)
    assert heard.ipd_rad[3] == pytest.approx(kuhn_rad, rel=0.02, abs=1e-6)


@pytest.mark.parametrize("azimuth_deg", AZIMUTHS_DEG)
def test_sphere_against_its_responses(sphere, azimuth_deg):
    """ITD within 8 us of that of the two responses themselves."""
    heard, hrir = wave_from(sphere, azimuth_deg)
    rate = sphere.sample_rate
    assert heard.itd_gcc_s == pytest.approx(delay_of(hrir, rate, cues.GCC_BAND_HZ, True), abs=8e-6)
    assert heard.itd_phase_s == pytest.approx(delay_of(hrir, rate, cues.PHASE_BAND_HZ, False), abs=8e-6)


@pytest.mark.parametrize("azimuth_deg", AZIMUTHS_DEG)
def test_level_of_a_sphere(azimuth_deg):
    """ILD of white noise within 0.1 dB of the ratio of the responses' energies."""
    heard, hrir = wave_from(spherical_head(interaural.RATE_HZ), azimuth_deg)
    left, right = np.sum(hrir.astype(np.float64) ** 2, axis=1)
    assert heard.ild_db == pytest.approx(10 * np.log10(left / right), abs=0.1)


def test_a_mirrored_source_has_mirrored_cues(sphere):
    ours, theirs = (wave_from(sphere, a)[0] for a in (37.5, -37.5))
    assert theirs.ild_db == pytest.approx(-ours.ild_db, abs=1e-3)
    assert theirs.itd_gcc_s == pytest.approx(-ours.itd_gcc_s, abs=1e-8)
    assert theirs.iacc == pytest.approx(ours.iacc, abs=1e-4)
    assert ours.ild_db > 5 and ours.itd_gcc_s > 2e-4


@pytest.mark.parametrize("name", SOFA)
def test_measured_heads(shared_dir, name):
    """ITD by phase within 10 us of the responses' own; every cue names the source's side from 10 to 90
    degrees and the delay grows from 10 to 60."""
    path = shared_dir / "media" / "hrir" / f"{name}.sofa"
    if not path.is_file():
        pytest.skip(f"no {name}.sofa")
    head = load_sofa(path, 44100)
    delays = []
    for azimuth_deg in (10.0, -30.0, 60.0, -90.0):
        heard, hrir = wave_from(head, azimuth_deg)
        own = delay_of(hrir, head.sample_rate, cues.PHASE_BAND_HZ, False)
        assert heard.itd_phase_s == pytest.approx(own, abs=10e-6)
        measured = head.directions[head.nearest_index(direction(np.radians(azimuth_deg), 0.0))]
        side = np.sign(measured[1])
        assert side == np.sign(azimuth_deg)
        for cue in (heard.ild_db, heard.itd_gcc_s, heard.itd_phase_s, heard.ipd_rad[3]):
            assert np.sign(cue) == side
        delays.append(abs(heard.itd_phase_s))
    assert delays[0] < delays[1] < delays[2]
