"""Every clip through the frozen parts, once: what the flow training reads instead of video and sound.

    python -m visaudio.data.features --dataset DIR_OR_REPO --output DIR [--preset NAME]
    accelerate launch --num_processes 8 -m visaudio.data.features ...     (torchrun on several machines alike)

Worker processes decode and resize ahead of the encoders, which get batches of several clips. Clips are cut
into shards by their order alone, and each process makes whole shards: any number of processes, and any number
of interruptions, give the same files.

The folder's layout is in feature_store.py, the encoders in parts.py, the command line in cli/features.py.
"""

from __future__ import annotations

import hashlib
import queue
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bi_audio_dataset.schema import UserError, reason_of
from visaudio.data.feature_store import (
    FeatureDataset,
    finish,
    read_index,
    read_shard,
    shard_path,
    whole_shards,
    write_index,
    write_shard,
)
from visaudio.data.parts import Decoder, Parts
from visaudio.data.rows import open_rows

SHARD_CLIPS = 64
LEAST_SHARDS = 16  # of small sets, so that several processes share them
POLL_S = 0.5

__all__ = ["Extraction", "FeatureDataset", "Parts", "extract_features"]


@dataclass(frozen=True)
class Extraction:
    """What an extraction did: clips encoded by this process, its seconds, and those of them in which the
    encoders waited for decoded clips (the first batch, which nothing can go ahead of, is not counted)."""

    folder: Path
    clips: int = 0
    seconds: float = 0.0
    waited_s: float = 0.0


def extract_features(
    dataset: str | Path,
    output: Path,
    parts: Parts,
    splits: Sequence[str] | None = None,
    batch_size: int = 8,
    workers: int = 2,
    progress: bool = True,
) -> Extraction:
    """Encode all clips of a BiAudio folder or repository into `output`, or what is still missing there.

    Every process of a launch calls it; each returns when all shards are there. workers: decoding processes
    beside each, 0 decodes in between. Raises UserError for a folder that holds features of other clips,
    lengths or weights, for clips that cannot be decoded, and where nothing can be written.
    """
    state, output = processes(), Path(output)
    rows = open_rows(dataset, splits)
    shards = cut(len(rows))
    own = {**parts.made_from(), "rows": _digest(rows.ids)}
    made_from, todo = on_main(state, lambda: (own, _missing(output, own, shards)))
    if own != {**made_from, "bf16": own["bf16"]}:
        raise UserError(
            f"process {state.process_index} has {_difference(made_from, own)} than the first process"
        )
    parts = parts.to(state.device)
    parts.bf16 = made_from["bf16"]  # "auto" may mean another thing on another machine
    mine = todo[state.process_index :: state.num_processes]
    paths = [shard_path(output, shard, len(shards)) for shard in range(len(shards))]
    work = [(shards[shard], paths[shard]) for shard in mine]
    others = {paths[shard]: len(shards[shard]) for shard in set(todo) - set(mine)}
    done = Extraction(output)
    with _Bar(shards, todo, others, progress and state.is_main_process) as bar:
        if work:
            done = _encode(rows, work, parts, batch_size, workers, bar.advance)
        _wait(output, bar, {"made_from": made_from}, paths, state.is_main_process)
    return replace(done, folder=output)


def processes(**options: Any):
    """Accelerate's state of this launch's processes; options: of torch.distributed.init_process_group."""
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    # unlike Accelerator, PartialState must be told: it would take two processes on CPUs for two launches
    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    return PartialState(cpu=cpu, **options)


