import numpy as np
import pytest

from bi_audio_dataset import hrtf, sphere
from bi_audio_dataset.schema import UserError

RATE = 44100
CROSSING_S = hrtf.HEAD_RADIUS_M / hrtf.SPEED_OF_SOUND
MEASURED = ["MIT_KEMAR_normal_pinna", "CIPIC_subject_003", "LISTEN_IRC_1002", "FHK_KU100_L2354"]


@pytest.fixture(scope="module")
def head():
    return hrtf.spherical_head(RATE)


@pytest.fixture(params=MEASURED)
def measured(request, shared_dir):
    path = shared_dir / "media" / "hrir" / f"{request.param}.sofa"
    if not path.is_file():
        pytest.skip(f"no {path.name}")
    return hrtf.load_sofa(path, RATE)


def _phase_delay_s(hrir: np.ndarray, frequency_hz: float) -> float:
    """ITD (positive: left ear first) from the interaural phase at one low frequency."""
    tone = np.exp(-2j * np.pi * frequency_hz * np.arange(hrir.shape[-1]) / RATE)
    left, right = hrir @ tone
    return float(np.angle(left * np.conj(right)) / (2 * np.pi * frequency_hz))


def _group_delay_s(hrir: np.ndarray, frequency_hz: float) -> float:
    """ITD from the slope of the interaural phase about one high frequency."""
    tones = np.exp(
        -2j * np.pi * np.outer(np.arange(hrir.shape[-1]), frequency_hz + np.array([-100, 100])) / RATE
    )
    left, right = hrir @ tones
    phase = np.angle(left * np.conj(right))
    return float(np.angle(np.exp(1j * (phase[1] - phase[0]))) / (2 * np.pi * 200))


@pytest.mark.parametrize("azimuth_deg", [-90, -45, -15, 0, 15, 45, 90])
def test_low_frequency_itd_is_kuhns_sphere(head, azimuth_deg):
    hrir = head.nearest(np.deg2rad(azimuth_deg))
    expected = 3 * CROSSING_S * np.sin(np.deg2rad(azimuth_deg))
    assert _phase_delay_s(hrir, 150.0) == pytest.approx(expected, abs=8e-6)


@pytest.mark.parametrize("azimuth_deg", [15, 45, 75])
def test_high_frequency_itd_is_woodworths(head, azimuth_deg):
    lateral = np.deg2rad(azimuth_deg)
    expected = CROSSING_S * (lateral + np.sin(lateral))
    # At 12 kHz the shadow filter's own delay has faded to a few microseconds.
    assert _group_delay_s(head.nearest(lateral), 12000.0) == pytest.approx(expected, abs=15e-6)


def test_head_shadow_gains_are_brown_and_dudas(head):
    spectrum = np.abs(np.fft.rfft(head.nearest(np.pi / 2), 1024))
    frequency_hz = np.fft.rfftfreq(1024, 1 / RATE)
    np.testing.assert_allclose(spectrum[:, 0], 1.0, atol=0.01)  # no shadow for long waves
    x = frequency_hz[(frequency_hz > 500) & (frequency_hz < 10000)] * np.pi * CROSSING_S
    band = slice(*np.searchsorted(frequency_hz, [500, 10000]))
    for ear, alpha in ((0, 2.0), (1, 1.05 + 0.95 * np.cos(np.deg2rad(216)))):
        expected = np.abs((1 + 1j * alpha * x) / (1 + 1j * x))
        # The bilinear transform bends the filter slightly below 10 kHz.
        np.testing.assert_allclose(20 * np.log10(spectrum[ear, band] / expected), 0, atol=1.0)


def test_the_sphere_is_symmetric_to_the_bit(head):
    mirror = head.nearest_index(head.directions * hrtf.MIRROR)
    np.testing.assert_array_equal(head.directions[mirror], head.directions * hrtf.MIRROR)
    np.testing.assert_array_equal(head.hrirs[mirror], head.hrirs[:, ::-1])
    assert head.symmetric and head.symmetrised() is head


def test_grid_and_weights_cover_the_sphere(head):
    assert 200 <= len(head.directions) <= 700
    assert head.weights.sum() == pytest.approx(1)
    weighted = head.directions * head.weights[:, None]
    np.testing.assert_allclose(weighted.sum(axis=0), 0, atol=3e-3)
    np.testing.assert_allclose(head.directions.T @ weighted, np.eye(3) / 3, atol=3e-3)
    points = sphere.fibonacci_sphere(2000)
    nearest = head.directions[head.nearest_index(points)]
    assert np.rad2deg(sphere.angle_between(points, nearest)).max() < 8


def test_other_rates_keep_the_timing():
    low = hrtf.spherical_head(16000)
    high = hrtf.spherical_head(96000, length=288)
    ratio = [
        np.argmax(np.abs(s.nearest(0.0)[0])) / s.sample_rate - s.centre_delay_samples / s.sample_rate
        for s in (low, high)
    ]
    assert ratio == pytest.approx([0, 0], abs=1.5 / 16000)


