import json

import pytest
import torch
from accelerate import Accelerator
from fakes import FakeNetwork, FakeSamples

from bi_audio_dataset.schema import UserError
from visaudio.training.loop import FlowLoopConfig, train
from visaudio.training.losses import LossRecord, read_losses
from visaudio.training.schedule import ScheduleConfig


def _record(folder, step: int = 0) -> LossRecord:
    return LossRecord(folder, Accelerator(cpu=True), step)


def test_rounds_of_a_step_are_averaged_and_read_back_bit_for_bit(tmp_path):
    record = _record(tmp_path)
    record.add(1, torch.tensor([0.1, 0.3]))
    record.add(1, torch.tensor([0.7, 1.1]))
    record.add(2, torch.tensor([1 / 3]))
    assert not record.path.exists()  # nothing is read from the device before the flush
    record.flush()
    record.flush()
    expected = torch.stack([torch.tensor([0.1, 0.3]).mean(), torch.tensor([0.7, 1.1]).mean()]).mean()
    assert read_losses(tmp_path) == {1: expected.item(), 2: torch.tensor(1 / 3).item()}


def test_a_resumed_run_drops_what_it_does_again_and_a_line_that_was_cut(tmp_path):
    record = _record(tmp_path)
    for step in (1, 2, 3):
        record.add(step, torch.tensor([float(step)]))
    record.flush()
    with record.path.open("a") as file:
        file.write('{"step": 4, "lo')
    assert read_losses(tmp_path) == {1: 1.0, 2: 2.0, 3: 3.0}
    resumed = _record(tmp_path, step=2)
    assert read_losses(tmp_path) == {1: 1.0, 2: 2.0}
    resumed.add(3, torch.tensor([5.0]))
    resumed.flush()
    assert [json.loads(line) for line in record.path.read_text().splitlines()][-1] == {"step": 3, "loss": 5.0}
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_of_something_else_is_refused_and_kept(tmp_path):
    path = tmp_path / "losses.jsonl"
    path.write_text("my notes\n")
    with pytest.raises(
        UserError, match=r"losses.jsonl, line 1: expected a step and its loss, got 'my notes'"
    ):
        _record(tmp_path)
    assert path.read_text() == "my notes\n"
    with pytest.raises(UserError, match="expected the folder of a training run"):
        read_losses(tmp_path / "nowhere")


def test_a_run_records_every_step_whatever_it_logs(tmp_path):
    config = FlowLoopConfig(
        steps=7,
        batch_size=4,
        precision="fp32",
        log_every=3,
        validate_every=0,
        schedule=ScheduleConfig(peak=1e-2, warmup_steps=2),
    )
    result = train(FakeNetwork(), FakeSamples(), config, tmp_path)
    losses = read_losses(tmp_path)
    assert list(losses) == [1, 2, 3, 4, 5, 6, 7]
    assert result.loss == pytest.approx(losses[7], rel=1e-6)  # the last window holds the last step alone
