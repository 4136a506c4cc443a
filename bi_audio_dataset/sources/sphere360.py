"""Sphere360 (Liu et al. 2025, "OmniAudio"; github.com/liuhuadai/OmniAudio, folder Sphere360).

103k segments of 10 s from YouTube's 360-degree videos with first-order ambisonics, published as two lists,
dataset/split/train.txt and test.txt, of lines `<id>_<n>`: a YouTube id and the second n at which the segment
begins (its crawler asks yt-dlp for the section n to n + 10, and names the file so). A folder may hold

- whole videos, `<id>.webm` (or .mkv, .mp4): one recording with a stretch per listed segment; or
- what the crawler cuts out, `<id>_<n>.webm`: a recording per segment, of the group `<id>`.

YouTube serves ambisonics as AmbiX (ACN, SN3D), as its upload rules demand; a file's own metadata are checked
against that.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from bi_audio_dataset.channels import order_of
from bi_audio_dataset.schema import SPLITS, UserError
from bi_audio_dataset.sources import checks
from bi_audio_dataset.sources.base import Recording
from bi_audio_dataset.sources.folder import panorama
from bi_audio_dataset.splits import split_of

SEGMENT_S = 10
#: A video may end so much before its last segment does: coders pad and drop blocks.
TOLERANCE_S = 1.0
#: List files of each split, by preference of the place; an id in several goes to the one most held out.
LISTS = {"train": ("train.txt",), "validation": ("validation.txt", "val.txt"), "test": ("test.txt",)}
LIST_FOLDERS = ("", "split", "dataset/split", "Sphere360/dataset/split")
YOUTUBE_CC = "Creative Commons Attribution"


@dataclass(frozen=True)
class Lists:
    """What the split lists say. segments: (id, n) -> split of the line. splits: id -> split of the id.
    starts: id -> listed seconds, rising. has_validation: whether there is such a list."""

    segments: dict[tuple[str, int], str]
    splits: dict[str, str]
    starts: dict[str, tuple[int, ...]]
    has_validation: bool


@dataclass(frozen=True)
class Sphere360Source:
    """A folder of Sphere360's videos and its split lists.

    lists: folder of train.txt and test.txt; None looks in `folder` and below (LIST_FOLDERS). Only listed
    segments that are there are used; `missing()` names the others. Segments of one id never part: an id in
    two lists is test. Without a validation list, validation_share of the training ids is taken by hash.
    licence: of rows whose video has no <id>.info.json (yt-dlp's) that states Creative Commons.
    """

    folder: Path
    lists: Path | None = None
    licence: str = "unknown"
    validation_share: float = 0.05
    channels: str = "ambix"
    trust_picture: bool = False
    name: str = "Sphere360"

    def __post_init__(self) -> None:
        if self.channels != "stated":
            order_of(self.channels)
        if not 0 <= self.validation_share < 1:
            raise UserError(f"validation share must be at least 0 and below 1, got {self.validation_share:g}")

    @property
    def settings(self) -> dict[str, object]:
        return {
            "licence": self.licence,
            "validation_share": self.validation_share,
            "channels": self.channels,
            "trust_picture": self.trust_picture,
        }

    def recording_ids(self) -> list[str]:
        lists = self._lists()
        ids = [i for i in checks.videos_in(self.folder) if i in lists.splits or _segment(i, lists)]
        if not ids:
            raise UserError(
                f"'{self.folder}' holds no video that its lists name ({len(lists.splits)} ids): "
                "expected <id>.webm, .mkv or .mp4"
            )
        whole = set(ids) & set(lists.splits)
        # where the whole video is there, its cut segments would be the same again
        return sorted(i for i in ids if i in whole or _segment(i, lists)[0] not in whole)

    def missing(self) -> list[str]:
        """Listed ids without any video: deleted or not yet fetched."""
        lists = self._lists()
        there = {i if i in lists.splits else _segment(i, lists)[0] for i in self.recording_ids()}
        return sorted(set(lists.splits) - there)

    def split(self, recording_id: str) -> str:
        lists = self._lists()
        video_id = _video_id(recording_id, lists)
        split = lists.splits[video_id]
        if split == "train" and not lists.has_validation:
            return split_of(video_id, (1 - self.validation_share, self.validation_share, 0.0))
        return split

    def fetch(self, recording_id: str, workdir: Path) -> Recording:
        lists = self._lists()
        video_id = _video_id(recording_id, lists)
        video = checks.one_video(self.folder, recording_id)
        audio, order = panorama(video, self.channels)
        if recording_id == video_id:
            end_s = checks.check_sound(audio).duration_s + TOLERANCE_S
            starts = [start for start in lists.starts[video_id] if start + SEGMENT_S <= end_s]
            if not starts:
                raise UserError(
                    f"'{video.name}' ends at {end_s:.0f} s, before its first listed segment is over (from "
                    f"{lists.starts[video_id][0]} s): not the listed video, or cut short"
                )
            stretches = tuple((float(start), float(start + SEGMENT_S)) for start in starts)
        else:
            stretches = ()
        return Recording(
            recording_id,
            video,
            audio,
            licence_of(Path(self.folder) / f"{video_id}.info.json", self.licence),
            f"Sphere360: https://www.youtube.com/watch?v={video_id}",
            channels=order,
            stretches=stretches,
            group=video_id,
            trust_picture=self.trust_picture,
        )

    def _lists(self) -> Lists:
        places = [Path(self.lists)] if self.lists else [Path(self.folder) / name for name in LIST_FOLDERS]
        for place in places:
            found = tuple(
                (split, place / name)
                for split, names in LISTS.items()
                for name in names
                if (place / name).is_file()
            )
            if found:
                return _read_lists(tuple((split, path, path.stat().st_mtime_ns) for split, path in found))
        where = ", ".join(f"'{place}'" for place in places)
        raise UserError(
            f"no split list (train.txt, test.txt) in {where}: take Sphere360's from its repository, folder "
            "dataset/split"
        )


def _video_id(recording_id: str, lists: Lists) -> str:
    """The YouTube id of a recording. An id may itself look like a segment (TKPZf_P5_18): the lists decide."""
    if recording_id in lists.splits:
        return recording_id
    segment = _segment(recording_id, lists)
    if segment is None:
        raise UserError(f"'{recording_id}' is in none of Sphere360's lists")
    return segment[0]


def _segment(name: str, lists: Lists) -> tuple[str, int] | None:
    """(id, n) of the name of a listed segment, else None."""
    video_id, _, number = name.rpartition("_")
    if number.isdecimal() and (video_id, int(number)) in lists.segments:
        return video_id, int(number)
    return None


@lru_cache(maxsize=4)
def _read_lists(files: tuple[tuple[str, Path, int], ...]) -> Lists:
    segments: dict[tuple[str, int], str] = {}
    splits: dict[str, str] = {}
    for split, path, _ in sorted(files, key=lambda file: SPLITS.index(file[0])):
        for number, line in enumerate(_lines(path), start=1):
            name = line.strip()
            if not name:
                continue
            video_id, _, start = name.rpartition("_")
            if not video_id or not start.isdecimal():
                raise UserError(
                    f"{path}, line {number}: '{name[:40]}' is not <id>_<second>, e.g. u-Hpf2_wzB8_390"
                )
            segments[video_id, int(start)] = split
            splits[video_id] = split  # later lists are more held out
    starts: dict[str, list[int]] = {}
    for video_id, start in segments:
        starts.setdefault(video_id, []).append(start)
    rising = {video_id: tuple(sorted(found)) for video_id, found in starts.items()}
    return Lists(segments, splits, rising, any(split == "validation" for split, _, _ in files))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a list ({error})") from error


def licence_of(info: Path, otherwise: str) -> str:
    """The licence that yt-dlp's description of a video states: CC-BY-4.0, or `otherwise`."""
    try:
        stated = json.loads(info.read_text(encoding="utf-8")).get("license") or ""
    except (OSError, ValueError, AttributeError):
        return otherwise
    return "CC-BY-4.0" if str(stated).startswith(YOUTUBE_CC) else otherwise
