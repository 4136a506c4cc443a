"""BiAudio-Synth: what is planned, drawn and sounded agrees, and nothing held out is seen in training."""

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from bi_audio_dataset import ambisonics, media, sphere
from bi_audio_dataset.schema import UserError
from bi_audio_dataset.sources.synthetic import looks, panorama, rooms, sounds
from bi_audio_dataset.sources.synthetic.scene import SCENE_KINDS, bounce_height, plan_scene
from bi_audio_dataset.sources.synthetic.source import SyntheticSource, find_sprites, render_sound_field
from bi_audio_dataset.sources.synthetic.sprites import draw

SCENES = [plan_scene(7, index) for index in range(250)]
STRIKE = sounds.Event(onset_s=1.0, duration_s=0.3, strength=1.0)


def look_of(kind: str, member: int = 1, **changes) -> looks.Look:
    return replace(looks.Look(kind, member, hue=0.3, accent=0.6, light=0.7, proportion=0.5), **changes)


def test_kinds_of_scenes_come_as_often_as_stated():
    counted = Counter(scene.kind for scene in SCENES)
    for kind, share in SCENE_KINDS.items():
        assert counted[kind] / len(SCENES) == pytest.approx(share, abs=0.1)
    number = {"single": {1}, "several": {2, 3}, "offscreen": {2}}
    assert all(len(scene.objects) in number[scene.kind] for scene in SCENES)
    assert Counter(len(scene.distractors) for scene in SCENES).keys() == {0, 1, 2, 3}
    assert {item.sound.class_name for scene in SCENES for item in scene.objects} == set(sounds.CLASSES)
    assert len(sounds.CLASSES) >= 8


def test_distractors_are_silent_and_some_look_like_sources():
    silent = [item for scene in SCENES for item in scene.distractors]
    assert all(item.sound is None and not item.events for item in silent)
    assert 0.2 < np.mean([item.look.kind in sounds.CLASSES for item in silent]) < 0.5


def test_off_screen_objects_are_far_behind():
    for scene in SCENES:
        if scene.kind == "offscreen":
            seen, hidden = (item.azimuth_rad[0] for item in scene.objects)
            assert np.cos(seen - hidden) < np.cos(np.radians(60))


def test_a_scene_depends_on_seed_index_and_side_alone():
    def key(scene):
        return [(o.look, o.sound, o.events, o.azimuth_rad.tobytes()) for o in scene.objects]

    assert key(plan_scene(7, 3)) == key(SCENES[3])
    others = [SCENES[4], plan_scene(8, 3), plan_scene(7, 3, held_out=True)]
    assert all(key(other) != key(SCENES[3]) for other in others)


def test_held_out_looks_are_never_drawn_in_training():
    rng = np.random.default_rng(0)
    cell = {side: set() for side in (True, False)}
    for side in cell:
        values = [looks.sample_unit(rng, side) for _ in range(2000)]
        cell[side] = {int(value * looks.CELLS) for value in values}
    assert cell[True].isdisjoint(cell[False])
    assert len(cell[True]) == looks.CELLS // looks.HELD_OUT_EVERY
    assert len(cell[True] | cell[False]) == looks.CELLS


def test_members_and_classes_look_different():
    """Members also differ in width; of the siren the medium and the large differ in nothing else."""
    still = looks.Pose(0.0, 0.0, np.inf, np.inf, 0.0)
    for name in sounds.CLASSES:
        pictures = [draw(look_of(name, member), still).astype(float) for member in range(3)]
        for a, b in itertools.combinations(pictures[: 2 if name == "siren" else 3], 2):
            assert np.abs(a - b).mean() > 0.9, name
    classes = [draw(look_of(name), still).astype(float) for name in sounds.CLASSES]
    for a, b in itertools.combinations(classes, 2):
        assert np.abs(a - b).mean() > 8


@pytest.mark.parametrize("name", [name for name in sounds.CLASSES if name != "ball"])
def test_an_object_moves_when_it_sounds_and_rests_when_it_does_not(name):
    """But for the ball, whose motion is its path and its spin."""
    kind = sounds.CLASSES[name].kind

    def picture(time_s, events):
        return draw(look_of(name), looks.pose_at(time_s, events, kind)).astype(float)

    before, during = picture(0.5, [STRIKE]), picture(1.02, [STRIKE])
    assert np.abs(before - during).mean() > 0.5
    still = draw(look_of(name), looks.Pose(0.0, 0.0, np.inf, np.inf, 0.0))
    np.testing.assert_array_equal(still, draw(look_of(name), looks.Pose(3.0, 0.0, np.inf, np.inf, 0.0)))


