"""Training of the head on the fake clips: deterministic, better than equal ears, and saved with its notes."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from bi_audio_dataset.schema import UserError
from visaudio.cli.baselines import main
from visaudio.evaluation.baselines import head as heads
from visaudio.evaluation.baselines import head_training
from visaudio.evaluation.baselines.head_settings import TrainConfig

SETTINGS = TrainConfig(steps=2, batch_size=2, crop_s=0.5)
SIZES = {"width": 16, "blocks": 1}


@pytest.fixture(scope="module")
def pairs(fake_biaudio, micro_features, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return head_training.Pairs(fake_biaudio, micro_features, "train", cache, 22050, 100)


def test_pairs_are_the_training_splits_sounds_and_features(pairs):
    assert len(pairs) == pairs.known == 3 and pairs.seconds == 1.0
    assert pairs.audio(0).shape == (2, 22050)
    views = pairs.seen(1)
    assert views.sync.shape[:2] == views.grid.shape[:2] == (1, 2)
    place = pairs.places[1]
    mirrored = pairs.features.tensor(place, "sync_mirror").float()
    torch.testing.assert_close(views.sync[0, 1], mirrored, atol=0, rtol=0)
    assert not torch.equal(views.sync[0, 0], mirrored)


def test_crops_hold_a_loud_moment(pairs):
    for seed in range(20):
        number, audio, start = pairs.crop(np.random.default_rng(seed), 2205)
        whole = pairs.audio(number)
        np.testing.assert_array_equal(audio, whole[:, start : start + 2205])
        assert (audio**2).max() > 1e-4 * (whole**2).max()


def test_the_same_seed_gives_the_same_bits(pairs):
    config = head_training.head_config(pairs.features, **SIZES)

    def weights(seed: int) -> torch.Tensor:
        head, steps = head_training.train(pairs, config, replace(SETTINGS, seed=seed), lambda *_: None)
        assert steps == 2
        return torch.cat([p.flatten() for p in head.parameters()])

    torch.testing.assert_close(weights(0), weights(0), atol=0, rtol=0)
    assert not torch.equal(weights(0), weights(1))


def test_it_beats_equal_ears_on_what_it_learned(pairs):
    """Three still clips, 3 to 9 dB apart; the micro encoders are random, but see which is which."""
    config = head_training.head_config(pairs.features, **SIZES)
    settings = TrainConfig(steps=60, batch_size=3, crop_s=0.5, learning_rate=1e-2)
    told = []
    head, _ = head_training.train(pairs, config, settings, lambda share, loss: told.append((share, loss)))
    judged = head_training.judge(head, pairs)
    assert judged["ild_error_db"] < 0.5 * judged["ild_error_of_equal_ears_db"]
    assert judged["ild_r"] > 0.9 and judged["side"] > 0.9
    assert told[-1][0] == 1 and told[-1][1] < 0.5 * told[0][1]


def test_equal_ears_are_judged_as_such(pairs):
    head = heads.SpatialiserHead(head_training.head_config(pairs.features, **SIZES))
    judged = head_training.judge(head, pairs)
    assert judged["ild_error_db"] == pytest.approx(judged["ild_error_of_equal_ears_db"])
    assert judged["side"] == 0 and np.isnan(judged["ild_r"])


def test_the_command_saves_head_and_notes(fake_biaudio, micro_features, tmp_path, capsys):
    command = ["train-spatialiser", "--dataset", fake_biaudio, "--features", micro_features]
    command += ["--output", tmp_path, "--batch-size", 1, "--clips", 2, "--threads", 1]
    assert main([str(word) for word in (*command, "--steps", 1, "--seed", 3)]) == 0
    said = json.loads(capsys.readouterr().out)
    notes = json.loads((tmp_path / heads.CONFIG).read_text())["training"]
    assert said["clips"] == notes["clips"] == 2 and notes["clips_known"] == 3 and notes["steps"] == 1
    assert notes["settings"]["seed"] == 3 and notes["validation"]["clips"] == 1
    head = heads.load(tmp_path)
    assert set(head.config.encoders) == {"clip", "synchformer"}
    assert 1e5 < sum(p.numel() for p in head.parameters()) < 1e6
    assert main([str(word) for word in (*command, "--minutes", 0.0001)]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 1  # the first step ends after the time is up


def test_clips_without_two_ears_are_no_pairs(heldout, micro_features, tmp_path):
    with pytest.raises(UserError, match="of the 0 training clips of .* none has two ears and features"):
        head_training.run(heldout, micro_features, tmp_path, SETTINGS, lambda *_: None)
