"""What a corpus must offer: recording ids, a split for each, and a way to fetch one recording."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from bi_audio_dataset.schema import SourceTruth


@dataclass(frozen=True)
class Recording:
    """One 360-degree recording on disk.

    video_path: equirectangular video, centre = azimuth 0 (sphere.py). audio_path: AmbiX (ACN, SN3D), of which
    the first four channels are used; may be the video file itself. Both start at presentation time 0.
    truth: sounding objects in the world frame, an entry per TRUTH_RATE_HZ frame of the whole recording; empty
    for real recordings. attributes: whatever else the source knows; the builder stores none of it.
    """

    recording_id: str
    video_path: Path
    audio_path: Path
    licence: str
    provenance: str
    room: str = ""
    truth: tuple[SourceTruth, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class Source(Protocol):
    """A corpus. Instances are sent to worker processes: they must pickle, and `fetch` must depend on nothing
    but the instance's settings and the recording id.

    A source may also have `settings`, a dict of plain values without paths: it is recorded in build.json, and
    a rerun into the same folder with other settings is refused.
    """

    name: str

    def recording_ids(self) -> list[str]:
        """Every recording, in a fixed order, without duplicates."""
        ...

    def split(self, recording_id: str) -> str:
        """'train', 'validation' or 'test'; clips of one recording never part."""
        ...

    def fetch(self, recording_id: str, workdir: Path) -> Recording:
        """Put the files under workdir, or point to where they already lie. UserError if they are unusable."""
        ...
