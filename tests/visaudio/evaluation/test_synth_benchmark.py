"""Scores of sounds that are right, wrong, mirrored or absent, and the intervals over clips."""

from dataclasses import replace

import numpy as np
import pytest

from visaudio.data.dataset import Clip, SourceTrack
from visaudio.evaluation.synth_benchmark import (
    ANALYSIS_RATE_HZ,
    Cues,
    common_side_deg,
    derangement,
    groups_of,
    hear,
    paired_difference,
    score,
    summarise,
    world_drift_deg,
)

RATE, SECONDS, FRAMES = ANALYSIS_RATE_HZ, 2.0, 50
STILL = np.zeros((3, FRAMES))


def source(azimuth_deg=30.0, visible=True, active=slice(0, FRAMES), onset_s=(0.4, 1.2), name="bell"):
    azimuth = np.full(FRAMES, 1.0) * azimuth_deg
    zero = np.zeros(FRAMES)
    envelope = np.full(FRAMES, -80.0)
    envelope[active] = -3.0
    return SourceTrack(
        name, name, name, azimuth, zero, azimuth, zero + 2, zero + 10, (zero + visible).astype(bool),
        np.array(onset_s), envelope,
    )  # fmt: skip


def clip(*sources) -> Clip:
    return Clip("clip", "test", "", SECONDS, 90.0, 256, 144, True, 25.0, tuple(sources))


def cues_of(ild, name="bell", silent=False, onset_s=(0.4, 1.2), itd_s=0.0) -> Cues:
    full = np.ones(FRAMES)
    return Cues(full * ild, full * silent > 0, full * itd_s, full * itd_s, np.array(onset_s), name)


def figures(heard, truth, of):
    return {name: figure.value for name, figure in summarise([score(heard, truth, of)]).items()}


def test_the_truth_itself_is_right():
    moving = clip(source(np.linspace(-40, 40, FRAMES)))
    truth = cues_of(np.linspace(-8, 8, FRAMES))
    got = figures(truth, truth, moving)
    expected = {"side": 1, "r": 1, "r_moving": 1, "ild_error_db": 0, "onset_f1": 1, "sound_class": 1}
    assert {name: got[name] for name in expected} == pytest.approx(expected)
    assert got["itd_gcc_us"] == got["itd_phase_us"] == 0


def test_a_mirrored_sound_is_wrong_everywhere():
    moving = clip(source(np.linspace(-40, 40, FRAMES)))
    truth = cues_of(np.linspace(-8, 8, FRAMES))
    mirrored = figures(cues_of(np.linspace(8, -8, FRAMES)), truth, moving)
    assert mirrored["side"] == 0 and mirrored["r"] == pytest.approx(-1)
    assert mirrored["r_moving"] == pytest.approx(-1)
    assert mirrored["ild_error_db"] == pytest.approx(2 * np.abs(np.linspace(-8, 8, FRAMES)).mean())


def test_equal_ears_have_no_side_and_follow_nothing():
    truth = cues_of(np.linspace(-8, 8, FRAMES))
    got = figures(cues_of(0.0), truth, clip(source(np.linspace(-40, 40, FRAMES))))
    assert got["side"] == 0 and got["r"] == 0 and got["r_moving"] == 0


def test_where_the_truth_does_not_vary_there_is_nothing_to_follow():
    assert np.isnan(figures(cues_of(np.linspace(-8, 8, FRAMES)), cues_of(3.0), clip(source()))["r"])


def test_silence_counts_as_wrong():
    got = figures(cues_of(5.0, name=None, silent=True, onset_s=()), cues_of(5.0), clip(source()))
    assert got["side"] == 0 and got["sound_class"] == 0 and got["onset_f1"] == 0
    assert got["side_silent"] == 1


def test_what_is_not_on_the_right_side_is_silent_or_on_the_wrong_one():
    heard = replace(cues_of(np.where(np.arange(FRAMES) < 20, 6.0, -6.0)), silent=np.arange(FRAMES) < 5)
    got = figures(heard, cues_of(6.0), clip(source(active=slice(0, 25))))
    assert (got["side"], got["side_silent"]) == (15 / 25, 5 / 25)


def test_only_active_frames_count():
    heard = cues_of(np.where(np.arange(FRAMES) < 20, 6.0, -6.0), itd_s=1e-4)
    got = figures(heard, cues_of(6.0), clip(source(active=slice(0, 20))))
    assert got["side"] == 1 and got["ild_error_db"] == 0 and got["itd_gcc_us"] == pytest.approx(100)


def test_class_is_asked_of_clips_with_one_source():
    both = clip(source(), source(25.0, name="drum"))
    assert np.isnan(figures(cues_of(5.0), cues_of(5.0), both)["sound_class"])


def test_pooled_r_is_that_of_all_frames_together():
    rng = np.random.default_rng(0)
    pairs = [(rng.normal(size=FRAMES) + k, rng.normal(size=FRAMES) + 2 * k) for k in range(6)]
    scores = [score(cues_of(y), cues_of(x), clip(source())) for x, y in pairs]
    x, y = (np.concatenate(values) for values in zip(*pairs, strict=True))
    figure = summarise(scores)["r"]
    assert figure.value == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert figure.low < figure.value < figure.high


