"""The direction of what moves in the picture, against scenes made here."""

import numpy as np
import pytest
from drawn_scene import FPS, scene

from bi_audio_dataset import media
from visaudio.evaluation.baselines.saliency import motion_path, of_moments


@pytest.mark.parametrize("camera", ["still", "turning"])
def test_the_path_follows_a_moving_disc(camera, tmp_path):
    count = 40
    yaw_deg = np.linspace(0, 40, count) if camera == "turning" else np.zeros(count)
    blob_deg = 30 * np.sin(np.linspace(0, 2 * np.pi, count))
    media.write_video(tmp_path / "a.mp4", scene(yaw_deg, blob_deg), FPS)
    path = motion_path(tmp_path / "a.mp4", 90.0)
    found = np.degrees(np.arcsin(path.at(np.arange(count) / FPS)[1]))
    assert np.corrcoef(found, blob_deg)[0, 1] > 0.97
    inner = slice(4, -4)
    assert np.sqrt(np.mean((found - blob_deg)[inner] ** 2)) < 8  # a second of smoothing lowers the peaks


def test_a_still_picture_leads_to_the_front(tmp_path):
    media.write_video(tmp_path / "a.mp4", scene(np.zeros(20), np.full(20, 35.0))[:1].repeat(20, axis=0), FPS)
    np.testing.assert_allclose(motion_path(tmp_path / "a.mp4").vectors, [[1, 0, 0]] * 20, atol=1e-6)


def test_the_wider_the_lens_the_farther_aside(tmp_path):
    media.write_video(tmp_path / "a.mp4", scene(np.zeros(25), np.full(25, 30.0)), FPS)
    narrow, wide = (motion_path(tmp_path / "a.mp4", hfov).vectors[:, 1].mean() for hfov in (60.0, 90.0))
    assert np.degrees(np.arcsin(wide)) == pytest.approx(30, abs=2)
    assert np.degrees(np.arcsin(narrow)) == pytest.approx(
        np.degrees(np.arctan(np.tan(np.pi / 6) ** 2)), abs=2
    )


def test_weak_motion_is_drawn_to_the_front():
    left = np.tile([0.0, 1.0, 0.0], (10, 1))
    strong, weak = (of_moments(np.full(10, w), w * left).vectors for w in (10.0, 0.001))
    assert strong[5, 1] > 0.99 and weak[5, 1] < 0.1 and len(strong) == 11
