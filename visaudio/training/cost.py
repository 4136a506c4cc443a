"""What a training of the network costs, counted without running it: parameters, bytes that stay, operations.

Shapes alone are enough for that: floating-point operations are counted through the real network on the meta
device. What a step keeps in memory: kept_memory.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from visaudio import flow
from visaudio.model import network as network_module
from visaudio.model import rope, timing
from visaudio.model.conditions import MODALITIES, Conditions
from visaudio.model.network import DualBranchNetwork, NetworkConfig
from visaudio.sequence import SequenceConfig
from visaudio.training.block_wrappers import wrap_blocks
from visaudio.training.optimizer import hidden_matrices

FLOAT = 4  # bytes of float32: weights, gradients, the optimizer's state and the averages are kept in it
NEW_PARTS = (
    "inter_ear",
    "spacetime",
    "condition_guess",
    "condition_in",
    "cross_ear_proj",
    "empty_spatial_feat",
)
FORGET_TABLES = (
    rope.rotation.cache_clear,
    timing.sync_track_index.forget,
    timing.token_positions.forget,
    network_module.nearest_index.forget,
)


@dataclass(frozen=True)
class Parameters:
    """Counts. entry: input projections, time and null features, output; joint: joint blocks; branch: the
    blocks of one ear; new: what MMAudio has not (the ears' attention, spacetime module, guesses); total: of
    both ears.
    """

    entry: int
    joint: int
    branch: int
    new: int
    total: int

    @property
    def trunk_per_ear(self) -> int:
        """What one ear's latents go through that MMAudio has too."""
        return self.entry + self.joint + self.branch


def count_parameters(network: DualBranchNetwork) -> Parameters:
    counts = dict.fromkeys(("entry", "joint", "branch", "new"), 0)
    total = 0
    for name, parameter in network.named_parameters():
        top = name.split(".")[0]
        total += parameter.numel()
        if top in NEW_PARTS:
            counts["new"] += parameter.numel()
        elif top == "joint_blocks":
            counts["joint"] += parameter.numel()
        elif top == "branches":
            counts["branch"] += parameter.numel() if name.startswith("branches.0.") else 0
        else:
            counts["entry"] += parameter.numel()
    return Parameters(**counts, total=total)


def state_bytes(network: nn.Module, optimizer: str, ema_copies: int = 2) -> dict[str, int]:
    """What stays in memory from step to step, and the gradients: bytes by name, all float32.

    optimizer: 'adamw' keeps two moments of everything, 'muon' one of the hidden matrices and two of the rest.
    """
    count = sum(p.numel() for p in network.parameters() if p.requires_grad)
    matrices = sum(p.numel() for p in hidden_matrices(network).values()) if optimizer == "muon" else 0
    return {
        "weights": FLOAT * sum(p.numel() for p in network.parameters()),
        "gradients": FLOAT * count,
        "optimizer": FLOAT * (2 * count - matrices),
        "ema": FLOAT * ema_copies * sum(p.numel() for p in network.parameters()),
    }


# --- a step on shapes alone ---


def network_on(device: str, config: NetworkConfig) -> DualBranchNetwork:
    with torch.device(device):
        return DualBranchNetwork(config).train()


def example_batch(
    config: NetworkConfig, sequence: SequenceConfig, batch: int, device: str | torch.device
) -> tuple[Tensor, Tensor, Conditions]:
    """Data (B, 2, N, D), t (B,) and conditions of the right shapes; random where there are numbers at all."""
    c, cells = config, config.spatial_rows * config.spatial_columns

    def normal(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, device=device)

    conditions = Conditions(
        clip_features=normal(sequence.num_clip_frames, c.clip_dim),
        sync_features=normal(sequence.num_sync_tokens, c.sync_dim),
        text_features=normal(c.text_tokens, c.text_dim),
        spatial_features=normal(sequence.num_clip_frames, cells, c.spatial_dim),
        hfov_rad=torch.full((batch,), 1.5, device=device),
        present=torch.ones(batch, len(MODALITIES), dtype=torch.bool, device=device),
    )
    return normal(2, sequence.num_tokens, c.token_dim), torch.rand(batch, device=device), conditions


def step_loss(network: DualBranchNetwork, data: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
    """The loop's loss of one batch, a scalar; noise is drawn here."""
    noise = torch.randn_like(data)
    x_1 = network.normalize(data)
    velocity = network(flow.interpolate(noise, x_1, t), t, conditions)
    return flow.flow_matching_loss(velocity.float(), flow.velocity_target(noise, x_1)).mean()


@contextlib.contextmanager
def fresh_tables() -> Iterator[None]:
    """The network's kept tables, without those made before: fake and real ones must not meet."""
    for forget in FORGET_TABLES:
        forget()
    try:
        yield
    finally:
        for forget in FORGET_TABLES:
            forget()


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of one sample (both ears): a multiplication and its addition count as two."""

    forward: int
    backward: int  # with activation checkpointing: what is run again included

    @property
    def total(self) -> int:
        return self.forward + self.backward


def count_flops(config: NetworkConfig, sequence: SequenceConfig, checkpointed: bool = False) -> Flops:
    """Counted by torch's FlopCounterMode (matrix products, attention) on the meta device, one sample."""
    with fresh_tables():
        network = network_on("meta", config)
        wrap_blocks(network, checkpointed, compiled=False)
        counter = FlopCounterMode(display=False)
        with counter:
            loss = step_loss(network, *example_batch(config, sequence, 1, "meta"))
            forward = counter.get_total_flops()
            loss.backward()
        return Flops(forward, counter.get_total_flops() - forward)


# --- from operations to hours ---


@dataclass(frozen=True)
class Gpu:
    """peak_tflops: dense bfloat16 by the vendor's data sheet (no sparsity); memory_gb in 1e9 bytes."""

    name: str
    peak_tflops: float
    memory_gb: float


GPUS = (Gpu("H100 SXM", 989.4, 80.0), Gpu("H200 SXM", 989.4, 141.0))


@dataclass(frozen=True)
class Recipe:
    """MMAudio's: 300,000 steps of 512 samples."""

    steps: int = 300_000
    batch_size: int = 512


def steps_per_second(flops_per_sample: float, batch_size: int, gpu: Gpu, mfu: float, gpus: int = 1) -> float:
    """mfu: the share of the peak that the step's own operations reach (what is run again does not count)."""
    return gpus * gpu.peak_tflops * 1e12 * mfu / (flops_per_sample * batch_size)


def gpu_hours(flops_per_sample: float, recipe: Recipe, gpu: Gpu, mfu: float) -> float:
    return recipe.steps / steps_per_second(flops_per_sample, recipe.batch_size, gpu, mfu) / 3600
