import importlib.util
import sys

import pytest
import torch
from fakes import FakeNetwork, FakeSamples
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bi_audio_dataset.schema import UserError
from visaudio.training import trackers as module
from visaudio.training.loop import FlowLoopConfig, train
from visaudio.training.trackers import Trackers, check_trackers


def _config(*names: str) -> FlowLoopConfig:
    return FlowLoopConfig(
        steps=4, batch_size=4, precision="fp32", log_every=2, validate_every=4, trackers=names
    )


def _validate(averaged, step, trackers):
    trackers.add_scalar("validation/loss", 0.25, step)
    trackers.add_audio("sampled/0", torch.linspace(-1, 1, 800)[None], step, 8000)


def test_tensorboard_has_the_figures_of_the_loop_and_what_validation_adds(tmp_path):
    result = train(FakeNetwork(), FakeSamples(), _config("tensorboard"), tmp_path, validate=_validate)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    loss = events.Scalars("flow/loss")
    assert [event.step for event in loss] == [2, 4] and loss[-1].value == pytest.approx(result.loss)
    waits = [event.value for event in events.Scalars("flow/loader_wait")]
    assert all(0 <= share <= 1 for share in waits)
    assert {"flow/grad_norm", "flow/learning_rate", "flow/seconds_per_step"} <= set(events.Tags()["scalars"])
    assert events.Scalars("validation/loss")[0].value == 0.25
    assert events.Audio("sampled/0")[0].sample_rate == 8000


def test_a_run_without_trackers_is_silent(tmp_path):
    train(FakeNetwork(), FakeSamples(), _config(), tmp_path, validate=_validate)
    assert not (tmp_path / "tensorboard").exists()


def test_what_cannot_log_is_said_before_training(monkeypatch):
    with pytest.raises(UserError, match="'tensorbord' is unknown, expected of tensorboard, wandb, trackio"):
        check_trackers(["tensorbord"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"wandb is not installed; pip install 'visaudio\[wandb\]'"):
        check_trackers(["wandb"])


def test_wandb_without_a_login_is_one_line_and_offline_needs_none(monkeypatch):
    class Wandb:
        @staticmethod
        def login(prompt):
            return prompt

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setitem(sys.modules, "wandb", Wandb)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with pytest.raises(UserError, match="wandb has no login; run `wandb login`, set WANDB_API_KEY"):
        check_trackers(["wandb"])
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_trackers(["wandb"])


class _Recorded:
    """A tracker that remembers, in the place of one that is not installed."""

    def __init__(self, folder, step):
        self.lines, self.settings = [], None

    def start(self):
        pass

    def store_init_configuration(self, values):
        self.settings = values

    def log(self, values, step):
        self.lines.append((step, values))

    def finish(self):
        self.lines.append("end")


def test_several_trackers_get_the_same_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MAKERS", {"wandb": _Recorded, "trackio": _Recorded})
    trackers = Trackers(("wandb", "trackio"), tmp_path, 3, {"steps": 4})
    trackers.log({"flow/loss": 1.5}, 4)
    trackers.close()
    for tracker in trackers._trackers.values():
        assert tracker.lines == [(4, {"flow/loss": 1.5}), "end"] and tracker.settings == {"steps": 4}


def test_a_folder_is_one_run_however_often_it_is_resumed(tmp_path):
    assert module._run_id(tmp_path) == module._run_id(tmp_path) != module._run_id(tmp_path / "other")


@pytest.mark.slow
def test_wandb_logs_to_a_folder_without_a_network(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    train(FakeNetwork(), FakeSamples(), _config("wandb"), tmp_path, validate=_validate)
    written = list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert len(written) == 1 and b"flow/loss" in written[0].read_bytes()
    assert list(tmp_path.glob("wandb/offline-run-*/files/media/audio/**/*.wav"))
