"""Counts against formulas, real optimizers and the public checkpoints' shapes."""

import json
import math
from dataclasses import replace

import pytest
import torch
from micro import micro_preset

from visaudio.model.network import DualBranchNetwork, NetworkConfig
from visaudio.presets import get_preset
from visaudio.sequence import SequenceConfig
from visaudio.training.cost import (
    GPUS,
    Recipe,
    count_flops,
    count_parameters,
    example_batch,
    gpu_hours,
    network_on,
    state_bytes,
    step_loss,
    steps_per_second,
)
from visaudio.training.optimizer import make_optimizer

SEQUENCE = SequenceConfig(duration_s=2.0)  # 87 tokens, 16 video frames
CONFIG = NetworkConfig(
    hidden_dim=128, num_heads=2, joint_blocks=2, branch_blocks=2, time_frequencies=32, spatial_dim=64
)


def stream(tokens: int, modulated: int, kernel: int) -> float:
    """Operations of one stream's part of a block, forward: modulation, q k v, projection, gated MLP."""
    d = CONFIG.hidden_dim
    inner = CONFIG.mlp_multiple_of * math.ceil(2 * d * CONFIG.mlp_ratio / 3 / CONFIG.mlp_multiple_of)
    mlp = 3 * tokens * kernel * d * inner
    return 2 * (modulated * d * 6 * d + tokens * d * 3 * d + tokens * kernel * d * d + mlp)


def attention(tokens: int) -> float:
    """Queries by keys, and weights by values."""
    return 2 * 2 * tokens**2 * CONFIG.hidden_dim


def joint_block() -> float:
    n, frames, words = SEQUENCE.num_tokens, SEQUENCE.num_clip_frames, CONFIG.text_tokens
    streams = stream(n, n, CONFIG.block_kernel) + stream(frames, 1, CONFIG.block_kernel) + stream(words, 1, 1)
    return 2 * (streams + attention(n + frames + words))  # each ear with its copies


def branch_blocks() -> float:
    """One of each ear, and the attention between them."""
    n, d = SEQUENCE.num_tokens, CONFIG.hidden_dim
    between = 2 * (n * d * 3 * d + n * d * d) + attention(n)
    return 2 * (stream(n, n, CONFIG.block_kernel) + attention(n) + between)


@pytest.mark.parametrize(
    ("more", "formula"), [("joint_blocks", joint_block), ("branch_blocks", branch_blocks)]
)
def test_a_block_has_the_operations_of_its_formula(more, formula):
    few, many = (count_flops(replace(CONFIG, **{more: n}), SEQUENCE) for n in (2, 3))
    assert many.forward - few.forward == pytest.approx(formula(), rel=0.02)
    assert many.backward - few.backward == pytest.approx(2 * formula(), rel=0.02)


def test_checkpointing_runs_the_blocks_once_more():
    plain, again = (count_flops(CONFIG, SEQUENCE, checkpointed) for checkpointed in (False, True))
    assert again.forward == plain.forward
    blocks = CONFIG.joint_blocks * joint_block() + CONFIG.branch_blocks * branch_blocks()
    # less than all: a block stops where all that it keeps is there again, and the last joint block is smaller
    assert 0.6 * blocks < again.backward - plain.backward < blocks


def test_parts_of_the_network_add_up():
    network = network_on("meta", CONFIG)
    found = count_parameters(network)
    assert found.total == sum(p.numel() for p in network.parameters())
    assert found.total == found.entry + found.joint + 2 * found.branch + found.new
    single = count_parameters(network_on("meta", replace(CONFIG, dual_branch=False)))
    assert found.total - single.total == single.branch == found.branch


@pytest.mark.parametrize(("preset", "checkpoint"), [("small", "small_44k"), ("large", "large_44k_v2")])
def test_one_ears_trunk_is_mmaudios(preset, checkpoint, shared_dir):
    shapes = json.loads((shared_dir / "golden" / "upstream_state_dicts.json").read_text())
    key = next(name for name in shapes if name.endswith(checkpoint))
    buffers = ("latent_mean", "latent_std", "empty_string_feat", "t_embed.freqs", "latent_rot", "clip_rot")
    theirs = sum(math.prod(_shape(s)) for name, s in shapes[key].items() if not name.startswith(buffers))
    config = replace(get_preset(preset).network, token_dim=40)
    assert count_parameters(network_on("meta", config)).trunk_per_ear == theirs


def _shape(stored) -> list[int]:
    return stored["shape"] if isinstance(stored, dict) else stored


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_state_is_what_the_optimizer_keeps(optimizer):
    preset = micro_preset()
    config = replace(preset.network, hidden_dim=32, mlp_multiple_of=32)
    network = DualBranchNetwork(config)
    update = make_optimizer(network, optimizer, 1e-4, (0.9, 0.95), 0.0)
    step_loss(network, *example_batch(config, preset.sequence, 1, "cpu")).backward()
    update.step()
    parts = getattr(update, "parts", {"only": update}).values()
    states = [value for part in parts for state in part.state.values() for value in state.values()]
    kept = sum(v.numel() * v.element_size() for v in states if torch.is_tensor(v) and v.ndim > 0)
    counted = state_bytes(network, optimizer)
    assert counted["optimizer"] == kept > 0
    assert counted["gradients"] == sum(p.grad.nbytes for p in network.parameters())
    assert counted["ema"] == 2 * counted["weights"]


def test_hours_follow_from_operations():
    h100 = GPUS[0]
    one_step = h100.peak_tflops * 1e12 * 0.5  # what half of the peak does in a second
    assert steps_per_second(one_step / 512, 512, h100, 0.5) == pytest.approx(1)
    assert steps_per_second(one_step / 512, 512, h100, 0.5, gpus=8) == pytest.approx(8)
    assert gpu_hours(one_step / 512, Recipe(steps=7200), h100, 0.5) == pytest.approx(2)
