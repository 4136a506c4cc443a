"""Which cameras the views of a window get, without rendering any."""

import itertools

import numpy as np
import pytest
from fake_source import still_camera, ticks, tiny_config

from bi_audio_dataset import ambisonics
from bi_audio_dataset.camera_plan import WindowCameras, camera_track, choose_hfov, clip_rng, plan_camera
from bi_audio_dataset.schema import CameraTrack
from bi_audio_dataset.trajectory import MIN_SEPARATION_DEG, mean_separation_deg

FOA = ambisonics.encode(ticks(8000, 0), np.radians(30.0), 0.0)
RENDERS = range(3)


def cameras(number: int, **changes) -> WindowCameras:
    return WindowCameras(FOA, f"recording-{number}", 0, tiny_config(**changes))


def track(plan: WindowCameras, view: int, render: int = 0) -> CameraTrack:
    return camera_track(plan.camera(view, render).path)


@pytest.mark.parametrize("views", [2, 3])
def test_views_look_apart_whichever_renderings_stand(views):
    nearest = []
    for number in range(12):
        plan = cameras(number, views_per_recording=views)
        for a, b in itertools.combinations(range(views), 2):
            for first, second in itertools.product(RENDERS, RENDERS):
                paths = plan.camera(a, first).path, plan.camera(b, second).path
                nearest.append(mean_separation_deg(*paths))
    assert min(nearest) >= MIN_SEPARATION_DEG


def test_a_rendering_moves_nothing_that_was_there_before():
    alone, asked = (cameras(0, views_per_recording=3) for _ in range(2))
    for render in RENDERS:
        asked.camera(0, render), asked.camera(2, render)
    for view in range(3):
        assert track(asked, view) == track(alone, view)
    # in whatever order they are asked for
    assert track(cameras(0, views_per_recording=3), 1, 2) == track(asked, 1, 2)
    assert len({track(asked, 1, render) for render in RENDERS}) == 3


def test_first_renderings_and_single_views_are_a_plain_draw():
    config = tiny_config(views_per_recording=2)
    plan, earlier = cameras(3, views_per_recording=2), []
    for view in range(2):
        rng = clip_rng(0, "recording-3", 0, view)
        hfov_deg = choose_hfov(rng, config)
        path, facing = plan_camera(rng, FOA, hfov_deg, config, earlier)
        earlier.append(path)
        found = plan.camera(view)
        assert (found.hfov_deg, found.facing) == (hfov_deg, facing)
        assert camera_track(found.path) == camera_track(path)
    rng = clip_rng(0, "recording-3", 0, 0, 2)
    path, _ = plan_camera(rng, FOA, choose_hfov(rng, config), config)
    assert track(cameras(3), 0, 2) == camera_track(path)  # one view has none to be kept apart from


def test_facing_is_the_direction_of_most_energy():
    camera = cameras(0, trajectory=still_camera(), random_yaw_probability=0.0).camera(0)
    assert camera.facing["azimuth_deg"] == pytest.approx(30.0, abs=0.01)
    assert camera.facing["elevation_deg"] == pytest.approx(0.0, abs=0.01)
    assert camera.facing["elsewhere"] is False and camera.facing["confidence"] == pytest.approx(1.0, abs=0.01)
    assert np.degrees(camera.path.yaw_rad) == pytest.approx(np.full(20, 30.0), abs=0.01)
