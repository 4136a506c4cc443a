"""Files of weights: found on the disk or on the Hub, and read without running anything that stands in them.

A source is a path, or "owner/name:path/in/the/repository", with "@revision" after the name if one is wanted:

    weights/v1-44.pth
    hkchengrex/MMAudio:ext_weights/v1-44.pth
    hkchengrex/MMAudio@main:ext_weights/v1-44.pth

or an address, with the SHA-256 of its content where it is known:

    https://example.org/network.pth#sha256=3f5a...
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bi_audio_dataset.schema import UserError, reason_of
from visaudio import hub_access, url_files
from visaudio.url_files import sha256 as sha256

ON_HUB = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+?)(@(?P<revision>[\w./-]+))?:(?P<file>[\w./-]+)")
WRAPPERS = ("state_dict", "model", "generator")  # keys under which public checkpoints keep their tensors


def fetch(source: str | Path, what: str = "a model") -> Path:
    """The local file of a source; from a cache, the Hub or the network, where it is not on the disk.

    what: for messages. Raises UserError where there is no such file, or none can be had.
    """
    path = Path(source)
    if path.is_file():
        return path
    if url_files.is_url(str(source)):
        return url_files.fetch(str(source), what)
    found = ON_HUB.fullmatch(str(source))
    if path.exists() or not found:
        raise UserError(
            f"no weights of {what} at {source}: expected a file, owner/name:path of a file on the Hub, or an "
            "https address"
        )
    repository, revision, file = found["repository"], found["revision"], found["file"]
    try:
        return hub_access.fetch_file(repository, file, revision, what=f"weights of {what}, {source}")
    except UserError as error:
        raise UserError(f"{error}; or give the path of a file you have") from error


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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a newer pickle protocol, twice, before it is refused
            with torch.serialization.safe_globals(_integer_arrays()):
                found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: cannot be read as weights of {what}: {_refusal(path, error)}") from error
    except FileNotFoundError:
        raise UserError(f"no weights of {what} at {path}") from None
    except Exception as error:  # torch.load and safetensors raise whatever the damaged file makes them raise
        reason = reason_of(error, 160)
        raise UserError(
            f"{path}: cannot be read as weights of {what} ({reason}): "
            "is it damaged, cut short, or no file of tensors?"
        ) from error
    if not isinstance(found, Mapping):
        raise UserError(f"{path}: holds a {type(found).__name__}, expected the tensors of {what} by name")
    return dict(found)


def _integer_arrays() -> list:
    """What a pickle names for a numpy array of 64-bit integers; PANNs' checkpoint for 16 kHz carries some.

    It makes plain arrays and nothing else: what stands in them is read by the same strict reader.
    """
    rebuild = np.array(0).__reduce__()[0]
    names = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")  # numpy 1 and 2
    return [*((rebuild, name) for name in names), np.ndarray, np.dtype, type(np.dtype(np.int64))]


def _refusal(path: Path, error: pickle.UnpicklingError) -> str:
    """Why torch's reader of tensors stopped; its own words advise to run the code."""
    # it stops at the first thing it does not know: in pickles of protocol 4 and 5 before anything is named
    verb = "holds" if "GLOBAL" in str(error) else "may hold"
    with open(path, "rb") as handle:
        is_pickle = handle.read(2).startswith((b"PK", pickle.PROTO))  # in a zip, or bare
    if verb == "may hold" and not is_pickle:
        return "it is no file of torch.save; is it damaged, or another kind of file?"
    return f"it {verb} more than tensors (code that loading would run): refused; convert it to safetensors"


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
