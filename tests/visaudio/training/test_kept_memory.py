"""What is followed on fake tensors against real runs of the same network."""

import pytest
import torch
from micro import micro_preset

from visaudio.model.network import DualBranchNetwork
from visaudio.training.cost import example_batch, step_loss
from visaudio.training.kept_memory import LiveBytes, kept_bytes


def test_live_bytes_counts_storages_once_and_forgets_the_dead():
    with LiveBytes() as live:
        a = torch.ones(1000)
        b = a.view(10, 100) * 2  # a view shares its storage
        assert live.now == 8000
        del a
        assert live.now == 4000
        c = torch.ones(250)
    assert (live.now, live.peak) == (5000, 8000)
    del b, c


def test_fake_and_real_runs_keep_the_same():
    preset = micro_preset()
    network = DualBranchNetwork(preset.network).train()
    batch = example_batch(preset.network, preset.sequence, 3, "cpu")
    step_loss(network, *batch)  # tables are made
    with LiveBytes(network) as live, torch.autocast("cpu", dtype=torch.bfloat16):
        loss = step_loss(network, *batch)
    real = live.now
    with live:
        loss.backward()
    found = kept_bytes(preset.network, preset.sequence, 3, "cpu")
    tables = 8 * 1024  # made inside, when followed on fake tensors
    assert real <= found.kept <= real + tables
    assert live.peak <= found.peak <= live.peak + tables
    step_loss(network, *batch)  # nothing fake is left behind


def test_it_grows_evenly_with_the_batch():
    preset = micro_preset()
    one, eight, sixteen = (kept_bytes(preset.network, preset.sequence, b).kept for b in (1, 8, 16))
    assert sixteen == pytest.approx(one + 15 * (eight - one) / 7, rel=1e-3)


def test_checkpointing_and_flash_attention_keep_less():
    preset = micro_preset()
    sequence = preset.sequence.with_duration(20.0)
    plain, again = (kept_bytes(preset.network, sequence, 4, "cuda", c).kept for c in (False, True))
    assert again < 0.7 * plain
    tokens, heads = sequence.num_tokens, preset.network.num_heads
    on_cpu = kept_bytes(preset.network, sequence, 4, "cpu").kept
    weights = 2 * 4 * heads * tokens**2 * 2  # one branch block's: ears, clips, heads, 16 bits
    assert on_cpu - plain > 2 * weights  # of the joint block, the branches and between the ears
