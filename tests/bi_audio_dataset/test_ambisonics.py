import numpy as np
import pytest

from bi_audio_dataset import ambisonics, sphere

RATE = 16000
OCTANTS = [(az, el) for az in (-135, -45, 45, 135) for el in (-35, 35)]


def _noise(count: int = 8000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(count)


def test_channel_order_and_gains_are_ambix():
    one = np.ones(1)
    np.testing.assert_allclose(ambisonics.encode(one, 0, 0)[:, 0], [1, 0, 0, 1], atol=1e-7)
    np.testing.assert_allclose(ambisonics.encode(one, np.pi / 2, 0)[:, 0], [1, 1, 0, 0], atol=1e-7)
    np.testing.assert_allclose(ambisonics.encode(one, 0, np.pi / 2)[:, 0], [1, 0, 1, 0], atol=1e-7)
    az, el = 0.7, -0.3
    expected = [1, np.sin(az) * np.cos(el), np.sin(el), np.cos(az) * np.cos(el)]
    np.testing.assert_allclose(ambisonics.encode(one, az, el)[:, 0], expected, atol=1e-7)


@pytest.mark.parametrize("azimuth_deg, elevation_deg", OCTANTS)
def test_encoded_direction_is_found_again(azimuth_deg, elevation_deg):
    foa = ambisonics.encode(_noise(), np.deg2rad(azimuth_deg), np.deg2rad(elevation_deg))
    azimuth, elevation, confidence = ambisonics.max_energy_direction(foa, RATE)
    assert np.rad2deg([azimuth, elevation]) == pytest.approx([azimuth_deg, elevation_deg], abs=1e-3)
    assert confidence == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("azimuth_deg, elevation_deg", OCTANTS)
def test_rotating_the_field_equals_encoding_in_the_camera_frame(azimuth_deg, elevation_deg):
    signal, world = _noise(), sphere.direction(np.deg2rad(azimuth_deg), np.deg2rad(elevation_deg))
    rotation = sphere.rotation_matrix(0.8, -0.4, 0.2)
    rotated = ambisonics.rotate(ambisonics.encode(signal, *sphere.angles(world)), rotation)
    expected = ambisonics.encode(signal, *sphere.angles(sphere.to_camera(world, rotation)))
    np.testing.assert_allclose(rotated, expected, atol=1e-5)


@pytest.mark.parametrize(
    "axis, source_deg, seen_deg", [("yaw", (0, 0), (-30, 0)), ("pitch", (0, 0), (0, -30))]
)
def test_turning_left_moves_sound_right_and_looking_up_moves_it_down(axis, source_deg, seen_deg):
    rotation = sphere.rotation_matrix(*(np.deg2rad([30, 0, 0]) if axis == "yaw" else np.deg2rad([0, 30, 0])))
    foa = ambisonics.rotate(ambisonics.encode(_noise(), *np.deg2rad(source_deg)), rotation)
    assert np.rad2deg(ambisonics.max_energy_direction(foa, RATE)[:2]) == pytest.approx(seen_deg, abs=1e-3)


def test_rotating_there_and_back_is_nothing():
    foa = np.random.default_rng(1).standard_normal((4, 500)).astype(np.float32)
    rotation = sphere.rotation_matrix(1.0, 0.5, -0.7)
    back = ambisonics.rotate(ambisonics.rotate(foa, rotation), rotation.T)
    np.testing.assert_allclose(back, foa, atol=1e-5)


@pytest.mark.parametrize("yaw_rate", [0.5, 20.0])
def test_a_path_is_followed_sample_by_sample(yaw_rate):
    """A camera that turns at a constant rate hears a fixed source as one that circles the other way."""
    signal, frame_rate = _noise(RATE), 25.0
    frames = np.arange(26) / frame_rate
    foa = ambisonics.encode(signal, 0.3, 0.0)
    rotated = ambisonics.rotate(foa, sphere.rotation_matrix(yaw_rate * frames), frame_rate, RATE)
    moving = 0.3 - yaw_rate * np.arange(RATE) / RATE
    # Linear steps of at most 3 degrees between matrices: 1 - cos(1.5 degrees).
    expected = ambisonics.encode(signal, moving, 0.0)
    assert np.abs(rotated - expected).max() < 4e-4 * np.abs(signal).max()


def test_a_still_path_equals_a_static_rotation_and_outlasts_its_frames():
    foa, rotation = ambisonics.encode(_noise(), 0.3, 0.1), sphere.rotation_matrix(0.4, 0.2, 0.1)
    static = ambisonics.rotate(foa, rotation)
    for frames in (1, 3):
        path = np.repeat(rotation[None], frames, axis=0)
        np.testing.assert_allclose(ambisonics.rotate(foa, path, 25.0, RATE), static, atol=1e-5)


def test_energy_map_follows_a_source_over_time():
    signal = _noise(RATE)
    azimuth = np.where(np.arange(RATE) < RATE // 2, np.deg2rad(80), np.deg2rad(-60))
    foa = ambisonics.encode(signal, azimuth, 0.2)
    directions, energy = ambisonics.energy_map(foa, RATE, num_directions=1000, window_s=0.1)
    assert energy.shape == (10, 1000)
    best = directions[energy.argmax(axis=1)]
    for frames, expected_deg in ((best[:5], 80), (best[5:], -60)):
        target = sphere.direction(np.deg2rad(expected_deg), 0.2)
        assert np.rad2deg(sphere.angle_between(frames, target)).max() < 5  # the grid's spacing
    # On its own axis a plane wave has its own mean square.
    power = (signal.reshape(10, -1) ** 2).mean(axis=1)
    np.testing.assert_allclose(energy.max(axis=1), power, rtol=0.01)


def test_confidence_of_mixed_diffuse_and_silent_fields():
    rng = np.random.default_rng(2)
    directions = sphere.fibonacci_sphere(200)
    diffuse = np.einsum(
        "cm,mn->cn", ambisonics.gains(*sphere.angles(directions)), rng.standard_normal((200, 4000))
    )
    assert ambisonics.max_energy_direction(diffuse, RATE)[2] < 0.1
    assert ambisonics.max_energy_direction(np.zeros((4, 100)), RATE) == (0.0, 0.0, 0.0)
    loud, quiet = ambisonics.encode(_noise(seed=3), 1.0, 0), ambisonics.encode(0.3 * _noise(seed=4), -2.0, 0)
    azimuth, _, confidence = ambisonics.max_energy_direction(loud + quiet, RATE)
    assert azimuth == pytest.approx(1.0, abs=0.05) and 0.7 < confidence < 0.95


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"\(4, samples\).*\(2, 10\)"):
        ambisonics.rotate(np.zeros((2, 10)), np.eye(3))
    with pytest.raises(ValueError, match="frame_rate"):
        ambisonics.rotate(np.zeros((4, 10)), np.repeat(np.eye(3)[None], 2, axis=0))


@pytest.mark.parametrize("name", ["eigenmike_rec1_foa_ambix", "eigenmike_rec3_foa_ambix"])
def test_real_recordings_have_their_main_source_in_front(shared_dir, name):
    soundfile = pytest.importorskip("soundfile")
    path = shared_dir / "media" / "foa" / f"{name}.flac"
    if not path.is_file():
        pytest.skip(f"no {path.name}")
    foa, rate = soundfile.read(path, dtype="float32", always_2d=True)
    azimuth, _, confidence = ambisonics.max_energy_direction(foa.T, rate)
    assert abs(np.rad2deg(azimuth)) < 60 and confidence > 0.1
