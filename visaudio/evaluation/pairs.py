"""Which files belong together: generated sounds of one or several systems, references, pictures, truth.

A clip is found by its file's name without suffix; `ID.binaural.flac`, as sample.py writes it, is of clip ID.
Where a folder holds several files for one clip, one is taken: of a generated folder those marked `.binaural`
first (the plain one may be the silent video itself), of a reference folder the plain ones; among these
lossless sound, then coded sound, then video; then by name. That it happened is reported.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bi_audio_dataset.schema import UserError, reason_of
from visaudio.evaluation.problems import Problems

LOSSLESS = (".wav", ".flac", ".aif", ".aiff", ".w64", ".rf64", ".caf")
CODED = (".m4a", ".mp3", ".ogg", ".oga", ".opus", ".aac", ".mka", ".wma")
VIDEO = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".3gp", ".ogv", ".flv")
RANK = {suffix: rank for rank, group in enumerate((LOSSLESS, CODED, VIDEO)) for suffix in group}
MARK = ".binaural"


@dataclass(frozen=True)
class Reference:
    """What a clip is compared with, and what else is known of it. groups: kinds of clip, by its truth."""

    sound: Path | None = None
    video: Path | None = None
    truth: Path | None = None
    caption: str = ""
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClipFiles:
    """Everything that one clip is scored from. sounds: by system; pictures: a system's own video of it."""

    id: str
    sounds: Mapping[str, Path]
    reference: Reference = Reference()
    pictures: Mapping[str, Path] = field(default_factory=dict)

    def video(self, system: str) -> Path | None:
        """The picture that belongs to the clip; else the system's own file has one."""
        return self.reference.video or self.pictures.get(system)


@dataclass(frozen=True)
class Folder:
    """The sounds of a folder by clip, and its videos by clip."""

    path: Path
    sounds: Mapping[str, Path]
    videos: Mapping[str, Path]


def parse_systems(given: Sequence[str | Path], flag: str = "--generated") -> dict[str, Path]:
    """`DIR` or `NAME=DIR` each -> folder by name, which is the folder's own where none is given."""
    systems: dict[str, Path] = {}
    for text in map(str, given):
        name, equals, rest = text.partition("=")
        folder = Path(rest) if equals and not Path(text).is_dir() else Path(text)
        name = name if folder == Path(rest) and equals else (folder.resolve().name or "generated")
        check_name(name, f"{flag} '{text}'")
        if name in systems:
            raise UserError(f"two systems are called '{name}': give names, {flag} A={folder} B=...")
        systems[name] = folder
    return systems


def check_name(name: str, where: str) -> None:
    """UserError, starting with `where`, for a system's name that no folder below the output can have."""
    if "/" in name or not name.strip("."):
        raise UserError(
            f"{where}: the name '{name}' cannot be a folder's: expected one without '/', of more than dots"
        )


def find_sounds(
    path: Path, problems: Problems, *, system: str = "", marked_first: bool = True, of_reference: bool = False
) -> Folder:
    """The sounds directly in a folder; those in folders below it go to `problems`. of_reference: the folder
    is the reference. UserError if it is none or holds none."""
    sounds, videos = defaultdict(list), {}
    files = _files(path)
    known = {file.stem for file in files if file.suffix.lower() in RANK}
    for file in files:
        rank = RANK.get(file.suffix.lower())
        if rank is None:
            if not (file.suffix == ".json" and file.stem in known):  # what a program notes of its sound
                problems.add("other_files", file.name, system, of_reference=of_reference)
            continue
        is_marked = file.stem.endswith(MARK)
        clip = clip_of(file)
        sounds[clip].append(((is_marked != marked_first, rank, file.name), file))
        if file.suffix.lower() in VIDEO:
            videos.setdefault(clip, file)
    if not sounds:
        inside = any(p.is_dir() and not p.name.startswith(".") for p in path.iterdir())
        more = "; it holds folders: give one of them" if inside else ""
        kinds = " ".join((*LOSSLESS[:2], *CODED[:3], VIDEO[0]))
        raise UserError(f"{path}: holds no sound or video ({kinds} ...){more}")
    taken = {}
    for clip, candidates in sounds.items():
        taken[clip] = min(candidates)[1]
        if len(candidates) > 1:
            names = ", ".join(sorted(file.name for _, file in candidates))
            detail = f"{taken[clip].name} of {names}"
            problems.add("several_files", clip, system, detail=detail, of_reference=of_reference)
    for name in _below(path):
        problems.add("below", name, system, of_reference=of_reference)
    return Folder(path, taken, videos)


