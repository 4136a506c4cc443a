"""One part's tensors as safetensors files: one file, or shards with an index, in the Hub's own form.

    network.safetensors

or, where it is larger than `max_shard_size`,

    network-00001-of-00002.safetensors
    network-00002-of-00002.safetensors
    network.safetensors.index.json      {"metadata": {"total_size": bytes}, "weight_map": {tensor: file}}
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from bi_audio_dataset.schema import UserError, reason_of

MAX_SHARD_SIZE = "5GB"  # a larger file would be fetched from its start after a broken connection


def write(
    folder: Path, part: str, state: Mapping[str, Tensor], max_shard_size: int | str = MAX_SHARD_SIZE
) -> None:
    """max_shard_size: bytes, or words such as "5GB"; a single larger tensor makes a larger shard."""
    from huggingface_hub import split_torch_state_dict_into_shards
    from safetensors.torch import save_file

    try:
        split = split_torch_state_dict_into_shards(
            dict(state), filename_pattern=f"{part}{{suffix}}.safetensors", max_shard_size=max_shard_size
        )
    except (ValueError, ZeroDivisionError) as error:
        raise UserError(
            f"max_shard_size is {max_shard_size!r}, expected bytes or such as '5GB' ({error})"
        ) from error
    for name, tensors in split.filename_to_tensors.items():
        save_file({tensor: state[tensor] for tensor in tensors}, folder / name, {"format": "pt"})
        (folder / name).chmod(
            0o644
        )  # safetensors makes it 0600, which no other user of a shared folder could read
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        index_file(folder, part).write_text(json.dumps(index, indent=1) + "\n")


def index_file(folder: Path, part: str) -> Path:
    return folder / f"{part}.safetensors.index.json"


def is_one_of(name: str, part: str) -> bool:
    """Whether a file of this name belongs to the part: the whole, a shard, or the index."""
    return (
        re.fullmatch(rf"{part}(-\d{{5}}-of-\d{{5}})?\.safetensors|{part}\.safetensors\.index\.json", name)
        is not None
    )


def names(folder: Path, part: str) -> tuple[str, ...]:
    """The files that make up a part: the index first where there is one. They need not exist."""
    index = index_file(folder, part)
    if not index.is_file():
        return (f"{part}.safetensors",)
    return (index.name, *sorted(set(_weight_map(index, part).values())))


def _weight_map(index: Path, part: str) -> dict[str, str]:
    try:
        weight_map = json.loads(index.read_text())["weight_map"]
        # a name from elsewhere must not lead out of the folder
        good = bool(weight_map) and all(is_one_of(name, part) for name in weight_map.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index}: is no index of shards ({type(error).__name__}: {error})") from error
    if not good:
        raise UserError(f"{index}: names files that are no shards of {part}")
    return weight_map


def read(folder: Path, part: str) -> dict[str, Tensor]:
    """All tensors of a part. Raises UserError for a damaged file, or shards that do not fit the index."""
    files = names(folder, part)
    if len(files) == 1:
        return read_file(folder / files[0])
    weight_map = _weight_map(folder / files[0], part)
    state: dict[str, Tensor] = {}
    for name in files[1:]:
        shard = read_file(folder / name)
        if {tensor for tensor, place in weight_map.items() if place == name} != set(shard):
            raise UserError(
                f"{folder / name}: does not hold the tensors that {files[0]} says; fetch it again"
            )
        state.update(shard)
    return state


def read_file(file: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file; nothing else is read, whatever it is called."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if file.suffix != ".safetensors":
        raise UserError(f"{file}: only .safetensors weights are read")
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{file}: cannot be read as safetensors ({reason_of(error, 160)}): "
            "is it damaged, cut short, or of another kind?"
        ) from error
