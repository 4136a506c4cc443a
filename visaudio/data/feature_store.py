"""The features folder: typed Arrow shards of encoded clips, and random access to them.

Legend: 2 ears (0 = left), F codec frames (whole tokens), D latent dimensions, Tc CLIP frames, R x C grid
cells, Ts sync tokens, L text tokens.

    features.json                        what the features were made from, and of which shards they consist
    features-00000-of-01516.arrow ...    64 clips each, an Arrow stream of one record batch
    dataset_info.json, state.json        `datasets.load_from_disk(folder)` opens the shards, memory-mapped

Columns of a row: those of META; latents (2, F, D), text (L, Dt) and, for the picture and with the ending
`_mirror` for its left-right mirror, clip (Tc, Dc), sync (Ts, Ds), grid (Tc, R C, Dg) with grid_range (2, Dg).
All are float16 in typed fixed-shape columns (`datasets.Array2D`, `Array3D`), but for the grid, uint8:
grid_range[0] + grid_range[1] * grid gives its values (eight_bits.py). The mirrored latents are the same with
the ears swapped, and so are not stored.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bi_audio_dataset.schema import UserError, reason_of
from visaudio.data.eight_bits import from_bytes

FORMAT = 2
INDEX = "features.json"
META = {
    "id": "string",
    "split": "string",
    "caption": "string",
    "hfov_deg": "float32",  # null where the lens is unknown
    "hrir_symmetric": "bool",
    "hrir_set": "string",
    "source_name": "string",
    "classes": ["string"],
}
AGAIN = "python -m visaudio.data.features extracts them again"


# -------------------- shards


def shard_path(folder: Path, shard: int, of: int) -> Path:
    return Path(folder) / f"features-{shard:05d}-of-{of:05d}.arrow"


def typed_columns(shapes: Mapping[str, tuple[Sequence[int], str]]):
    """`datasets.Features` of a shard; shapes: column -> (shape of one clip, dtype)."""
    from datasets import Array2D, Array3D, Features, Value

    kinds = {2: Array2D, 3: Array3D}
    meta = {name: [Value(kind[0])] if isinstance(kind, list) else Value(kind)
            for name, kind in META.items()}  # fmt: skip
    tensors = {name: kinds[len(shape)](tuple(shape), dtype) for name, (shape, dtype) in shapes.items()}
    return Features({**meta, **tensors})


def write_shard(path: Path, meta: Sequence[Mapping[str, Any]], tensors: Mapping[str, np.ndarray]) -> None:
    """One shard of n clips, under its name only when it is whole; tensors: column -> (n, ...).

    Raises UserError where it cannot be written; nothing half-written stays.
    """
    import pyarrow as pa

    shapes = {name: (array.shape[1:], array.dtype.name) for name, array in tensors.items()}
    schema = typed_columns(shapes).arrow_schema
    schema = schema.with_metadata({**schema.metadata, "shapes": json.dumps(shapes)})
    columns = []
    for field in schema:
        if field.name in tensors:
            columns.append(pa.ExtensionArray.from_storage(field.type, _nested(tensors[field.name])))
        else:
            columns.append(pa.array([row[field.name] for row in meta], field.type))
    table = pa.table(columns, schema=schema)
    beside = path.with_name(f".{path.name}.part")
    try:
        with open(beside, "wb") as sink:
            with pa.ipc.new_stream(sink, schema) as writer:
                writer.write_table(table, max_chunksize=len(meta))
            sink.flush()
            os.fsync(sink.fileno())
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}): the shards before it are whole, and the "
            "same command goes on from them"
        ) from error


def _nested(array: np.ndarray):
    """(n, a, b) -> the Arrow lists of lists that `datasets` stores fixed shapes in, without a copy."""
    import pyarrow as pa

    found = pa.array(np.ascontiguousarray(array).reshape(-1))
    for axis in range(array.ndim - 1, 0, -1):
        offsets = np.arange(math.prod(array.shape[:axis]) + 1, dtype=np.int32) * array.shape[axis]
        found = pa.ListArray.from_arrays(pa.array(offsets), found)
    return found


def read_shard(path: Path) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """-> (a dict of META for each clip, column -> (n, ...) over the memory-mapped file).

    Raises UserError for a file that is cut short or no such shard.
    """
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as reader:
            shapes = json.loads(reader.schema.metadata[b"shapes"])
            table = reader.read_all()
            (batch,) = table.to_batches()
        arrays = {name: _flat(batch.column(name)) for name in shapes}
        views = {name: arrays[name].reshape(-1, *shape) for name, (shape, _) in shapes.items()}
        if {len(view) for view in views.values()} != {batch.num_rows}:
            raise ValueError("its columns differ in length")
        return table.select(list(META)).to_pylist(), views
    except (pa.ArrowInvalid, OSError, KeyError, TypeError, ValueError) as error:
        reason = reason_of(error, 160)
        raise UserError(
            f"{path} is cut short or no features ({reason}): remove it; {AGAIN}, it alone"
        ) from error


def _flat(column) -> np.ndarray:
    """The values of a column of nested lists, all clips', without a copy."""
    import pyarrow as pa

    values = column.storage if isinstance(column, pa.ExtensionArray) else column
    while pa.types.is_list(values.type):
        values = values.flatten()
    return values.to_numpy(zero_copy_only=True)


# -------------------- the folder


