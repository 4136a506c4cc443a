"""How far a build is: counts, reasons, rates, and what is still to come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from bi_audio_dataset import manifest, retry
from bi_audio_dataset.finalize import Tally, read_record, tally_of
from bi_audio_dataset.selection import Entry, index_rows
from bi_audio_dataset.workplace import JOURNAL, WORK, Parts

#: The clock's rate is taken over this long before the recording that was finished last.
RECENT_S = 1800.0


#: So many recordings in quarantine are named where not all are asked for.
NAMED = 20


def status(folder: Path, named: int | None = NAMED) -> list[str]:
    """Lines of text about a dataset folder, finished or being built. named: how many recordings in quarantine
    are listed with their reasons, None for all. UserError if it is no dataset folder."""
    folder = Path(folder)
    record = read_record(folder)
    total = record["source"]["recordings"]
    journal, final = folder / WORK / JOURNAL, folder / "manifest.jsonl"
    if (folder / "data").is_dir() and not journal.exists():
        if not final.exists():
            return [f"{folder}: complete, {total} recordings; made by a version that kept no manifest"]
        told = report(tally_of(manifest.read(final, camera=False)))
        return [f"{folder}: complete", *told, *reasons(retry.quarantined(folder), named)]
    if not journal.exists():
        return [f"{folder}: 0 of {total} recordings done"]
    entries = index_rows(journal)
    rows = {
        offset for entry in entries.values() for offset in (entry.offset, *(c.offset for c in entry.clips))
    }
    tally = tally_of(row for offset, row in manifest.rows_at(journal) if offset in rows)
    lines = [f"{folder}: {len(entries)} of {total} recordings done", *report(tally)]
    bad = {entry.id: "; ".join(entry.reasons.values()) for entry in entries.values() if not entry.built}
    lines += reasons(bad, named)
    lines += rates(list(entries.values()), total - len(entries))
    size = sum(Parts.of(folder / WORK).sizes().values())
    if entries:
        lines.append(f"{size / 1e6:.1f} MB so far, about {size / len(entries) * total / 1e6:.0f} MB in all")
    return lines


def reasons(bad: Mapping[str, str], named: int | None) -> list[str]:
    """Why recordings are in quarantine, a line each. bad: id -> words."""
    shown = sorted(bad)[:named]
    lines = [f"  {name}: {bad[name]}" for name in shown]
    more = len(bad) - len(shown)
    return [*lines, f"  and {more} more in quarantine: --all names them"] if more else lines


def rates(entries: Sequence[Entry], left: int) -> list[str]:
    """How fast it goes, and how long `left` recordings take: work of one worker, and by the clock."""
    lines = []
    timed = [entry.seconds for entry in entries if entry.seconds]
    if timed:
        mean_s = sum(timed) / len(timed)
        line = f"{mean_s:.1f} s of one worker a recording"
        lines.append(f"{line}: {left * mean_s / 3600:.2f} worker hours are left" if left else line)
    at = sorted(entry.at for entry in entries if entry.at)
    # a build may have stood still for a night: what counts is how fast it goes now
    recent = [moment for moment in at if moment >= at[-1] - RECENT_S] if at else []
    if len(recent) >= 3 and recent[-1] > recent[0]:
        an_hour = (len(recent) - 1) / (recent[-1] - recent[0]) * 3600
        line = f"{an_hour:.0f} recordings an hour lately"
        lines.append(f"{line}: {left / an_hour:.2f} h are left" if left else line)
    return lines


def report(tally: Tally) -> list[str]:
    """Counts as lines of text."""
    clips = sum(tally.clips.values())
    share = f" ({100 * tally.clips['accept'] / clips:.0f} % accepted)" if clips else ""
    lines = [
        f"recordings: {_counts(tally.recordings)}",
        f"clips: {_counts(tally.clips)}{share}",
    ]
    for name, counter in (
        ("quarantine", tally.quarantine),
        ("left out", tally.reasons),
        ("marked", tally.marks),
    ):
        if counter:
            lines.append(f"{name}: {_counts(counter)}")
    return lines


def _counts(counter: Counter) -> str:
    return ", ".join(f"{counter[name]} {name}" for name in sorted(counter)) or "none"
