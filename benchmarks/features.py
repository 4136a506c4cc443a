#!/usr/bin/env python
"""What feature extraction and the reading of features cost.

    python -m bi_audio_dataset synth --clips 40 --output data/forty
    python benchmarks/features.py --dataset data/forty
    python benchmarks/features.py --read-clips 512

Four tables, of which --only names some:

- sizes: bytes a clip of each preset, computed.
- extract: clips a second of `python -m visaudio.data.features` on 1 and on 2 processes of one thread
  (torchrun), the share of that time in which the encoders wait for decoded clips, bytes per clip. Needs
  --dataset.
- grid: what a grid loses in 8 bits, at half the frames, by a PCA: root mean square of what is lost, in per
  cent of the deviation of the grid over all clips. Needs --dataset.
- read: random access to features of the `small` preset's sizes (numbers out of a hat), typed as they are
  stored and in other forms; and how much private memory (/proc, RssAnon: what is no file's page) it takes.

Printed as Markdown. Times are of this machine under whatever else it does: compare within one run.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from visaudio.data.feature_sizes import PAPER_CLIPS, bytes_per_clip, feature_shapes
from visaudio.data.feature_store import FeatureDataset, finish, shard_path, write_shard
from visaudio.presets import PRESETS, get_preset

TABLES = ("sizes", "extract", "grid", "read")
GRID_CLIPS = 12


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", help="BiAudio folder: for extract and grid")
    parser.add_argument("--workers", type=int, default=1, help="decoding processes of each (default: 1)")
    parser.add_argument("--read-clips", type=int, default=256, help="clips of 3.9 MB (default: 256)")
    parser.add_argument("--only", default=",".join(TABLES), help=f"of {','.join(TABLES)}")
    options = parser.parse_args(arguments)
    only = options.only.split(",")
    with tempfile.TemporaryDirectory() as folder:
        if "sizes" in only:
            sizes()
        if options.dataset and "extract" in only:
            extract(options.dataset, Path(folder), options.workers)
        if options.dataset and "grid" in only:
            grid(options.dataset)
        if "read" in only:
            read(Path(folder), options.read_clips)
    return 0


def table(head: list[str], rows: list[list[str]]) -> None:
    for row in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(row)} |")
    print(flush=True)


# -------------------- bytes


def sizes() -> None:
    names = ("latents", "text", "clip", "sync", "grid")
    rows = []
    for name, model in PRESETS.items():
        found = bytes_per_clip(model)
        parts = [sum(v for k, v in found.items() if k.startswith(part)) / 1e3 for part in names]
        total = sum(found.values())
        rows.append(
            [
                name,
                *(f"{part:,.0f}" for part in parts),
                f"{total / 1e6:.2f}",
                f"{total * PAPER_CLIPS / 1e9:.0f}",
            ]
        )
    table(["preset", *(f"{name} kB" for name in names), "MB a clip", f"GB for {PAPER_CLIPS:,}"], rows)


# -------------------- extraction


def extract(dataset: str, folder: Path, workers: int) -> None:
    rows = []
    for processes in (1, 2):
        output = folder / f"features{processes}"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        launcher = ["torch.distributed.run", f"--nproc_per_node={processes}", f"--master_port={port}", "-m"]
        command = [sys.executable, "-m", *launcher, "visaudio.data.features", "--dataset", dataset]
        command += ["--output", str(output), "--workers", str(workers)]
        began, cpu = time.monotonic(), cpu_s()
        done = subprocess.run(
            command,
            env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        whole, cpu = time.monotonic() - began, cpu_s() - cpu
        said = re.findall(r"^(\d+) clips in (\d+) s .*, (\d+) % of them waiting", done.stderr, re.MULTILINE)
        if done.returncode or len(said) != processes:
            raise SystemExit(done.stderr[-2000:])
        seconds = max(float(one[1]) for one in said)
        clips = sum(int(one[0]) for one in said)
        stored = sum(path.stat().st_size for path in output.glob("*.arrow")) / clips
        waits = ", ".join(f"{one[2]} %" for one in said)
        times = [f"{clips / seconds:.2f}", f"{whole:.0f}", f"{cpu:.0f}"]
        rows.append([str(processes), str(clips), *times, waits, f"{stored / 1e6:.3f}"])
        print(f"{processes}: {rows[-1]}", file=sys.stderr, flush=True)
    names = [
        "processes",
        "clips",
        "clips/s",
        "s with start",
        "CPU s",
        "encoders waiting",
        "MB a clip",
    ]
    table(names, rows)
    one, two = (sorted((folder / f"features{n}").glob("*.arrow")) for n in (1, 2))
    same = all(a.read_bytes() == b.read_bytes() for a, b in zip(one, two, strict=True))
    print(f"Files of 1 and of 2 processes are {'the same' if same else 'NOT the same'}.\n")


def cpu_s() -> float:
    """CPU seconds of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# -------------------- what the grid loses


