"""From clips to a dataset: what was decided is applied, and shards, manifest and card are written.

DIR/data/*.parquet    the shards; the folder appears whole, by one rename
DIR/manifest.jsonl    a row for each recording and clip, published or not (manifest.py)
DIR/README.md         the dataset card
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bi_audio_dataset import captioning, card, libraries, manifest, recipe, removals
from bi_audio_dataset.duplicates import DuplicateFilter
from bi_audio_dataset.manifest import JOURNAL_ONLY
from bi_audio_dataset.review import decisions
from bi_audio_dataset.schema import UserError, check_version
from bi_audio_dataset.selection import Entry, Fate, Plan, decide, index_rows
from bi_audio_dataset.shards import Figures, Placed, write_shards
from bi_audio_dataset.workplace import JOURNAL, KEPT, WORK, Parts, clear


@dataclass
class Finalized:
    """figures is None where nothing was written; problems: one line each, of what the user should look at."""

    output: Path
    tally: Tally
    plan: Plan
    figures: Figures | None = None

    @property
    def problems(self) -> list[str]:
        return self.plan.problems

    @property
    def notes(self) -> list[str]:
        return self.plan.notes


def plan_folder(
    folder: Path, more_decisions: Iterable[Path] = (), more_removals: Iterable[Path] = ()
) -> tuple[dict[str, Entry], Plan]:
    """What `finalize` would do. Reads the journal, DIR/decisions.jsonl, more_decisions, DIR/captions.jsonl,
    and the removal lists (removals.py). In a folder that is rebuilt from a recipe the recipe decides."""
    folder = Path(folder)
    record = read_record(folder)
    check_version(record.get("schema_version"), f"'{folder}'")
    journal = folder / WORK / JOURNAL
    if not journal.exists():
        raise UserError(
            f"'{folder}' holds no clips that wait: build it with --review, which keeps them for finalize"
        )
    entries = index_rows(journal)
    removed = removals.load(folder, more_removals)
    if (folder / recipe.RECIPE_FILE).exists():
        return entries, recipe.plan(entries, recipe.read(folder / recipe.RECIPE_FILE), journal, removed)
    rows = decisions.read(folder / decisions.DECISIONS_FILE)
    for path in more_decisions:
        if not Path(path).is_file():
            raise UserError(f"{path}: no such file of decisions")
        rows += decisions.read(Path(path))
    plan = decide(
        entries,
        DuplicateFilter(**record["config"].get("selection", {}).get("duplicate", {})),
        decisions.resolve(rows),
        captioning.load_captions(folder),
        removed,
    )
    return entries, plan


def finalize(
    folder: Path,
    more_decisions: Iterable[Path] = (),
    keep: bool = False,
    write: bool = True,
    more_removals: Iterable[Path] = (),
    progress: bool = False,
    any_version: bool = False,
) -> Finalized:
    """Write the dataset of the clips that a build left in DIR/.work.

    keep: the clips stay for another finalize, after more decisions, as they do where some wait for review;
    else .work goes. write=False only counts. UserError for a build, or a retry, that is not through.
    The bytes depend on the clips and the decisions alone. Killed anywhere, it may simply be run again, and
    goes on after the shards that are written. any_version: though another pyarrow than the build's writes
    the shards.
    """
    folder = Path(folder)
    work, record = folder / WORK, read_record(folder)
    if write:
        libraries.check(folder, any_version, libraries.SHARDS)
    entries, plan = plan_folder(folder, more_decisions, more_removals)
    wanted = record["source"]["recordings"]
    if len(entries) < wanted:
        words = (
            f"{len(entries)} of {wanted} recordings of '{folder}' are done: run the same build again first"
        )
        if write:
            raise UserError(words)
        plan.problems.append(words)
    lines = final_lines(work / JOURNAL, entries, plan.fates)
    if not write:
        return Finalized(folder, tally_of(manifest.split_line(line)[0] for line in lines), plan)
    parts = Parts.of(work)
    placed = [
        placed_clip(parts, entry.id, clip.id, plan.fates[clip.id])
        for entry in entries.values()
        for clip in entry.clips
        if entry.built and plan.fates[clip.id].decision == "accept"
    ]
    if not placed:
        raise UserError(f"no clip could be built into '{folder}': {_why_none(entries, plan)}")
    if plan.waiting and not keep:
        keep = True
        plan.notes.append(f"the clips stay in '{work}', for another finalize after review")
    (work / KEPT).unlink(missing_ok=True)
    if keep:
        (work / KEPT).touch()
    tally, figures = write_dataset(folder, record, placed, lines, _units(entries), progress)
    if keep:
        shutil.rmtree(work / "old", ignore_errors=True)
    else:
        clear(work)
    return Finalized(folder, tally, plan, figures)


def write_dataset(
    folder: Path,
    record: dict[str, Any],
    placed: list[Placed],
    lines: Iterable[str],
    of: bytes = b"",
    progress: bool = False,
) -> tuple[Tally, Figures]:
    """Shards, manifest (of these lines) and card, each by one rename out of DIR/.work, which stays; the data
    that they replace are left in DIR/.work/old. of: see `write_shards`."""
    work, tally = folder / WORK, Tally()
    manifest.write(work / "manifest.jsonl", _counted(lines, tally))
    figures = write_shards(work / "data", placed, record["config"]["rows_per_shard"], of, progress)
    selection = tally.lines() if tally.worth_telling else ()
    configs = card.find_configs(folder, figures, data=work / "data")
    title = card.title_of(record, figures)
    card.write(work / "card", title, figures, record, selection, configs)
    card.install(work / "card", folder)
    os.replace(work / "manifest.jsonl", folder / "manifest.jsonl")
    if (folder / "data").exists():
        shutil.rmtree(work / "old", ignore_errors=True)
        os.replace(folder / "data", work / "old")
    os.replace(work / "data", folder / "data")
    return tally, figures


def _units(entries: Mapping[str, Entry]) -> bytes:
    """What the parts of all recordings are made of, as a digest."""
    digest = hashlib.sha256()
    for entry in entries.values():
        if entry.built:
            digest.update(f"{entry.id} {entry.unit}\n".encode())
    return digest.digest()


def placed_clip(parts: Parts, recording_id: str, clip_id: str, fate: Fate) -> Placed:
    return Placed(clip_id, parts.locate(recording_id), fate.split, fate.caption)


def read_record(folder: Path, whole: bool = True) -> dict[str, Any]:
    """build.json of a folder. UserError if there is none, or if it is not what `build` writes; whole=False
    forgives what is missing beside version and source."""
    path = Path(folder) / "build.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"'{folder}' holds no build.json: expected a folder that `build` has made") from None
    except ValueError as error:
        raise UserError(f"'{path}' is not JSON ({error}): remove the folder or choose another") from None
    wrong = _wrong_in(record, whole)
    if wrong is not None:
        raise UserError(
            f"'{path}' is not what `build` writes ({wrong} is missing or wrong): restore it, or remove the "
            "folder"
        )
    return record


def _wrong_in(record: Any, whole: bool) -> str | None:
    """The first value of build.json that is not of its type; of what may be missing, none."""
    may_lack = {"libraries", "encoder"}
    if not whole:
        may_lack |= {"config", "config.rows_per_shard", "source.recordings"}
    kinds = {
        "source": dict, "source.name": str, "source.recordings": int, "config": dict,
        "config.rows_per_shard": int, "schema_version": int, "libraries": dict, "encoder": dict,
    }  # fmt: skip
    for name, kind in kinds.items():
        value = record
        for key in name.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if not isinstance(value, kind) and not (value is None and name in may_lack):
            return name
    return None


def _why_none(entries: Mapping[str, Entry], plan: Plan) -> str:
    reasons = {why for entry in entries.values() for why in entry.reasons.values()}
    if not reasons:
        counted = Counter(name for fate in plan.fates.values() for name in fate.reasons)
        rejected = sum(not clip.accepted for entry in entries.values() for clip in entry.clips)
        reasons = {f"{count} clips by '{name}'" for name, count in counted.items()}
        reasons |= {f"{rejected} clips by the filters, see '{WORK}/{JOURNAL}'"} if rejected else set()
    return "; ".join(sorted(reasons)[:3]) or "the source has no recordings"


def _counted(lines: Iterable[str], tally: Tally) -> Iterator[str]:
    for line in lines:
        tally.add(manifest.split_line(line)[0])
        yield line


def final_lines(source: Path, entries: Mapping[str, Entry], fates: Mapping[str, Fate]) -> Iterator[str]:
    """The lines of manifest.jsonl, by id: those of the journal with what was decided since."""
    with open(source, "rb") as handle:

        def line(offset: int) -> tuple[dict[str, Any], str]:
            handle.seek(offset)
            return manifest.split_line(handle.readline().decode())

        for entry in entries.values():
            row, tail = line(entry.offset)
            for name in JOURNAL_ONLY:
                row.pop(name, None)
            yield manifest.join_line(row, tail)
            if not entry.built:
                continue
            for clip in sorted(entry.clips, key=lambda clip: clip.id):
                row, tail = line(clip.offset)
                fate = fates[clip.id]
                row |= {"decision": fate.decision, "split": fate.split}
                row["reasons"], row["marks"] = row["reasons"] | fate.reasons, row["marks"] | fate.marks
                if fate.caption is not None:
                    row["caption"] = fate.caption
                yield manifest.join_line(row, tail)


@dataclass
class Tally:
    """Counts of a manifest: recordings and clips by decision, and by filter what it left out or marked."""

    recordings: Counter = field(default_factory=Counter)
    clips: Counter = field(default_factory=Counter)
    reasons: Counter = field(default_factory=Counter)
    quarantine: Counter = field(default_factory=Counter)
    marks: Counter = field(default_factory=Counter)

    def add(self, row: Mapping[str, Any]) -> None:
        if row["kind"] == "recording":
            self.recordings[row["decision"]] += 1
            self.quarantine.update(row["reasons"].keys())
        else:
            self.clips[row["decision"]] += 1
            self.reasons.update(row["reasons"].keys())
            self.marks.update(row["marks"].keys())

    @property
    def worth_telling(self) -> bool:
        return bool(self.reasons or self.quarantine or self.marks)

    def lines(self) -> list[str]:
        """Markdown for the card."""
        total, built = sum(self.clips.values()), self.recordings["built"]
        lines = [f"{self.clips['accept']} of {total} clips of {built} recordings are published."]
        if self.recordings["quarantine"]:
            lines[0] += f" {self.recordings['quarantine']} recordings could not be used."
        lines[0] += " `manifest.jsonl` says why, clip by clip, with all measured values."
        found = sorted({*self.reasons, *self.quarantine, *self.marks})
        if found:
            lines += ["", "| filter | recordings out | clips out | clips marked |", "|---|---|---|---|"]
            lines += [
                f"| {name} | {self.quarantine[name]} | {self.reasons[name]} | {self.marks[name]} |"
                for name in found
            ]
        return lines


def tally_of(rows: Iterable[Mapping[str, Any]]) -> Tally:
    tally = Tally()
    for row in rows:
        tally.add(row)
    return tally
