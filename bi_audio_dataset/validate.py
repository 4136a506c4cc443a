"""Checks of a finished dataset: columns, values, media, truth, ids, splits, and its manifest."""

from __future__ import annotations

import io
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bi_audio_dataset import manifest
from bi_audio_dataset import media as media_io
from bi_audio_dataset.migrations import upgrade_row
from bi_audio_dataset.schema import AUDIO_RATE_HZ, OLDER, SCHEMA_VERSION, SPLITS, UserError, validate_row
from bi_audio_dataset.shards import Figures, arrow_schema, read_rows

PROBLEM_LIMIT = 200


@dataclass
class Report:
    """problems: one line each, in the order found; figures: counts over the rows that could be read."""

    folder: Path
    problems: list[str] = field(default_factory=list)
    figures: Figures = field(default_factory=Figures)
    shards: int = 0
    versions: set[int] = field(default_factory=set)  # schema versions of the rows

    def summary(self) -> str:
        counts = ", ".join(
            f"{self.figures.clips[split]} {split}" for split in SPLITS if self.figures.clips[split]
        )
        verdict = f"{len(self.problems)} problems" if self.problems else "no problems"
        hours = self.figures.seconds / 3600
        text = f"{self.folder}: {self.shards} shards, {counts or 'no'} clips, {hours:.2f} h: {verdict}"
        older = ", ".join(str(version) for version in sorted(self.versions & OLDER.keys()))
        return f"{text} (schema version {older}; `upgrade` makes it {SCHEMA_VERSION})" if older else text


def validate(folder: Path, media: bool = True, progress: bool = False) -> Report:
    """Check DIR/data/*.parquet. media=False leaves out decoding video and audio.

    UserError if the folder is no dataset at all; everything else becomes a line in the report.
    """
    from tqdm import tqdm

    folder = Path(folder)
    shards = find_shards(folder)
    report = Report(folder, shards=len(shards))
    _check_names(shards, report)
    seen: dict[str, str] = {}  # id -> shard
    homes: dict[str, str] = {}  # recording -> split
    with tqdm(desc="validate", unit="clip", disable=not progress) as bar:
        for shard in shards:
            for row in _rows(shard, report):
                report.versions.add(row.get("schema_version"))
                problems = _row_problems(row)
                problems += _identity_problems(row, shard, seen, homes)
                if media and not problems:
                    problems += media_problems(row)
                where = f"{shard.name}: clip '{row.get('id')}'"
                report.problems += [f"{where}: {problem}" for problem in problems]
                if not problems:
                    report.figures.add(row)
                bar.update()
                if len(report.problems) >= PROBLEM_LIMIT:
                    report.problems.append(f"stopped after {PROBLEM_LIMIT} problems")
                    return report
    if not seen:
        report.problems.append(f"{folder}: holds no rows")
    if not report.problems:  # else it would only say again what is missing
        report.problems += manifest_problems(folder, seen)
    return report


def _row_problems(row: dict[str, Any]) -> list[str]:
    """Those of an older version are judged as what `upgrade` makes of them."""
    try:
        return validate_row(upgrade_row(row) if row.get("schema_version") in OLDER else row)
    except UserError as error:
        return [str(error)]


def manifest_problems(folder: Path, shard_of: dict[str, str]) -> list[str]:
    """Whether manifest.jsonl publishes just what lies in the shards ({id: shard}), in the same splits. A set
    without a manifest, from an older version, has no problem here."""
    path = folder / "manifest.jsonl"
    if not path.exists():
        return []
    published = {}
    try:
        for row in manifest.read(path, camera=False):
            if row["kind"] == "clip" and row["decision"] == "accept":
                published[row["id"]] = row["split"]
    except (UserError, KeyError) as error:
        return [f"manifest.jsonl: {_one_line(error)}"]
    problems = []
    for words, ids in (
        ("published but in no shard", published.keys() - shard_of.keys()),
        ("in a shard but not published", shard_of.keys() - published.keys()),
        (
            "of another split than its shard",
            {i for i in published.keys() & shard_of.keys() if not shard_of[i].startswith(published[i])},
        ),
    ):
        if ids:
            few = ", ".join(sorted(ids)[:3]) + (" ..." if len(ids) > 3 else "")
            problems.append(f"manifest.jsonl: {len(ids)} clips are {words}: {few}")
    return problems


def find_shards(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"'{folder}' is not a folder")
    shards = sorted((folder / "data").glob("*.parquet"))
    if not shards:
        unfinished = (folder / ".work").is_dir()
        why = (
            "its build is not finished: run the same build command again"
            if unfinished
            else "expected a dataset"
        )
        raise UserError(f"'{folder}' holds no data/*.parquet; {why}")
    return shards


