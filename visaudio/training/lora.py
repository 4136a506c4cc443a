"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685) on a network that is already trained, by `peft`.

The weights stay as they are; beside each chosen layer a product of two thin matrices is trained. What
the start had no weights for (inter-ear attention and the spacetime module after MMAudio's, say) is
trained in full. Exported weights have the adapters merged: they load and run as any others do.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from bi_audio_dataset.schema import UserError
from visaudio.model.layers import ChannelLastConv1d

LAYERS = ("qkv", "linear1", "w1", "w2", "w3", "modulation")  # of the blocks, by their last name
NAME = "default"  # peft's own name of an only adapter
RECORD = "lora.json"


@dataclass(frozen=True)
class LoraConfig:
    """rank: of the adapters; 0 trains the network itself. alpha: an adapter counts alpha / rank times.
    targets: names of layers, each a last name (all layers so called) or a path ("branches.0.1.ffn.w2").
    """

    rank: int = 0
    alpha: float = 16.0
    targets: tuple[str, ...] = LAYERS

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise UserError(f"lora.rank is {self.rank}, expected 0 (off) or more")
        if not self.alpha > 0:
            raise UserError(f"lora.alpha is {self.alpha}, expected more than 0")

    @property
    def on(self) -> bool:
        return self.rank > 0


def check_lora(config: LoraConfig, init_from: str | None) -> None:
    """Raise UserError where adapters are asked for and there is nothing to adapt, or no peft."""
    if config.on and init_from is None:
        raise UserError(
            f"flow.lora.rank={config.rank} asks for LoRA, which adapts trained weights: "
            "name them by init_from, or set rank=0"
        )
    if config.on:
        _peft()


def add_adapters(network: nn.Module, config: LoraConfig, in_full: Collection[str], folder: Path) -> None:
    """Freeze `network`, in place, but for new adapters on its layers and the parameters named in `in_full`.

    The adapters begin at zero: the velocity is that of the network as it was. Which layers they sit on and
    what is trained in full is written to folder/lora.json. Raises UserError where peft is not installed, or
    a target calls no layer.
    """
    peft = _peft()
    chosen = target_layers(network, config.targets, in_full)
    settings = peft.LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=chosen, bias="none")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for a transformers config, which this network has none of
        peft.inject_adapter_in_model(settings, network, adapter_name=NAME)
    for name, parameter in network.named_parameters():
        if name in in_full:
            parameter.requires_grad_(True)
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f"{RECORD}.{os.getpid()}.tmp"
    beside.write_text(json.dumps({"adapted": chosen, "in_full": sorted(in_full)}, indent=1) + "\n")
    os.replace(beside, folder / RECORD)


def adapters_of(folder: Path) -> tuple[str, ...]:
    """Names of what a run with adapters trains in full. Raises UserError where `folder` is no such run's."""
    try:
        return tuple(json.loads((folder / RECORD).read_text())["in_full"])
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{folder / RECORD} cannot be read ({error}): flow.lora is on, but this run was begun without it"
        ) from error


def target_layers(network: nn.Module, targets: Collection[str], in_full: Collection[str]) -> list[str]:
    """Paths of the linear and convolutional layers that `targets` call, without those trained in full."""
    layers = [
        path for path, layer in network.named_modules() if isinstance(layer, (nn.Linear, ChannelLastConv1d))
    ]
    unknown = [t for t in targets if not any(path == t or path.endswith(f".{t}") for path in layers)]
    if unknown:
        known = sorted({path.rsplit(".", 1)[-1] for path in layers} - {"0", "1", "2"})
        raise UserError(
            f"lora.targets: no layer is called {', '.join(unknown)}; there are {', '.join(known)}, "
            "and paths such as joint_blocks.0.latent_block.attn.qkv"
        )
    called = [path for path in layers if any(path == t or path.endswith(f".{t}") for t in targets)]
    called = [path for path in called if f"{path}.weight" not in in_full]
    if not called:
        raise UserError("lora.targets: all layers that they call are trained in full; there is none to adapt")
    return called


def trained_share(network: nn.Module) -> tuple[int, int]:
    """(trained, all) parameters, counted."""
    counts = [(p.numel() if p.requires_grad else 0, p.numel()) for p in network.parameters()]
    return sum(c[0] for c in counts), sum(c[1] for c in counts)


@torch.no_grad()
def merged_state(network: nn.Module) -> dict[str, Tensor]:
    """State dict of an adapted network as one without adapters has it, their products added to the weights.

    `network` itself is left as it was.
    """
    from peft.tuners.lora import LoraLayer

    layers = {path: layer for path, layer in network.named_modules() if isinstance(layer, LoraLayer)}
    merged = {}
    for name, value in network.state_dict().items():
        path, _, own = name.rpartition(".base_layer.")
        if path in layers:
            if own == "weight":
                value = value + layers[path].get_delta_weight(NAME).to(value.dtype)
            merged[f"{path}.{own}"] = value
        elif not any(name.startswith(f"{path}.lora_") for path in layers):
            merged[name] = value
    return merged


def _peft():
    try:
        import peft
    except ImportError as error:
        raise UserError(
            'flow.lora.rank asks for LoRA, which needs peft: pip install "visaudio[lora]", or rank=0'
        ) from error
    return peft
