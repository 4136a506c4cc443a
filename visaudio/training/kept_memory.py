"""What a training step keeps in memory for its backward pass, without running it.

The real network runs on fake tensors, which have shapes and storages of a size but no numbers, of a CPU or
of a GPU that need not be there. What is followed on fake CPU tensors can be checked against a real run, as
benchmarks/training_cost.py does.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from visaudio import attention as attention_module
from visaudio.model.network import NetworkConfig
from visaudio.sequence import SequenceConfig
from visaudio.training.block_wrappers import wrap_blocks
from visaudio.training.cost import example_batch, fresh_tables, network_on, step_loss


class LiveBytes(TorchDispatchMode):
    """Follows the storages that operations make inside: `now` and `peak` bytes. `known` are not counted."""

    def __init__(self, known: nn.Module | None = None) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: dict[int, weakref.ref] = {}
        tensors = [] if known is None else [*known.parameters(), *known.buffers()]
        for tensor in tensors:
            self._add(tensor.untyped_storage(), 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                storage = value.untyped_storage()
                self._add(storage, storage.nbytes())
        return result

    def _add(self, storage: torch.UntypedStorage, nbytes: int) -> None:
        key = storage._cdata
        if key in self._seen and self._seen[key]() is not None:
            return

        def gone(_: weakref.ref) -> None:
            self.now -= nbytes
            self._seen.pop(key, None)

        self._seen[key] = weakref.ref(storage, gone)
        self.now += nbytes
        self.peak = max(self.peak, self.now)


class Kept(NamedTuple):
    """kept: bytes that the forward pass leaves for the backward pass, weights' 16-bit copies among them.
    peak: the most at any moment of both passes, gradients included, None where the backward pass cannot be
    followed (on a GPU that is not there).
    """

    kept: int
    peak: int | None


def kept_bytes(
    config: NetworkConfig,
    sequence: SequenceConfig,
    batch: int,
    device: str = "cuda",
    checkpointed: bool = False,
    bf16: bool = True,
) -> Kept:
    """What a step keeps beside weights, optimizer and averages; followed on fake tensors.

    device: 'cuda' takes the operations that a GPU would (flash attention), 'cpu' those of a CPU; neither
    need be there.
    """
    with FakeTensorMode(), fresh_tables(), flash_attention(device == "cuda"):
        network = network_on(device, config)
        wrap_blocks(network, checkpointed, compiled=False)
        data, t, conditions = example_batch(config, sequence, batch, device)
        with LiveBytes(network) as live:
            with autocast(device, bf16):
                loss = step_loss(network, data, t, conditions)
            kept = live.now
            if device == "cpu":
                loss.backward()
        return Kept(kept, live.peak if device == "cpu" else None)


@contextlib.contextmanager
def autocast(device: str, enabled: bool) -> Iterator[None]:
    """torch.autocast to bfloat16, also for a GPU that is not there (torch.autocast then does nothing)."""
    if not enabled:
        yield
        return
    before = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    torch.set_autocast_enabled(device, True)
    torch.set_autocast_dtype(device, torch.bfloat16)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled(device, before[0])
        torch.set_autocast_dtype(device, before[1])


@contextlib.contextmanager
def flash_attention(enabled: bool) -> Iterator[None]:
    """Without a GPU torch follows plain attention, which keeps all its weights; a GPU has a flash kernel."""
    if not enabled:
        yield
        return
    plain = attention_module.F.scaled_dot_product_attention

    def flash(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0]

    attention_module.F.scaled_dot_product_attention = flash
    try:
        yield
    finally:
        attention_module.F.scaled_dot_product_attention = plain
