"""The pipeline: recordings of a source -> clips -> Parquet shards. Resumable; the same bytes for any workers.

DIR/build.json                what is being built; another build into the same folder is refused
DIR/.work/parts/<id>.parquet  finished recordings, written beside and renamed; gone when the build is complete
DIR/.work/scratch/            what a recording needs while it is made
DIR/data/*.parquet            the shards; the folder appears whole, by one rename
DIR/README.md                 the dataset card
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bi_audio_dataset.clip import BuildConfig, ClipMaker, load_hrirs
from bi_audio_dataset.schema import SCHEMA_VERSION, SPLITS, UserError
from bi_audio_dataset.shards import Figures, card, write_rows, write_shards
from bi_audio_dataset.sources.base import Source

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class BuildResult:
    """figures is None if the folder was complete already; skipped: recording id -> why it was unusable."""

    output: Path
    figures: Figures | None = None
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def already_complete(self) -> bool:
        return self.figures is None


def build(
    source: Source,
    output: Path,
    config: BuildConfig | None = None,
    workers: int = 1,
    progress: bool = True,
    settings: dict[str, Any] | None = None,
) -> BuildResult:
    """Build the dataset of a source into a folder, or finish a build that was interrupted there.

    workers: processes, each with one thread; 0 runs in this process. The bytes do not depend on it (0 keeps
    this process's own thread settings, which may change the last bits of linear algebra).
    settings: what identifies the source in build.json, by default its own `settings`; without paths.
    A recording that raises UserError is skipped and reported; if none is left, UserError.
    Raises UserError also where the folder holds another build, or is being built by another process.
    """
    config = config or BuildConfig()
    output = Path(output)
    ids = source.recording_ids()
    check_ids(ids)
    if config.sofa is not None:
        load_hrirs(config)  # a bad file is better refused here than in each worker
    record = build_settings(source, ids, config, settings)
    claim(output, record)
    work = output / ".work"
    if (output / "data").is_dir():
        shutil.rmtree(work, ignore_errors=True)
        return BuildResult(output)

    parts = work / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    with _lock(work / "lock", output):
        skipped = _make_parts(source, ids, config, parts, workers, progress)
        made = [part for part in (_part(parts, i) for i in ids) if part.exists()]
        if not made:
            reasons = "; ".join(sorted(set(skipped.values()))[:3]) or "the source has no recordings"
            raise UserError(f"no clip could be built into '{output}': {reasons}")
        shutil.rmtree(work / "data", ignore_errors=True)
        figures = write_shards(work / "data", made, config.rows_per_shard)
        (output / "README.md").write_text(card(f"BiAudio: {source.name}", figures, record))
        os.replace(work / "data", output / "data")
        shutil.rmtree(work)
    return BuildResult(output, figures, skipped)


def check_ids(ids: list[str]) -> None:
    if not ids:
        raise UserError("the source has no recordings: nothing to build")
    if len(set(ids)) != len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise UserError(f"recording id '{twice}' occurs more than once: ids must be unique")


def build_settings(
    source: Source, ids: list[str], config: BuildConfig, settings: dict[str, Any] | None = None
) -> dict[str, Any]:
    """What build.json records: plain values, without times, hosts or paths."""
    plain = asdict(config)
    if config.sofa is not None:
        path = Path(config.sofa)
        plain["sofa"] = {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    listing = "\n".join(sorted(ids)).encode()
    record = {
        "schema_version": SCHEMA_VERSION,
        "source": {
            "name": source.name,
            "settings": dict(getattr(source, "settings", {}) if settings is None else settings),
            "recordings": len(ids),
            "recordings_sha256": hashlib.sha256(listing).hexdigest(),
        },
        "config": plain,
    }
    return json.loads(json.dumps(record))  # tuples become lists, as they will be read back


def claim(output: Path, settings: dict[str, Any]) -> None:
    """Make the folder and record the settings, or check that they are those it was begun with."""
    path = output / "build.json"
    if path.exists():
        try:
            found = json.loads(path.read_text())
        except ValueError as error:
            raise UserError(f"'{path}' is not JSON ({error}): remove the folder or choose another") from None
        changes = list(_differences(found, settings))
        if changes:
            raise UserError(
                f"'{output}' holds another build ({'; '.join(changes[:3])}): "
                "choose another folder or remove it"
            )
        return
    if output.exists() and not output.is_dir():
        raise UserError(f"'{output}' is a file, expected a folder")
    if output.exists() and any(output.iterdir()):
        raise UserError(f"'{output}' is not empty and holds no build.json: choose an empty or new folder")
    output.mkdir(parents=True, exist_ok=True)
    _write_beside(path, json.dumps(settings, indent=1, sort_keys=True) + "\n")


def _differences(found: Any, wanted: Any, name: str = "") -> Iterator[str]:
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted({*found, *wanted}):
            yield from _differences(found.get(key), wanted.get(key), f"{name}.{key}" if name else key)
    elif found != wanted:
        yield f"{name} is {found!r} there, {wanted!r} here"


def _make_parts(
    source: Source, ids: list[str], config: BuildConfig, parts: Path, workers: int, progress: bool
) -> dict[str, str]:
    from tqdm import tqdm

    for leftover in parts.glob("*.tmp"):
        leftover.unlink()
    scratch = parts.with_name("scratch")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    todo = [i for i in ids if not _part(parts, i).exists()]
    skipped: dict[str, str] = {}
    with tqdm(
        total=len(ids),
        initial=len(ids) - len(todo),
        unit="recording",
        desc=source.name,
        disable=not progress,
        file=sys.stderr,
        smoothing=0.05,
    ) as bar:
        for recording_id, reason in _run(source, todo, config, parts, workers):
            if reason is not None:
                skipped[recording_id] = reason
                bar.write(f"skipped {recording_id}: {reason}", file=sys.stderr)
            bar.update()
    return skipped


def _run(
    source: Source, todo: list[str], config: BuildConfig, parts: Path, workers: int
) -> Iterator[tuple[str, str | None]]:
    """Yield (recording id, reason it was skipped or None) as they finish."""
    if workers == 0:
        task = _Task(source, config, parts)
        for recording_id in todo:
            yield recording_id, task(recording_id)
        return
    # spawn: no forked threads or decoder state; and the thread settings are read before numpy loads
    context = multiprocessing.get_context("spawn")
    with (
        _environment({name: "1" for name in THREAD_VARIABLES}),
        ProcessPoolExecutor(
            max(1, min(workers, len(todo))),
            context,
            initializer=_start_worker,
            initargs=(source, config, parts),
        ) as pool,
    ):
        try:
            pending = {}
            queue = iter(todo)
            for recording_id in queue:
                pending[pool.submit(_work, recording_id)] = recording_id
                if len(pending) < 4 * workers:
                    continue
                yield from _finished(pending)
            while pending:
                yield from _finished(pending)
        except BrokenProcessPool:
            raise UserError(
                "a worker process died (killed, or out of memory?): run the same command again to go on, "
                "with fewer workers if memory is short"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _finished(pending: dict) -> Iterator[tuple[str, str | None]]:
    done, _ = wait(pending, return_when=FIRST_COMPLETED)
    for future in done:
        yield pending.pop(future), future.result()


class _Task:
    """Builds one recording into its part file. Lives once per process: the HRIR set is prepared once."""

    def __init__(self, source: Source, config: BuildConfig, parts: Path) -> None:
        self.source, self.parts = source, parts
        self.scratch = parts.with_name("scratch")
        self.make = ClipMaker(config)

    def __call__(self, recording_id: str) -> str | None:
        """None, or why the recording cannot be used."""
        part = _part(self.parts, recording_id)
        try:
            split = self.source.split(recording_id)
            if split not in SPLITS:
                raise ValueError(
                    f"source '{self.source.name}' gave split '{split}', expected one of {SPLITS}"
                )
            with tempfile.TemporaryDirectory(dir=self.scratch) as workdir:
                recording = self.source.fetch(recording_id, Path(workdir))
                records = self.make(recording, self.source.name, split)
        except UserError as error:
            if getattr(error.__cause__, "errno", None) in DISK_FULL:
                raise  # the machine's fault: skipping would lose good recordings
            return str(error)
        beside = part.with_name(part.name + ".tmp")
        write_rows(beside, records)
        os.replace(beside, part)
        return None


_task: _Task | None = None


def _start_worker(source: Source, config: BuildConfig, parts: Path) -> None:
    global _task
    import cv2

    cv2.setNumThreads(1)
    # Ctrl-C reaches the whole group; parts are renamed whole, so a worker may stop anywhere
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    parent = multiprocessing.parent_process()
    if parent is not None:
        # a killed parent must not leave workers waiting for tasks for ever
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    _task = _Task(source, config, parts)


def _work(recording_id: str) -> str | None:
    assert _task is not None, "worker not started"
    return _task(recording_id)


def _part(parts: Path, recording_id: str) -> Path:
    return parts / f"{quote(recording_id, safe='')}.parquet"


def _write_beside(path: Path, text: str) -> None:
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(text)
    os.replace(beside, path)


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _lock(path: Path, output: Path) -> Iterator[None]:
    # the kernel drops the lock with its process, so a killed build leaves none behind
    with open(path, "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"'{output}' is being built by another process: wait for it or stop it") from None
        yield
