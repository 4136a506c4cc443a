"""Adapters by peft on the real network, in small."""

import json
import os
import signal
from dataclasses import replace

import pytest
import torch
from fakes import FakeSamples
from small_mmaudio import SMALL, write_files

from bi_audio_dataset.schema import UserError
from visaudio.model.conditions import Conditions
from visaudio.model.network import DualBranchNetwork
from visaudio.training.checks import check_config
from visaudio.training.ema import EmaConfig
from visaudio.training.flow_stage import FlowStageConfig, export_weights, new_network, train_flow
from visaudio.training.loop import FlowLoopConfig
from visaudio.training.lora import (
    LoraConfig,
    adapters_of,
    add_adapters,
    merged_state,
    target_layers,
    trained_share,
)
from visaudio.training.recipe import load_train_config
from visaudio.training.schedule import ScheduleConfig

pytest.importorskip("peft")
CONFIG = replace(SMALL.preset.network, clip_dim=5, sync_dim=4, text_dim=5, text_tokens=2, spatial_dim=5)
CONFIG = replace(CONFIG, spatial_rows=1, spatial_columns=4, token_dim=12)
SEQUENCE = replace(SMALL.preset.sequence, frames_per_token=2)


def awake(config=CONFIG) -> DualBranchNetwork:
    """No weight at its initial zero, so that every layer has a say in the velocity."""
    torch.manual_seed(0)
    network = DualBranchNetwork(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def velocity(network: DualBranchNetwork) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    conditions = Conditions(
        clip_features=normal(2, 3, 5),
        sync_features=normal(2, 8, 4),
        text_features=normal(2, 2, 5),
        spatial_features=normal(2, 3, 4, 5),
        hfov_rad=torch.tensor([1.0, 1.5]),
    )
    with torch.no_grad():
        return network.eval()(normal(2, 2, 6, 12), torch.tensor([0.2, 0.7]), conditions)


def disturb(network: DualBranchNetwork) -> None:
    """Adapters begin at zero: give each a product that is not."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if ".lora_" in name:
                parameter.copy_(0.2 * torch.randn_like(parameter))


def test_new_adapters_change_nothing_and_are_what_is_trained(tmp_path):
    network = awake()
    before = velocity(network)
    add_adapters(network, LoraConfig(rank=2), ("inter_ear.0.gate",), tmp_path)
    assert torch.allclose(velocity(network), before, atol=1e-6)
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert all(".lora_" in name or name == "inter_ear.0.gate" for name in trained)
    assert "joint_blocks.0.latent_block.attn.qkv.lora_A.default.weight" in trained
    assert "branches.1.0.ffn.w3.lora_B.default.weight" in trained
    count, whole = trained_share(network)
    assert 0 < count < 0.5 * whole
    assert adapters_of(tmp_path) == ("inter_ear.0.gate",)


@pytest.mark.parametrize("layer", ["qkv", "linear1", "w1", "w2", "w3", "modulation"])
def test_each_kind_of_layer_is_adapted_in_the_forward_pass_as_it_is_merged(tmp_path, layer):
    """The network takes short cuts around the calls of some layers, which an adapter must not lose."""
    network = awake()
    before = velocity(network)
    add_adapters(network, LoraConfig(rank=2, alpha=3.0, targets=(layer,)), (), tmp_path)
    disturb(network)
    adapted = velocity(network)
    assert (adapted - before).abs().max() > 1e-3
    plain = DualBranchNetwork(CONFIG)
    plain.load_state_dict(merged_state(network))
    assert torch.allclose(velocity(plain), adapted, atol=1e-5)
    assert torch.equal(velocity(network), adapted)  # merging left it as it was


def test_layers_trained_in_full_get_no_adapter():
    network = awake()
    paths = target_layers(network, ("qkv",), {"inter_ear.0.attn.qkv.weight"})
    assert "inter_ear.0.attn.qkv" not in paths and "inter_ear.1.attn.qkv" in paths
    only = target_layers(network, ("branches.0.1.ffn.w2",), ())
    assert only == ["branches.0.1.ffn.w2"]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: LoraConfig(rank=-1), "lora.rank is -1"),
        (lambda: LoraConfig(rank=2, alpha=0.0), "lora.alpha is 0.0"),
        (lambda: target_layers(awake(), ("qvk",), ()), "no layer is called qvk; there are .*qkv"),
    ],
)
def test_mistakes_are_one_line(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_without_peft_is_one_line(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r'pip install "visaudio\[lora\]"'):
        add_adapters(awake(), LoraConfig(rank=2), (), tmp_path)


def test_without_weights_to_adapt_is_one_line(tmp_path):
    with pytest.raises(UserError, match="name them by init_from"):
        new_network(CONFIG, FakeSamples(frames=8, dim=12), None, 0, None, tmp_path, LoraConfig(rank=2))


class Clips(FakeSamples):
    """Encoded clips of the sizes that the small MMAudio has."""

    def __init__(self, c, count: int = 4):
        super().__init__(count=count, frames=8)
        generator = torch.Generator().manual_seed(0)
        cells = c.spatial_rows * c.spatial_columns
        shapes = {
            "latents": (2, 8, c.token_dim),
            "clip": (3, c.clip_dim),
            "grid": (3, cells, c.spatial_dim),
            "sync": (8, c.sync_dim),
            "text": (c.text_tokens, c.text_dim),
        }
        for row in self.rows:
            row.update({name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()})
        self.reads_left = -1

    def get(self, index: int, mirror: bool) -> dict:
        """Asks the run to stop when it has been read `reads_left` times."""
        self.reads_left -= 1
        if self.reads_left == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().get(index, mirror)


def test_that_is_said_before_anything_runs():
    with pytest.raises(UserError, match="name them by init_from"):
        check_config(load_train_config(None, ["flow.lora.rank=2"]))


def test_a_run_trains_adapters_and_what_the_start_lacked_and_exports_them_merged(tmp_path):
    network_config, sequence = SMALL.preset.network, SMALL.preset.sequence
    start = str(write_files(tmp_path)["network"])
    clips, output = Clips(network_config), tmp_path / "flow"
    loop = FlowLoopConfig(
        steps=4,
        batch_size=2,
        precision="fp32",
        schedule=ScheduleConfig(peak=1e-2, warmup_steps=1),
        ema=EmaConfig(snapshots=2),
    )
    config = FlowStageConfig(loop=loop, lora=LoraConfig(rank=2))
    straight = train_flow(clips, None, network_config, sequence, config, output, init_from=start)
    assert straight.finished
    weights = export_weights(network_config, config, output)

    before = new_network(network_config, clips, None, 0, start, tmp_path / "other").state_dict()
    assert weights.keys() == before.keys()
    moved = {name for name in weights if not torch.equal(weights[name], before[name])}
    assert {"joint_blocks.0.latent_block.attn.qkv.weight", "branches.1.1.ffn.w3.weight"} <= moved
    assert {"inter_ear.0.gate", "spacetime.out.weight"} <= moved  # not in the start: trained in full
    assert not {"latent_mean", "clip_input_proj.0.weight", "branches.0.0.linear1.bias"} & moved
    change = weights["branches.0.0.linear1.weight"] - before["branches.0.0.linear1.weight"]
    assert int(torch.linalg.matrix_rank(change.flatten(1), rtol=1e-3)) <= 2

    stopping = Clips(network_config)
    stopping.reads_left = 9  # five before the first step, two in each
    again = tmp_path / "resumed"
    stopped = train_flow(stopping, None, network_config, sequence, config, again, init_from=start)
    assert not stopped.finished and 0 < stopped.step < 4
    # goes on in less memory, to the same bits
    thrifty = replace(config, loop=replace(loop, activation_checkpointing=True))
    train_flow(clips, None, network_config, sequence, thrifty, again, init_from=start)
    resumed = export_weights(network_config, config, again)
    assert all(torch.equal(resumed[name], weights[name]) for name in weights)
    assert json.loads((output / "lora.json").read_text())["adapted"]
