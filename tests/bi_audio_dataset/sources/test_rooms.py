import itertools

import numpy as np
import pytest

from bi_audio_dataset import ambisonics, sphere
from bi_audio_dataset.sources.synthetic import rooms

RATE = 44100
ROOM = rooms.RoomSpec(
    "shoebox", "test room", (7.0, 5.0, 3.0), (3.2, 2.6, 1.4), absorption=0.161 * 105 / (142 * 0.4), rt60_s=0.4
)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * RATE)).astype(np.float32)


def intensity_direction(foa: np.ndarray) -> np.ndarray:
    """Unit vector (3,) of the mean intensity W (X, Y, Z): where the sound comes from."""
    vector = (foa[0] * foa[[3, 1, 2]]).mean(axis=1)
    return vector / np.linalg.norm(vector)


def degrees_between(a, b) -> float:
    return float(np.degrees(np.arccos(np.clip(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b), -1, 1))))


def render(mono, position, room=rooms.FREE_FIELD, seed=0, rate_hz=25.0):
    return rooms.render_foa(
        mono, np.asarray(position, float), rate_hz, room, RATE, np.random.default_rng(seed)
    )


@pytest.mark.parametrize("signs", list(itertools.product((-1, 1), repeat=3)))
def test_free_field_direction_in_every_octant(signs):
    position = np.array(signs) * (1.3, 0.7, 0.9)
    foa = render(noise(0.2), position)
    assert degrees_between(intensity_direction(foa), position) < 0.01
    azimuth, elevation = sphere.angles(position / np.linalg.norm(position))
    expected = ambisonics.encode(noise(0.2), azimuth, elevation) / np.linalg.norm(position)
    np.testing.assert_allclose(foa, expected, atol=1e-6)


def test_gain_is_one_over_distance_down_to_the_clamp():
    mono = noise(0.1)
    for distance, gain in ((1.0, 1.0), (2.0, 0.5), (4.0, 0.25), (0.3, 1 / 0.3), (0.05, 1 / 0.3)):
        np.testing.assert_allclose(render(mono, [0.0, distance, 0.0])[0], gain * mono, rtol=1e-5)


def test_moving_source_is_where_its_path_says():
    azimuths = np.linspace(-1.2, 1.5, 51)
    path = 2.0 * np.stack([np.cos(azimuths), np.sin(azimuths), np.full(51, 0.2)], axis=1)
    foa = render(noise(2.0), path)
    for frame in range(0, 50, 7):
        start = int(frame / 25 * RATE)
        found = intensity_direction(foa[:, start : start + int(0.04 * RATE)])
        assert degrees_between(found, (path[frame] + path[frame + 1]) / 2) < 1.0


