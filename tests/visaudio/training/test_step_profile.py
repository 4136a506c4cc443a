"""A step seen from outside: the real loop on fakes whose slow part is known."""

import time

import pytest
import torch
from fakes import FakeNetwork, FakeSamples
from micro import micro_preset
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile, record_function

from visaudio.model import timing
from visaudio.training import ema, loop
from visaudio.training.ema import EmaConfig
from visaudio.training.loop import FlowLoopConfig, train
from visaudio.training.step_profile import (
    LOADER_THREAD,
    MARK,
    OTHER,
    HostWaits,
    waits_by_part,
    waits_of_forward,
    watch,
)


class SlowSamples(FakeSamples):
    def get(self, index: int, mirror: bool) -> dict:
        time.sleep(0.05)
        return super().get(index, mirror)


def config(steps: int = 6) -> FlowLoopConfig:
    quick = {"precision": "fp32", "validate_every": 0, "ema": EmaConfig(snapshots=1), "trackers": ()}
    return FlowLoopConfig(steps=steps, batch_size=4, log_every=3, **quick)


def test_a_slow_loader_is_seen(tmp_path):
    before = loop.batch_losses, ema.TrackedEma.update
    with watch(skip=2) as clock:
        train(FakeNetwork(), SlowSamples(), config(), tmp_path)
    assert (loop.batch_losses, ema.TrackedEma.update) == before
    shares = clock.shares()
    assert clock.steps == 4
    assert sum(shares.values()) == pytest.approx(1)
    assert all(share >= 0 for share in shares.values())
    assert clock.seconds_per_step > 0.18  # four clips of 50 ms, one thread
    assert shares["waiting for the loader"] > 0.2  # a busy machine draws the rest out
    assert clock.loader_cpu_s < 0.5 * 4 * 0.2  # sleeping is no work
    for part in ("forward", "backward", "clipping", "optimizer", "averages", "logging"):
        assert shares[part] > 0, part


def test_an_exact_share():
    with watch(skip=1) as clock:
        clock.step_done()
        time.sleep(0.02)
        clock.add("forward", 0.01)
        clock.step_done()
    assert clock.shares()["forward"] == pytest.approx(0.01 / clock.seconds_per_step)
    assert clock.shares()[OTHER] == pytest.approx(1 - 0.01 / clock.seconds_per_step)


def test_waits_are_counted_where_they_happen():
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(2):
            with record_function(MARK + "forward"):
                torch.ones(3).sum().item()
            with record_function(MARK + LOADER_THREAD):
                torch.ones(3).nonzero()
    assert waits_by_part(seen, 2) == {
        "forward: _local_scalar_dense": 1.0,
        f"{LOADER_THREAD}: nonzero": 1.0,
    }


def test_copies_from_the_host_are_waits():
    with FakeTensorMode(), HostWaits() as waits:
        here = torch.ones(3)
        there = here.to("cuda")
        there * 2
        there.to(torch.bfloat16)
        here.to("cuda", non_blocking=True)
    assert [wait.operation for wait in waits.found] == ["_to_copy"]


def test_the_networks_forward_pass_waits_for_nothing(monkeypatch):
    preset = micro_preset()
    assert waits_of_forward(preset.network, preset.sequence) == []
    # as it was: a table that is made on the host and sent anew in every step
    monkeypatch.setattr(
        "visaudio.model.spacetime.token_positions",
        lambda *numbers, device: timing.token_positions.__wrapped__(*numbers).to(device),
    )
    found = waits_of_forward(preset.network, preset.sequence)
    assert [wait.shape for wait in found] == [(preset.sequence.num_tokens,)]
