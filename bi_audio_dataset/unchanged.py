"""Whether a part, and the files that it was made of, are still as the journal has them.

The journal's row of a recording has the part's "size" in bytes, and the source's "files" as they were when
they were fetched: {"video": [name below the source's folder, bytes, mtime in ns], "audio": ...}.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bi_audio_dataset.sound import file_digest
from bi_audio_dataset.sources.base import Recording, Source
from bi_audio_dataset.texts import folders_of


def files_of(recording: Recording, source: Source, workdir: Path) -> dict[str, list]:
    """The recording's files as they are, less those that the source has put under workdir."""
    paths = {"video": Path(recording.video_path), "audio": Path(recording.audio_path)}
    if paths["audio"] == paths["video"]:
        del paths["audio"]
    found = {}
    for name, path in paths.items():
        if path.is_file() and not path.is_relative_to(workdir):
            stat = path.stat()
            found[name] = [_below(path, folders_of(source)), stat.st_size, stat.st_mtime_ns]
    return found


def replaced(row: dict[str, Any], source: Source) -> bool:
    """Whether a file of the recording is another one by now. A file that is no longer there is not: its clips
    are made. One with another time and the same size is read, and held against the manifest's SHA-256."""
    for name, (below, size, mtime_ns) in row.get("files", {}).items():
        path = next((p for p in _places(below, folders_of(source)) if p.is_file()), None)
        if path is None:
            continue
        stat = path.stat()
        if stat.st_size != size:
            return True
        if stat.st_mtime_ns != mtime_ns and file_digest(path) != row.get("input", {}).get(name):
            return True
    return False


def _below(path: Path, folders: list[Path]) -> str:
    for folder in folders:
        if path.is_relative_to(folder):
            return path.relative_to(folder).as_posix()
    return str(path.absolute())


def _places(name: str, folders: list[Path]) -> list[Path]:
    return [folder / name for folder in folders] or [Path(name)]
