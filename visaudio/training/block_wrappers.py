"""What is done to the network's blocks to save memory or time: recomputing activations, compilation.

Both replace a block's `forward` and nothing else: names of weights, hooks and what FSDP2 does around a block
stay. Do it after the averages have been copied from the network (ema.py), which stay plain.
"""

import getpass
import os
import tempfile
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from bi_audio_dataset.schema import UserError
from visaudio.model.blocks import BranchBlock, InterEarAttention, JointBlock

BLOCKS = (JointBlock, BranchBlock, InterEarAttention)


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The parts that are called as a whole and hold nearly all weights and activations."""
    return [module for module in network.modules() if isinstance(module, BLOCKS)]


def wrap_blocks(network: nn.Module, activation_checkpointing: bool, compiled: bool) -> None:
    """Compile each block, and keep only its inputs for the backward pass, where asked for."""
    blocks = blocks_of(network)
    if (activation_checkpointing or compiled) and not blocks:
        raise UserError(
            f"activation_checkpointing and compile work on joint and branch blocks; {type(network).__name__} "
            "has none"
        )
    for block in blocks:
        if compiled:
            # The bound forward: blocks of one class then share one compiled program.
            block.forward = torch.compile(block.forward, dynamic=False)
        if activation_checkpointing:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def check_compiler(device: torch.device, process: int = 0) -> None:
    """UserError where torch.compile cannot work here. process: its number on this machine.

    On CPUs each process but the first gets a cache of its own: torch 2.15 loads libraries there that another
    process is still writing ("file too short").
    """
    if device.type == "cpu":
        if process > 0 and "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
            shared = Path(tempfile.gettempdir()) / f"torchinductor_{getpass.getuser()}"
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{shared}_{process}"
        from torch._inductor.cpp_builder import get_cpp_compiler

        try:
            get_cpp_compiler()
        except Exception as error:  # the class has moved between torch versions
            raise UserError(
                "compile=true needs a C++ compiler (g++ or clang++), and none is found; install one or set "
                "flow.loop.compile=false"
            ) from error
    elif device.type == "cuda":
        from torch.utils._triton import has_triton

        if not has_triton():
            raise UserError(
                "compile=true needs triton, which is not installed; pip install triton or set "
                "flow.loop.compile=false"
            )