def find_videos(path: Path) -> dict[str, Path]:
    """The videos directly in a folder, by clip; a plain name before a marked one."""
    videos: dict[str, Path] = {}
    for file in sorted(_files(path), key=lambda p: (p.stem.endswith(MARK), p.name)):
        if file.suffix.lower() in VIDEO:
            videos.setdefault(clip_of(file), file)
    if not videos:
        raise UserError(f"--videos {path}: holds no video ({' '.join(VIDEO)})")
    return videos


def read_captions(path: Path) -> dict[str, str]:
    """Captions by clip: a .json of {id: caption}, or a .csv with the columns id and caption (.tsv: by tabs).

    UserError for anything else.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            found = json.loads(text)
            if not (isinstance(found, dict) and all(isinstance(value, str) for value in found.values())):
                raise ValueError("expected {id: caption}")
        else:
            delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
            rows = list(csv.DictReader(io.StringIO(text), delimiter=delimiter))
            found = {row["id"]: row["caption"] or "" for row in rows}
    except KeyError as error:
        raise UserError(f"{path}: has no column {error}, expected the columns id and caption") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path}: holds no captions ({reason_of(error, 120)})") from error
    if not found:
        raise UserError(f"{path}: holds no caption")
    return found


def with_captions(clips: Sequence[ClipFiles], captions: Mapping[str, str]) -> list[ClipFiles]:
    """Captions from a file, before those of a dataset."""
    return [
        replace(
            clip, reference=replace(clip.reference, caption=captions.get(clip.id, clip.reference.caption))
        )
        for clip in clips
    ]


def clip_of(file: Path) -> str:
    """The id of the clip that a file is of."""
    return file.stem.removesuffix(MARK) or file.stem


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        what = "is a file, expected a folder" if path.exists() else "no such folder"
        raise UserError(f"{path}: {what} of sounds or videos, one file per clip")
    try:
        return sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


def _below(path: Path) -> list[str]:
    """Sounds in folders below this one, relative to it; links to folders are not followed."""
    found = []
    for folder, inside, files in os.walk(path):
        inside[:] = [name for name in inside if not name.startswith(".")]
        here = Path(folder).relative_to(path)
        if here.parts:
            sounds = [name for name in files if Path(name).suffix.lower() in RANK]
            found += [str(here / name) for name in sounds if not name.startswith(".")]
    return found


# -------------------- pairing


def reference_of_folder(path: Path, problems: Problems) -> dict[str, Reference]:
    """References from a folder of sounds or videos with sound; a clip's video there gives its picture."""
    folder = find_sounds(path, problems, marked_first=False, of_reference=True)
    return {clip: Reference(sound, folder.videos.get(clip)) for clip, sound in folder.sounds.items()}


def pair_up(
    systems: Mapping[str, Folder],
    reference: Mapping[str, Reference] | Sequence[str] | None,
    problems: Problems,
    limit: int | None = None,
) -> list[ClipFiles]:
    """The clips to score, by id; those that lack one side go to `problems`. reference: None scores all
    sounds without one; a sequence names the clips that have one, to be filled in by `with_references`.

    UserError where a system and the reference have no clip in common. limit: the first so many clips of the
    reference, by name; the others count as not asked for.
    """
    known = set().union(*(folder.sounds for folder in systems.values()))
    every = known if reference is None else set(reference)
    wanted = set(sorted(every)[:limit])
    for name, folder in systems.items():
        common = wanted & set(folder.sounds)
        if not common:
            raise UserError(_nothing_in_common(name, folder, sorted(wanted)))
        for clip in wanted - common:
            problems.add("missing_generated", clip, name)
        for clip in set(folder.sounds) - every:
            problems.add("missing_reference", clip, name)
    clips = []
    for clip in sorted(wanted & known):
        having = [name for name, folder in systems.items() if clip in folder.sounds]
        clips.append(
            ClipFiles(
                clip,
                {name: systems[name].sounds[clip] for name in having},
                reference[clip] if isinstance(reference, Mapping) else Reference(),
                {name: systems[name].videos[clip] for name in having if clip in systems[name].videos},
            )
        )
    return clips


def with_references(clips: Sequence[ClipFiles], found: Mapping[str, Reference]) -> list[ClipFiles]:
    return [replace(clip, reference=found[clip.id]) for clip in clips]


def with_videos(clips: Sequence[ClipFiles], videos: Mapping[str, Path]) -> list[ClipFiles]:
    """Pictures from a folder of their own, before any other."""
    return [
        replace(clip, reference=replace(clip.reference, video=videos.get(clip.id, clip.reference.video)))
        for clip in clips
    ]


def _nothing_in_common(name: str, folder: Folder, wanted: Sequence[str]) -> str:
    if not wanted:
        return "the reference holds no clip"
    return (
        f"{name}: none of the {len(folder.sounds)} sounds in {folder.path} (e.g. '{min(folder.sounds)}') is "
        f"of a clip of the reference (e.g. '{wanted[0]}'): files are matched by their names without suffix"
    )