def read_index(folder: Path) -> dict[str, Any] | None:
    """features.json; None where there is none. Raises UserError for features of an earlier layout."""
    path = Path(folder) / INDEX
    try:
        index = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): remove the folder; {AGAIN}") from error
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        found = index.get("format", 1) if isinstance(index, dict) else "unknown"
        raise UserError(
            f"'{folder}' holds features of layout {found}, this program reads {FORMAT}: remove the folder; "
            f"{AGAIN}"
        )
    return index


def write_index(folder: Path, index: Mapping[str, Any]) -> None:
    replace_text(Path(folder) / INDEX, json.dumps({"format": FORMAT, **index}, indent=1) + "\n")


def replace_text(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_text(text)
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise UserError(f"{path} cannot be written ({error.strerror or error})") from error


def finish(folder: Path, index: Mapping[str, Any], paths: Sequence[Path]) -> None:
    """Say that all shards are there; from now on FeatureDataset and `datasets.load_from_disk` open them."""
    import pyarrow as pa
    from datasets import Features

    with pa.memory_map(str(paths[0])) as source, pa.ipc.open_stream(source) as reader:
        features = Features.from_arrow_schema(reader.schema)
    state = {
        "_data_files": [{"filename": path.name} for path in paths],
        "_fingerprint": index["made_from"]["rows"],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    replace_text(folder / "dataset_info.json", json.dumps({"features": features.to_dict()}, indent=1) + "\n")
    replace_text(folder / "state.json", json.dumps(state, indent=1) + "\n")
    write_index(folder, {**index, "shards": {path.name: path.stat().st_size for path in paths}})


def whole_shards(folder: Path, index: Mapping[str, Any]) -> list[Path]:
    """The shards of finished features. Raises UserError where they are unfinished or one is not whole."""
    if "shards" not in index:
        raise UserError(
            f"the features in '{folder}' are unfinished: python -m visaudio.data.features goes on with them"
        )
    for name, size in index["shards"].items():
        path = Path(folder) / name
        there = path.stat().st_size if path.is_file() else None
        if there != size:
            what = "is missing" if there is None else f"has {there:,} bytes, expected {size:,}"
            raise UserError(f"{path} {what}: remove it; {AGAIN}, it alone")
    return [Path(folder) / name for name in index["shards"]]


class FeatureDataset:
    """Random access to a features folder; `split` None means all clips.

    `ids`, `captions`, `classes`, `splits`, `hfov_deg`, `hrir_symmetric`, `hrir_sets` and `source_names` are
    lists in the order of the indices, `made_from` says what made the features. Nothing is kept in memory but
    these: files are memory-mapped, and `get` reads no more than one clip. May be sent to another process,
    which maps the files itself.
    """

    def __init__(self, folder: str | Path, split: str | None = "train") -> None:
        self.folder = Path(folder)
        index = read_index(self.folder)
        if index is None:
            raise UserError(f"'{folder}' holds no features: run python -m visaudio.data.features")
        self.made_from: dict[str, Any] = index["made_from"]
        self._paths = whole_shards(self.folder, index)
        self._views: dict[int, dict[str, np.ndarray]] = {}
        self._where: list[tuple[int, int]] = []
        rows = []
        for number, path in enumerate(self._paths):
            meta, self._views[number] = read_shard(path)
            for place, one in enumerate(meta):
                if split is None or one["split"] == split:
                    self._where.append((number, place))
                    rows.append(one)
        self.ids, self.splits, self.captions = ([row[k] for row in rows] for k in ("id", "split", "caption"))
        self.classes = [tuple(row["classes"]) for row in rows]
        self.hfov_deg = [math.nan if row["hfov_deg"] is None else row["hfov_deg"] for row in rows]
        self.hrir_symmetric = [row["hrir_symmetric"] for row in rows]
        self.hrir_sets, self.source_names = ([row[k] for row in rows] for k in ("hrir_set", "source_name"))

    def __len__(self) -> int:
        return len(self.ids)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_views": {}}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Column -> shape of one clip's."""
        return {name: view.shape[1:] for name, view in self._columns(0).items()}

    def _columns(self, shard: int) -> dict[str, np.ndarray]:
        if shard not in self._views:
            self._views[shard] = read_shard(self._paths[shard])[1]
        return self._views[shard]

    def tensor(self, index: int, name: str) -> Tensor:
        """One stored tensor as a copy: latents, clip, sync, text, clip_mirror, ... float16, grids float32."""
        shard, place = self._where[index]
        columns = self._columns(shard)
        if name.startswith("grid"):
            scale = columns[name.replace("grid", "grid_range")][place]
            return torch.from_numpy(from_bytes(columns[name][place], scale))
        return torch.from_numpy(columns[name][place].copy())

    def get(self, index: int, mirror: bool = False) -> dict[str, Any]:
        """latents (2, F, D), clip (Tc, Dc), grid (Tc, R C, Dg), sync (Ts, Ds), text (L, Dt), hfov_rad.

        hfov_rad is nan where the lens is unknown. With mirror, vision is that of the flipped frames; the
        latents are left as they are: whoever asks for the mirror swaps the ears.
        """
        ending = "_mirror" if mirror else ""
        return {
            "id": self.ids[index],
            "latents": self.tensor(index, "latents"),
            **{name: self.tensor(index, name + ending) for name in ("clip", "grid", "sync")},
            "text": self.tensor(index, "text"),
            "hfov_rad": math.radians(self.hfov_deg[index]),
        }