def cut(count: int) -> list[range]:
    """Rows of each shard; of the number of rows alone, so that no process count changes a file."""
    size = max(1, min(SHARD_CLIPS, -(-count // LEAST_SHARDS)))
    return [range(start, min(count, start + size)) for start in range(0, count, size)]


def _digest(values: Sequence[str]) -> str:
    return hashlib.blake2b("\n".join(values).encode(), digest_size=16).hexdigest()


def on_main(state, work: Callable[[], Any]) -> Any:
    """The result of the first process's work, on every process; where it raised UserError, all end."""
    from accelerate.utils import broadcast_object_list

    found: list[Any] = [None, None]
    if state.is_main_process:
        try:
            found[0] = work()
        except UserError as error:
            found[1] = str(error)
    if state.num_processes > 1:
        broadcast_object_list(found)
    if found[1] is not None:
        if not state.is_main_process:  # which has said it
            raise SystemExit(2)
        raise UserError(found[1])
    return found[0]


def _missing(output: Path, made_from: dict[str, Any], shards: Sequence[range]) -> list[int]:
    """The shards that are still to be made; the folder is begun where there is none."""
    index = read_index(output)
    if index is None:
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{output} cannot be made a folder to write to ({error.strerror or error})"
            ) from error
        old = sorted(output.glob("features-*.arrow"))
        if old:
            raise UserError(f"'{output}' holds {old[0].name}, but no features.json: remove the folder")
        write_index(output, {"made_from": made_from})
    elif index["made_from"] != made_from:
        raise UserError(
            f"'{output}' holds features of {_difference(index['made_from'], made_from)}: "
            "choose another folder, or remove it"
        )
    elif "shards" in index:
        try:
            whole_shards(output, index)
            return []
        except UserError:
            write_index(
                output, {"made_from": made_from}
            )  # no longer finished: what is not whole is made anew
    missing = [shard for shard in range(len(shards)) if not _is_whole(output, shard, shards)]
    for shard in missing:  # what is there but not whole would be taken for another process's finished work
        shard_path(output, shard, len(shards)).unlink(missing_ok=True)
    return missing


def _is_whole(output: Path, shard: int, shards: Sequence[range]) -> bool:
    path = shard_path(output, shard, len(shards))
    try:
        return path.is_file() and len(read_shard(path)[0]) == len(shards[shard])
    except UserError:
        return False


def _difference(there: dict[str, Any], now: dict[str, Any]) -> str:
    """'other weights (clip), another sequence.clip_fps (8.0, now 4.0)'."""
    found = []
    if there.get("rows") != now["rows"]:
        found.append("other clips")
    parts = {**there.get("weights", {}), **now["weights"]}
    other = [name for name in parts if there.get("weights", {}).get(name) != now["weights"].get(name)]
    if other:
        found.append(f"other weights or settings of {', '.join(other)}")
    for name, value in now["sequence"].items():
        before = there.get("sequence", {}).get(name)
        if before != value:
            found.append(f"another {name} ({before}, now {value})")
    if there.get("mono") != now.get("mono"):
        found.append("sound that was mono" if there.get("mono") else "sound that was not taken as mono")
    if there.get("bf16") != now["bf16"]:
        found.append("another precision")
    return ", ".join(found) or "something else"


# -------------------- encoding


def _encode(rows, work, parts: Parts, batch_size: int, workers: int, advance) -> Extraction:
    """Make the shards of `work`, (rows, path) each; one is written while the next is encoded."""
    began = time.monotonic()
    clips, waited, first = 0, 0.0, True
    batches = _ahead(_batches(rows, work, parts.decoder, batch_size, workers))
    pending: Future | None = None
    with ThreadPoolExecutor(1) as writer:
        try:
            meta: list[dict[str, Any]] = []
            columns: list[dict[str, np.ndarray]] = []
            while True:
                asked = time.monotonic()
                batch = next(batches, None)
                waited += 0.0 if first else time.monotonic() - asked
                first = False
                if batch is None:
                    break
                columns.append(parts.stored_batch(batch.tensors, [one["caption"] for one in batch.meta]))
                if clips == 0:
                    _say_if_too_large(batch.path.parent, columns[0], sum(len(chosen) for chosen, _ in work))
                meta += batch.meta
                clips += len(batch.meta)
                advance(len(batch.meta))
                if batch.last:
                    if pending is not None:
                        pending.result()
                    pending = writer.submit(_write, batch.path, meta, columns)
                    meta, columns = [], []
            if pending is not None:
                pending.result()
        finally:
            batches.close()
    return Extraction(Path(), clips, time.monotonic() - began, waited)


def _say_if_too_large(folder: Path, columns: dict[str, np.ndarray], clips: int) -> None:
    one = sum(values[0].nbytes for values in columns.values())
    free = shutil.disk_usage(folder).free
    if one * clips > free:
        print(
            f"note: {clips:,} clips of {one / 1e6:.2f} MB need {one * clips / 1e9:.1f} GB, and "
            f"{free / 1e9:.1f} GB are free in {folder}",
            file=sys.stderr,
        )


def _write(path: Path, meta: list[dict[str, Any]], columns: list[dict[str, np.ndarray]]) -> None:
    tensors = {name: np.concatenate([part[name] for part in columns]) for name in columns[0]}
    for name, values in tensors.items():
        if values.dtype == np.uint8:
            continue  # its range is looked at
        bad = ~np.isfinite(values).reshape(len(values), -1).all(1)
        if bad.any():
            ids = ", ".join(meta[i]["id"] for i in np.flatnonzero(bad)[:8])
            raise UserError(
                f"the {name.replace('_range', '')} features of {ids} are not finite (in float16): look at "
                "these clips, or extract with --precision fp32"
            )
    write_shard(path, meta, tensors)


@dataclass(frozen=True)
class _Batch:
    """Decoded clips of one shard, tensors (B, ...); last: the shard's."""

    path: Path
    meta: list[dict[str, Any]]
    tensors: dict[str, Tensor]
    last: bool


class _Decoded(torch.utils.data.Dataset):
    """Row index -> (what a shard says of it, its decoded media), or the line that says why it cannot be."""

    def __init__(self, rows, decoder: Decoder) -> None:
        self.rows, self.decoder = rows, decoder

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[dict[str, Any], dict[str, Tensor]] | str:
        # a string, because an exception comes out of a worker process as pages of its traceback
        try:
            row = self.rows[index]
            return _meta(row), self.decoder(row)
        except Exception as error:  # whatever the libraries make of a damaged film
            reason = reason_of(error)
            return (
                f"clip {self.rows.ids[index]} cannot be decoded ({reason}): build it again, or take it out "
                "with python -m bi_audio_dataset remove"
            )


def _as_it_is(item: Any) -> Any:
    return item


def _meta(row: dict[str, Any]) -> dict[str, Any]:
    truth = row.get("truth") or {}
    return {
        "id": row["id"],
        "split": row["split"],
        "caption": row["caption"] or "",
        "hfov_deg": row["hfov_deg"],
        "hrir_symmetric": bool(row["hrir_symmetric"]),
        "hrir_set": row.get("hrir_set") or "",
        "source_name": row.get("source_name") or "",
        "classes": [source["class_name"] for source in truth.get("sources") or ()],
    }


def _batches(rows, work, decoder: Decoder, batch_size: int, workers: int) -> Iterator[_Batch]:
    """Consecutive clips of each shard, at most batch_size at once, in order."""
    from torch.utils.data import DataLoader

    order = [index for chosen, _ in work for index in chosen]
    # spawn, not fork: the parent may hold torch's OpenMP threads, which a fork would break
    ahead = {"multiprocessing_context": "spawn", "prefetch_factor": 2} if workers else {}
    loader = DataLoader(
        _Decoded(rows, decoder),
        batch_size=None,
        sampler=order,
        num_workers=workers,
        collate_fn=_as_it_is,
        **ahead,
    )
    decoded = iter(loader)
    pin = torch.cuda.is_available()
    for chosen, path in work:
        for start in range(0, len(chosen), batch_size):
            size = min(batch_size, len(chosen) - start)
            found = [next(decoded) for _ in range(size)]
            for one in found:
                if isinstance(one, str):
                    raise UserError(one)
            tensors = {name: torch.stack([one[1][name] for one in found]) for name in found[0][1]}
            if pin:
                tensors = {name: value.pin_memory() for name, value in tensors.items()}
            yield _Batch(path, [one[0] for one in found], tensors, start + size == len(chosen))


def _ahead(items: Iterator[Any], depth: int = 2) -> Iterator[Any]:
    """The same items, up to `depth` of them made ahead by a thread."""
    ready: queue.Queue = queue.Queue(depth)
    stop = threading.Event()

    def put(item: tuple[Any, BaseException | None, bool]) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.2)
                return True
            except queue.Full:
                pass
        return False

    def make() -> None:
        try:
            for item in items:
                if not put((item, None, False)):
                    return
            put((None, None, True))
        except BaseException as error:
            put((None, error, True))

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        while True:
            item, error, ended = ready.get()
            if error is not None:
                raise error
            if ended:
                return
            yield item
    finally:
        stop.set()
        thread.join()


# -------------------- the other processes


class _Bar:
    """One bar over the clips of all processes: of others' shards it counts those that are there."""

    def __init__(self, shards, todo: Sequence[int], others: dict[Path, int], visible: bool) -> None:
        self.shards, self.todo, self.visible = shards, todo, visible
        self.others = dict(others)
        self._bar, self._looked = None, 0.0

    def __enter__(self) -> _Bar:
        from tqdm import tqdm

        total = sum(map(len, self.shards))
        left = sum(len(self.shards[shard]) for shard in self.todo)
        self._bar = tqdm(
            total=total,
            initial=total - left,
            desc="features",
            unit="clip",
            disable=not self.visible or not left,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def advance(self, clips: int) -> None:
        self._bar.update(clips)
        if self.visible and time.monotonic() - self._looked > 2.0:
            self.look()

    def look(self) -> bool:
        """Count others' shards that have come; whether all are there."""
        self._looked = time.monotonic()
        for path in [path for path in self.others if path.is_file()]:
            self._bar.update(self.others.pop(path))
        return not self.others


def _wait(output: Path, bar: _Bar, index: dict[str, Any], paths: Sequence[Path], main: bool) -> None:
    """Until all processes' shards are there and the first has said so.

    By looking at the folder: a collective call would time out long before the slowest of many machines is
    done. Where a process ends in an error, its launcher ends the others.
    """
    if main:
        while not bar.look():
            time.sleep(POLL_S)
        if "shards" not in (read_index(output) or {}):
            finish(output, index, paths)
        return
    while "shards" not in (read_index(output) or {}):
        time.sleep(POLL_S)


def main(arguments: Sequence[str] | None = None) -> int:
    from visaudio.cli.features import main as run  # above this file's floor

    return run(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
