"""Training and sampling steps of a network, run and timed on the device that is there.

The step is the loop's own arithmetic (loss, backward, clipping, optimizer, both averages) on one batch that
stays on the device: what the network costs, without loader and logging. benchmarks/training_step.py times the
loop itself.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from visaudio.guidance import guided
from visaudio.model.network import DualBranchNetwork, NetworkConfig
from visaudio.sequence import SequenceConfig
from visaudio.solver import solve, time_grid
from visaudio.training.block_wrappers import wrap_blocks
from visaudio.training.cost import example_batch, step_loss
from visaudio.training.ema import EmaConfig, TrackedEma
from visaudio.training.optimizer import make_optimizer

TOP = 5


@dataclass(frozen=True)
class TrainingFigures:
    """mfu: operations of the step (without what checkpointing runs again) over time and peak; None without a
    peak. peak_bytes: of the device's allocator, None on a CPU. top: (operation, share of all operations' own
    time).
    """

    batch: int
    seconds_per_step: float
    samples_per_second: float
    mfu: float | None
    peak_bytes: int | None
    top: tuple[tuple[str, float], ...]


def measure_training(
    config: NetworkConfig,
    sequence: SequenceConfig,
    batch: int,
    device: str,
    steps: int = 10,
    warm_up: int = 3,
    optimizer: str = "adamw",
    checkpointed: bool = False,
    bf16: bool = True,
    flops_of_peak: float | None = None,
) -> TrainingFigures:
    """Median seconds of `steps` steps after `warm_up`, then one more under the profiler.

    flops_of_peak: a sample's operations over what the device does in a second at its peak, for the MFU.
    """
    with tempfile.TemporaryDirectory(prefix="visaudio-cost-") as scratch:
        step = training_step(config, sequence, batch, device, Path(scratch), optimizer, checkpointed, bf16)
        for _ in range(warm_up):
            step()
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = timed(step, steps, device)
        peak = torch.cuda.max_memory_allocated() if device == "cuda" else None
        top = top_operations(step, device)
    mfu = None if flops_of_peak is None else batch * flops_of_peak / seconds
    return TrainingFigures(batch, seconds, batch / seconds, mfu, peak, top)


def training_step(
    config: NetworkConfig,
    sequence: SequenceConfig,
    batch: int,
    device: str,
    folder: Path,
    optimizer: str = "adamw",
    checkpointed: bool = False,
    bf16: bool = True,
) -> Callable[[], None]:
    """A call of it is one training step of an untrained network. folder: of the averages' snapshots."""
    torch.manual_seed(0)
    network = DualBranchNetwork(config).to(device).train()
    averages = TrackedEma(network, EmaConfig(), folder)
    wrap_blocks(network, checkpointed, compiled=False)
    update = make_optimizer(network, optimizer, 1e-4, (0.9, 0.95), 1e-6)
    data, t, conditions = example_batch(config, sequence, batch, device)

    def step() -> None:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
            loss = step_loss(network, data, t, conditions)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        update.step()
        update.zero_grad()
        averages.update()

    return step


def measure_sampling(
    config: NetworkConfig,
    sequence: SequenceConfig,
    batch: int,
    device: str,
    num_steps: int = 25,
    guidance_scale: float = 4.5,
    runs: int = 3,
    bf16: bool = True,
) -> float:
    """Median seconds for the latents of `batch` clips: Euler steps with guidance; no encoders, no codec."""
    torch.manual_seed(0)
    network = DualBranchNetwork(config).to(device).eval()
    noise, _, conditions = example_batch(config, sequence, batch, device)

    @torch.inference_mode()
    def sample() -> None:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
            told = network.preprocess_conditions(conditions, noise.shape[2])
            untold = network.preprocess_conditions(network.null_conditions(batch, sequence), noise.shape[2])
            velocity = guided(network.predict_velocity, told, untold, guidance_scale)
            solve(lambda t, x: velocity(t, x).float(), noise, time_grid(num_steps, device))

    sample()
    return timed(sample, runs, device)


def timed(action: Callable[[], Any], runs: int, device: str) -> float:
    """Median wall seconds; waits for the device before and after each run."""
    taken = []
    for _ in range(runs):
        wait(device)
        began = time.perf_counter()
        action()
        wait(device)
        taken.append(time.perf_counter() - began)
    return sorted(taken)[len(taken) // 2]


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def top_operations(action: Callable[[], Any], device: str, count: int = TOP) -> tuple[tuple[str, float], ...]:
    """The operations that take most of one run's own time (kernels on a GPU), with their shares of all."""
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device == "cuda" else [])
    with profile(activities=activities) as seen:
        action()
        wait(device)
    return largest_shares(seen, device, count)


def largest_shares(seen: profile, device: str, count: int = TOP) -> tuple[tuple[str, float], ...]:
    """Of the profiler's events, spans (record_function) left out."""
    figure = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    spent = {
        event.key: float(getattr(event, figure))
        for event in seen.key_averages()
        if not event.is_user_annotation and (device == "cuda" or event.key.startswith("aten::"))
    }
    total = sum(spent.values()) or 1.0
    largest = sorted(spent.items(), key=lambda item: -item[1])[:count]
    return tuple((name.removeprefix("aten::")[:60], value / total) for name, value in largest)