def test_a_ball_touches_the_ground_at_each_onset_and_nowhere_else():
    events = [replace(STRIKE, onset_s=t) for t in (0.6, 1.2, 1.6)]
    height = bounce_height(events, 75)
    frames = np.arange(75) / 25
    for event in events:
        assert height[round(event.onset_s * 25)] < 0.3 * height.max()
    flight = (frames > 0.72) & (frames < 1.08)
    assert (height[flight] > 0).all() and height[flight].argmax() == pytest.approx(flight.sum() / 2, abs=1)
    assert (height[frames < 0.25] == 0).all()


@pytest.mark.parametrize(("azimuth_deg", "elevation_deg"), [(0, 0), (60, 10), (-120, -20), (179.5, 5)])
def test_a_sprite_is_pasted_where_its_angles_say(azimuth_deg, elevation_deg):
    """Also across the seam at 180 degrees."""
    picture = np.zeros((180, 360, 3), np.uint8)
    white = np.full((96, 96, 4), 255, np.uint8)
    azimuth, elevation = np.radians(azimuth_deg), np.radians(elevation_deg)
    panorama.paste(picture, white, azimuth, elevation, np.radians(12))
    v, u = np.nonzero(picture[..., 0] > 127)
    pixels = sphere.direction(*sphere.pixel_to_angles(u, v, 360, 180))
    mean = pixels.mean(axis=0)
    wanted = sphere.direction(azimuth, elevation)
    assert np.degrees(np.arccos(mean @ wanted / np.linalg.norm(mean))) < 0.6
    reach = np.degrees(np.arccos(np.clip(pixels @ wanted, -1, 1))).max()
    assert reach == pytest.approx(6 * 2**0.5, abs=1)  # to the corner of a square 12 degrees wide


def test_backgrounds_wrap_around():
    background = panorama.draw_background(3, False, 256, 128).astype(float)
    seam = np.abs(background[:, 0] - background[:, -1]).mean()
    inside = np.abs(np.diff(background, axis=1)).mean(axis=(0, 2))
    assert seam <= inside.max()


def test_sound_comes_from_where_the_object_is():
    """In free field, of one still object: the strongest direction of the field is the truth's."""
    scenes = (plan_scene(11, index, duration_s=1.0) for index in itertools.count())
    wanted = (s for s in scenes if s.kind == "single" and s.room.kind == rooms.FREE_FIELD.kind)
    for scene in itertools.islice((s for s in wanted if np.ptp(s.objects[0].azimuth_rad) == 0), 3):
        foa, (truth,) = render_sound_field(scene, np.random.default_rng(0))
        azimuth, _, _ = ambisonics.max_energy_direction(foa, 44100)
        error = np.angle(np.exp(1j * (azimuth - truth.azimuth_rad[0])))
        assert abs(np.degrees(error)) < 6
        assert np.abs(foa).max() <= 0.9 + 1e-6
        assert truth.onset_s == tuple(event.onset_s for event in scene.objects[0].events)


def test_fetch_gives_a_panorama_with_ambisonics_the_same_each_time(tmp_path):
    source = SyntheticSource(clips=40, seed=5, duration_s=0.4)
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        made.append(source.fetch("synth-5-000002", tmp_path / name))
    first, second = made
    assert first.video_path.read_bytes() == second.video_path.read_bytes()
    assert first.audio_path.read_bytes() == second.audio_path.read_bytes()
    info = media.probe(first.video_path)
    assert (info.width, info.height, info.num_frames, info.audio_channels) == (768, 384, 10, None)
    foa, rate = media.read_audio(first.audio_path)
    assert (foa.shape, rate) == ((4, 17640), 44100)
    assert all(len(truth.azimuth_rad) == 10 for truth in first.truth)
    assert first.licence == "CC0-1.0" and "seed=5 index=2" in first.provenance


def test_splits_are_nine_tenths_and_held_out_sets_are_all_test():
    source = SyntheticSource(clips=40)
    splits = [source.split(name) for name in source.recording_ids()]
    assert Counter(splits) == {"train": 36, "validation": 2, "test": 2}
    assert source.plan("synth-0-000019").held_out and not source.plan("synth-0-000018").held_out
    assert set(map(SyntheticSource(5, held_out=True).split, source.recording_ids())) == {"test"}


def test_sprites_are_named_by_class(tmp_path):
    for name in ("sprite_bell.png", "drum.png"):
        (tmp_path / name).touch()
    assert find_sprites(tmp_path).keys() == {"bell", "drum"}
    with pytest.raises(UserError, match="not a folder"):
        find_sprites(tmp_path / "nowhere")
    with pytest.raises(UserError, match="at least 1"):
        SyntheticSource(clips=0)
