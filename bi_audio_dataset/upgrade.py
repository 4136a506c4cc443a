"""python -m bi_audio_dataset upgrade DIR: datasets of older schema versions, rewritten for this one.

What becomes of a row stands in migrations.py; what a row lacks may be taken from the set's manifest.jsonl.

Shards are written to DIR/.work/upgrade, each beside and then renamed; when all of them are there, card and
build.json too, a marker says so and they take the places of the old ones by renames. Killed anywhere, the
same command goes on: before the marker with the shards that are missing, after it with the renames. Until
then the folder holds the old dataset, whole. Disk space for a second copy of the shards is needed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bi_audio_dataset import card, manifest
from bi_audio_dataset.card_command import compose
from bi_audio_dataset.finalize import read_record
from bi_audio_dataset.migrations import STEPS, Row, check_upgradable, manifest_values, upgrade_row
from bi_audio_dataset.schema import CONFIGS, INNER, SCHEMA_VERSION, UserError
from bi_audio_dataset.shards import read_manifest, read_rows, rewrite
from bi_audio_dataset.workplace import PARTS, PARTS_AT, WORK

#: Below .work: what is being made, and what is left of it when everything is in its place.
STAGE, DONE = "upgrade", "upgrade.done"
#: Below .work/upgrade, beside the new files: what they are made of, that they are whole, the old shards.
PLAN, READY, OLD = "plan.json", "ready", "old"


@dataclass
class Upgraded:
    """clips: rewritten; versions: schema versions that were found, of all rows; finished: an upgrade that was
    interrupted while it was installed was brought to its end."""

    output: Path
    clips: int = 0
    versions: set[int] = field(default_factory=set)
    finished: bool = False

    @property
    def words(self) -> list[str]:
        """What the steps changed."""
        oldest = min(self.versions, default=SCHEMA_VERSION)
        return [f"{n} -> {n + 1}: {STEPS[n].words}" for n in range(oldest, SCHEMA_VERSION)]


def upgrade(folder: Path, output: Path | None = None, progress: bool = False) -> Upgraded:
    """Bring a dataset folder, a BiAudio-Synth set below it and clips that wait for finalize to this version.

    output: write there instead, and leave `folder` alone (what waits in its .work is not taken along); a new
    or empty folder, or one of an upgrade of the same folder that was interrupted.
    UserError for what is no dataset, is of an unknown version, or is at work in another process.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"'{folder}' is not a folder")
    done = Upgraded(folder if output is None else Path(output))
    # the set itself last: its card names the other's files
    inner = [Path(CONFIGS[name]).parent for name in INNER]
    sets = [below for below in (*inner, Path()) if (folder / below).is_dir()]
    if output is None:
        done.finished = any([_finish(folder / below) for below in sets])
    found = {below: _versions(folder / below, parts=output is None) for below in sets}
    done.versions = set().union(*found.values())
    if not (done.versions if output is None else found[Path()]):
        raise UserError(f"'{folder}' holds no data/*.parquet: expected a dataset")
    for version in done.versions:
        check_upgradable(version, f"'{folder}'")
    if output is not None and not _claim(folder, done.output, done.versions):
        done.finished = True
        return done
    for below in sets:
        target = done.output / below
        installed = (target / "data").exists() and not (target / WORK / STAGE).exists()
        current = installed if output is not None else found[below] <= {SCHEMA_VERSION}
        if installed:
            _finish(target)
        if found[below] and not current:
            done.clips += _upgrade_one(folder / below, target, progress)
    return done


def _files(folder: Path, parts: bool) -> tuple[list[Path], list[Path]]:
    """Shards, and parts of clips that wait."""
    work = folder / WORK
    if parts and (work / PARTS_AT).exists():
        address = (work / PARTS_AT).read_text(encoding="utf-8").strip()
        raise UserError(
            f"the clips of '{folder}' that wait lie at {address}: finalize them with the program that built "
            "them, then upgrade"
        )
    waiting = sorted((work / PARTS).glob("*.parquet")) if parts else []
    return sorted((folder / "data").glob("*.parquet")), waiting