def test_path_that_ends_early_is_held():
    mono = noise(1.0)
    foa = render(mono, [[1.0, 1.0, 0.0], [1.0, -1.0, 0.0]])
    assert degrees_between(intensity_direction(foa[:, RATE // 2 :]), [1, -1, 0]) < 0.01


def test_room_is_drawn_in_its_ranges():
    rng = np.random.default_rng(0)
    drawn = [rooms.sample_room(rng) for _ in range(400)]
    free = np.mean([room.kind == "none" for room in drawn])
    assert 0.28 < free < 0.42
    for room in drawn:
        if room.kind == "shoebox":
            assert all(2.4 <= side <= 12.0 for side in room.dimensions_m)
            assert 0.15 <= room.rt60_s <= 0.6 and 0 < room.absorption <= 0.9 + 1e-9
            assert all(0 < p < side for p, side in zip(room.listener_m, room.dimensions_m, strict=True))


def test_first_floor_echo_has_the_analytic_delay_level_and_direction():
    click = np.zeros(RATE // 4, np.float32)
    click[100] = 1.0
    position = np.array([1.5, 0.4, -0.2])
    delays, gains, directions = rooms._reflections(position, ROOM)
    assert len(delays) == 24  # 6 of order 1 and 18 of order 2
    image = position * (1, 1, -1) - (0, 0, 2 * ROOM.listener_m[2])  # below the floor
    echo = int(np.argmin([degrees_between(d, image) for d in directions]))
    assert degrees_between(directions[echo], image) < 1e-3
    direct_m, image_m = np.linalg.norm(position), np.linalg.norm(image)
    assert delays[echo] == pytest.approx((image_m - direct_m) / 343.0, abs=1e-6)
    assert gains[echo] == pytest.approx(np.sqrt(1 - ROOM.absorption) / image_m, rel=1e-4)
    field = render(click, position, ROOM)
    assert field[0, :100].max() == 0.0 and field[0, 100] == pytest.approx(1 / direct_m, rel=1e-5)  # in sync
    at = 100 + round(delays[echo] * RATE)
    assert degrees_between(field[[3, 1, 2], at], image) < 1.0


def test_tail_decays_with_rt60_and_is_diffuse():
    click = np.zeros(RATE, np.float32)
    click[0] = 1.0
    for rt60_s in (0.2, 0.5):
        absorption = 0.161 * 105 / (142 * rt60_s)
        room = rooms.RoomSpec("shoebox", "", ROOM.dimensions_m, ROOM.listener_m, absorption, rt60_s)
        tail = render(click, [1.5, 0.4, 0.0], room)[:, int(0.08 * RATE) :].astype(np.float64)
        decay_db = 10 * np.log10(np.cumsum(tail[0, ::-1] ** 2)[::-1] / (tail[0] ** 2).sum() + 1e-12)
        to_5, to_25 = (int(np.argmax(decay_db < level)) for level in (-5, -25))
        assert 3 * (to_25 - to_5) / RATE == pytest.approx(rt60_s, rel=0.1)
        share = (tail[1:] ** 2).sum(1) / (tail[0] ** 2).sum()
        np.testing.assert_allclose(share, 1 / 3, rtol=0.15)
        assert np.abs(np.corrcoef(tail) - np.eye(4)).max() < 0.1


@pytest.mark.parametrize("distance", [0.8, 2.0, 3.5])
def test_direct_sound_stays_above_the_reverberation(distance):
    mono, position = noise(2.0), np.array([0.5, 0.86, 0.1]) * distance
    dry = render(mono, position)
    wet = render(mono, position, ROOM)
    ratio_db = 10 * np.log10((dry[0] ** 2).sum() / ((wet - dry)[0] ** 2).sum())
    assert 3.0 < ratio_db < 25.0  # 5 dB; less where two echoes arrive together
    assert degrees_between(intensity_direction(wet), position) < 12.0


def test_moving_source_in_a_room_keeps_its_ratio_and_fades_between_keyframes():
    azimuths = np.linspace(0, np.pi, 76)
    path = 1.5 * np.stack([np.cos(azimuths), np.sin(azimuths), np.zeros(76)], axis=1)
    mono = noise(3.0)
    wet, dry = render(mono, path, ROOM), render(mono, path)
    reverberant = (wet - dry)[0].reshape(30, -1)
    levels = 10 * np.log10((reverberant[3:] ** 2).mean(1))
    assert np.ptp(levels) < 4.0
    assert 10 * np.log10((dry[0] ** 2).sum() / ((wet - dry)[0] ** 2).sum()) > 4.0


def test_source_beyond_the_wall_still_renders_from_its_direction():
    position = np.array([6.0, -1.0, 0.3])
    wet = render(noise(1.0), position, ROOM)
    assert degrees_between(intensity_direction(wet), position) < 12.0
    delays, _, _ = rooms._reflections(position, ROOM)
    assert (delays >= 0).all()


def test_only_the_tail_depends_on_the_generator():
    mono = noise(0.5)
    assert np.array_equal(render(mono, [1, 1, 0], ROOM, seed=3), render(mono, [1, 1, 0], ROOM, seed=3))
    assert not np.array_equal(render(mono, [1, 1, 0], ROOM, seed=3), render(mono, [1, 1, 0], ROOM, seed=4))
    assert np.array_equal(render(mono, [1, 1, 0], seed=3), render(mono, [1, 1, 0], seed=4))


def test_bad_shapes_are_named():
    with pytest.raises(ValueError, match=r"positions \(T, 3\), got \(10,\) and \(1, 2\)"):
        rooms.render_foa(np.zeros(10), np.zeros((1, 2)), 25.0, ROOM, RATE, np.random.default_rng(0))
