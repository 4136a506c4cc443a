"""`python -m bi_audio_dataset remove DIR`: take clips out of a dataset that is finished.

What is on the removal list (removals.py) leaves the shards; its lines stay in the manifest, with the decision
"reject" and the reason "removed"; the card is written anew. Killed anywhere, the same command ends the same.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bi_audio_dataset import manifest, removals
from bi_audio_dataset.finalize import read_record, write_dataset
from bi_audio_dataset.schema import UserError, check_version
from bi_audio_dataset.shards import Placed
from bi_audio_dataset.validate import find_shards
from bi_audio_dataset.workplace import JOURNAL, KEPT, WORK


@dataclass(frozen=True)
class Removed:
    """clips: ids that left the shards; left: how many stay; unknown: listed ids that name nothing here."""

    clips: tuple[str, ...]
    left: int
    unknown: tuple[str, ...]


def remove(folder: Path, new: removals.Removals | None = None) -> Removed:
    """Bring a finished dataset in line with its removal list, to which `new` (id -> reason) is added first.

    UserError if the folder is no finished dataset, has no manifest, or if no clip would be left.
    """
    folder = Path(folder)
    record, work = read_record(folder), folder / WORK
    check_version(record.get("schema_version"), f"'{folder}'")
    if (work / "old").is_dir() and not (folder / "data").exists():
        os.replace(work / "old", folder / "data")  # killed between the two renames
    if new and not (folder / "data").is_dir():
        removals.append(folder, new)  # finalize will honour it, though there is nothing to remove from yet
    published = list(read_ids(find_shards(folder)))
    if not (folder / "manifest.jsonl").exists():
        raise UserError(f"'{folder}' holds no manifest.jsonl: build it again with this version")
    listed, groups = removals.load(folder) | (new or {}), removals.groups_of(folder / "manifest.jsonl")
    gone = set(removed_of(published, listed, groups))
    unknown = set(listed) - _names_of(folder / "manifest.jsonl")
    placed = [clip for clip, _ in published if clip.id not in gone]
    result = Removed(tuple(sorted(gone)), len(placed), tuple(sorted(unknown)))
    if not placed:
        raise UserError(f"nothing of '{folder}' would be left: delete the folder")
    if new:
        removals.append(folder, new)
    lines = (folder / "manifest.jsonl", listed, groups)
    if not gone and not any(changed for changed, _ in _lines(*lines)):
        return result
    going_on = (work / KEPT).exists() or (work / JOURNAL).exists()
    work.mkdir(exist_ok=True)
    write_dataset(folder, record, placed, (line for _, line in _lines(*lines)))
    shutil.rmtree(work / "old" if going_on else work, ignore_errors=True)
    return result


def read_ids(shards: Iterable[Path]) -> Iterator[tuple[Placed, str]]:
    """(clip, id of its recording) of each row. UserError if a file cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for shard in shards:
        try:
            rows = pq.read_table(shard, columns=["id", "recording_id", "split"]).to_pylist()
        except (pa.ArrowException, OSError, KeyError) as error:
            why = " ".join(str(error).split())[:200]
            raise UserError(f"'{shard}' cannot be read ({why}): validate the folder") from None
        for row in rows:
            yield Placed(row["id"], shard, row["split"]), row["recording_id"]


def removed_of(
    published: Iterable[tuple[Placed, str]], listed: removals.Removals, groups: dict[str, str]
) -> dict[str, str]:
    """Clip id -> why it may no longer be published, of those that are."""
    found = {}
    for clip, home in published:
        why = removals.reason_for(listed, clip.id, home, groups.get(home, ""))
        if why is not None:
            found[clip.id] = why
    return found


def _names_of(path: Path) -> set[str]:
    rows = manifest.read(path, camera=False)
    return {name for row in rows for name in (row["id"], row.get("group", ""))}


def _lines(path: Path, listed: removals.Removals, groups: dict[str, str]) -> Iterator[tuple[bool, str]]:
    """(whether it changes, the line) of each of the manifest's."""
    with open(path, encoding="utf-8") as handle:
        for text in handle:
            row, tail = manifest.split_line(text)
            home = row.get("recording_id", row["id"])
            why = removals.reason_for(listed, row["id"], home, groups.get(home, ""))
            changed = why is not None and row["kind"] == "clip" and row["reasons"].get("removed") != why
            if changed:
                row |= {"decision": "reject", "reasons": row["reasons"] | {"removed": why}}
            yield changed, manifest.join_line(row, tail)


def main(argv: Sequence[str] | None = None) -> int:
    """python -m bi_audio_dataset remove DIR [--id ID ... --reason WORDS] [--removals FILE]."""
    import sys

    from bi_audio_dataset.arguments import Parser

    parser = Parser(
        prog="python -m bi_audio_dataset remove",
        description="Take the clips on the removal list (DIR/removals.jsonl) out of a finished dataset. What "
        "is given here is added to the list.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="finished dataset")
    parser.add_argument(
        "--id",
        action="append",
        default=[],
        metavar="ID",
        help="of a clip, recording or group; may be repeated",
    )
    parser.add_argument("--reason", default="", metavar="WORDS", help="of all --id")
    parser.add_argument(
        "--removals", type=Path, action="append", default=[], metavar="FILE", help="text or JSON lines"
    )
    options = parser.parse_args(argv)
    if options.reason and not options.id:
        parser.error("--reason goes with --id")
    new: dict[str, str] = {}
    for path in options.removals:
        new |= removals.read(path)
    new |= dict.fromkeys(options.id, " ".join(options.reason.split()) or removals.NO_REASON)
    done = remove(options.folder, new)
    if done.unknown:
        few = ", ".join(done.unknown[:3]) + (", ..." if len(done.unknown) > 3 else "")
        print(f"{len(done.unknown)} ids on the list name nothing here: {few}", file=sys.stderr)
    print(f"{options.folder}: {len(done.clips)} clips removed, {done.left} left")
    return 0