def test_interval_of_a_share_is_the_binomial_one():
    scores = [
        score(cues_of(1.0, name="bell" if k % 4 else "drum"), cues_of(1.0), clip(source()))
        for k in range(100)
    ]
    figure = summarise(scores)["sound_class"]
    spread = 1.96 * np.sqrt(0.75 * 0.25 / 100)
    assert figure.value == 0.75
    assert figure.low == pytest.approx(0.75 - spread, abs=0.03)
    assert figure.high == pytest.approx(0.75 + spread, abs=0.03)


def test_side_of_several_sources():
    lateral = np.array([[30.0, 30.0, -40.0, 50.0], [50.0, -50.0, -25.0, -50.0]])
    active = np.array([[True, True, True, True], [True, True, True, False]])
    np.testing.assert_array_equal(common_side_deg(lateral, active), [30, 0, -25, 50])
    assert common_side_deg(lateral, np.zeros_like(active)).max() == 0


def test_groups():
    pan = np.stack([np.linspace(0, 30, FRAMES), np.zeros(FRAMES), np.zeros(FRAMES)])
    assert groups_of(clip(source()), STILL) == ("gated",)
    assert groups_of(clip(source(30 - pan[0])), pan) == ("gated", "camera_only")
    assert groups_of(clip(source(30 - pan[0])), STILL) == ("gated",)  # it is the source that moves
    half = np.arange(FRAMES) < 25
    assert groups_of(clip(source(visible=half)), STILL) == ("leaves_view",)
    assert groups_of(clip(source(visible=half, active=slice(0, 20))), STILL) == ("gated",)
    assert groups_of(clip(source(), source(170.0, visible=False)), STILL) == ("several", "off_screen")


def test_drift_undoes_the_camera():
    """A world direction seen by a camera that yaws, pitches and rolls: R = Rz(yaw) Ry(-pitch) Rx(roll)."""
    angles = np.stack([np.linspace(0, 50, FRAMES), np.linspace(-10, 10, FRAMES), np.linspace(5, -20, FRAMES)])
    world = np.array([np.cos(0.3), np.sin(0.3), 0.2])
    world /= np.linalg.norm(world)
    seen = []
    for yaw, pitch, roll in np.radians(angles.T):
        c, s = np.cos, np.sin
        rz = np.array([[c(yaw), -s(yaw), 0], [s(yaw), c(yaw), 0], [0, 0, 1]])
        ry = np.array([[c(-pitch), 0, s(-pitch)], [0, 1, 0], [-s(-pitch), 0, c(-pitch)]])
        rx = np.array([[1, 0, 0], [0, c(roll), -s(roll)], [0, s(roll), c(roll)]])
        seen.append((rz @ ry @ rx).T @ world)
    x, y, z = np.array(seen).T
    track = source(np.degrees(np.arctan2(y, x)))
    track.elevation_deg[:] = np.degrees(np.arcsin(z))
    assert world_drift_deg(track, angles) < 1e-4
    assert world_drift_deg(track, STILL) > 10


def test_derangement():
    order = derangement(50)
    assert sorted(order) == list(range(50)) and (order != np.arange(50)).all()
    np.testing.assert_array_equal(order, derangement(50))


@pytest.mark.parametrize("rate", [RATE, 44100])
def test_hearing_a_burst_from_the_left(rate):
    """6 dB and 300 us to the left, one onset; what is missing at the end is silence."""
    rng = np.random.default_rng(0)
    later = round(3e-4 * rate)
    burst = np.zeros(rate)
    burst[rate // 2 :] = 0.1 * rng.standard_normal(rate - rate // 2)
    audio = np.stack([burst, 0.5 * np.roll(burst, later)])
    heard = hear(audio, rate, lambda audio, rate: "bell", SECONDS)
    inside = slice(14, 23)
    assert heard.ild_db[inside].mean() == pytest.approx(6.02, abs=0.1)
    assert np.abs(heard.itd_gcc_s[inside] - later / rate).max() < 6e-6
    assert np.abs(heard.itd_phase_s[inside] - later / rate).max() < 1e-5
    assert len(heard.onset_s) == 1 and abs(heard.onset_s[0] - 0.5) < 0.02
    assert len(heard.ild_db) == FRAMES and heard.silent[30:].all() and heard.sound_class == "bell"


def test_paired_differences_are_narrower_than_the_figures_they_are_of():
    """Clips differ by far more than the two systems do: only the same resamples show it."""
    of = clip(source())
    errors = np.random.default_rng(0).uniform(0, 20, 30)
    truth = cues_of(25.0)
    ours, theirs = (
        [score(cues_of(25.0 - error - more), truth, of) for error in errors] for more in (0.5, 0.0)
    )
    got = paired_difference(ours, theirs)["ild_error_db"]
    assert (got.value, got.low, got.high) == pytest.approx((0.5, 0.5, 0.5))
    alone = summarise(ours)["ild_error_db"]
    assert alone.high - alone.low > 2
    with pytest.raises(ValueError, match="same clips"):
        paired_difference(ours, theirs[1:])
