import numpy as np
import pytest

from bi_audio_dataset.duplicates import HASHES
from bi_audio_dataset.filters import SelectionConfig
from bi_audio_dataset.media import Damage
from bi_audio_dataset.picture import PictureProbe, projection, projection_measures, small_picture

CONFIG = SelectionConfig()
RNG = np.random.default_rng(5)


def smooth(height: int, width: int, wrap: bool, seed: int = 0) -> np.ndarray:
    """A scene (H, W, 3) u8 of broad patches; wrap: it closes at the sides and narrows at the poles."""
    rng = np.random.default_rng(seed)
    u = (np.arange(width) + 0.5) / width * 2 * np.pi
    v = (np.arange(height) + 0.5) / height
    picture = 60 * np.cos(np.pi * v)[:, None] + np.zeros(width)
    for _ in range(6):
        turns = rng.integers(1, 5) if wrap else rng.uniform(0.6, 4.4)
        fade = np.sin(np.pi * v) if wrap else np.cos(rng.uniform(0, 3) * v + rng.uniform(0, 6))
        picture = picture + 25 * fade[:, None] * np.cos(turns * u + rng.uniform(0, 2 * np.pi))
    return np.repeat(np.clip(picture + 128, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def findings(frames, panorama=True) -> dict:
    probe = PictureProbe(CONFIG, len(frames), panorama)
    for frame in frames:
        probe.add(frame)
    return {finding.name: finding for finding in probe.findings()}


@pytest.mark.parametrize(("deviation", "still"), [(1.5, True), (1.7, False)])
def test_static_is_a_mean_square_of_five(deviation, still):
    # two pictures with independent noise of deviation s differ by 2 s^2 on the mean: 4.5 and 5.8
    base = smooth(64, 128, wrap=True).astype(float)
    frames = [
        np.clip(base + np.repeat(RNG.normal(0, deviation, base.shape[:2])[..., None], 3, 2), 0, 255)
        .round()
        .astype(np.uint8)
        for _ in range(16)
    ]
    found = findings(frames)["static"]
    assert found.failed is still
    assert found.measures["pairs"] == 15
    assert found.measures["median_mse"] == pytest.approx(2 * deviation**2 + 1 / 6, rel=0.1)


def test_static_needs_more_than_its_share_of_still_pairs():
    still, moving = smooth(64, 128, True, 0), smooth(64, 128, True, 1)
    assert findings([still] * 14 + [moving, still])["static"].measures["fraction"] == pytest.approx(13 / 15)
    assert findings([still] * 14 + [moving, still])["static"].failed
    assert not findings([still] * 13 + [moving, still, moving])["static"].failed  # 12 of 15
    assert not findings([still] * 3)["static"].failed  # two pairs say nothing


@pytest.mark.parametrize(("missing", "failed"), [(24, False), (25, True)])
def test_damage_of_a_second_is_too_much(missing, failed):
    probe = PictureProbe(CONFIG, 0, panorama=False)
    probe.damage = Damage(25.0, wanted=200, missing=missing)
    (found,) = [f for f in probe.findings() if f.name == "damaged_picture"]
    assert found.failed is failed and found.action == "reject"
    assert found.measures == {"fraction": missing / 200, "seconds": missing / 25}
    off = PictureProbe(CONFIG.with_actions({"damaged_picture": "off"}), 0, panorama=False)
    off.damage = probe.damage
    assert "damaged_picture" not in [f.name for f in off.findings()]


def test_a_sphere_passes_and_a_flat_picture_does_not():
    sphere = findings([smooth(128, 256, wrap=True, seed=s) for s in range(8)])["not_equirectangular"]
    assert not sphere.failed, sphere.measures
    flat = findings([smooth(128, 256, wrap=False, seed=s) for s in range(8)])["not_equirectangular"]
    assert flat.failed and "do not meet" in flat.why, flat.measures


def test_two_eyes_are_found():
    eye = smooth(64, 256, wrap=True, seed=3)
    above = projection_measures(np.concatenate([eye, eye]))
    assert above["top_bottom"] > 0.99
    assert "same twice, top-bottom" in projection((256, 128), above, CONFIG.not_equirectangular).why
    beside = projection_measures(np.concatenate([eye, eye], axis=1))
    assert "side by side" in projection((512, 256), beside, CONFIG.not_equirectangular).why


def test_sides_that_are_not_two_to_one():
    found = projection((1920, 1080), {}, CONFIG.not_equirectangular)
    assert found.failed and found.measures["aspect"] == pytest.approx(16 / 9)
    assert "1920x1080" in found.why
    assert not projection((3840, 1920), {}, CONFIG.not_equirectangular).failed


def test_sky_over_ground_is_no_second_eye():
    grey = np.repeat(np.linspace(200, 40, 64)[:, None], 128, axis=1).astype(np.uint8)
    grey = np.repeat(grey[..., None], 3, axis=2)
    measures = projection_measures(grey)
    assert measures["side_by_side"] == measures["top_bottom"] == 0.0
    assert projection_measures(np.full((64, 128, 3), 90, np.uint8))["top_bottom"] == 0.0


def test_hashes_of_a_window_and_none_of_a_flat_one():
    probe = PictureProbe(CONFIG, 16)
    for k in range(16):
        probe.add(smooth(64, 128, True, k))
    assert len(set(probe.hashes())) == HASHES
    np.testing.assert_array_equal(probe.middle, smooth(64, 128, True, 8))
    short = PictureProbe(CONFIG, 3)
    for k in range(3):
        short.add(smooth(64, 128, True, k))
    assert len(short.hashes()) == HASHES and len(set(short.hashes())) == 3
    assert PictureProbe(CONFIG, 16).hashes() == []
    flat = PictureProbe(CONFIG, 16)
    for _ in range(16):
        flat.add(np.full((64, 128, 3), 30, np.uint8))
    assert flat.hashes() == []


def test_pictures_of_a_pair_need_no_sphere():
    assert set(findings([smooth(72, 128, False)] * 8, panorama=False)) == {"static"}


def test_large_pictures_are_measured_small():
    assert small_picture(np.zeros((960, 1920, 3), np.uint8)).shape == (256, 512, 3)
