"""What a build would do, and how large and long it would be, before it is begun: `build --dry-run`.

Nothing is written into the output folder. Where it holds enough finished recordings, they are what the
estimate is made of; else a few of the recordings are built in a temporary folder, and timed: of each only a
few windows, however long it is, for which the others are counted.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from bi_audio_dataset import libraries, media
from bi_audio_dataset.build import build_settings, check_config, claim
from bi_audio_dataset.build_config import BuildConfig
from bi_audio_dataset.ids import check_ids
from bi_audio_dataset.selection import Entry, index_rows
from bi_audio_dataset.sound import RecordingSound, window_starts
from bi_audio_dataset.sources.base import Recording, Source
from bi_audio_dataset.status import status
from bi_audio_dataset.unit import Task, Work
from bi_audio_dataset.workplace import JOURNAL, WORK, Parts, part_name

T = TypeVar("T")

#: Recordings that are built to estimate the rest, and windows of each.
SAMPLES = 3
WINDOWS = 3


@dataclass
class Sample:
    """Sums over some recordings. clips: those that the filters leave; bytes: of their parts; seconds: of one
    worker; reasons: recording id -> why it cannot be used. Where only some windows of a recording were made,
    the sums are those of all, as far as these tell."""

    recordings: int = 0
    clips: float = 0.0
    bytes: float = 0.0
    seconds: float = 0.0
    reasons: dict[str, str] = field(default_factory=dict)
    how: str = "built just now and thrown away"


def forecast(
    source: Source,
    config: BuildConfig,
    output: Path,
    workers: int = 1,
    any_version: bool = False,
    finalize: bool = True,
) -> list[str]:
    """Lines of text. finalize: as `build` takes it. UserError where `build` would refuse source, config or
    folder at once."""
    ids = source.recording_ids()
    check_ids(ids)
    check_config(config)
    output = Path(output)
    begun = (output / "build.json").exists()
    if begun or output.exists() and (not output.is_dir() or any(output.iterdir())):
        claim(output, build_settings(source, ids, config))  # only compares, or refuses
    journal = output / WORK / JOURNAL
    if begun and (output / "data").is_dir() and (finalize or not journal.exists()):
        return [f"{len(ids)} recordings: already complete, nothing would be done", *status(output)]
    if begun:
        libraries.check(output, any_version, write=False)
    entries = index_rows(journal) if journal.exists() else {}
    todo = [name for name in ids if name not in entries or not entries[name].built]
    lines = [f"{len(ids)} recordings, {len(ids) - len(todo)} of them built already, {len(todo)} to build"]
    if begun and journal.exists():
        lines += status(output)
    if not todo:
        return lines
    sample = built(entries.values(), Parts.of(output / WORK))
    if sample.recordings < SAMPLES:
        sample = measure(source, config, spread(todo, SAMPLES))
    return [*lines, *estimate(sample, len(todo), workers, free_bytes(output))]


def spread(items: Sequence[T], count: int) -> list[T]:
    """Some of the items, evenly over the list; from its middle where it is one."""
    count = min(count, len(items))
    return [items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count)]


def built(entries: Iterable[Entry], parts: Parts) -> Sample:
    """What stands in a folder already."""
    sample = Sample(bytes=sum(parts.sizes().values()), how="built there already")
    for entry in entries:
        if entry.built and entry.seconds:
            sample.recordings += 1
            sample.clips += sum(clip.accepted for clip in entry.clips)
            sample.seconds += entry.seconds
    return sample


def measure(source: Source, config: BuildConfig, ids: Sequence[str]) -> Sample:
    """Build a few windows of these recordings into a temporary folder, in this process, and count."""
    sample = Sample()
    with tempfile.TemporaryDirectory() as folder:
        parts = Parts(folder)
        few = FewWindows(source, config.clip_s)
        task = Task(Work(few, config, parts))
        for recording_id in ids:
            row, *clips = task(recording_id)
            sample.recordings += 1
            if row["decision"] != "built":
                sample.reasons[recording_id] = "; ".join(row["reasons"].values())
                continue
            times, looked_s = few.left_out[recording_id]
            sample.clips += times * sum(clip["decision"] == "accept" for clip in clips)
            sample.bytes += times * parts.sizes()[part_name(recording_id)]
            sample.seconds += row["seconds"] - looked_s + (times - 1) * task.windows_s
    return sample


class FewWindows:
    """A source whose long recordings have WINDOWS windows, spread over what may be used of them.

    left_out: recording id -> (windows that it has for each that is left, seconds that it took to find out).
    """

    def __init__(self, source: Source, clip_s: float) -> None:
        self.source, self.clip_s, self.name = source, clip_s, source.name
        self.left_out: dict[str, tuple[float, float]] = {}

    def recording_ids(self) -> list[str]:
        return self.source.recording_ids()

    def split(self, recording_id: str) -> str:
        return self.source.split(recording_id)

    def fetch(self, recording_id: str, workdir: Path) -> Recording:
        recording = self.source.fetch(recording_id, workdir)
        begun_s = time.perf_counter()
        starts_s = window_starts(recording.stretches, length_s(recording), self.clip_s)
        kept_s = spread(starts_s, WINDOWS)
        if len(kept_s) < len(starts_s):
            recording = replace(recording, stretches=tuple((at, at + self.clip_s) for at in kept_s))
        times = len(starts_s) / len(kept_s) if kept_s else 1.0  # too short: the build says so
        self.left_out[recording_id] = times, time.perf_counter() - begun_s
        return recording


def length_s(recording: Recording) -> float:
    """Of what has both picture and sound, as ClipMaker counts it."""
    return min(media.probe(recording.video_path).duration_s, RecordingSound(recording).duration_s)


def estimate(sample: Sample, recordings: int, workers: int, free: int) -> list[str]:
    """What so many recordings like those of the sample come to."""
    lines = [f"could not be used: {name}: {why}" for name, why in sample.reasons.items()]
    if len(sample.reasons) == sample.recordings:
        return [*lines, f"none of the {sample.recordings} that were tried could be used: no estimate"]
    times = recordings / sample.recordings
    size, seconds = sample.bytes * times, sample.seconds * times
    lines.append(
        f"estimate from {sample.recordings} recordings, {sample.how}: "
        f"about {sample.clips * times:.0f} clips, {in_bytes(size)}, {seconds / 3600:.2f} worker hours: "
        f"{seconds / workers / 3600:.2f} h with {workers} worker{'s' if workers > 1 else ''}"
    )
    # while finalize writes, parts and shards stand side by side
    lines.append(f"disk needed at most: {in_bytes(2 * size)}; free: {in_bytes(free)}")
    if 2 * size > free:
        lines.append("that does not fit: choose another disk for --output, or --parts")
    return lines


def in_bytes(count: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e6:.1f} MB"


def free_bytes(folder: Path) -> int:
    """Of the disk that a folder is on, or will be."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
