"""Recomputing activations and compiling change what a step costs, not what it gives."""

import copy

import pytest
import torch
from fakes import FakeNetwork, MicroSamples
from micro import micro_preset

from bi_audio_dataset.schema import UserError
from visaudio.model.network import DualBranchNetwork
from visaudio.training.batches import BatchStream, DropoutConfig
from visaudio.training.block_wrappers import blocks_of, check_compiler, wrap_blocks
from visaudio.training.checkpoint import list_checkpoints, load_checkpoint
from visaudio.training.loop import FlowLoopConfig, batch_losses, train

SIZES = micro_preset().network


def _network() -> DualBranchNetwork:
    torch.manual_seed(0)
    network = DualBranchNetwork(SIZES)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def _batch():
    return BatchStream(MicroSamples(SIZES), 0, 4, DropoutConfig()).get(0)


def _gradients(network) -> dict[str, torch.Tensor]:
    batch_losses(network, network, _batch()).mean().backward()
    return {name: p.grad for name, p in network.named_parameters()}


def _kept_bytes(network) -> int:
    """Bytes that the forward pass keeps for the backward pass, beside weights."""
    kept: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        losses = batch_losses(network, network, _batch())
    assert losses.requires_grad
    return sum(kept.values())


def test_recomputed_activations_give_the_same_gradients_and_keep_less():
    plain, saving = _network(), _network()
    wrap_blocks(saving, activation_checkpointing=True, compiled=False)
    assert _kept_bytes(saving) < 0.8 * _kept_bytes(plain)
    expected, given = _gradients(plain), _gradients(saving)
    assert expected.keys() == given.keys()
    assert all(torch.equal(expected[name], given[name]) for name in expected)
    assert plain.state_dict().keys() == saving.state_dict().keys()


def test_training_with_and_without_recomputing_is_one_run(tmp_path):
    """Half of it with, half without: the checkpoint is that of the straight run, bit for bit."""
    settings = {"batch_size": 4, "precision": "fp32", "validate_every": 0, "log_every": 2}
    straight = FlowLoopConfig(steps=4, **settings)
    train(_network(), MicroSamples(SIZES), straight, tmp_path / "straight")
    first = FlowLoopConfig(steps=2, activation_checkpointing=True, **settings)
    for config in (first, straight):
        train(_network(), MicroSamples(SIZES), config, tmp_path / "mixed")
    one, other = (
        load_checkpoint(list_checkpoints(tmp_path / run / "checkpoints")[-1]) for run in ("straight", "mixed")
    )
    assert one.state["step"] == other.state["step"] == 4
    assert all(torch.equal(one.network[name], other.network[name]) for name in one.network)


def test_each_block_is_one_program_under_one_name(monkeypatch):
    """By the back end that only traces: what dynamo makes of the blocks, whatever compiles it then."""
    programs = []

    def traced(graph, _inputs):
        programs.append(graph)
        return graph.forward

    compile_as_it_is = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda function, **options: compile_as_it_is(function, backend=traced, **options)
    )
    plain, compiled = _network(), _network()
    wrap_blocks(compiled, activation_checkpointing=False, compiled=True)
    expected, given = _gradients(plain), _gradients(compiled)
    assert list(plain.state_dict()) == list(compiled.state_dict())
    assert all(torch.allclose(expected[n], given[n], rtol=0, atol=1e-6) for n in expected)
    # joint, branch and inter-ear blocks: the two branches share a program, no graph is broken
    assert len(blocks_of(compiled)) == 4 and len(programs) == 3
    torch._dynamo.reset()


def test_no_compiler_is_one_line(monkeypatch):
    from torch._inductor import cpp_builder

    def none():
        raise RuntimeError("no compiler")

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    with pytest.raises(UserError, match="compile=true needs a C\\+\\+ compiler"):
        check_compiler(torch.device("cpu"))


def test_a_network_without_blocks_is_refused():
    with pytest.raises(UserError, match="FakeNetwork has none"):
        wrap_blocks(FakeNetwork(), activation_checkpointing=True, compiled=False)


def test_averages_copied_before_stay_plain():
    network = _network()
    average = copy.deepcopy(network)
    wrap_blocks(network, activation_checkpointing=True, compiled=False)
    assert all("forward" not in vars(block) for block in blocks_of(average))
