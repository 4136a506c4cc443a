"""The processes of a training: one; several with a whole copy of the weights each (DDP); several with a share
each (FSDP2). What they agree on, how weights are shared out, and how shares are put together again.

Which of these it is, the launcher says (`accelerate launch --config_file configs/accelerate/...`, torchrun).
Files are always written whole by the first process, so that any number of processes can read them.
"""

import os
import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import (
    DistributedType,
    DynamoBackend,
    FullyShardedDataParallelPlugin,
    InitProcessGroupKwargs,
)
from torch import Tensor, nn
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
from torch.distributed.tensor import DTensor, distribute_tensor

from bi_audio_dataset.schema import UserError
from visaudio.training.block_wrappers import blocks_of

# The others wait while the first process validates or writes; one that dies is noticed by the launcher.
PATIENCE = timedelta(hours=2)

T = TypeVar("T")


def start(mixed_precision: str, accumulation: int) -> Accelerator:
    """The Accelerator of this process. Raises UserError for a launcher's setting that is this program's."""
    AcceleratorState._reset_state()  # an earlier training of this process may have had another precision
    accelerator = Accelerator(
        mixed_precision=mixed_precision,
        gradient_accumulation_steps=accumulation,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    accelerator.gradient_accumulation_steps = accumulation  # the environment would go before the argument
    if accelerator.state.dynamo_plugin.backend != DynamoBackend.NO:
        raise UserError("the launcher's dynamo_config is not used: remove it and set flow.loop.compile=true")
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true" and accelerator.num_processes > 1:
        _use_fsdp2(accelerator)
    return accelerator


def _use_fsdp2(accelerator: Accelerator) -> None:
    """Accelerate's FSDP2, with weights and sums of gradients in float32: bfloat16 is autocast's, as without.

    (Accelerate's own policy would round weights that autocast keeps, times and gradients to bfloat16.)
    """
    plugin = getattr(accelerator.state, "fsdp_plugin", None) or FullyShardedDataParallelPlugin()
    if plugin.fsdp_version != 2:
        raise UserError(f"fsdp_version is {plugin.fsdp_version}, expected 2 (configs/accelerate/fsdp2.yaml)")
    if plugin.activation_checkpointing:
        raise UserError("fsdp_activation_checkpointing: set flow.loop.activation_checkpointing=true instead")
    if isinstance(plugin.cpu_offload, CPUOffloadPolicy):
        raise UserError("fsdp_offload_params is not supported, expected false; use more processes instead")
    plugin.cpu_ram_efficient_loading = False  # each process reads the weights: buffers would be left out
    plugin.mixed_precision_policy = MixedPrecisionPolicy(cast_forward_inputs=False)
    # Accelerate (1.15) looks for FSDP on accelerators alone: on CPUs it would silently take DDP.
    accelerator.state.distributed_type = DistributedType.FSDP
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP  # as Accelerate itself does
    accelerator.state.fsdp_plugin = plugin


def prepare(
    accelerator: Accelerator, network: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """What the loop calls: the network wrapped for its processes, and the optimizer of its weights.

    Under FSDP2 `network` itself changes: its parameters become shares (DTensor), block by block.
    """
    if accelerator.is_fsdp2:
        plugin = accelerator.state.fsdp_plugin
        plugin.auto_wrap_policy = transformer_auto_wrap_policy
        plugin.transformer_cls_names_to_wrap = sorted({type(b).__name__ for b in blocks_of(network)})
        # of what is changed in place later on: the network changes nothing in place
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
    return accelerator.prepare(network, optimizer)


# --- shares and wholes ---


def is_share(value: Any) -> bool:
    return isinstance(value, DTensor)


def local(value: Tensor) -> Tensor:
    """What this process holds of a tensor, without gradient; the storage is the tensor's own."""
    value = value.detach()
    return value.to_local() if is_share(value) else value


def share_of(value: Tensor, like: Tensor) -> Tensor:
    """This process's share of a whole tensor, as `like` is shared out; the whole where `like` is."""
    if not is_share(like):
        return value
    there = value.to(local(like).device)
    return distribute_tensor(there, like.device_mesh, like.placements, src_data_rank=None)


def put_together(value: Any, keep: bool = True) -> Any:
    """Nested dicts and lists with every tensor whole and on the CPU. All processes must call it; one that
    does not keep the result gets None for each tensor.
    """
    if isinstance(value, dict):
        return {name: put_together(item, keep) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(put_together(item, keep) for item in value)
    if not isinstance(value, Tensor):
        return value
    whole = value.detach().full_tensor() if is_share(value) else value.detach()
    return whole.to("cpu", copy=True) if keep else None


def whole_number(value: Tensor) -> Tensor:
    """A figure of all processes as a plain tensor, still on its device."""
    return value.full_tensor() if is_share(value) else value


# --- agreement ---


def any_process(accelerator: Accelerator, flag: bool) -> bool:
    """Whether any process says so; all must ask."""
    if accelerator.num_processes == 1:
        return flag
    return bool(accelerator.reduce(torch.tensor(float(flag), device=accelerator.device), reduction="sum") > 0)


def mean_over_processes(accelerator: Accelerator, value: Tensor) -> float:
    return float(accelerator.reduce(value, reduction="mean"))


def on_first(accelerator: Accelerator, work: Callable[..., T], *arguments: Any) -> T | None:
    """The result of work(*arguments) on the first process, None on the others; where it fails, all
    processes end: the first with the error, the others silently with exit status 2.
    """
    result = error = None
    if accelerator.is_main_process:
        try:
            result = work(*arguments)
        except Exception as failure:
            error = failure
    if any_process(accelerator, error is not None):
        if error is not None:
            raise error
        raise SystemExit(2)
    return result
