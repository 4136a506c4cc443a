"""Files of weights: found on the disk or on the Hub, and read without running anything that stands in them.

A source is a path, or "owner/name:path/in/the/repository", with "@revision" after the name if one is wanted:

    weights/v1-44.pth
    hkchengrex/MMAudio:ext_weights/v1-44.pth
    hkchengrex/MMAudio@main:ext_weights/v1-44.pth
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bi_audio_dataset.schema import UserError

_ON_HUB = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+?)(@(?P<revision>[\w./-]+))?:(?P<file>[\w./-]+)")
WRAPPERS = ("state_dict", "model", "generator")  # keys under which public checkpoints keep their tensors


def fetch(source: str | Path, what: str = "a model") -> Path:
    """The local file of a source; from the Hub's cache, or the Hub, where it names a repository.

    what: for messages. Raises UserError where there is no such file, or none can be had.
    """
    path = Path(source)
    if path.is_file():
        return path
    found = _ON_HUB.fullmatch(str(source))
    if path.exists() or not found:
        raise UserError(
            f"no weights of {what} at {source}: expected a file, or owner/name:path of a file on the Hub"
        )
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repository, revision, file = found["repository"], found["revision"], found["file"]
    try:
        return Path(hf_hub_download(repository, file, revision=revision))
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"weights of {what}, {source}: not in the local cache, and the Hub cannot be reached; "
            "give the path of a file you have"
        ) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"weights of {what}, {source}: cannot be fetched from the Hub: {reason}") from error


def fetch_first(sources: Sequence[str], what: str = "a model") -> Path:
    """The first of several sources that there is; the last one's UserError where there is none."""
    for source in sources[:-1]:
        try:
            return fetch(source, what)
        except UserError:
            continue
    return fetch(sources[-1], what)


def read(path: str | Path, what: str = "a model") -> dict[str, Any]:
    """What stands in a .safetensors file, or in a .pth, .pt or .ckpt read with weights_only.

    Raises UserError for a file that is damaged, cut short, or holds anything but tensors and plain values
    (a pickle with code in it is not run).
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"no weights of {what} at {path}") from None
    except Exception as error:  # torch.load and safetensors raise whatever the damaged file makes them raise
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"{path}: cannot be read as weights of {what} ({reason}): "
            "is it damaged, cut short, or no file of tensors?"
        ) from error
    if not isinstance(found, Mapping):
        raise UserError(f"{path}: holds a {type(found).__name__}, expected the tensors of {what} by name")
    return dict(found)


def read_state(source: str | Path, what: str = "a model") -> dict[str, Tensor]:
    """The tensors of a source by name, out of whichever wrapper a checkpoint keeps them in."""
    path = fetch(source, what)
    found = read(path, what)
    for wrapper in WRAPPERS:
        if isinstance(found.get(wrapper), Mapping):
            found = dict(found[wrapper])
    state = {name.removeprefix("module."): value for name, value in found.items()}
    strange = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if strange or not state:
        raise UserError(f"{path}: is not the tensors of {what} by name (found {sorted(found)[:3]})")
    return state


def load_into(module: nn.Module, state: Mapping[str, Tensor], source: str | Path, what: str) -> None:
    """Copy a state dict that must have this module's names and shapes; UserError tells what does not fit."""
    expected = module.state_dict()
    missing, extra = sorted(set(expected) - set(state)), sorted(set(state) - set(expected))
    wrong = [name for name in expected if name in state and state[name].shape != expected[name].shape]
    if missing or extra or wrong:
        raise UserError(
            f"{source}: not the weights of {what}: missing {missing[:2]}, unexpected {extra[:2]}, "
            f"other shapes {wrong[:2]} ({len(missing)}, {len(extra)}, {len(wrong)} in all)"
        )
    module.load_state_dict(state)