def _versions(folder: Path, parts: bool) -> set[int]:
    shards, waiting = _files(folder, parts)
    return {version for path in (*shards, *waiting) for version in _versions_in(path)}


def _versions_in(path: Path) -> set[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if "schema_version" in pq.read_schema(path).names:
            return {row["schema_version"] for row in read_rows(path, ["schema_version"])}
    except (pa.ArrowException, OSError) as error:
        words = " ".join(str(error).split())[:160]
        raise UserError(f"'{path}' is not a whole Parquet file ({words}): get it again") from None
    raise UserError(f"'{path}' has no column schema_version: expected clips of a BiAudio dataset")


def _plan(source: Path) -> dict[str, Any]:
    """What a half-done upgrade was made of; private to the folder, so that times may stand in it."""
    stats = {path.name: path.stat() for path in _files(source, parts=False)[0]}
    return {
        "schema_version": SCHEMA_VERSION,
        "shards": {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()},
    }


def _claim(source: Path, output: Path, versions: set[int]) -> bool:
    """Begin an upgrade into another folder, or go on with the one that was begun there; False where it only
    had to be tidied up."""
    if output.resolve() == source.resolve():
        raise UserError(f"--output is '{source}' itself: leave it out to upgrade in place")
    if source.resolve() in output.resolve().parents:
        raise UserError(f"--output '{output}' lies inside the dataset: choose a folder beside it")
    if versions == {SCHEMA_VERSION}:
        raise UserError(f"'{source}' is of schema_version {SCHEMA_VERSION} already: use it as it is")
    if output.exists() and not output.is_dir():
        raise UserError(f"'{output}' is a file, expected a new or empty folder")
    if _is_swept_in_part(output) and _finish(output):
        return False
    stage, plan = output / WORK / STAGE, _plan(source)
    if not _same_plan(stage, plan):
        names = {path.name for path in output.iterdir()} if output.is_dir() else set()
        begun = names == {WORK} and {path.name for path in (output / WORK).iterdir()} <= {STAGE, "lock"}
        if names and not begun:
            raise UserError(f"'{output}' is not empty: choose an empty or new folder")
        _begin(stage, plan)
    return True


def _same_plan(stage: Path, plan: Mapping[str, Any]) -> bool:
    try:
        return json.loads((stage / PLAN).read_text()) == plan
    except (FileNotFoundError, ValueError):
        return False


def _begin(stage: Path, plan: Mapping[str, Any]) -> None:
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    _write_text(stage / PLAN, json.dumps(plan, sort_keys=True))


def _upgrade_one(source: Path, target: Path, progress: bool) -> int:
    """One set, from a folder into the same or another; the number of clips that were rewritten."""
    from tqdm import tqdm

    stage = target / WORK / STAGE
    count = 0
    with (
        _lock(target / WORK / "lock", target),
        tqdm(desc="upgrade", unit="clip", disable=not progress) as bar,
    ):

        def rows(path: Path, said: Mapping[str, Row]) -> Iterator[Row]:
            nonlocal count
            for row in read_rows(path):
                yield upgrade_row(row, said.get(row["id"]))
                count += 1
                bar.update()

        plan = _plan(source)
        if not _same_plan(stage, plan):
            _begin(stage, plan)
        shards, parts = _files(source, parts=source == target)
        for part in parts:  # each is a thing of its own, and may be replaced on its own
            if _versions_in(part) - {SCHEMA_VERSION}:
                decided = read_manifest(part)
                rewrite(part, rows(part, manifest_values(decided or ())), decided)
        if not (stage / READY).exists():
            if source != target:
                _copy_rest(source, target, stage)
            path = source / "manifest.jsonl"
            said = manifest_values(manifest.read(path, camera=False)) if shards and path.exists() else {}
            _stage(source, target, stage, shards, lambda shard: rows(shard, said))
        _install(stage, target)
    return count


def _copy_rest(source: Path, target: Path, stage: Path) -> None:
    """What lies beside the clips and stays as it is: plain files (manifest, captions, lists), features."""
    for path in sorted(source.iterdir()):
        if path.is_file() and path.name not in ("README.md", "build.json") and not path.name.startswith("."):
            shutil.copy2(path, stage / "copy.tmp")
            os.replace(stage / "copy.tmp", target / path.name)
    features, beside = CONFIGS["features"], stage / "features.tmp"
    if (source / features).is_dir() and not (target / features).exists():
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(source / features, beside)
        os.replace(beside, target / features)


def _stage(
    source: Path,
    target: Path,
    stage: Path,
    shards: Sequence[Path],
    rows: Callable[[Path], Iterator[Row]],
) -> None:
    """Everything that changes, written and on the disk; the marker last."""
    record = None
    if (source / "build.json").exists():
        record = read_record(source, whole=False) | {"schema_version": SCHEMA_VERSION}
        _write_text(stage / "build.json", json.dumps(record, indent=1, sort_keys=True) + "\n")
    if shards:
        data = stage / "data"
        data.mkdir(exist_ok=True)
        for shard in shards:
            if not (data / shard.name).exists():
                rewrite(data / shard.name, rows(shard))
        compose(target, stage / "card", data, record)
    _write_text(stage / READY, "")


def _finish(folder: Path) -> bool:
    """Bring an upgrade that was killed while it was installed to its end; whether there was one."""
    work = folder / WORK
    if not ((work / STAGE / READY).exists() or _is_swept_in_part(folder)):
        return False
    with _lock(work / "lock", folder):
        if (work / STAGE / READY).exists():
            _install(work / STAGE, folder)
        else:
            _sweep(folder)
    return True


def _is_swept_in_part(folder: Path) -> bool:
    """Whether what is left in .work is what an upgrade leaves that was killed at its very end."""
    work = folder / WORK
    if (work / DONE).exists() or not work.is_dir() or not (folder / "data").is_dir():
        return (work / DONE).exists()
    return {path.name for path in work.iterdir()} <= {"lock"}


def _install(stage: Path, target: Path) -> None:
    """Renames only, each of which may have been done before a kill."""
    card.install(stage / "card", target)
    if (stage / "data").exists():
        if (target / "data").exists():
            os.replace(target / "data", stage / OLD)
        os.replace(stage / "data", target / "data")
    if (stage / "build.json").exists():
        os.replace(stage / "build.json", target / "build.json")
    shutil.rmtree(target / WORK / DONE, ignore_errors=True)
    os.replace(stage, target / WORK / DONE)
    _sweep(target)


def _sweep(target: Path) -> None:
    """Remove the old shards, and .work if nothing else is in it."""
    shutil.rmtree(target / WORK / DONE, ignore_errors=True)
    if {path.name for path in (target / WORK).iterdir()} <= {"lock"}:
        shutil.rmtree(target / WORK, ignore_errors=True)


def _write_text(path: Path, text: str) -> None:
    beside = path.with_name(path.name + ".tmp")
    with open(beside, "w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(beside, path)


@contextlib.contextmanager
def _lock(path: Path, folder: Path) -> Iterator[None]:
    # the one that a build takes; the kernel drops it with its process
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"'{folder}' is at work in another process: wait for it or stop it") from None
        yield


def main(argv: Sequence[str] | None = None) -> int:
    from bi_audio_dataset.arguments import Parser

    parser = Parser(
        prog="python -m bi_audio_dataset upgrade",
        description=f"Rewrite a dataset of an older schema version for version {SCHEMA_VERSION}. "
        "Interrupted, the same command goes on.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="dataset folder, or one being built")
    parser.add_argument("--output", type=Path, metavar="DIR2", help="write there, and leave DIR as it is")
    options = parser.parse_args(argv)
    done = upgrade(options.folder, options.output, progress=sys.stderr.isatty())
    for line in done.words:
        print(line)
    if done.clips:
        print(f"{done.output}: {done.clips} clips upgraded to schema_version {SCHEMA_VERSION}; validate it")
    elif done.finished:
        print(f"{done.output}: brought to schema_version {SCHEMA_VERSION}, where it was interrupted before")
    else:
        print(f"{done.output}: schema_version {SCHEMA_VERSION}, nothing to do")
    return 0
