from dataclasses import replace

import numpy as np
import pytest

from bi_audio_dataset import ambisonics
from bi_audio_dataset import filters as rules
from bi_audio_dataset.filters import SelectionConfig
from bi_audio_dataset.schema import UserError

RATE = 8000
CONFIG = SelectionConfig()


def noise(seconds: float, level_dbfs: float, seed: int = 0) -> np.ndarray:
    samples = np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    return samples / np.sqrt(np.mean(samples**2)) * 10 ** (level_dbfs / 20)


def test_silence_counts_the_quiet_part_of_the_time():
    audio = np.concatenate([noise(0.5, -20), noise(9.5, -45)])[None]
    finding = rules.silence(audio, RATE, CONFIG.silent)
    assert finding.measures["fraction"] == pytest.approx(0.95, abs=0.011)
    assert finding.failed
    louder = np.concatenate([noise(1.5, -20), noise(8.5, -45)])[None]
    assert not rules.silence(louder, RATE, CONFIG.silent).failed
    # either side of the level itself
    assert rules.silence(noise(4, -36)[None], RATE, CONFIG.silent).failed
    assert not rules.silence(noise(4, -34)[None], RATE, CONFIG.silent).failed


def test_silence_hears_the_loudest_channel():
    audio = np.stack([noise(4, -60), noise(4, -20)])
    assert not rules.silence(audio, RATE, CONFIG.silent).failed


def test_clipping_counts_samples_in_runs():
    sine = 2.0 * np.sin(2 * np.pi * 51.7 * np.arange(RATE) / RATE)
    clipped = np.clip(sine, -1, 1)[None]
    finding = rules.clipping(clipped, CONFIG.clipped)
    # |2 sin| > 0.99 for 1 - 2 asin(0.495) / pi of the time
    assert finding.measures["fraction"] == pytest.approx(1 - 2 * np.arcsin(0.495) / np.pi, abs=0.005)
    assert finding.failed
    single = 0.5 * np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE)
    single[::50] = 1.0  # clicks, no plateau
    assert rules.clipping(single[None], CONFIG.clipped).measures["fraction"] == 0.0
    assert not rules.clipping(0.98 * np.sin(np.arange(RATE) / 30)[None], CONFIG.clipped).failed


def power_of(foa: np.ndarray) -> np.ndarray:
    return np.mean(foa.astype(np.float64) ** 2, axis=1)


def test_dead_and_planar_channels():
    foa = ambisonics.encode(noise(1, -20), 0.7, 0.4)
    sound, flat = rules.channels(power_of(foa), CONFIG.dead_channel, CONFIG.planar)
    assert not sound.failed and not flat.failed
    assert sound.measures["field_ratio"] == pytest.approx(1.0, abs=1e-3)  # SN3D
    assert flat.measures["z_under_db"] == pytest.approx(-20 * np.log10(np.sin(0.4)), abs=0.01)

    without_x = foa * np.array([[1], [1], [1], [1e-4]])
    sound, _ = rules.channels(power_of(without_x), CONFIG.dead_channel, CONFIG.planar)
    assert sound.failed and sound.action == "reject" and "channel X" in sound.why

    without_z = foa * np.array([[1], [1], [0], [1]])
    sound, flat = rules.channels(power_of(without_z), CONFIG.dead_channel, CONFIG.planar)
    assert not sound.failed
    assert flat.failed and flat.action == "mark"

    without_w = foa * np.array([[0], [1], [1], [1]])
    assert "channel W" in rules.channels(power_of(without_w), CONFIG.dead_channel, CONFIG.planar)[0].why


def test_field_ratio_tells_n3d_and_fuma():
    foa = ambisonics.encode(noise(1, -20), -2.0, 0.1)
    for scale, ratio in ((np.array([1, 3**0.5, 3**0.5, 3**0.5]), 3.0), (np.array([0.5**0.5, 1, 1, 1]), 2.0)):
        found, _ = rules.channels(power_of(foa * scale[:, None]), CONFIG.dead_channel, CONFIG.planar)
        assert found.measures["field_ratio"] == pytest.approx(ratio, rel=1e-3)


@pytest.mark.parametrize(("value", "failed"), [(0.0099, True), (0.0101, False)])
def test_weak_cue_has_the_papers_limit(value, failed):
    assert rules.weak_cue(value, CONFIG.weak_cue).failed is failed


def test_lengths_that_differ_are_refused():
    assert CONFIG.length_mismatch.action == "reject"
    assert rules.lengths(10.0, 8.5, CONFIG.length_mismatch).failed
    assert not rules.lengths(10.0, 9.5, CONFIG.length_mismatch).failed


def test_verdict_sorts_findings_by_action():
    findings = [
        rules.weak_cue(0.001, CONFIG.weak_cue),
        rules.lengths(10.0, 5.0, replace(CONFIG.length_mismatch, action="mark")),
        rules.silence(noise(2, -20)[None], RATE, CONFIG.silent),
    ]
    judged = rules.verdict(findings)
    assert not judged.accepted
    assert list(judged.reasons) == ["weak_cue"] and list(judged.marks) == ["length_mismatch"]
    assert judged.measures["weak_cue.lr_difference"] == 0.001
    assert judged.measures["silent.fraction"] == 0.0
    assert rules.verdict(findings[1:]).accepted


def test_actions_are_changed_by_name():
    changed = CONFIG.with_actions({"silent": "mark", "speech": "reject"})
    assert (changed.silent.action, changed.speech.action, changed.static.action) == (
        "mark",
        "reject",
        "reject",
    )
    assert changed.silent.level_dbfs == -35.0
    with pytest.raises(UserError, match="there is no filter 'quiet', expected one of silent, static"):
        CONFIG.with_actions({"quiet": "mark"})
    with pytest.raises(UserError, match="filter 'silent' has action 'drop'"):
        CONFIG.with_actions({"silent": "drop"})


def test_measured_drops_nothing():
    assert {f.action for f in SelectionConfig.measured().filters().values()} == {"mark", "off"}
