"""The best averaged weights: kept whole, compared the right way round, exported."""

import json
import math
import os

import pytest
import torch
from fakes import FakeSamples
from safetensors.torch import save_file
from test_flow_stage import CONFIG, NETWORK, SEQUENCE, _samples, _Stopping
from torch import nn

from bi_audio_dataset.schema import UserError
from visaudio.model.network import DualBranchNetwork
from visaudio.training import best as best_module
from visaudio.training.best import BestWeights, KeepBest, load_best, read_record
from visaudio.training.flow_stage import FlowStageConfig, export_weights, train_flow, weights_summary
from visaudio.training.loop import FlowLoopConfig
from visaudio.training.validation import ValidationConfig


def network(value: float) -> nn.Module:
    made = nn.Linear(2, 1)
    return made.requires_grad_(False).apply(lambda m: m.weight.fill_(value))


def offer_all(folder, metric, higher, values) -> list[bool]:
    best = BestWeights(folder, metric, higher)
    return [best.offer(network(step), step, {metric: value, "other": 1.0}) for step, value in values]


def test_less_is_better_for_a_loss_and_more_for_a_correlation(tmp_path):
    values = [(1, 0.5), (2, 0.7), (3, 0.3), (4, 0.3)]
    assert offer_all(tmp_path / "a", "loss", False, values) == [True, False, True, False]
    assert offer_all(tmp_path / "b", "ild_r", True, values) == [True, True, False, False]
    weights, record = load_best(tmp_path / "a")
    assert (record.step, record.metric, record.figures) == (3, "loss", {"loss": 0.3, "other": 1.0})
    assert weights["weight"].tolist() == [[3.0, 3.0]]
    assert json.loads((tmp_path / "a" / "figures.json").read_text())["step"] == 3
    assert load_best(tmp_path / "b")[1].step == 2


def test_what_is_not_a_number_never_wins_and_never_stands_in_the_way(tmp_path):
    values = [(1, math.nan), (2, 0.1), (3, math.inf), (4, math.nan), (5, 0.2)]
    assert offer_all(tmp_path, "ild_r", True, values) == [False, True, False, False, True]
    best = BestWeights(tmp_path, "ild_r", True)
    assert not best.offer(network(9), 9, {"loss": 0.0})  # a validation without that figure


def test_a_second_run_finds_the_best_and_says_when_another_figure_decides(tmp_path, capsys):
    offer_all(tmp_path, "loss", False, [(1, 0.5)])
    again = BestWeights(tmp_path, "loss", False)
    assert again.record.step == 1 and not again.offer(network(2), 2, {"loss": 0.6})
    assert capsys.readouterr().err.count("chosen by") == 0
    other = BestWeights(tmp_path, "other", True)
    assert "of step 1, were chosen by loss; from here on other decides" in capsys.readouterr().err
    assert not other.offer(network(3), 3, {"other": 0.5}) and other.offer(network(4), 4, {"other": 1.5})


def test_a_full_disk_leaves_the_former_best_whole(tmp_path, monkeypatch):
    offer_all(tmp_path, "loss", False, [(1, 0.5)])

    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(best_module.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        BestWeights(tmp_path, "loss", False).offer(network(2), 2, {"loss": 0.1})
    monkeypatch.undo()
    weights, record = load_best(tmp_path)
    assert record.step == 1 and weights["weight"].tolist() == [[1.0, 1.0]]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["figures.json", "model.safetensors"]


def test_missing_and_damaged_weights_are_one_line(tmp_path):
    assert read_record(tmp_path) is None
    with pytest.raises(UserError, match="no best weights in .*; export with flow.export=average"):
        load_best(tmp_path)
    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="cannot be read"):
        load_best(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"short")
    with pytest.raises(UserError, match="cannot be read .*remove the folder"):
        BestWeights(tmp_path, "loss", False)


# -------------------- in the flow stage

VALIDATING = FlowLoopConfig(**{**vars(CONFIG.loop), "validate_every": 2})
BEST = FlowStageConfig(loop=VALIDATING, validation=ValidationConfig(loss_clips=4, time_bins=2), export="best")


def train(folder, samples=None, config=BEST, held_out=True):
    held = FakeSamples(4, frames=8, dim=4) if held_out else None
    return train_flow(samples or _samples(), held, NETWORK, SEQUENCE, config, folder)


def test_the_best_survives_a_kill_and_is_what_export_takes(tmp_path, monkeypatch):
    seen = []
    plain = KeepBest.__call__

    def noting(self, averaged, step, writer):
        figures = plain(self, averaged, step, writer)
        seen.append((figures["loss"], step, {n: v.clone() for n, v in averaged.state_dict().items()}))
        return figures

    monkeypatch.setattr(KeepBest, "__call__", noting)
    train(tmp_path / "straight")
    assert [step for _, step, _ in seen] == [2, 4, 6, 8]
    loss, step, weights = min(seen, key=lambda one: one[0])
    assert not train(tmp_path / "resumed", _Stopping(18)).finished
    assert train(tmp_path / "resumed").finished
    for run in ("straight", "resumed"):
        exported = export_weights(NETWORK, BEST, tmp_path / run)
        assert all(torch.equal(exported[name], weights[name]) for name in weights)
        DualBranchNetwork(NETWORK).load_state_dict(exported)
        said = weights_summary(BEST, tmp_path / run)
        assert said["flow steps"] == step
        assert said["weights"] == f"of the best validation, loss {loss:.4g} at step {step}"
    average = export_weights(NETWORK, FlowStageConfig(loop=VALIDATING), tmp_path / "straight")
    assert any(not torch.equal(average[name], weights[name]) for name in weights)
    assert weights_summary(FlowStageConfig(loop=VALIDATING), tmp_path / "straight")["flow steps"] == 8


def test_the_best_without_anything_to_choose_by_is_refused_before_training(tmp_path):
    with pytest.raises(UserError, match="no validation split to choose by"):
        train(tmp_path, held_out=False)
    assert not os.listdir(tmp_path)
    with pytest.raises(UserError, match="set loop.validate_every above 0"):
        FlowStageConfig(loop=FlowLoopConfig(validate_every=0), export="best")
    with pytest.raises(UserError, match="export is 'newest', expected one of average, best"):
        FlowStageConfig(export="newest")
