"""FSDP2 over two processes (torchrun, gloo) trains what one does, and either reads what the other wrote."""

import json

import pytest
import torch
from fakes import MicroSamples
from launch import FSDP2, HEAD, launch
from micro import micro_preset
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from visaudio.model.network import DualBranchNetwork
from visaudio.training.checkpoint import list_checkpoints, load_checkpoint
from visaudio.training.loop import FlowLoopConfig, train
from visaudio.training.schedule import ScheduleConfig

SIZES = micro_preset().network
BOTH_WAYS = (
    HEAD
    + """
import copy
from torch.distributed.fsdp import FSDPModule
fresh = copy.deepcopy(network)
seen = []

def validate(averaged, step, trackers):
    seen.append(float(sum(p.double().abs().sum() for p in averaged.parameters())))

train(network, samples, dataclasses.replace(config, steps=3), folder / "shared_first", validate=validate)
shared = [type(m).__name__ for m in network.modules() if isinstance(m, FSDPModule)]
train(fresh, samples, config, folder / "whole_first", validate=validate)
if torch.distributed.get_rank() == 0:
    (folder / "said.json").write_text(json.dumps({"shared": shared, "averages": seen}))
"""
)


def _network() -> DualBranchNetwork:
    torch.manual_seed(0)
    network = DualBranchNetwork(SIZES)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def _config(steps: int) -> FlowLoopConfig:
    schedule = ScheduleConfig(peak=1e-3, warmup_steps=2, decay="constant")
    settings = {"batch_size": 8, "precision": "fp32", "log_every": 1, "validate_every": 3}
    return FlowLoopConfig(steps=steps, schedule=schedule, **settings)


def losses(folder) -> dict[int, float]:
    """Step -> loss, of all that TensorBoard has of a run."""
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {event.step: event.value for event in events.Scalars("flow/loss")}


def _final(folder):
    return load_checkpoint(list_checkpoints(folder / "checkpoints")[-1])


@pytest.mark.slow
def test_shared_out_weights_train_as_whole_ones_and_resume_either_way(tmp_path):
    samples = MicroSamples(SIZES)
    averages = []

    def validate(averaged, step, trackers):
        averages.append(float(sum(p.double().abs().sum() for p in averaged.parameters())))

    train(_network(), samples, _config(6), tmp_path / "straight", validate=validate)
    train(_network(), samples, _config(3), tmp_path / "whole_first")
    script = tmp_path / "script.py"
    script.write_text(BOTH_WAYS)
    settings = json.dumps({"validate_every": 3})
    done = launch(script, str(tmp_path), settings, processes=2, **FSDP2)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads((tmp_path / "said.json").read_text())
    assert "FSDPJointBlock" in said["shared"] and said["shared"].count("FSDPBranchBlock") == 2
    assert "processes 1 -> 2, weights whole -> shared out" in done.stderr, done.stderr[-900:]
    # the averages that validation saw: step 3 of one run, step 6 of the other
    assert said["averages"] == pytest.approx(averages, rel=1e-6)

    train(_network(), samples, _config(6), tmp_path / "shared_first")
    expected, straight = losses(tmp_path / "straight"), _final(tmp_path / "straight")
    assert len(expected) == 6
    for run in ("shared_first", "whole_first"):
        assert losses(tmp_path / run) == pytest.approx(expected, abs=1e-5)
        other = _final(tmp_path / run)
        for one, two in ((straight.network, other.network), (straight.ema, other.ema)):
            assert one.keys() == two.keys()
            # Adam divides by the gradients' size: where that is rounding, so is the step
            assert all(torch.allclose(one[n], two[n], rtol=0, atol=2e-5) for n in one)
        snapshots = [sorted(p.name for p in (tmp_path / r / "ema").glob("*.pt")) for r in ("straight", run)]
        assert snapshots[0][-1] == snapshots[1][-1]


@pytest.mark.slow
def test_what_cannot_be_shared_out_is_said(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        HEAD
        + """
from bi_audio_dataset.schema import UserError
try:
    train(network, samples, config, folder)
except UserError as error:
    print("said:", error)
"""
    )
    muon = launch(script, str(tmp_path / "run"), '{"optimizer": "muon"}', processes=2, **FSDP2)
    assert "said: muon needs whole matrices" in muon.stdout, muon.stderr[-2000:]
