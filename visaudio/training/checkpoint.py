"""Checkpoints of a training run: one folder each, complete or absent.

``step_00001200/`` holds ``network.safetensors``, ``ema.safetensors``, ``optimizer.pt`` (read with
``weights_only=True``: a checkpoint never runs code) and ``state.json`` (step, length of the run,
configuration). A folder is written under a temporary name and renamed, so a kill at any moment leaves
only whole checkpoints.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bi_audio_dataset.schema import UserError

PREFIX = "step_"


class Checkpoint(NamedTuple):
    network: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimizer: dict[str, Any]
    state: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int = 2) -> Path:
    """Write ``checkpoint`` as ``folder/step_<state['step']>`` and remove all but the newest ``keep``."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"{PREFIX}{checkpoint.state['step']:08d}"
    temporary = folder / f".{final.name}.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    save_file(_contiguous(checkpoint.network), str(temporary / "network.safetensors"))
    save_file(_contiguous(checkpoint.ema), str(temporary / "ema.safetensors"))
    torch.save(checkpoint.optimizer, temporary / "optimizer.pt")
    (temporary / "state.json").write_text(json.dumps(checkpoint.state, indent=1) + "\n")
    for path in temporary.iterdir():
        _sync(path)
    if final.exists():
        shutil.rmtree(final)
    os.replace(temporary, final)
    _sync(folder)
    for old in list_checkpoints(folder)[: -max(1, keep)]:
        shutil.rmtree(old)
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(path for path in Path(folder).glob(f"{PREFIX}*") if (path / "state.json").is_file())


def load_checkpoint(path: Path, device: str | torch.device = "cpu") -> Checkpoint:
    """Read one checkpoint folder. Raises UserError where a file is missing or cannot be read."""
    try:
        return Checkpoint(
            network=load_file(str(path / "network.safetensors"), device=str(device)),
            ema=load_file(str(path / "ema.safetensors"), device=str(device)),
            optimizer=torch.load(path / "optimizer.pt", map_location=device, weights_only=True),
            state=json.loads((path / "state.json").read_text()),
        )
    except Exception as error:  # safetensors, torch and json each raise their own kinds
        raise UserError(
            f"checkpoint {path} cannot be read ({error}); remove that folder to go on from the one before"
        ) from error


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """safetensors refuses tensors that share memory: each gets its own."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
