"""The manifest's rows of a recording and of its clips, as they are when the clips are made."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from bi_audio_dataset import filters as rules
from bi_audio_dataset.filters import Finding
from bi_audio_dataset.manifest import STAGE_VERSIONS
from bi_audio_dataset.schema import ClipRecord
from bi_audio_dataset.sound import input_digest
from bi_audio_dataset.sources.base import Recording


@dataclass(frozen=True)
class Window:
    """One window of a recording, before any view of it. audio (C, num_samples) as recorded."""

    recording: Recording
    source_name: str
    split: str
    number: int
    clip_id: str
    start_s: float
    audio: np.ndarray
    findings: list[Finding]


def clip_row(
    window: Window,
    duration_s: float,
    findings: list[Finding],
    record: ClipRecord | None = None,
    more: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The manifest row of a clip; of one that was given up before its views were made without `record`."""
    judged, recording = rules.verdict(findings), window.recording
    row: dict[str, Any] = {
        "kind": "clip",
        "id": record.id if record else window.clip_id,
        "recording_id": recording.recording_id,
        "split": window.split,
        "decision": "accept" if judged.accepted else "reject",
        "reasons": judged.reasons,
        "marks": judged.marks,
        "start_s": round(window.start_s, 6),
        "duration_s": duration_s,
        "measures": judged.measures,
        "source_name": window.source_name,
        "licence": recording.licence,
        "provenance": recording.provenance,
        **(more or {}),
    }
    if record is not None:
        row |= {
            "caption": record.caption,
            "hrir_set": record.hrir_set,
            "width": record.width,
            "height": record.height,
            "hfov_deg": round(record.hfov_deg, 4),
            "fps": record.fps,
            "level_gain_db": round(record.filters.level_gain_db, 4),
            "video": _file(record.video),
            "audio": _file(record.audio),
            "camera": {
                "rate_hz": record.camera.rate_hz,
                **{
                    name: [round(x, 3) for x in getattr(record.camera, name)]
                    for name in ("yaw_deg", "pitch_deg", "roll_deg")
                },
            },
        }
    return row


def recording_row(
    recording: Recording, source_name: str, split: str, judged: rules.Verdict, common_s: float, windows: int
) -> dict[str, Any]:
    """The manifest row of a recording that can be used, of so many windows in common_s seconds."""
    return {
        "kind": "recording",
        "id": recording.recording_id,
        "decision": "built",
        "reasons": {},
        "marks": judged.marks,
        "split": split,
        "duration_s": round(common_s, 3),
        "windows": windows,
        "measures": judged.measures,
        "source_name": source_name,
        "licence": recording.licence,
        "provenance": recording.provenance,
        **({"group": recording.group} if recording.group else {}),
        **({"stretches": [list(s) for s in recording.stretches]} if recording.stretches else {}),
        "input": input_digest(recording),
        "stages": STAGE_VERSIONS,
    }


def _file(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
