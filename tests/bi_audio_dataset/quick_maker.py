"""Builds without media, in milliseconds: `monkeypatch.setattr(unit, "ClipMaker", QuickMaker)`."""

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fake_source import FakeSource, tiny_config

from bi_audio_dataset import unit
from bi_audio_dataset.build import build
from bi_audio_dataset.clip import Made, Unusable
from bi_audio_dataset.schema import CameraTrack, ClipRecord, Filters, TruthTrack
from bi_audio_dataset.shards import read_rows
from bi_audio_dataset.sources.base import Recording


class QuickMaker:
    """In ClipMaker's place: two clips a recording, of bytes that depend on its id, without media."""

    def __init__(self, config, evidence=False):
        self.config, self.evidence = config, evidence

    def make(self, recording, source_name, split, renders):
        name = recording.recording_id
        if name.endswith("7"):
            raise Unusable({"too_short": f"'{name}' is too short"}, {"too_short.duration_s": 0.5})
        if name.endswith("8"):
            raise RuntimeError("decoder gave up")
        made = Made(recording=common(name, split) | {"kind": "recording", "id": name, "decision": "built"})
        for number in range(2):
            clip_id = f"{name}-{number}"
            render = renders.get(clip_id, 0)
            row = common(name, split) | {"kind": "clip", "id": clip_id, "recording_id": name}
            rejected = name.endswith("5") and number == 1
            row |= {"decision": "reject" if rejected else "accept", "draw": {"render": render}}
            row["reasons"] = {"silent": "under -35 dBFS"} if rejected else {}
            made.clips.append(row | {"camera": {"rate_hz": 25.0, "yaw_deg": [1.0, float(render)]}})
            if not rejected:
                made.records.append(record(clip_id, name, split, source_name, render))
        return made


def common(name: str, split: str) -> dict:
    return {
        "reasons": {},
        "marks": {},
        "split": split,
        "measures": {"silent.fraction": 0.1},
        "licence": "CC0-1.0",
    }


def record(clip_id: str, recording_id: str, split: str, source_name: str, render: int) -> ClipRecord:
    still = tuple(np.full(20, float(render)).tolist())
    return ClipRecord(
        clip_id, recording_id, split, f"film of {clip_id}".encode() * 50, b"sound",
        "Visible sound: none, Invisible sound: none", 0.8, 64, 36, 25.0, 90.0,
        CameraTrack(25.0, still, still, still), TruthTrack(), "sphere", True, "", source_name,
        "made by the test", "CC0-1.0", Filters(0.2, 0.5, 0.0, -20.0, -1.0),
    )  # fmt: skip


class QuickSource(FakeSource):
    def fetch(self, recording_id: str, workdir: Path) -> Recording:
        return Recording(recording_id, workdir, workdir, "CC0-1.0", "made by the test")


@dataclass(frozen=True)
class SpawnedSource(QuickSource):
    """Brings QuickMaker along into worker processes, which no monkeypatch reaches. While the file `holds` is
    there, recording `held` does not come."""

    held: str = ""
    holds: str = ""

    def __setstate__(self, state) -> None:
        self.__dict__.update(state)
        unit.ClipMaker = QuickMaker

    def fetch(self, recording_id: str, workdir: Path) -> Recording:
        while recording_id == self.held and os.path.exists(self.holds):
            time.sleep(0.02)
        return super().fetch(recording_id, workdir)


def quick_build(folder: Path, recordings: int = 20, **more):
    source = QuickSource(tuple(range(recordings)))
    return build(source, folder, tiny_config(rows_per_shard=8), workers=0, progress=False, **more)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def rows_in(folder: Path) -> dict[str, dict]:
    return {row["id"]: row for shard in sorted((folder / "data").glob("*")) for row in read_rows(shard)}