def media_problems(row: dict[str, Any]) -> list[str]:
    """Decode both files of a row and compare them with what the row says."""
    problems = []
    try:
        count, shape = _decode_video(row["video"]["bytes"])
        expected = round(row["duration_s"] * row["fps"])
        if count != expected:
            problems.append(f"video has {count} frames, expected {expected}")
        if shape != (row["height"], row["width"], 3):
            problems.append(f"video is {shape[1]}x{shape[0]}, expected {row['width']}x{row['height']}")
    except Exception as error:  # whatever a decoder throws at broken bytes is a finding, not a crash
        problems.append(f"video does not decode: {_one_line(error)}")
    try:
        audio, rate = _decode_audio(row["audio"]["bytes"])
        expected = round(row["duration_s"] * AUDIO_RATE_HZ)
        if rate != AUDIO_RATE_HZ:
            problems.append(f"audio is at {rate} Hz, expected {AUDIO_RATE_HZ}")
        if audio.shape != (2, expected):
            problems.append(
                f"audio is {audio.shape[0]} channels x {audio.shape[1]} samples, expected 2 x {expected}"
            )
        if not np.isfinite(audio).all() or np.abs(audio).max(initial=0) > 1.0:
            problems.append("audio leaves [-1, 1]")
    except Exception as error:
        problems.append(f"audio does not decode: {_one_line(error)}")
    return problems


def _decode_video(video: bytes) -> tuple[int, tuple[int, ...]]:
    """Number of frames, all of them decoded, and the shape of each."""
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        file.write(video)
        file.flush()
        info = media_io.probe(file.name)
        middles_s = info.first_frame_s + (np.arange(info.num_frames) + 0.5) / info.fps
        count, shape = 0, ()
        for block in media_io.iter_frames(file.name, middles_s, num_threads=1):
            count, shape = count + len(block), block.shape[1:]
        return count, shape


def _decode_audio(audio: bytes) -> tuple[np.ndarray, int]:
    import soundfile

    samples, rate = soundfile.read(io.BytesIO(audio), dtype="float32", always_2d=True)
    return samples.T, rate


def _rows(shard: Path, report: Report):
    import pyarrow.parquet as pq

    try:
        found = pq.read_schema(shard)
    except Exception as error:
        report.problems.append(f"{shard.name}: not a Parquet file ({_one_line(error)})")
        return
    wanted = arrow_schema()
    later = {name for names in OLDER.values() for name in names}  # a row that should have them says so
    missing = [name for name in wanted.names if name not in found.names and name not in later]
    extra = [name for name in found.names if name not in wanted.names]
    wrong = [n for n in wanted.names if n in found.names and found.field(n).type != wanted.field(n).type]
    if missing or wrong:
        report.problems.append(
            f"{shard.name}: schema {SCHEMA_VERSION} expected"
            + (f", columns missing: {', '.join(missing)}" if missing else "")
            + (f", columns of another type: {', '.join(wrong)}" if wrong else "")
        )
        return
    if extra:
        report.problems.append(f"{shard.name}: unknown columns: {', '.join(extra)}")
    if b"huggingface" not in (found.metadata or {}):
        report.problems.append(
            f"{shard.name}: no 'huggingface' metadata, load_dataset would not type its media"
        )
    try:
        yield from read_rows(shard)
    except OSError as error:
        report.problems.append(f"{shard.name}: cannot be read to its end ({_one_line(error)})")


def _identity_problems(row: dict, shard: Path, seen: dict[str, str], homes: dict[str, str]) -> list[str]:
    problems = []
    if row["id"] in seen:
        problems.append(f"id occurs also in {seen[row['id']]}")
    seen[row["id"]] = shard.name
    if row["split"] != shard.name.split("-")[0]:
        problems.append(f"split '{row['split']}' in a file of '{shard.name.split('-')[0]}'")
    home = homes.setdefault(row["recording_id"], row["split"])
    if home != row["split"]:
        problems.append(f"recording '{row['recording_id']}' is in '{row['split']}' and in '{home}'")
    return problems


def _check_names(shards: list[Path], report: Report) -> None:
    by_split: dict[str, list[Path]] = {}
    for shard in shards:
        by_split.setdefault(shard.name.split("-")[0], []).append(shard)
    for split, files in by_split.items():
        names = [f"{split}-{i:05d}-of-{len(files):05d}.parquet" for i in range(len(files))]
        if split not in SPLITS or [f.name for f in files] != names:
            report.problems.append(
                f"data: files of '{split}' are not {names[0]} ... {names[-1]}: one is missing or alien"
            )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
