import numpy as np
import pytest

from bi_audio_dataset import ambisonics, sphere
from bi_audio_dataset.review import evidence
from bi_audio_dataset.schema import UserError
from bi_audio_dataset.workplace import EVIDENCE, Parts

RATE = 8000


def scene(azimuths_deg, seconds_each=0.5, elevation_deg=0.0):
    """A panorama red on its left half, and a field in which noise comes from one direction after the
    other.
    """
    noise = np.random.default_rng(0).standard_normal(round(seconds_each * RATE))
    parts = [ambisonics.encode(noise, np.radians(a), np.radians(elevation_deg)) for a in azimuths_deg]
    panorama = np.zeros((64, 128, 3), np.uint8)
    panorama[:, :64, 0] = 255
    return panorama, np.concatenate(parts, axis=1)


def peak_deg(energy):
    row, column = np.unravel_index(energy.argmax(), energy.shape)
    return np.degrees(sphere.pixel_to_angles(column, row, energy.shape[1], energy.shape[0]))


@pytest.mark.parametrize("azimuth, elevation", [(0, 0), (60, 20), (-135, -40), (178, 5)])
def test_the_map_peaks_where_the_sound_comes_from(azimuth, elevation):
    kept = evidence.collect(*scene([azimuth], elevation_deg=elevation), RATE)
    assert peak_deg(kept.energy_map(180, 90)) == pytest.approx((azimuth, elevation), abs=1.1)


def test_the_map_is_the_ambisonic_energy_map():
    panorama, foa = scene([40, -80])
    directions, expected = ambisonics.energy_map(foa, RATE, 512, window_s=1.0)
    energy = evidence.collect(panorama, foa, RATE).energy_map(720, 360)
    columns, rows = sphere.angles_to_pixel(*sphere.angles(directions), 720, 360)
    picked = energy[np.round(rows).astype(int), np.round(columns).astype(int) % 720]
    assert picked == pytest.approx(expected[0], rel=0.03, abs=1e-3)


def test_moments_have_maps_of_their_own():
    kept = evidence.collect(*scene([90, -90]), RATE)
    assert kept.covariance.shape == (4, 4, 4) and kept.window_s == 0.25
    peaks = [peak_deg(kept.energy_map(180, 90, moment))[0] for moment in (0.0, 0.49, 0.5, 0.99, 7.0)]
    assert peaks == pytest.approx([90, 90, -90, -90, -90], abs=1.1)


def test_saved_and_loaded(tmp_path):
    kept = evidence.collect(*scene([30]), RATE, render=2)
    path = evidence.save(tmp_path, "a/b.c 1", kept)
    assert path.parent == tmp_path / "review" / "evidence" and path.stat().st_size < 60_000
    found = evidence.load(tmp_path, "a/b.c 1")
    assert found.render == 2 and found.window_s == kept.window_s
    assert np.array_equal(found.covariance, kept.covariance)
    assert found.panorama.shape == (256, 512, 3)
    assert found.panorama[100, 100] == pytest.approx([255, 0, 0], abs=12)  # still red, not blue
    assert found.panorama[100, 400] == pytest.approx([0, 0, 0], abs=12)
    before = path.read_bytes()
    evidence.save(tmp_path, "a/b.c 1", kept)
    assert path.read_bytes() == before
    assert evidence.load(tmp_path, "a/b") is None and evidence.load(tmp_path / "nowhere", "a") is None


def test_a_new_rendering_takes_the_place_of_the_old(tmp_path):
    for clip_id, render in (("a", 0), ("a.1", 0), ("b", 0), ("a", 1)):
        evidence.save(tmp_path, clip_id, evidence.collect(*scene([0]), RATE, render))
    assert evidence.renders(tmp_path) == {"a": 1, "a.1": 0, "b": 0}
    assert len(list((tmp_path / evidence.FOLDER).iterdir())) == 3
    assert evidence.load(tmp_path, "a").render == 1 and evidence.load(tmp_path, "a.1").render == 0


@pytest.mark.parametrize("damage", [b"", b"not a zip", None])
def test_a_damaged_file_is_named(tmp_path, damage):
    path = evidence.save(tmp_path, "a", evidence.collect(*scene([0]), RATE))
    path.write_bytes(path.read_bytes()[:-200] if damage is None else damage)
    with pytest.raises(UserError, match=r"a\.0\.npz: damaged"):
        evidence.load(tmp_path, "a")


def test_what_workers_leave_beside_parts_comes_home(tmp_path):
    """Also after a kill in between, and where a worker that was taken for dead comes late."""
    parts, home = Parts(str(tmp_path / "parts")), tmp_path / "set"
    parts.prepare()
    kept = {render: evidence.collect(*scene([40 * render]), RATE, render) for render in (0, 1)}

    def leave(clip_id, render):
        parts.put(evidence.file_name(clip_id, render, EVIDENCE), evidence.pack(kept[render], clip_id))

    leave("a/b.c 1", 0)
    leave("other", 0)
    assert set(parts.sizes(".npz")) == {"a%2Fb.c%201.0.evidence.npz", "other.0.evidence.npz"}
    evidence.collect_from(parts, home)
    evidence.collect_from(parts, home)
    assert parts.sizes(".npz") == {} and evidence.renders(home) == {"a/b.c 1": 0, "other": 0}
    direct = evidence.save(tmp_path / "direct", "a/b.c 1", kept[0])
    assert (home / evidence.FOLDER / direct.name).read_bytes() == direct.read_bytes()
    leave("a/b.c 1", 1)
    evidence.collect_from(parts, home)
    leave("a/b.c 1", 0)
    evidence.collect_from(parts, home)
    assert evidence.renders(home) == {"a/b.c 1": 1, "other": 0} and parts.sizes(".npz") == {}
    assert len(list((home / evidence.FOLDER).iterdir())) == 2


def test_ids_that_are_too_long_for_a_file_name(tmp_path):
    foa = np.random.default_rng(0).standard_normal((4, 4410)).astype(np.float32)
    for number, name in enumerate(["道" * 80, "道" * 81, "short"]):
        evidence.save(tmp_path, name, evidence.collect(np.zeros((64, 128, 3), np.uint8), foa, 44100, number))
    assert evidence.renders(tmp_path) == {"道" * 80: 0, "道" * 81: 1, "short": 2}
    assert evidence.load(tmp_path, "道" * 81).render == 1
