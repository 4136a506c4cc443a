"""The reference of an evaluation: a folder of sounds, or a BiAudio dataset whose media are written out.

OUTPUT/clips/ID.flac, ID.mp4, ID.json       a row's sound, its video where one is wanted, its truth
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bi_audio_dataset.schema import UserError
from visaudio.data.dataset import Clip, is_repository, open_dataset, read_clip
from visaudio.evaluation.pairs import RANK, Reference
from visaudio.evaluation.synth_benchmark import groups_of
from visaudio.evaluation.truth_files import truth_text
from visaudio.stored import holds, write_whole

if TYPE_CHECKING:
    from datasets import Dataset

ANGLES = ("yaw", "pitch", "roll")


def is_dataset(location: str | Path) -> bool:
    """Whether it is to be read as BiAudio: a folder with Parquet and no sounds of its own, or no folder."""
    folder = Path(location)
    if not folder.is_dir():
        return is_repository(location)
    has_sounds = any(p.suffix.lower() in RANK for p in folder.iterdir() if p.is_file())
    return not has_sounds and any(folder.rglob("*.parquet"))


@dataclass(frozen=True)
class Rows:
    """The rows of one split. ids: in the dataset's order."""

    table: Dataset
    ids: tuple[str, ...]
    location: str

    def index(self) -> dict[str, int]:
        return {clip: number for number, clip in enumerate(self.ids)}


def open_rows(location: str | Path, split: str = "test", config: str = "default") -> Rows:
    """UserError if there is nothing of that split, or if ids cannot be file names."""
    table = open_dataset(location, None, config)
    splits = table["split"][:]
    chosen = [index for index, name in enumerate(splits) if name == split]
    if not chosen:
        there = ", ".join(sorted(set(splits))) or "none"
        raise UserError(f"'{location}' has no clip of the split '{split}': expected one of {there}")
    table = table.select(chosen)
    ids = tuple(table["id"][:])
    wrong = [clip for clip in ids if Path(clip).name != clip]
    if wrong:
        raise UserError(f"'{location}': clip id '{wrong[0]}' cannot be a file name")
    return Rows(table, ids, str(location))


def write_out(
    rows: Rows, ids: Sequence[str], output: Path, *, videos: bool, progress: bool = True
) -> dict[str, Reference]:
    """The media of these clips as files below `output`; what is there already is left alone."""
    from tqdm import tqdm

    from visaudio.evaluation.synth_outputs import write_media

    index, found = rows.index(), {}
    for clip in tqdm(ids, desc="reference", unit="clip", disable=not progress, smoothing=0.1):
        row = rows.table[index[clip]]
        video = row["video"]["bytes"] if videos else None
        write_media(output, clip, video, row["audio"]["bytes"])
        read = read_clip(row)
        stem = output / "clips" / clip
        truth = _beside(stem, ".json", truth_text(read).encode())
        picture = _beside(stem, ".mp4") if videos else None
        found[clip] = Reference(_beside(stem, ".flac"), picture, truth, read.caption, _groups(row, read))
    return found


def _beside(stem: Path, suffix: str, data: bytes | None = None) -> Path:
    """A clip's file, whole paths kept (an id may hold dots); written if `data` says something new."""
    path = stem.with_name(stem.name + suffix)
    if data is not None and not holds(path, data):
        write_whole(path, data)
    return path


def _groups(row: Mapping[str, Any], clip: Clip) -> tuple[str, ...]:
    """Kinds of clip (`synth_benchmark.GROUPS`), where the row says where its sources and its camera are."""
    camera = row.get("camera") or {}
    angles = [camera.get(f"{angle}_deg") for angle in ANGLES]
    if not clip.sources or any(angle is None for angle in angles):
        return ()
    angles_deg = np.array(angles)
    if any(angles_deg.shape[1] != len(source.azimuth_deg) for source in clip.sources):
        return ()
    return groups_of(clip, angles_deg)
