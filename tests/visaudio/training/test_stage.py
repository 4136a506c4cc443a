import math
import os
import signal
from dataclasses import replace

import pytest
import torch
from torch import nn

from bi_audio_dataset.schema import UserError
from visaudio.training.stage import LoopConfig, finish, finished, learning_rate, run_stage, step_rng


def problem(seed: int = 0):
    torch.manual_seed(seed)
    module = nn.Linear(3, 1)
    config = LoopConfig(steps=12, learning_rate=0.2, warmup_steps=2, precision="fp32", checkpoint_minutes=0)

    def loss(step: int):
        x = torch.from_numpy(step_rng(config.seed, step).standard_normal((16, 3))).float()
        error = (module(x) - x.sum(dim=1, keepdim=True)).square().mean()
        return error, {"error": error.detach()}

    return module, config, loss


def test_learning_rate_warms_up_and_falls_to_the_end():
    config = LoopConfig(steps=100, learning_rate=1.0, final_learning_rate=0.1, warmup_steps=10)
    assert learning_rate(config, 0, 0.0) == pytest.approx(0.1)
    assert learning_rate(config, 50, 0.5) == pytest.approx(0.55)
    assert learning_rate(config, 100, 1.0) == pytest.approx(0.1)


def test_stage_learns(tmp_path):
    module, config, loss = problem()
    before = loss(0)[0].item()
    figures = run_stage("test", config, module, loss, tmp_path, lambda: {"loss": loss(0)[0].item()}, False)
    assert figures["loss"] < 0.5 * before
    assert not module.training


def test_interrupted_run_ends_as_a_straight_one(tmp_path):
    straight, config, loss = problem()
    run_stage("test", config, straight, loss, tmp_path / "a", progress=False)
    broken, config, loss = problem()

    def stops(step: int):
        if step == 7:
            raise KeyboardInterrupt
        return loss(step)

    with pytest.raises(KeyboardInterrupt):
        run_stage("test", config, broken, stops, tmp_path / "b", progress=False)
    resumed, config, loss = problem(seed=1)  # other weights: they must come from the checkpoint
    run_stage("test", config, resumed, loss, tmp_path / "b", progress=False)
    assert torch.equal(straight.weight, resumed.weight)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_resumed_run_ends_as_a_straight_one(tmp_path, number):
    straight, config, loss = problem()
    config = replace(config, checkpoint_minutes=1000)
    run_stage("test", config, straight, loss, tmp_path / "a", progress=False)
    stopped, _, loss = problem()
    seen = []

    def signalled(step: int):
        seen.append(step)
        if step == 7:
            os.kill(os.getpid(), number)
        return loss(step)

    with pytest.raises(KeyboardInterrupt):
        run_stage("test", config, stopped, signalled, tmp_path / "b", progress=False)
    assert seen == list(range(8))
    resumed, _, loss = problem(seed=1)
    after = []
    run_stage("test", config, resumed, lambda s: after.append(s) or loss(s), tmp_path / "b", progress=False)
    assert after == [8, 9, 10, 11] and torch.equal(straight.weight, resumed.weight)


def test_time_budget_ends_the_run(tmp_path):
    module, config, loss = problem()
    config = LoopConfig(steps=10**7, max_minutes=0.3 / 60, precision="fp32", warmup_steps=1)
    counted = []
    run_stage("test", config, module, lambda step: counted.append(step) or loss(step), tmp_path, None, False)
    assert 1 < len(counted) < 10**6


def test_a_bad_batch_does_not_harm_the_weights(tmp_path):
    module, config, loss = problem()
    run_stage(
        "test",
        config,
        module,
        lambda s: (loss(s)[0] * (math.nan if s == 3 else 1), {}),
        tmp_path,
        None,
        False,
    )
    assert torch.isfinite(module.weight).all()


def test_checkpoint_of_another_shape_is_refused(tmp_path):
    module, config, loss = problem()
    run_stage("test", config, module, loss, tmp_path, None, False)
    with pytest.raises(UserError, match="another configuration"):
        run_stage("test", config, nn.Linear(4, 1), loss, tmp_path, None, False)


def test_finish_marks_and_cleans(tmp_path):
    module, config, loss = problem()
    run_stage("test", config, module, loss, tmp_path, None, False)
    assert finished(tmp_path) is None and (tmp_path / "checkpoint.pt").is_file()
    finish(tmp_path, {"x": 1.5}, config)
    assert finished(tmp_path) == {"x": 1.5} and not (tmp_path / "checkpoint.pt").exists()


@pytest.mark.parametrize("bad", [{"precision": "fp8"}, {"steps": 0}, {"learning_rate": math.nan}])
def test_bad_settings_are_refused(bad):
    with pytest.raises(UserError, match=next(iter(bad))):
        LoopConfig(**bad)
