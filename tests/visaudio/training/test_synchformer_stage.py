from dataclasses import replace

import numpy as np
import pytest
import torch

from visaudio.data.dataset import AudioCache, FrameCache, build_cache, open_dataset, read_clip
from visaudio.encoders.synchformer import SynchformerConfig
from visaudio.training.pictures import JitterConfig
from visaudio.training.slots import LEVEL_SCALE_DB, average_precision, pool_slots, slot_truth
from visaudio.training.synchformer_stage import (
    SegmentSampler,
    SynchformerStageConfig,
    slot_loss,
    train_synchformer,
)
from visaudio.training.truth import band_levels_db, onset_tracks, visible_onsets

MODEL = SynchformerConfig(image_size=32, width=16, depth=1, heads=2)
RATE = 22050


@pytest.fixture(scope="module")
def data(fake_biaudio, tmp_path_factory):
    """frames (3, 50, 3, 32, 32) and the truth of the train rows."""
    rows, cache = open_dataset(fake_biaudio, ["train"]), tmp_path_factory.mktemp("cache")
    frames = build_cache(rows, FrameCache(25.0, 32, 50), cache, workers=1, progress=False)
    audio = build_cache(rows, AudioCache(RATE, 2 * RATE), cache, workers=1, progress=False)
    clips = [read_clip(row) for row in rows]
    return frames, slot_truth(clips, audio, RATE, ("bell", "drum"), 50), clips


def test_band_levels_of_a_tone():
    time = np.arange(RATE) / RATE
    tone = np.sin(2 * np.pi * 1000 * time) * np.array([[1.0], [0.1]])
    levels = band_levels_db(tone.astype(np.float32), RATE, 25.0, 25, bands=16, floor_db=-60.0)
    assert levels.shape == (2, 25, 16)
    middle = levels[:, 12]
    assert middle[0].argmax() == middle[1].argmax()
    assert middle[0].max() == pytest.approx(0, abs=0.5) and middle[1].max() == pytest.approx(-20, abs=0.5)
    assert middle[0].min() == -60


def test_truth_follows_the_clips(data):
    _, truth, clips = data
    onset_frame = int(0.4 * 25)
    for index, clip in enumerate(clips):
        power = (10 ** (truth.levels_db[index].astype(np.float64) / 10)).sum(axis=-1)
        ild = 10 * np.log10(power[0, onset_frame + 1] / power[1, onset_frame + 1])
        assert ild == pytest.approx(0.3 * clip.sources[0].azimuth_deg[0], abs=0.5)
        assert truth.onsets[index].argmax() in (onset_frame - 1, onset_frame, int(1.2 * 25))
        label = truth.classes.index(clip.sources[0].class_name)
        assert truth.sounding[index, onset_frame + 1, label] and not truth.sounding[index, 2].any()
        assert truth.onset_times[index] == pytest.approx([0.4, 1.2])


def test_onsets_out_of_view_do_not_count(data):
    clip = data[2][0]
    visible = clip.sources[0].visible.copy()
    visible[25:] = False
    hidden = replace(clip, sources=(replace(clip.sources[0], visible=visible),))
    assert visible_onsets(hidden) == pytest.approx([0.4])
    track = onset_tracks([hidden], 25.0, 50, 0.03)[0]
    assert track[9:11].max() > 0.7 and track[25:].max() < 1e-6


def test_slots_average_power_and_keep_each_frames_onset():
    levels = np.array([[-10.0, -20.0]], dtype=np.float32).reshape(1, 2, 1, 1)
    slots = pool_slots(levels, np.array([[0.2, 0.9]]), np.array([[[True], [False]]]), tubelet=2)
    assert float(slots["levels_db"]) == pytest.approx(10 * np.log10((0.1 + 0.01) / 2), abs=1e-4)
    assert slots["onset"].tolist() == [[pytest.approx([0.2, 0.9])]] and float(slots["sounding"]) == 1


def test_mirrored_segments_swap_the_ears(data):
    frames, truth, _ = data
    config = replace(SynchformerStageConfig(), segments=64, jitter=JitterConfig(0, 0, 0, 0, 0, 0))
    pictures, targets = SegmentSampler(frames, truth, config, MODEL).batch(0)
    assert pictures.min() >= -1 and pictures.max() <= 1
    levels = targets["levels_db"]
    loud = levels.amax(dim=(2, 3)) > -20  # (B, t)
    ild = (levels[:, :, 0] - levels[:, :, 1]).mean(dim=-1)
    # the bell is red on grey, the drum blue: their place is where the channels differ
    colour = (pictures[:, :, 0] - pictures[:, :, 2]).abs()[:, 0]
    place = colour.clamp_min(0.3).sub(0.3).sum(dim=1) @ torch.linspace(0, 1, 32)
    place = place / colour.clamp_min(0.3).sub(0.3).sum(dim=(1, 2))
    sides = [(float(p), float(i[m].mean())) for p, i, m in zip(place, ild, loud, strict=True) if m.any()]
    assert len(sides) > 20
    assert all((p < 0.5) == (i > 0) for p, i in sides)


def test_perfect_answer_has_the_least_loss():
    truth = {
        "levels_db": torch.full((1, 2, 2, 16), -20.0),
        "onset": torch.tensor([[[0.0, 1.0], [0.0, 0.0]]]),
        "sounding": torch.tensor([[[1.0], [0.0]]]),
    }
    levels = truth["levels_db"] / LEVEL_SCALE_DB
    right = (levels, 20 * truth["onset"] - 10, 20 * truth["sounding"] - 10)
    config = SynchformerStageConfig()
    assert float(slot_loss(right, truth, config)[0]) < 1e-3
    one_sided = levels.clone()
    one_sided[:, :, 0] += 0.5
    assert float(slot_loss((one_sided, *right[1:]), truth, config)[1]["ild"]) == pytest.approx(
        0.475, abs=1e-3
    )


def test_average_precision_by_hand():
    scores, labels = np.array([0.9, 0.8, 0.7, 0.1]), np.array([True, False, True, False])
    assert average_precision(scores, labels) == pytest.approx((1 + 2 / 3) / 2)
    assert np.isnan(average_precision(scores, np.zeros(4, dtype=bool)))


def test_stage_writes_weights_that_it_reads_again(fake_biaudio, tmp_path):
    config = replace(
        SynchformerStageConfig(), segments=4, validation_clips=1,
        loop=replace(SynchformerStageConfig().loop, steps=2, warmup_steps=1),
    )  # fmt: skip
    arguments = (fake_biaudio, MODEL, config, tmp_path / "sync")
    encoder, figures = train_synchformer(*arguments, duration_s=2.0, workers=1, progress=False)
    assert 0 <= figures["onset_ap"] <= 1 and "ild_error_db" in figures
    again, same = train_synchformer(*arguments, duration_s=2.0, workers=1, progress=False)
    assert same == figures
    frames = torch.rand(1, 16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(encoder(frames), again(frames))