def test_measured_sets_hear_the_left_first_and_louder(measured):
    left, right = measured.nearest(np.pi / 2), measured.nearest(-np.pi / 2)
    for hrir, sign in ((left, 1), (right, -1)):
        lead = np.argmax(np.abs(hrir[1])) - np.argmax(np.abs(hrir[0]))
        ild_db = 10 * np.log10(np.sum(hrir[0] ** 2) / np.sum(hrir[1] ** 2))
        assert 0.4e-3 < sign * lead / RATE < 1.1e-3
        assert sign * ild_db > 6
    front = hrtf.onsets(measured.nearest(0.0))
    assert abs(int(front[0]) - int(front[1])) <= 4
    assert measured.sample_rate == RATE
    np.testing.assert_allclose(np.linalg.norm(measured.directions, axis=1), 1, atol=1e-9)


def test_symmetrised_sets_mirror_exactly(measured):
    even = measured.symmetrised()
    mirror = even.nearest_index(even.directions * hrtf.MIRROR)
    if not measured.symmetric:
        np.testing.assert_array_equal(even.hrirs[mirror], even.hrirs[:, ::-1])
        # The left ear's own measurements are kept.
        np.testing.assert_array_equal(even.hrirs[: len(measured.hrirs), 0], measured.hrirs[:, 0])
    assert even.symmetric


def _write_sofa(path, positions, kind, units, hrirs, rate=48000.0, delay=None):
    sofar = pytest.importorskip("sofar")
    sofa = sofar.Sofa("SimpleFreeFieldHRIR")
    sofa.Data_IR, sofa.Data_SamplingRate = hrirs, rate
    ears = hrirs.shape[1]
    sofa.Data_Delay = np.zeros((1, ears)) if delay is None else delay
    sofa.SourcePosition, sofa.SourcePosition_Type, sofa.SourcePosition_Units = positions, kind, units
    sofa.ReceiverPosition = np.array([[0, 0.09, 0], [0, -0.09, 0], [0, 0, 0.09]])[:ears]
    sofar.write_sofa(str(path), sofa)


def _click_hrirs(lags, gains, length=64):
    hrirs = np.zeros((len(lags), 2, length))
    for k, (lag, gain) in enumerate(zip(lags, gains, strict=True)):
        hrirs[k, 0, lag[0]], hrirs[k, 1, lag[1]] = gain
    return hrirs


LAGS, GAINS = [(20, 20), (10, 30), (30, 10)], [(1, 1), (1, 0.3), (0.3, 1)]


@pytest.mark.parametrize(
    "kind, units, positions",
    [
        ("spherical", "degree, degree, metre", [[0, 0, 1.5], [90, 0, 1.5], [270, 0, 1.5]]),
        ("cartesian", "metre", [[1.5, 0, 0], [0, 1.5, 0], [0, -1.5, 0]]),
    ],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_positions_and_ears_of_any_file(tmp_path, kind, units, positions, swapped):
    hrirs = _click_hrirs(LAGS, GAINS)
    path = tmp_path / "set.sofa"
    _write_sofa(path, np.array(positions, float), kind, units, hrirs[:, ::-1] if swapped else hrirs)
    loaded = hrtf.load_sofa(path, 48000)
    np.testing.assert_allclose(loaded.directions, [[1, 0, 0], [0, 1, 0], [0, -1, 0]], atol=1e-9)
    np.testing.assert_allclose(loaded.hrirs, hrirs, atol=1e-6)
    assert loaded.symmetric and loaded.centre_delay_samples == 20


def test_delays_and_rates_are_applied(tmp_path):
    path = tmp_path / "set.sofa"
    positions = np.array([[0, 0, 1], [90, 0, 1], [270, 0, 1]], float)
    _write_sofa(
        path,
        positions,
        "spherical",
        "degree, degree, metre",
        _click_hrirs([(4, 4)] * 3, GAINS),
        delay=np.array([[10.0, 10.0], [0.0, 20.0], [20.0, 0.0]]),
    )
    same, half = hrtf.load_sofa(path, 48000), hrtf.load_sofa(path, 24000)
    np.testing.assert_array_equal(np.argmax(np.abs(same.hrirs), axis=-1), [[14, 14], [4, 24], [24, 4]])
    # Halving the rate keeps the filter's gain at low frequency.
    np.testing.assert_allclose(half.hrirs.sum(axis=-1), same.hrirs.sum(axis=-1), atol=0.02)


def test_bad_files_are_named(tmp_path):
    with pytest.raises(UserError, match="no such SOFA file"):
        hrtf.load_sofa(tmp_path / "absent.sofa", RATE)
    text = tmp_path / "text.sofa"
    text.write_text("not a measurement")
    with pytest.raises(UserError, match="text.sofa: not a readable SOFA file"):
        hrtf.load_sofa(text, RATE)
    speakers = tmp_path / "speakers.sofa"
    _write_sofa(speakers, np.array([[0.0, 0, 1]]), "spherical", "degree, degree, metre", np.ones((1, 3, 8)))
    with pytest.raises(UserError, match="2 receivers"):
        hrtf.load_sofa(speakers, RATE)
    silent = tmp_path / "silent.sofa"
    _write_sofa(silent, np.array([[0.0, 0, 1]]), "spherical", "degree, degree, metre", np.zeros((1, 2, 8)))
    with pytest.raises(UserError, match="silent"):
        hrtf.load_sofa(silent, RATE)
