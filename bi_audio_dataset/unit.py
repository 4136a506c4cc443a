"""The unit of work: a recording into its part file, a pure function of recording, config, seed, renderings.

A unit reads what the source fetches and writes DIR/.work/parts/<id>.parquet by one rename; run twice it gives
the same bytes. A recording that cannot be used has a result too: a manifest row that says why.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bi_audio_dataset.clip import BuildConfig, ClipMaker, Unusable
from bi_audio_dataset.review import evidence
from bi_audio_dataset.schema import SPLITS, UserError
from bi_audio_dataset.shards import write_rows
from bi_audio_dataset.sources.base import Source
from bi_audio_dataset.workplace import part_path

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Asked:
    """What a unit of work needs beside the recording: renders {clip id: rendering asked for by a reviewer};
    evidence_folder: where the review page finds what it shows, None to keep nothing."""

    renders: dict[str, int] = field(default_factory=dict)
    evidence_folder: Path | None = None


class Task:
    """Builds one recording into its part file. Lives once per process: the HRIR set is prepared once."""

    def __init__(self, source: Source, config: BuildConfig, parts: Path, asked: Asked) -> None:
        self.source, self.parts, self.asked = source, parts, asked
        self.scratch = parts.with_name("scratch")
        self.make = ClipMaker(config, evidence=asked.evidence_folder is not None)

    def __call__(self, recording_id: str) -> list[dict[str, Any]]:
        """The recording's manifest rows, its own first. A recording that cannot be used has that row
        alone."""
        started_s = time.perf_counter()
        split = self.source.split(recording_id)
        if split not in SPLITS:
            raise ValueError(f"source '{self.source.name}' gave split '{split}', expected one of {SPLITS}")
        try:
            with tempfile.TemporaryDirectory(dir=self.scratch) as workdir:
                recording = self.source.fetch(recording_id, Path(workdir))
                made = self.make.make(recording, self.source.name, split, self.asked.renders)
        except Unusable as error:
            return [self._quarantine(recording_id, split, error.reasons, error.measures)]
        except MemoryError:
            raise
        except Exception as error:
            # the machine's fault: skipping would lose good recordings
            if _is_disk_full(error) or _is_disk_full(error.__cause__):
                raise
            known = isinstance(error, UserError)
            text = str(error) if known else f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            return [self._quarantine(recording_id, split, {"unusable" if known else "failed": text})]
        rows = [{**made.recording, "clips": len(made.clips)}, *made.clips]
        part = part_path(self.parts, recording_id)
        beside = part.with_name(part.name + ".tmp")
        write_rows(beside, made.records, rows)
        for clip_id, found in made.evidence.items():
            evidence.save(self.asked.evidence_folder, clip_id, found)
        os.replace(beside, part)
        rows[0] = {**rows[0], "seconds": round(time.perf_counter() - started_s, 3)}
        return rows

    def _quarantine(
        self, recording_id: str, split: str, reasons: dict[str, str], measures: dict[str, float] | None = None
    ) -> dict[str, Any]:
        part_path(self.parts, recording_id).unlink(missing_ok=True)
        return {
            "kind": "recording",
            "id": recording_id,
            "decision": "quarantine",
            "reasons": reasons,
            "marks": {},
            "split": split,
            "measures": measures or {},
            "source_name": self.source.name,
            "clips": 0,
        }


def _is_disk_full(error: BaseException | None) -> bool:
    return getattr(error, "errno", None) in DISK_FULL


_task: Task | None = None


def start_worker(source: Source, config: BuildConfig, parts: Path, asked: Asked) -> None:
    global _task
    import cv2

    cv2.setNumThreads(1)
    # Ctrl-C reaches the whole group; parts are renamed whole, so a worker may stop anywhere
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    parent = multiprocessing.parent_process()
    if parent is not None:
        # a killed parent must not leave workers waiting for tasks for ever
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    _task = Task(source, config, parts, asked)


def run_unit(recording_id: str) -> list[dict[str, Any]]:
    assert _task is not None, "worker not started"
    return _task(recording_id)
