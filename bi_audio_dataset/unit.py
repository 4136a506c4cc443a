"""The unit of work: a recording into its part file, a pure function of recording, config, seed, renderings.

A unit reads what the source fetches and writes the recording's part (workplace.Parts: here or at an fsspec
URL), whole or not at all; run twice, or on another machine, it gives the same bytes. A recording that cannot
be used has a result too: a manifest row that says why. Who runs units: executors.py.

A part is addressed by what it is made of: `Work.key` is the digest of the source's settings, the config with
its seed and the integer version of each stage; `unit_key` adds the recording and the renderings asked for. It
stands in the part and in the journal, and a part with another key is made again. What is in the source's
files is not part of it, as it is known only when they are read: their SHA-256 is the manifest's "input". The
journal keeps their sizes and times instead (unchanged.py), and a recording that was replaced is made again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bi_audio_dataset import manifest
from bi_audio_dataset.build_config import BuildConfig
from bi_audio_dataset.clip import ClipMaker, Unusable
from bi_audio_dataset.libraries import versions
from bi_audio_dataset.review import evidence
from bi_audio_dataset.schema import SPLITS, UserError
from bi_audio_dataset.shards import write_rows
from bi_audio_dataset.sources.base import Source
from bi_audio_dataset.texts import folders_of, without_places
from bi_audio_dataset.unchanged import files_of
from bi_audio_dataset.workplace import EVIDENCE, Parts

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Asked:
    """What a unit of work needs beside the recording: renders {clip id: rendering asked for by a reviewer};
    evidence: whether what the review page shows is kept; evidence_folder: where the page finds it, None if
    workers need not reach that: then it is left beside the parts, from where `build` fetches it."""

    renders: dict[str, int] = field(default_factory=dict)
    evidence: bool = False
    evidence_folder: Path | None = None


@dataclass(frozen=True)
class Work:
    """What the units of one build share. It pickles, so any process on any machine may run them.

    key: `work_key`; stages: the versions that the key is about, which a worker's code must have;
    scratch: for what a recording needs while it is made; None is the machine's temporary folder.
    libraries: the versions that a worker must have, if any is named.
    """

    source: Source
    config: BuildConfig
    parts: Parts
    asked: Asked = field(default_factory=Asked)
    key: str = ""
    scratch: Path | None = None
    stages: dict[str, int] = field(default_factory=lambda: dict(manifest.STAGE_VERSIONS))
    libraries: dict[str, str] = field(default_factory=dict)

    def task(self, alone: bool = False) -> Task:
        """What makes units in this process. alone: the process does nothing else, so it may be held to one
        thread."""
        if alone:
            import cv2

            cv2.setNumThreads(1)
        return Task(self)

    def crashed(self, recording_id: str, why: str) -> list[dict[str, Any]]:
        """The rows of a recording on which processes die."""
        self.parts.remove(recording_id)
        split = self.source.split(recording_id)
        reasons = {"crashed": without_places(why, folders_of(self.source))}
        return [quarantine_row(self.source, recording_id, split, reasons)]


def work_key(source: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The digest of the source's name and settings, the config and the stages' versions: plain values, as
    build.json has them, so without paths and the same on each machine."""
    return _digest({"source": source, "config": config, "stages": manifest.STAGE_VERSIONS})


def unit_key(key: str, recording_id: str, renders: Mapping[str, int]) -> str:
    """What a recording's part is made of. renders: {clip id: rendering} of its own clips."""
    return _digest([key, recording_id, {name: number for name, number in renders.items() if number}])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def quarantine_row(
    source: Source,
    recording_id: str,
    split: str,
    reasons: dict[str, str],
    measures: dict[str, float] | None = None,
) -> dict[str, Any]:
    """The manifest row of a recording that cannot be used."""
    return {
        "kind": "recording",
        "id": recording_id,
        "decision": "quarantine",
        "reasons": reasons,
        "marks": {},
        "split": split,
        "measures": measures or {},
        "source_name": source.name,
        "clips": 0,
    }


