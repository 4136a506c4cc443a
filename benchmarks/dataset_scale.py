"""How long a large dataset's manifest takes without media: index, duplicates, splits, the final manifest.

    python benchmarks/dataset_scale.py --rows 100000
    python benchmarks/dataset_scale.py --rows 2000 --shards 200

Rows are what a build writes: fingerprints of the real lengths, 8 s camera paths at 25 fps, measured values.
Of a hundred recordings one is a copy of another under another name, with a few bits changed as by recoding,
and one has another's picture alone; whether they were found is checked. --shards writes shards of so many
clips, of random bytes, which no compression shrinks, and reports MB/s.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bi_audio_dataset import manifest, selection
from bi_audio_dataset.duplicates import HASHES, DuplicateFilter, to_text
from bi_audio_dataset.finalize import Tally, final_lines
from bi_audio_dataset.schema import CameraTrack, ClipRecord, Filters, TruthTrack
from bi_audio_dataset.shards import Placed, write_rows, write_shards
from bi_audio_dataset.splits import split_of

CLIPS = 4  # of a recording
WORDS = 76  # of 8 s of sound
FRAMES = 200


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000, help="clips in the manifest")
    parser.add_argument("--shards", type=int, default=0, help="clips to write into shards")
    parser.add_argument("--clip-bytes", type=int, default=2_200_000, help="media of a clip (215 h at 0.2 TB)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(run(Path(folder), options.rows), indent=1))
        if options.shards:
            print(json.dumps(write(Path(folder), options.shards, options.clip_bytes), indent=1))


def run(folder: Path, rows: int) -> dict[str, float]:
    """Seconds of each step, and the largest memory of this process in GB."""
    journal = folder / "journal.jsonl"
    manifest.write(journal, journal_lines(rows))
    marks = [time.perf_counter()]
    entries = selection.index_rows(journal)
    marks.append(time.perf_counter())
    plan = selection.decide(entries, DuplicateFilter())
    marks.append(time.perf_counter())
    tally = Tally()

    def counted() -> Iterator[str]:
        for line in final_lines(journal, entries, plan.fates):
            tally.add(manifest.split_line(line)[0])
            yield line

    manifest.write(folder / "manifest.jsonl", counted())
    marks.append(time.perf_counter())
    check(rows, plan)
    return {
        "rows": rows,
        "manifest_mb": round(journal.stat().st_size / 1e6, 1),
        "index_s": round(marks[1] - marks[0], 2),
        "duplicates_and_splits_s": round(marks[2] - marks[1], 2),
        "manifest_s": round(marks[3] - marks[2], 2),
        "total_s": round(marks[3] - marks[0], 2),
        "memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        "clips_left_out": tally.reasons["duplicate"],
        "groups_of_recordings": plan.split_groups,
    }


def recording_kind(number: int) -> str:
    """Of each hundred the 50th is a copy of the one before it, the 80th has the pictures of that before."""
    return {50: "copy", 80: "picture"}.get(number % 100, "own")


def journal_lines(rows: int) -> Iterator[str]:
    rng = np.random.default_rng(0)
    before: list[tuple[np.ndarray, np.ndarray]] = []
    for number in range(rows // CLIPS):
        kind, name = recording_kind(number), f"recording-{number:06d}"
        prints = []
        for clip in range(CLIPS):
            picture = rng.integers(0, 2**63, HASHES, dtype=np.int64).astype(np.uint64)
            words = rng.integers(0, 2**16, WORDS, dtype=np.int64).astype(np.uint16)
            if kind != "own":
                picture = before[clip][0] ^ np.uint64(1 << int(rng.integers(60)))
            if kind == "copy":
                words = before[clip][1] ^ (np.uint16(1) << rng.integers(0, 16, WORDS).astype(np.uint16))
                words[::2] = before[clip][1][::2]
                words[:20] = before[clip][1][:20]
            prints.append((picture, words))
        before = prints
        split = split_of(name)
        yield manifest.dumps(
            {"kind": "recording", "id": name, "decision": "built", "reasons": {}, "marks": {},
             "split": split, "measures": {f"measure.{i}": 0.5 for i in range(8)},
             "input": {"video": f"{number:064x}"}, "stages": manifest.STAGE_VERSIONS, "seconds": 9.5}
        )  # fmt: skip
        for clip, (picture, words) in enumerate(prints):
            path = np.round(np.cumsum(rng.normal(0, 0.5, (3, FRAMES)), axis=1), 3).tolist()
            yield manifest.dumps(
                {"kind": "clip", "id": f"{name}-{clip:04d}", "recording_id": name, "split": split,
                 "decision": "accept", "reasons": {}, "marks": {}, "start_s": 8.0 * clip, "duration_s": 8.0,
                 "measures": {f"measure.{i}": 0.123456 for i in range(20)}, "source_name": "benchmark",
                 "licence": "CC-BY-4.0", "provenance": "made up", "draw": {"seed": 0, "window": clip},
                 "fingerprint": to_text([int(p) for p in picture], words),
                 "camera": {"rate_hz": 25.0, "yaw_deg": path[0], "pitch_deg": path[1], "roll_deg": path[2]}}
            )  # fmt: skip


def check(rows: int, plan: selection.Plan) -> None:
    """What was planted was found, and nothing else."""
    planted = [n for n in range(rows // CLIPS) if recording_kind(n) == "copy"]
    wanted = {f"recording-{n:06d}-{clip:04d}" for n in planted for clip in range(CLIPS)}
    found = {name for name, fate in plan.fates.items() if "duplicate" in fate.reasons}
    assert found == wanted, f"{len(wanted - found)} copies missed, {len(found - wanted)} wrong"
    for number in range(rows // CLIPS):
        if recording_kind(number) == "picture":
            pair = [plan.fates[f"recording-{n:06d}-0000"].split for n in (number - 1, number)]
            assert pair[0] == pair[1], f"recordings {number - 1} and {number} part"


def write(folder: Path, clips: int, clip_bytes: int) -> dict[str, float]:
    """MB/s of write_shards."""
    rng = np.random.default_rng(0)
    still = tuple([0.0] * FRAMES)
    placed = []
    for start in range(0, clips, CLIPS):
        part = folder / f"part-{start:06d}.parquet"
        records = [
            ClipRecord(
                f"clip-{start + i:06d}", f"recording-{start:06d}", "train", rng.bytes(clip_bytes * 2 // 3),
                rng.bytes(clip_bytes // 3), "Visible sound: none, Invisible sound: none", 8.0, 256, 144, 25.0,
                90.0, CameraTrack(25.0, still, still, still), TruthTrack(), "sphere", True, "", "benchmark",
                "made up", "CC0-1.0", Filters(0.2, 0.5, 0.0, -20.0, -1.0),
            )
            for i in range(CLIPS)
        ]  # fmt: skip
        write_rows(part, records)
        placed += [Placed(record.id, part, "train") for record in records]
    started = time.perf_counter()
    figures = write_shards(folder / "data", placed, 100)
    took = time.perf_counter() - started
    return {
        "clips": len(placed),
        "shards_mb": round(figures.bytes / 1e6, 1),
        "mb_per_s": round(figures.bytes / 1e6 / took, 1),
    }


if __name__ == "__main__":
    main()
