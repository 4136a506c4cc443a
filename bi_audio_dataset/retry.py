"""Recordings of a finished dataset that are in quarantine: made again, and taken in (`build --retry`).

They are tried first. Where one can be used by now, the dataset's clips become parts again (`unpack`: media
and manifest rows as they were before `finalize`), so that only recordings of which a clip is not in the
shards, as duplicates are not, are rendered again; then `finalize` makes the dataset anew, with the bytes of a
build that had all recordings at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bi_audio_dataset import manifest
from bi_audio_dataset.schema import UserError
from bi_audio_dataset.selection import Entry, index_rows
from bi_audio_dataset.shards import read_rows, rewrite
from bi_audio_dataset.unit import Work, unit_key

#: An empty file in DIR/.work: some can be used, and the dataset is being made anew.
BEGUN = "retry"
#: What finalize adds to a clip's row, beside the filters that saw the clip itself.
LATER_REASONS = frozenset({"duplicate", "removed", "review", "recipe"})
LATER_MARKS = LATER_REASONS | {"split"}
#: What people have decided: the same must hold for a dataset made anew.
OF_PEOPLE = frozenset({"removed", "review"})


def quarantined(folder: Path) -> dict[str, str]:
    """Recording id -> why it is in quarantine, of a finished dataset; {} where no manifest tells."""
    path = Path(folder) / "manifest.jsonl"
    if not path.exists():
        return {}
    return {
        row["id"]: "; ".join(row["reasons"].values())
        for row in manifest.read(path, camera=False)
        if row["kind"] == "recording" and row["decision"] == "quarantine"
    }


def already_complete(output: Path, count: int, tried: bool) -> str:
    """What a build says where a finished dataset lies already. count: of recordings in quarantine; tried:
    whether they have been tried again just now."""
    if not count:
        return f"{output}: already complete, nothing to do"
    some = f"{count} recordings are" if count > 1 else "1 recording is"
    if tried:
        return f"{output}: already complete; {some} in quarantine still: `status` says why"
    return (
        f"{output}: already complete, nothing to do; {some} in quarantine: `status` says why, and the same "
        "command with --retry, without --review, tries again"
    )


def unpack(folder: Path, work: Work, journal: Path, progress: bool = False) -> int:
    """Published recordings as parts and journal rows, of those that the journal lacks; how many.

    Recordings of which `finalize` left a clip out are passed over: its media are gone. Killed anywhere, it
    may be called again.
    """
    from tqdm import tqdm

    path = folder / "manifest.jsonl"
    known = index_rows(journal) if journal.exists() else {}
    homes: dict[str, Entry] = {}  # by clip id
    waiting: dict[str, dict[str, Any]] = {}
    with open(path, "rb") as handle:
        for entry in index_rows(path).values():
            if entry.built and entry.id not in known and not _lost(handle, entry):
                wanted = [clip.id for clip in entry.clips if clip.accepted]
                homes |= dict.fromkeys(wanted, entry)
                waiting[entry.id] = dict.fromkeys(wanted)
                if not wanted:
                    _place(handle, entry, [], work, journal)
        done = len(waiting)
        with tqdm(total=len(homes), desc="unpack", unit="clip", disable=not progress, file=sys.stderr) as bar:
            for shard in sorted((folder / "data").glob("*.parquet")):
                for row in read_rows(shard):
                    entry = homes.get(row["id"])
                    if entry is None:
                        continue
                    clips = waiting[entry.id]
                    clips[row["id"]] = row
                    bar.update()
                    if all(clips.values()):
                        _place(handle, entry, list(clips.values()), work, journal)
                        del waiting[entry.id]
    return done


def check_people(folder: Path, fates: dict[str, Any]) -> None:
    """UserError where a clip that people have kept out of the finished dataset would be in the new one."""
    for row in manifest.read(folder / "manifest.jsonl", camera=False):
        fate = fates.get(row["id"]) if row["kind"] == "clip" else None
        if fate is not None and fate.decision == "accept" and OF_PEOPLE & row["reasons"].keys():
            raise UserError(
                f"'{row['id']}' was left out ({'; '.join(row['reasons'].values())}) by a list that is not in "
                f"'{folder}': add those rows to its decisions.jsonl or removals.jsonl, then --retry again"
            )


def _lost(handle, entry: Entry) -> bool:
    """Whether media of one of its clips are in no shard, though its filters had left it in."""
    rows = (_row_at(handle, clip.offset) for clip in entry.clips if not clip.accepted)
    return any(not row["reasons"].keys() - LATER_REASONS for row in rows)


def _place(handle, entry: Entry, clips: list[dict[str, Any]], work: Work, journal: Path) -> None:
    """One recording's part and journal rows."""
    recording = _row_at(handle, entry.offset)
    split = recording["split"]
    renders = {clip.id: clip.render for clip in entry.clips}
    if entry.current:
        recording["unit"] = unit_key(work.key, entry.id, renders)
    rows = [recording]
    for clip in entry.clips:
        row = _row_at(handle, clip.offset)
        row["split"] = split
        row["reasons"] = _without(row["reasons"], LATER_REASONS)
        row["marks"] = _without(row["marks"], LATER_MARKS)
        rows.append(row)
    media = [row | {"split": split} for row in clips]
    with work.parts.writing(entry.id, work.scratch) as beside:
        rewrite(beside, media, rows)
        size = beside.stat().st_size
    manifest.append(journal, [{**rows[0], "size": size}, *rows[1:]])


def _without(words: dict[str, str], names: Iterable[str]) -> dict[str, str]:
    return {name: why for name, why in words.items() if name not in names}


def _row_at(handle, offset: int) -> dict[str, Any]:
    handle.seek(offset)
    return json.loads(handle.readline())
