"""Checkpoints of a training run: one folder each, complete or absent.

``step_00001200/`` holds ``network.safetensors``, ``ema.safetensors``, ``optimizer.pt`` (read with
``weights_only=True``: a checkpoint never runs code) and ``state.json`` (step, length of the run,
configuration). A folder is written under a temporary name, forced to the disk and renamed, so a kill or a
full disk at any moment leaves only whole checkpoints; the oldest goes when the newest is there, so that one
more than are kept must fit. Weights are whole, whatever the number of processes.
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bi_audio_dataset.schema import UserError, reason_of

PREFIX = "step_"


class Checkpoint(NamedTuple):
    network: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimizer: dict[str, Any]
    state: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int = 2) -> Path:
    """Write ``checkpoint`` as ``folder/step_<state['step']>`` and remove all but the newest ``keep``.

    Raises UserError where it cannot be written; those before are then as they were.
    """
    final = folder / f"{PREFIX}{checkpoint.state['step']:08d}"
    temporary = folder / f".{final.name}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left_over in folder.glob(f".{PREFIX}*"):  # of a run that was killed here
            shutil.rmtree(left_over, ignore_errors=True)
        temporary.mkdir()
        _write(temporary, checkpoint)
        aside = folder / f".{final.name}.old"
        if final.exists():
            os.replace(final, aside)
        os.replace(temporary, final)
        shutil.rmtree(aside, ignore_errors=True)
        _sync(folder)
    except Exception as error:  # a full disk is an OSError, a SafetensorError or a RuntimeError of torch
        shutil.rmtree(temporary, ignore_errors=True)
        raise UserError(_not_written(final, checkpoint, error)) from error
    for old in list_checkpoints(folder)[: -max(1, keep)]:
        shutil.rmtree(old)
    return final


def _write(folder: Path, checkpoint: Checkpoint) -> None:
    """The files of a checkpoint, all on the disk when it returns."""
    save_file(_contiguous(checkpoint.network), str(folder / "network.safetensors"))
    save_file(_contiguous(checkpoint.ema), str(folder / "ema.safetensors"))
    with open(folder / "optimizer.pt", "wb") as file:
        torch.save(checkpoint.optimizer, file)
    (folder / "state.json").write_text(json.dumps(checkpoint.state, indent=1) + "\n")
    for path in (*folder.iterdir(), folder):
        _sync(path)


def _not_written(final: Path, checkpoint: Checkpoint, error: Exception) -> str:
    """One line: what failed, what is left, how much room it takes."""
    before = [path.name for path in list_checkpoints(final.parent)]
    left = f"the one before, {before[-1]}, is whole" if before else "there is none before it"
    said = getattr(error, "strerror", None) or reason_of(error)
    size = sum(tensor.nbytes for tensor in _tensors(checkpoint))
    return (
        f"checkpoint {final} cannot be written ({said}); {left}. Make room for {size / 1e9:.2g} GB "
        "(or set flow.loop.keep_checkpoints lower) and run the same command again"
    )


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def list_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(path for path in Path(folder).glob(f"{PREFIX}*") if (path / "state.json").is_file())


def load_checkpoint(path: Path, device: str | torch.device = "cpu") -> Checkpoint:
    """Read one checkpoint folder. Raises UserError where a file is missing or cannot be read."""
    try:
        return Checkpoint(
            network=load_file(str(path / "network.safetensors"), device=str(device)),
            ema=load_file(str(path / "ema.safetensors"), device=str(device)),
            # mapped, so that several processes of one machine share what they read
            optimizer=torch.load(path / "optimizer.pt", map_location=device, weights_only=True, mmap=True),
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
