"""The features folder: Arrow shards of encoded clips, and random access to them.

Legend: 2 ears (0 = left), F codec frames (whole tokens), D latent dimensions, Tc CLIP frames, R x C grid
cells, Ts sync tokens, L text tokens.

Layout: `features.json` (lengths, shapes, latent statistics), `text.arrow` (one row per distinct caption)
and shards `features-00000-of-00032.arrow`. Tensors are columns of raw float16 bytes; the files are Arrow
streams, which `datasets.Dataset.from_file` opens memory-mapped too. Each clip is stored with the vision
features of its left-right mirror; the mirrored latents are the same with the ears swapped, and so are not
stored.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bi_audio_dataset.schema import UserError

VISION = ("clip", "grid", "sync")
INDEX = "features.json"
META = ("id", "split", "caption", "classes", "hfov_deg", "hrir_symmetric")


def write_arrow(path: Path, records: list[dict], shapes: dict[str, list[int]]) -> None:
    import pyarrow as pa

    table = pa.Table.from_pylist(records)
    if "classes" in table.column_names:  # a shard without any class would otherwise have a column of nulls
        place = table.column_names.index("classes")
        table = table.set_column(place, "classes", table["classes"].cast(pa.list_(pa.string())))
    schema = table.schema.with_metadata({"shapes": json.dumps(shapes)})
    part = path.with_suffix(".part")
    with pa.OSFile(str(part), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        writer.write_table(table.cast(schema), max_chunksize=len(records))
    part.replace(path)


def read_arrow(path: Path):
    """-> (table over a memory map, shapes of its tensor columns)."""
    import pyarrow as pa

    try:
        with pa.ipc.open_stream(pa.memory_map(str(path))) as reader:
            table = reader.read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(
            f"{path} cannot be read ({error}): remove it and extract the features again"
        ) from error
    return table, json.loads(table.schema.metadata[b"shapes"])


class FeatureDataset:
    """Random access to a features folder; `split` None means all clips.

    `ids`, `captions`, `classes`, `splits` and `hrir_symmetric` are lists in the order of the indices. preload
    copies the files into memory (1.4 GB for 2000 clips of the tiny preset); otherwise they stay
    memory-mapped.
    """

    def __init__(
        self, folder: str | Path, split: str | None = "train", preload: bool = False, complete: bool = True
    ) -> None:
        folder = Path(folder)
        paths = sorted(folder.glob("features-*.arrow"))
        if not paths or (complete and not is_complete(folder, paths)):
            raise UserError(f"'{folder}' holds no complete features: run python -m visaudio.data.features")
        text, text_shapes = read_arrow(folder / "text.arrow")
        self._text = {c: t for c, t in zip(*(text[n].to_pylist() for n in ("caption", "text")), strict=True)}
        self.shapes = text_shapes
        self._where: list[tuple[int, int]] = []
        self._columns: list[dict[str, Any]] = []
        self.ids, self.splits, self.captions, self.classes, self.hfov_deg = [], [], [], [], []
        self.hrir_symmetric: list[bool] = []
        for number, path in enumerate(paths):
            table, shapes = read_arrow(path)
            self.shapes = {**self.shapes, **shapes}
            columns = {name: table[name].combine_chunks() for name in shapes}
            if preload:
                columns = {name: [value.as_py() for value in column] for name, column in columns.items()}
            self._columns.append(columns)
            meta = table.select(list(META)).to_pylist()
            for place, one in enumerate(meta):
                if split is None or one["split"] == split:
                    self._where.append((number, place))
                    self.ids.append(one["id"])
                    self.splits.append(one["split"])
                    self.captions.append(one["caption"])
                    self.classes.append(tuple(one["classes"]))
                    self.hfov_deg.append(one["hfov_deg"])
                    self.hrir_symmetric.append(one["hrir_symmetric"])

    def __len__(self) -> int:
        return len(self.ids)

    def tensor(self, index: int, name: str) -> Tensor:
        """One stored tensor, float16, as a copy: latents, clip, grid, sync, clip_mirror, grid_mirror, ..."""
        number, place = self._where[index]
        value = self._columns[number][name][place]
        data = value if isinstance(value, bytes) else value.as_buffer()
        return torch.from_numpy(np.frombuffer(data, dtype=np.float16).reshape(self.shapes[name]).copy())

    def get(self, index: int, mirror: bool = False) -> dict[str, Any]:
        """latents (2, F, D), clip (Tc, Dc), grid (Tc, R C, Dg), sync (Ts, Ds), text (L, Dt), hfov_rad.

        With mirror, vision is that of the flipped frames; the latents are left as they are: whoever asks for
        the mirror swaps the ears.
        """
        ending = "_mirror" if mirror else ""
        text = np.frombuffer(self._text[self.captions[index]], dtype=np.float16)
        return {
            "id": self.ids[index],
            "latents": self.tensor(index, "latents"),
            **{name: self.tensor(index, name + ending) for name in VISION},
            "text": torch.from_numpy(text.reshape(self.shapes["text"]).copy()),
            "hfov_rad": math.radians(self.hfov_deg[index]),
        }


def latent_statistics(folder: str | Path) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (D,) of the latents of the train split."""
    index = json.loads((Path(folder) / INDEX).read_text())
    return torch.tensor(index["latent_mean"]), torch.tensor(index["latent_std"])


def is_complete(folder: Path, paths: list[Path]) -> bool:
    index = folder / INDEX
    if not index.is_file() or not (folder / "text.arrow").is_file():
        return False
    return "latent_mean" in json.loads(index.read_text()) and len(paths) == int(paths[0].stem.split("-")[-1])
