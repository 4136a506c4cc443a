"""The pipeline: recordings of a source -> clips -> Parquet shards. Resumable; the same bytes for any workers.

DIR/build.json                what is being built; another build into the same folder is refused
DIR/.work/parts/<id>.parquet  the clips of a finished recording and their manifest rows, whole or not there
DIR/.work/journal.jsonl       manifest rows in the order in which recordings were finished
DIR/.work/parts_at            where the parts lie instead, if they lie elsewhere
DIR/.work/cache/              parts from there that captions or the review page have asked for
DIR/.work/scratch/            what a recording needs while it is made
DIR/review/evidence/          with `finalize=False`: what the review page shows of a recording

What `finalize` makes of it: finalize.py. The unit of work is a recording (unit.py); who runs units:
executors.py. A part that is lost, or made of something else than what is asked for, is simply made again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bi_audio_dataset import libraries, manifest, retry
from bi_audio_dataset.build_config import BuildConfig
from bi_audio_dataset.clip import load_hrirs
from bi_audio_dataset.executors import Executor, Inline, Local
from bi_audio_dataset.finalize import finalize as finalize_folder
from bi_audio_dataset.finalize import plan_folder, read_record
from bi_audio_dataset.ids import check_ids
from bi_audio_dataset.render import load_denoiser
from bi_audio_dataset.review import decisions, evidence
from bi_audio_dataset.schema import SCHEMA_VERSION, UserError, check_version
from bi_audio_dataset.selection import Entry, clip_of, entry_of, index_rows
from bi_audio_dataset.shards import Figures, read_manifest
from bi_audio_dataset.sources.base import Source
from bi_audio_dataset.unchanged import replaced
from bi_audio_dataset.unit import Asked, Work, unit_key, work_key
from bi_audio_dataset.workplace import JOURNAL, KEPT, PARTS_AT, WORK, Parts, clear, part_name

#: How often evidence is fetched that workers leave beside parts elsewhere.
COLLECT_S = 60.0


@dataclass(frozen=True)
class BuildResult:
    """figures is None if nothing was published: the folder was complete already (then `skipped` is what its
    manifest says), or its clips wait for review. skipped: recording id -> why it is in quarantine; waiting:
    clips in DIR/.work for finalize."""

    output: Path
    figures: Figures | None = None
    skipped: dict[str, str] = field(default_factory=dict)
    waiting: int = 0
    problems: tuple[str, ...] = ()

    @property
    def already_complete(self) -> bool:
        return self.figures is None and not self.waiting


def build(
    source: Source,
    output: Path,
    config: BuildConfig | None = None,
    workers: int = 1,
    progress: bool = True,
    settings: dict[str, Any] | None = None,
    finalize: bool = True,
    executor: Executor | None = None,
    parts: str | None = None,
    retry_quarantined: bool = False,
    any_version: bool = False,
) -> BuildResult:
    """Build the dataset of a source into a folder, or finish a build that was interrupted there.

    workers: processes, each with one thread; 0 runs in this process. The bytes do not depend on it (0 keeps
    this process's own thread settings, which may change the last bits of linear algebra).
    executor: who runs the units; by default `workers` processes of this machine.
    parts: a folder or fsspec URL for the recordings' parts, by default DIR/.work/parts. A build keeps to the
    one it was begun with. With finalize=False evidence passes through it too.
    settings: what identifies the source in build.json, by default its own `settings`; without paths.
    any_version: go on with a build that other versions of the libraries have begun (libraries.py).
    finalize=False leaves the clips where the parts lie, to be captioned and reviewed. Clips for which a
    reviewer has asked for another camera path are made anew.
    A recording that cannot be used goes into quarantine, with its reason, and is tried again by the next run
    until the dataset is finished; retry_quarantined tries those of a finished one, and makes it anew where
    one can be used by now. If no clip is left, UserError; so where the folder holds another build, or is
    being built by another process.
    """
    config = config or BuildConfig()
    output = Path(output)
    ids = source.recording_ids()
    check_ids(ids)
    check_config(config)
    if retry_quarantined and not finalize:
        raise UserError("a finished dataset's recordings are tried again without review: leave out --review")
    record = build_settings(source, ids, config, settings)
    claim(output, record)
    folder = output / WORK
    finished = (output / "data").is_dir() and (finalize or not (folder / JOURNAL).exists())
    bad = retry.quarantined(output) if finished else {}
    begun = finished and finalize and (folder / retry.BEGUN).exists()  # a retry that was interrupted
    if finished and not begun and not (retry_quarantined and bad):
        if finalize and not (folder / KEPT).exists():
            clear(folder)
        return BuildResult(output, skipped=bad)

    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder / "lock", output):
        settled = finished and not begun  # nothing of it changes unless a retry finds something
        libraries.check(output, any_version, write=not settled)
        plain, place = record["source"], _parts(folder, parts, record)
        elsewhere = place != Parts.inside(folder)
        work = Work(
            source,
            config,
            place,
            Asked(_renders(output), not finalize, None if elsewhere else output.absolute()),
            work_key({key: plain[key] for key in ("name", "settings")}, record["config"]),
            (folder / "scratch").absolute(),
            libraries={} if any_version else libraries.versions(),
        )
        collect = partial(evidence.collect_from, place, output) if elsewhere and not finalize else None
        who = executor or (Local(workers) if workers else Inline())
        kept = (folder / KEPT).exists()
        if settled:
            _make_parts(work, [name for name in ids if name in bad], who, folder, progress, collect)
            found = index_rows(folder / JOURNAL)
            if not any(found[name].built for name in bad if name in found):
                if not kept:
                    clear(folder)
                return BuildResult(output, skipped=retry.quarantined(output))
            libraries.check(output, any_version)
            ids = [name for name in ids if name not in bad]
            (folder / retry.BEGUN).touch()
        if finished and not kept:
            retry.unpack(output, work, folder / JOURNAL, progress)
        _make_parts(work, ids, who, folder, progress, collect)
        entries = index_rows(folder / JOURNAL)
        skipped = {e.id: "; ".join(e.reasons.values()) for e in entries.values() if not e.built}
        if not finalize:
            waiting = sum(clip.accepted for entry in entries.values() if entry.built for clip in entry.clips)
            if not waiting:
                reasons = "; ".join(sorted(set(skipped.values()))[:3]) or f"see {WORK}/{JOURNAL}"
                raise UserError(f"no clip could be built into '{output}': {reasons}")
            return BuildResult(output, None, skipped, waiting)
        if finished:
            retry.check_people(output, plan_folder(output)[1].fates)
        done = finalize_folder(output, keep=finished and kept, progress=progress, any_version=any_version)
        (folder / retry.BEGUN).unlink(missing_ok=True)
    return BuildResult(output, done.figures, skipped, 0, tuple(done.problems))


def _renders(output: Path) -> dict[str, int]:
    """Clip id -> rendering that reviewers have asked for, where that is not the first."""
    verdicts = decisions.resolve(decisions.read(output / decisions.DECISIONS_FILE))
    return {clip_id: verdict.render for clip_id, verdict in verdicts.items() if verdict.render}


def _parts(folder: Path, asked: str | None, record: dict[str, Any]) -> Parts:
    """Where the parts of the build in DIR/.work lie, made ready."""
    parts, begun = Parts.of(folder), (folder / JOURNAL).exists()
    if asked is not None and Parts.parse(asked) != parts:
        if begun:
            raise UserError(f"the parts of this build lie at '{parts.address}': leave out --parts")
        parts = Parts.parse(asked)
        _write_beside(folder / PARTS_AT, parts.address + "\n")
    parts.prepare()
    if parts != Parts.inside(folder):
        parts.claim(json.dumps(_without_libraries(record), indent=1, sort_keys=True) + "\n")
    return parts


def check_config(config: BuildConfig) -> None:
    """UserError for an HRIR file or a denoiser that cannot be had: better here than in each worker."""
    if config.sofa is not None:
        load_hrirs(config)
    if config.denoiser is not None:
        load_denoiser(config.denoiser)


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
        "libraries": libraries.versions(),
        "encoder": libraries.encoder(),
    }
    return json.loads(json.dumps(record))  # tuples become lists, as they will be read back


def claim(output: Path, settings: dict[str, Any]) -> None:
    """Make the folder and record the settings, or check that they are those it was begun with."""
    path = output / "build.json"
    if path.exists():
        found = read_record(output)
        check_version(found["schema_version"], f"'{output}'")
        default = json.loads(json.dumps({"config": asdict(BuildConfig())}))
        changes = list(_differences(_without_libraries(found), _without_libraries(settings), default))
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


def _without_libraries(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in libraries.KEYS}


def _differences(found: Any, wanted: Any, default: Any, name: str = "") -> Iterator[str]:
    """What differs, a line each. A setting that is not in `found`, which an older version wrote, was its
    default."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        usual = default if isinstance(default, dict) else {}
        for key in sorted({*found, *wanted}):
            there = found.get(key, usual.get(key))
            yield from _differences(there, wanted.get(key), usual.get(key), f"{name}.{key}" if name else key)
    elif found != wanted:
        yield f"{name} is {found!r} there, {wanted!r} here"


def _make_parts(
    work: Work,
    ids: list[str],
    executor: Executor,
    folder: Path,
    progress: bool,
    collect: Callable[[], None] | None = None,
) -> None:
    """Bring parts and journal to where each recording is either built as asked or in quarantine. collect: is
    called now and then, and at the end."""
    from tqdm import tqdm

    shutil.rmtree(folder / "scratch", ignore_errors=True)
    (folder / "scratch").mkdir()
    journal = folder / JOURNAL
    todo = _todo(work, ids, journal)
    collected_s = time.monotonic()
    with (
        contextlib.closing(executor.run(work, todo)) as results,
        tqdm(
            total=len(ids),
            initial=len(ids) - len(todo),
            unit="recording",
            desc=work.source.name,
            disable=not progress,
            file=sys.stderr,
            smoothing=0.05,
        ) as bar,
    ):
        for recording_id, rows in results:
            rows[0]["at"] = round(time.time(), 1)  # for `status`; finalize leaves it out
            manifest.append(journal, rows)
            if rows[0]["decision"] != "built":
                reason = "; ".join(rows[0]["reasons"].values())
                bar.write(f"skipped {recording_id}: {reason}", file=sys.stderr)
            bar.update()
            if collect is not None and time.monotonic() - collected_s > COLLECT_S:
                collect()
                collected_s = time.monotonic()
    if collect is not None:
        collect()


def _todo(work: Work, ids: list[str], journal: Path) -> list[str]:
    """The recordings that are still to be made: also those whose part is of another size than the journal
    has, or whose files were replaced. Parts that the journal does not know, as a kill between the two leaves
    them, are written into it."""
    entries = index_rows(journal) if journal.exists() else {}
    there = work.parts.sizes()
    todo = []
    for recording_id in ids:
        size, entry = there.get(part_name(recording_id)), entries.get(recording_id)
        row: dict[str, Any] = {}
        if size is not None and (entry is None or not entry.built):
            rows = read_manifest(work.parts.locate(recording_id))
            if rows is not None:
                row = rows[0] = {**rows[0], "size": size}
                manifest.append(journal, rows)
                entry = _entry_of(rows)
        elif entry is not None:
            row = manifest.row_at(journal, entry.offset)
        whole = size is not None and row.get("size", size) == size
        if (
            entry is None
            or not (entry.built and whole)
            or _outdated(entry, work)
            or replaced(row, work.source)
        ):
            todo.append(recording_id)
    return todo


def _entry_of(rows: list[dict[str, Any]]) -> Entry:
    entry = entry_of(rows[0], 0)
    entry.clips += [clip_of(row, 0) for row in rows[1:]]
    return entry


def _outdated(entry: Entry, work: Work) -> bool:
    """Whether it was made of something else: other settings, other versions of the stages, or another
    rendering than is asked for by now."""
    asked = {clip.id: work.asked.renders.get(clip.id, 0) for clip in entry.clips}
    if entry.unit:
        return entry.unit != unit_key(work.key, entry.id, asked)
    # begun by a version that kept no keys
    return not entry.current or any(clip.render != asked[clip.id] for clip in entry.clips)


def _write_beside(path: Path, text: str) -> None:
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(text)
    os.replace(beside, path)


@contextlib.contextmanager
def _lock(path: Path, output: Path) -> Iterator[None]:
    # the kernel drops the lock with its process, so a killed build leaves none behind
    with open(path, "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"'{output}' is being built by another process: wait for it or stop it") from None
        yield
