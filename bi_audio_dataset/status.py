"""How far a build is: counts, reasons, rates, and what is still to come."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from bi_audio_dataset import manifest
from bi_audio_dataset.finalize import Tally, read_record, tally_of
from bi_audio_dataset.schema import UserError
from bi_audio_dataset.selection import index_rows
from bi_audio_dataset.workplace import JOURNAL, PARTS, WORK


def status(folder: Path) -> list[str]:
    """Lines of text about a dataset folder, finished or being built. UserError if it is none."""
    folder = Path(folder)
    record = read_record(folder)
    total = record["source"]["recordings"]
    journal, final = folder / WORK / JOURNAL, folder / "manifest.jsonl"
    if (folder / "data").is_dir() and not journal.exists():
        if not final.exists():
            return [f"{folder}: complete, {total} recordings; made by a version that kept no manifest"]
        return [f"{folder}: complete", *report(tally_of(manifest.read(final, camera=False)))]
    if not journal.exists():
        return [f"{folder}: 0 of {total} recordings done"]
    entries = index_rows(journal)
    rows = {
        offset for entry in entries.values() for offset in (entry.offset, *(c.offset for c in entry.clips))
    }
    tally = tally_of(row for offset, row in manifest.rows_at(journal) if offset in rows)
    lines = [f"{folder}: {len(entries)} of {total} recordings done", *report(tally)]
    timed = [entry.seconds for entry in entries.values() if entry.seconds]
    left = total - len(entries)
    if timed and left:
        mean_s = sum(timed) / len(timed)
        lines.append(
            f"{mean_s:.1f} s of one worker a recording: {left * mean_s / 3600:.2f} worker hours are left"
        )
    size = sum(path.stat().st_size for path in (folder / WORK / PARTS).glob("*.parquet"))
    if entries:
        lines.append(f"{size / 1e6:.1f} MB so far, about {size / len(entries) * total / 1e6:.0f} MB in all")
    return lines


def report(tally: Tally) -> list[str]:
    """Counts as lines of text."""
    lines = [
        f"recordings: {_counts(tally.recordings)}",
        f"clips: {_counts(tally.clips)}",
    ]
    for name, counter in (
        ("quarantine", tally.quarantine),
        ("left out", tally.reasons),
        ("marked", tally.marks),
    ):
        if counter:
            lines.append(f"{name}: {_counts(counter)}")
    return lines


def forecast(ids: list[str], folder: Path) -> list[str]:
    """What a build of these recordings into the folder would do, without doing it."""
    try:
        return [f"{len(ids)} recordings; in that folder so far:", *status(folder)]
    except UserError:
        return [
            f"{len(ids)} recordings, none built yet: build a few into another folder and ask its status for "
            "time and size"
        ]


def _counts(counter: Counter) -> str:
    return ", ".join(f"{counter[name]} {name}" for name in sorted(counter)) or "none"