class Task:
    """Builds one recording into its part file. Lives once per process: the HRIR set is prepared once."""

    def __init__(self, work: Work) -> None:
        if work.stages != manifest.STAGE_VERSIONS:
            raise UserError(
                f"this worker's code has the stages {manifest.STAGE_VERSIONS}, the build {work.stages}: "
                "install the same version everywhere"
            )
        here = versions() if work.libraries else {}
        if here != work.libraries:
            names = sorted(n for n in {*here, *work.libraries} if here.get(n) != work.libraries.get(n))
            words = ", ".join(f"{n} {here.get(n)}, not {work.libraries.get(n)}" for n in names[:3])
            raise UserError(f"this worker has {words}: install the same libraries everywhere")
        self.work, self.source = work, work.source
        self.make = ClipMaker(work.config, evidence=work.asked.evidence)
        self.windows_s = 0.0  # of the last recording's seconds, those of its windows

    def __call__(self, recording_id: str) -> list[dict[str, Any]]:
        """The recording's manifest rows, its own first. A recording that cannot be used has that row
        alone."""
        started_s = time.perf_counter()
        work = self.work
        split = self.source.split(recording_id)
        if split not in SPLITS:
            raise ValueError(f"source '{self.source.name}' gave split '{split}', expected one of {SPLITS}")
        folders = folders_of(self.source)
        try:
            with tempfile.TemporaryDirectory(dir=work.scratch) as workdir:
                folders.append(Path(workdir))
                recording = self.source.fetch(recording_id, Path(workdir))
                files = files_of(recording, self.source, Path(workdir))
                folders += [Path(recording.video_path).parent, Path(recording.audio_path).parent]
                made = self.make.make(recording, self.source.name, split, work.asked.renders)
        except Unusable as error:
            return [self._quarantine(recording_id, split, folders, error.reasons, error.measures)]
        except MemoryError:
            raise
        except Exception as error:
            # the machine's fault: skipping would lose good recordings
            if _is_disk_full(error) or _is_disk_full(error.__cause__):
                raise
            known = isinstance(error, UserError)
            text = str(error)
            if not known:
                words = without_places(" ".join(text.split()), folders)
                text = f"{type(error).__name__}: {words[:300]}"
            reason = {"unusable" if known else "failed": text}
            return [self._quarantine(recording_id, split, folders, reason)]
        self.windows_s = made.windows_s
        renders = {row["id"]: row.get("draw", {}).get("render", 0) for row in made.clips}
        key = unit_key(work.key, recording_id, renders)
        rows = [{**made.recording, "clips": len(made.clips), "unit": key}, *made.clips]
        with work.parts.writing(recording_id, work.scratch) as beside:
            write_rows(beside, made.records, rows)
            size = beside.stat().st_size
            for clip_id, found in made.evidence.items():
                if work.asked.evidence_folder is not None:
                    evidence.save(work.asked.evidence_folder, clip_id, found)
                else:
                    name = evidence.file_name(clip_id, found.render, EVIDENCE)
                    work.parts.put(name, evidence.pack(found, clip_id), work.scratch)
        seconds = round(time.perf_counter() - started_s, 3)
        rows[0] = {**rows[0], "seconds": seconds, "size": size, "files": files}
        return rows

    def _quarantine(
        self,
        recording_id: str,
        split: str,
        folders: Sequence[Path],
        reasons: dict[str, str],
        measures: dict[str, float] | None = None,
    ) -> dict[str, Any]:
        """folders: what the reasons may speak of, and the manifest may not."""
        self.work.parts.remove(recording_id)
        reasons = {name: without_places(why, folders) for name, why in reasons.items()}
        return quarantine_row(self.source, recording_id, split, reasons, measures)


def _is_disk_full(error: BaseException | None) -> bool:
    return getattr(error, "errno", None) in DISK_FULL
