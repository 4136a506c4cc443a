"""Sounds and videos beside the page, OUTPUT/media/: hard links where the file system allows, so that a
thousand clips cost no space, else copies.

What every browser plays is taken as it is: FLAC, and WAV of 16 or 24 bits. All else is decoded once, as the
measures decoded it, and stored as FLAC: lossless, so level and time differences between the ears stay.

    media/index.json     what each file was made from; files of an earlier page that nothing wants go away
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from bi_audio_dataset import media
from bi_audio_dataset.schema import UserError
from visaudio.evaluation.page.text import link, slug

INDEX = "index.json"
WIDE = {"PCM_24", "PCM_32", "FLOAT", "DOUBLE"}
VIDEOS = {".mp4", ".m4v", ".webm", ".mov"}


@dataclass
class MediaFolder:
    """output: the page's folder. `sound` and `video` give relative addresses, None where there is no file;
    `notes` says of which clips something is missing or was changed, `close` removes what is left over."""

    output: Path
    notes: dict[str, list[str]] = field(default_factory=dict)
    _made: dict[str, list] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder = self.output / "media"
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._before = dict(json.loads((self.folder / INDEX).read_text()))
        except (OSError, ValueError, TypeError):
            self._before = {}

    def sound(self, path: Path, system: str | None, clip: str) -> str | None:
        """system: None for the reference's."""
        if not path.is_file():
            return self._note("sound not found any more", clip)
        try:
            direct, subtype = _plays_as_it_is(path)
            folder = "reference" if system is None else f"sounds/{_part(system)}"
            name = _name(folder, clip, path.suffix.lower() if direct else ".flac")
            if direct and self._linked(path, name):
                return link("media", *name.split("/"))
            if path.suffix.lower() == ".flac" and direct:
                return self._copied(path, name)
            return self._decoded(path, _name(folder, clip, ".flac"), subtype, clip)
        except UserError:
            return self._note("sound could not be decoded for the page", clip)

    def video(self, path: Path, clip: str, copy: bool) -> str | None:
        """copy: where it cannot be linked."""
        if not path.is_file():
            return self._note("video not found any more", clip)
        if path.suffix.lower() not in VIDEOS:
            return self._note(f"videos that browsers do not play ({path.suffix})", clip)
        name = _name("video", clip, path.suffix.lower())
        if self._linked(path, name):
            return link("media", *name.split("/"))
        if not copy:
            return self._note("video on another file system, copied only for clips with pictures", clip)
        return self._copied(path, name)

    def picture(self, png: bytes, clip: str, name: str) -> str:
        """Stores a PNG; its relative address."""
        name = _name(f"pictures/{_part(name)}", clip, ".png")
        target = self._target(name)
        target.unlink(missing_ok=True)
        target.write_bytes(png)
        self._made[name] = []
        return link("media", *name.split("/"))

    def close(self) -> None:
        for name in self._before.keys() - self._made.keys():
            target = self.folder / name
            # the index lies in a folder that others may write to: only files within it are ours to remove
            if self.folder.resolve() in target.resolve().parents:
                with contextlib.suppress(OSError):
                    target.unlink()
        (self.folder / INDEX).write_text(json.dumps(self._made, indent=0))

    def _note(self, what: str, clip: str) -> None:
        names = self.notes.setdefault(what, [])
        if clip not in names:
            names.append(clip)

    def _target(self, name: str) -> Path:
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def _linked(self, path: Path, name: str) -> bool:
        target = self._target(name)
        if not (target.exists() and os.path.samefile(path, target)):
            try:
                target.unlink(missing_ok=True)
                os.link(path.resolve(), target)
            except OSError:  # another file system, or one without hard links
                return False
        self._made[name] = _stamp(path)
        return True

    def _copied(self, path: Path, name: str) -> str:
        if not self._is_made(path, name):
            target = self._target(name)
            target.unlink(missing_ok=True)  # it may be a hard link: what it links to must not change
            shutil.copyfile(path, target)
        self._made[name] = _stamp(path)
        return link("media", *name.split("/"))

    def _decoded(self, path: Path, name: str, subtype: str, clip: str) -> str:
        if not self._is_made(path, name):
            target = self._target(name)
            target.unlink(missing_ok=True)
            audio, rate = media.read_audio(path)
            peak = float(np.abs(audio).max(initial=0.0))
            if peak > 1:  # FLAC cannot hold it: one gain for both ears keeps their difference
                audio = audio / peak
                self._note("sound above full scale, turned down for the player", clip)
            media.write_audio(target, audio, rate, subtype="PCM_24" if subtype in WIDE else "PCM_16")
        self._made[name] = _stamp(path)
        return link("media", *name.split("/"))

    def _is_made(self, path: Path, name: str) -> bool:
        return self._before.get(name) == _stamp(path) and (self.folder / name).is_file()


def _stamp(path: Path) -> list:
    """What the file is known by: where, how long, when written."""
    found = path.stat()
    return [os.fspath(path.resolve()).encode("utf-8", "replace").decode(), found.st_size, found.st_mtime_ns]


def _name(folder: str, clip: str, suffix: str) -> str:
    return f"{folder}/{_part(clip)}{suffix}"


def _part(text: str) -> str:
    """A name as far as file names go, with a checksum where that changed it."""
    short = slug(text)
    return short if short == text else f"{short}-{zlib.crc32(text.encode('utf-8', 'replace')):08x}"


def _plays_as_it_is(path: Path) -> tuple[bool, str]:
    """Whether browsers play the file in both ears, and its sample format."""
    if path.suffix.lower() not in (".flac", ".wav"):
        return False, "FLOAT"
    try:
        info = soundfile.info(str(path))
    except RuntimeError:
        return False, "FLOAT"
    return info.channels <= 2 and info.subtype in ("PCM_16", "PCM_24"), info.subtype
