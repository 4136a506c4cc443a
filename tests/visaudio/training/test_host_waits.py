"""Between two logged steps the host never waits for the accelerator.

A whole step is run on the meta device, which stands for an accelerator here: its tensors have no data, so
that whoever reads one is seen, and copies to it from the host are copies between devices. (Tensors that say
they lie on a GPU, by FakeTensorMode, cannot go backward where there is none.)
"""

import dataclasses

import pytest
import torch
from fakes import MicroSamples
from micro import micro_preset
from torch.utils._python_dispatch import TorchDispatchMode

from visaudio.model import network as network_module
from visaudio.model import rope, spacetime, timing
from visaudio.model.network import DualBranchNetwork
from visaudio.training.batches import BatchStream, DropoutConfig
from visaudio.training.ema import EmaConfig, TrackedEma
from visaudio.training.guards import FiniteGuard
from visaudio.training.loop import batch_losses
from visaudio.training.optimizer import make_optimizer

SIZES = micro_preset().network
READS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "unique", "equal")


class Waits(TorchDispatchMode):
    """Notes each operation on a tensor of the accelerator that the host would wait for."""

    def __init__(self, device: str = "meta"):
        super().__init__()
        self.device = device
        self.seen: list[str] = []
        self.operations = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        options = options or {}
        tensors = [a for a in arguments if isinstance(a, torch.Tensor)]
        there = any(t.device.type == self.device for t in tensors)
        self.operations += there
        name = function.name().removeprefix("aten::").partition(".")[0]
        if there and name in READS:
            self.seen.append(name)
        result = function(*arguments, **options)
        moved = isinstance(result, torch.Tensor) and tensors and name in ("_to_copy", "copy_")
        if moved:
            places = {t.device.type for t in (*tensors, result)}
            if len(places) > 1 and not (options.get("non_blocking") or True in arguments[2:]):
                self.seen.append(f"{name} {tuple(result.shape)}")
        return result


@pytest.fixture
def no_tables():
    """Tables of lengths are kept for each device: of fake ones nothing may stay."""
    tables = (network_module.nearest_index, timing.token_positions, timing.sync_track_index)
    assert spacetime.token_positions is timing.token_positions

    def forget():
        for table in tables:
            table.forget()
        rope.rotation.cache_clear()

    forget()
    yield
    forget()


def _step(network, batch, optimizer, ema, guard, step: int) -> None:
    batch = batch.to(torch.device("meta"))
    losses = batch_losses(network, network, batch)
    guard.add(step, batch.ids, losses.detach())
    losses.mean().backward()
    grad_norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    guard.check(grad_norm)
    optimizer.step()
    optimizer.zero_grad()
    ema.update()


@pytest.mark.parametrize("times", ["index", "time"])
def test_a_step_reads_nothing_from_the_accelerator(tmp_path, no_tables, times):
    sizes = dataclasses.replace(SIZES, condition_times=times, sync_segment_hop=4)
    batch = BatchStream(MicroSamples(sizes), 0, 4, DropoutConfig()).get(0)
    with torch.device("meta"):
        network = DualBranchNetwork(sizes).train()
    ema = TrackedEma(network, EmaConfig(), tmp_path)
    optimizer = make_optimizer(network, "adamw", 1e-3, (0.9, 0.95), 1e-6)
    guard = FiniteGuard(every=10)
    _step(network, batch, optimizer, ema, guard, 0)  # the first one makes the tables
    with Waits() as waits:
        _step(network, batch, optimizer, ema, guard, 1)
    assert waits.seen == [] and waits.operations > 300


def test_the_watch_sees_what_would_wait():
    with Waits() as waits:
        x = torch.empty(3, device="meta")
        with pytest.raises(NotImplementedError):
            x.to("cpu")
        with pytest.raises(RuntimeError):
            float(x.sum())
        torch.empty(3).to("meta")
        torch.empty(3).to("meta", non_blocking=True)
    assert [name.partition(" ")[0] for name in waits.seen] == ["_local_scalar_dense", "_to_copy"]


def test_reading_the_losses_is_left_to_the_guards_steps():
    guard = FiniteGuard(every=2)
    with torch.device("meta"):
        norm, losses = torch.tensor(1.0), torch.ones(3)
    guard.add(0, "abc", losses)
    guard.check(norm)
    guard.add(1, "abc", losses)
    with pytest.raises((NotImplementedError, RuntimeError)):  # the second step is where it looks
        guard.check(norm)