def grid(dataset: str) -> None:
    import torch

    from visaudio.cli.features import load
    from visaudio.data.eight_bits import from_bytes, to_bytes
    from visaudio.data.rows import open_rows

    parts, rows = load("tiny"), open_rows(dataset)
    chosen = range(0, len(rows), max(1, len(rows) // GRID_CLIPS))
    full = np.stack([parts.encode(rows[index])["grid"].numpy() for index in chosen])  # (n, T, C, D)
    levels, low_step = to_bytes(torch.from_numpy(full))
    eight = np.stack([from_bytes(*pair) for pair in zip(levels.numpy(), low_step.numpy(), strict=True)])
    held = np.repeat(full[:, ::2], 2, axis=1)
    between = held.copy()
    between[:, 1:-1:2] = (full[:, 0:-2:2] + full[:, 2::2]) / 2
    size = full.shape[-1]
    flat = full.reshape(-1, size)
    centred = flat - flat.mean(0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][: size // 5]
    pca = (centred @ axes.T @ axes + flat.mean(0)).reshape(full.shape)
    deviation = np.sqrt(np.square(centred).mean())
    forms = {
        "8 bits between least and largest of a dimension in the clip": (eight, 1 / 2),
        "float16 at 4 fps, each held": (held, 1 / 2),
        "float16 at 4 fps, linear between": (between, 1 / 2),
        f"float16, PCA to a fifth of the dimensions ({size // 5})": (pca, 1 / 5),
    }
    table(
        ["form of the grid", "of float16's bytes", "lost, % of the deviation"],
        [
            [name, f"{share:.2f}", f"{100 * np.sqrt(np.square(value - full).mean()) / deviation:.2f}"]
            for name, (value, share) in forms.items()
        ],
    )


# -------------------- reading


def private_mb() -> float:
    return int(re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1e3


def write(folder: Path, clips: int) -> list[Path]:
    """Shards of 64 clips of the small preset's sizes."""
    shapes, random = feature_shapes(get_preset("small")), np.random.default_rng(0)
    count = -(-clips // 64)
    paths = [shard_path(folder, shard, count) for shard in range(count)]
    meta = {"split": "train", "caption": "a bell", "hfov_deg": 90.0, "hrir_symmetric": True, "hrir_set": "",
            "source_name": "", "classes": []}  # fmt: skip
    for shard, path in enumerate(paths):
        size = min(64, clips - 64 * shard)
        tensors = {
            name: random.integers(0, 200, (size, *shape), dtype=np.uint8).astype(dtype)
            for name, (shape, dtype) in shapes.items()
        }
        write_shard(path, [{**meta, "id": f"{shard}-{i}"} for i in range(size)], tensors)
    finish(folder, {"made_from": {"rows": "none"}}, paths)
    return paths


def read(folder: Path, clips: int) -> None:
    folder = folder / "read"
    folder.mkdir()
    paths = write(folder, clips)
    order = np.random.default_rng(1).permutation(clips)
    data = FeatureDataset(folder)
    data.get(0)
    before = private_mb()
    rows = []

    def timed(name: str, get: Callable[[int], object], count: int) -> None:
        began = time.monotonic()
        for index in order[:count]:
            get(int(index))
        rows.append([name, f"{1000 * (time.monotonic() - began) / count:.1f}"])

    timed("FeatureDataset.get, all columns of one side", lambda i: data.get(i, mirror=i % 2 == 0), clips)
    grown = private_mb() - before
    columns = list(feature_shapes(get_preset("small")))
    wanted = [name for name in columns if not name.endswith("_mirror")]
    others(folder, paths[0], columns, wanted, timed)
    size = sum(path.stat().st_size for path in paths)
    print(f"{clips} clips, {size / 1e9:.2f} GB, read in random order: private memory {grown:+.1f} MB.\n")
    table(["one clip, at random", "ms"], rows)


def others(folder: Path, path: Path, columns: list[str], wanted: list[str], timed) -> None:
    """The first shard in other forms."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Dataset

    from visaudio.data.feature_store import read_shard

    arrays = read_shard(path)[1]
    size = len(arrays["latents"])
    raw = pa.table({name: [arrays[name][i].tobytes() for i in range(size)] for name in columns})
    with pa.OSFile(str(folder / "raw.arrow"), "wb") as sink, pa.ipc.new_stream(sink, raw.schema) as writer:
        writer.write_table(raw)
    with pa.memory_map(str(folder / "raw.arrow")) as source:
        mapped = pa.ipc.open_stream(source).read_all()
    kinds = {name: (array.shape[1:], array.dtype) for name, array in arrays.items()}

    def from_raw(index: int) -> None:
        for name in wanted:
            shape, kind = kinds[name]
            np.frombuffer(mapped[name][index % size].as_buffer(), kind).reshape(shape).copy()

    timed("columns of anonymous bytes in Arrow, grid left in 8 bits", from_raw, 64)
    table = Dataset.from_file(str(path)).with_format("numpy", columns=wanted)
    timed("the same shard through `datasets` (numpy format)", lambda index: table[index % size], 64)
    pq.write_table(raw, folder / "raw.parquet", row_group_size=1, compression="none", use_dictionary=False)
    parquet = pq.ParquetFile(folder / "raw.parquet", memory_map=True)

    def from_parquet(index: int) -> None:
        parquet.read_row_group(index % size, columns=wanted)

    timed("Parquet, a row group for each clip, bytes not yet turned into arrays", from_parquet, 64)


if __name__ == "__main__":
    raise SystemExit(main())
