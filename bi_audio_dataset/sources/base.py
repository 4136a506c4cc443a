"""What a corpus must offer: recording ids, a split for each, and a way to fetch one recording."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from bi_audio_dataset import media
from bi_audio_dataset.channels import AMBIX, ChannelOrder
from bi_audio_dataset.schema import MONO_EARS, SourceTruth
from bi_audio_dataset.unusable import Unusable

KINDS = ("panorama", "pair")


@dataclass(frozen=True)
class Recording:
    """One recording on disk; picture and sound both start at presentation time 0.

    kind "panorama": a 360-degree recording. video_path: equirectangular video, centre = azimuth 0
    (sphere.py); audio_path: ambisonics in the order `channels`, may be the video file itself. The builder
    chooses a camera path, and renders view and ears.

    kind "pair": a perspective video that has its ears already. audio_path: two channels, left first. No
    camera path and no rendering: clips are cut, scaled and brought to level. ears: what stands in a row's
    `hrir_set` ("recorded: ..."); with MONO_EARS the sound has one channel or two, whose mean is both ears.
    hfov_deg: horizontal field of view, None where nobody knows.

    stretches: (start_s, end_s) of the parts that may be used, sorted; empty for the whole.
    trust_picture: how a panorama looks is no reason to leave it out.
    group: recordings of one group are one event, which no split may divide; "" for the recording alone.
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
    kind: str = "panorama"
    channels: ChannelOrder = AMBIX
    ears: str = ""
    hfov_deg: float | None = None
    stretches: tuple[tuple[float, float], ...] = ()
    group: str = ""
    trust_picture: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"recording kind '{self.kind}', expected one of {KINDS}")
        if self.kind == "pair" and not self.ears:
            raise ValueError(f"pair '{self.recording_id}' does not say how its ears were recorded")
        if any(not 0 <= start < end for start, end in self.stretches):
            raise ValueError(f"stretches {self.stretches} of '{self.recording_id}' are not (start, end) in s")

    @property
    def mono(self) -> bool:
        return self.ears == MONO_EARS


def read_sound(
    recording: Recording, sample_rate: int, start_s: float = 0.0, duration_s: float | None = None
) -> np.ndarray:
    """The recording's sound from start_s on: (4, N) AmbiX of a panorama, (2, N) ears of a pair, float32.

    With duration_s only that part is decoded and held, so an hour of ambisonics needs no more memory than a
    clip. Fewer samples than asked for where the sound ends. UserError for any other number of channels.
    """
    track, _ = media.read_audio(recording.audio_path, sample_rate, start_s=start_s, duration_s=duration_s)
    file = f"'{recording.audio_path.name}'"
    if recording.kind == "panorama":
        return recording.channels.to_ambix(track, file)
    check_ears(track.shape[0], file, recording.mono)
    return np.repeat(track.mean(axis=0, keepdims=True), 2, axis=0) if recording.mono else track


def check_ears(channels: int, file: str, mono: bool = False) -> None:
    """Unusable unless a pair's sound has two channels, or of a mono one one or two."""
    if mono and channels not in (1, 2):
        why = f"{file} has {channels} audio channels, expected 1 or 2 for mono"
        raise Unusable({"channels": why}, {"channels.count": channels})
    if not mono and channels != 2:
        hints = {
            1: " (mono holds no direction: --sound mono takes it so)",
            4: " (ambisonics: use the source 'folder')",
        }
        hint = hints.get(channels, "")
        why = f"{file} has {channels} audio channels{hint}, expected 2 (left ear, right ear)"
        raise Unusable({"channels": why}, {"channels.count": channels})


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
