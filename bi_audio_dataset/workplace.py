"""Where a build keeps what is not finished: names below DIR/.work, and the part files, here or elsewhere.

A part appears whole or not at all. On a disk, a mounted one too, it is written beside under a name of its
own, flushed, then renamed. An object store (s3://, gs://, hf://, memory://, ...) shows an object when its
upload is complete: it is written on the local disk, and the put is the atomic step. On any other fsspec file
system it is put beside, then moved.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bi_audio_dataset.schema import UserError

WORK = ".work"
PARTS = "parts"
JOURNAL = "journal.jsonl"
#: An empty file: finalize was told to keep the clips.
KEPT = "kept"
#: Where the parts lie, if not in DIR/.work/parts.
PARTS_AT = "parts_at"
#: File systems of fsspec on which a put is all or nothing, and an object cannot be renamed.
PUT_IS_ATOMIC = frozenset("s3 s3a gs gcs abfs abfss az adl hf memory oss oci r2 swift tos".split())
#: Most file systems take names of 255 bytes; a suffix and the mark of an unfinished file come on top.
LONGEST_STEM = 180
_CLAIM = "build.json"


def part_name(recording_id: str) -> str:
    """The file name of a recording's part: any id fits, if need be by its digest."""
    return f"{file_stem(recording_id)}.parquet"


def file_stem(name: str) -> str:
    """A file name for any text, different for each: percent-encoded, with a digest in place of what would
    be too long for a file system (three bytes of a Chinese sign are nine then)."""
    quoted = quote(name, safe="")
    if len(quoted) <= LONGEST_STEM:
        return quoted
    return f"{quoted[: LONGEST_STEM - 60]}~{hashlib.sha256(name.encode()).hexdigest()}"


def is_digest(stem: str) -> bool:
    """Whether `file_stem` gave this instead of a name that was too long."""
    return len(stem) > LONGEST_STEM


def part_path(parts: Path, recording_id: str) -> Path:
    """The file of a recording's clips."""
    return parts / part_name(recording_id)


@dataclass(frozen=True)
class Parts:
    """The part files of one build. address: a folder, or an fsspec URL of one. Pickles; holds no
    connection."""

    address: str

    @classmethod
    def of(cls, work: Path) -> Parts:
        """Those of a build, by its DIR/.work."""
        try:
            return cls((work / PARTS_AT).read_text(encoding="utf-8").strip())
        except FileNotFoundError:
            return cls.inside(work)

    @classmethod
    def inside(cls, work: Path) -> Parts:
        """Those in DIR/.work itself, the default."""
        return cls(os.path.abspath(work / PARTS))

    @classmethod
    def parse(cls, text: str) -> Parts:
        """What a user names: a folder (made absolute) or a URL."""
        text = text.strip()
        if text.startswith("file://"):
            text = text.removeprefix("file://")
        if not text:
            raise UserError(
                "the parts' address is empty: name a folder or an fsspec URL such as s3://b/parts"
            )
        return cls(text.rstrip("/") if "://" in text else os.path.abspath(text))

    @property
    def remote(self) -> bool:
        return "://" in self.address

    def locate(self, recording_id: str) -> str:
        """Path or URL of a recording's part; `part_file` opens it."""
        return f"{self.address}/{part_name(recording_id)}"

    def prepare(self) -> None:
        """Make the folder, and remove what a kill inside a write has left."""
        if self.remote:
            fs, root = self._fs()
            with self._told():
                if not _protocols(fs) & PUT_IS_ATOMIC:  # object stores have no folders
                    fs.makedirs(root, exist_ok=True)
        else:
            os.makedirs(self.address, exist_ok=True)
        for name in self.sizes(".tmp"):
            self._remove(name)

    def claim(self, settings: str) -> None:
        """Refuse an address that holds another build's parts, or files that no build has claimed; claim
        it."""
        name = f"{self.address}/{_CLAIM}"
        if _CLAIM in self.sizes(".json"):
            with part_file(name, "rb") as handle:
                found = handle.read().decode(errors="replace")
            if found != settings:
                raise UserError(f"'{self.address}' holds the parts of another build: choose another address")
            return
        if self.sizes():
            raise UserError(f"'{self.address}' holds .parquet files of no build: choose an empty address")
        with self._writing(_CLAIM, None) as path:
            path.write_text(settings, encoding="utf-8")

    @contextlib.contextmanager
    def writing(self, recording_id: str, scratch: Path | None = None) -> Iterator[Path]:
        """A local path to write to. When the block ends without an error the part is there, whole; a part
        that was there is replaced. scratch: where a part for elsewhere is written first."""
        with self._writing(part_name(recording_id), scratch) as path:
            yield path

    @contextlib.contextmanager
    def _writing(self, name: str, scratch: Path | None) -> Iterator[Path]:
        # a name of its own: on a cluster two nodes may for a while be at work on one recording
        beside_name = f"{name}.{uuid.uuid4().hex[:12]}.tmp"
        if not self.remote:
            beside = Path(self.address, beside_name)
            try:
                yield beside
                _flush(beside)
                os.replace(beside, Path(self.address, name))
            except BaseException:
                beside.unlink(missing_ok=True)
                raise
            return
        fs, root = self._fs()
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            local = Path(folder, "part")
            yield local
            with self._told():
                if _protocols(fs) & PUT_IS_ATOMIC:
                    fs.put_file(str(local), f"{root}/{name}")
                else:
                    fs.put_file(str(local), f"{root}/{beside_name}")
                    fs.mv(f"{root}/{beside_name}", f"{root}/{name}")

    def exists(self, recording_id: str) -> bool:
        if not self.remote:
            return os.path.exists(self.locate(recording_id))
        fs, root = self._fs()
        with self._told():
            fs.invalidate_cache(root)
            return bool(fs.exists(f"{root}/{part_name(recording_id)}"))

    def sizes(self, suffix: str = ".parquet") -> dict[str, int]:
        """File name -> bytes of all parts, in one listing."""
        if not self.remote:
            try:
                with os.scandir(self.address) as found:
                    return {e.name: e.stat().st_size for e in found if e.name.endswith(suffix)}
            except FileNotFoundError:
                return {}
        fs, root = self._fs()
        with self._told():
            fs.invalidate_cache(root)
            try:
                found = fs.ls(root, detail=True)
            except FileNotFoundError:
                return {}
        names = ((info["name"].rstrip("/").rpartition("/")[2], int(info["size"] or 0)) for info in found)
        return {name: size for name, size in names if name.endswith(suffix)}

    def remove(self, recording_id: str) -> None:
        """Remove a recording's part, if there is one."""
        self._remove(part_name(recording_id))

    def clear(self) -> None:
        """Remove the parts and what is this build's own beside them; never another file."""
        for suffix in (".parquet", ".tmp"):
            for name in self.sizes(suffix):
                self._remove(name)
        self._remove(_CLAIM)

    def _remove(self, name: str) -> None:
        if not self.remote:
            Path(self.address, name).unlink(missing_ok=True)
            return
        fs, root = self._fs()
        with self._told(), contextlib.suppress(FileNotFoundError):
            fs.rm_file(f"{root}/{name}")

    def _fs(self) -> tuple[Any, str]:
        """(file system, path of the folder in it). UserError where no such file system can be had."""
        with self._told():
            import fsspec

            fs, root = fsspec.core.url_to_fs(self.address)
        return fs, root.rstrip("/")

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Whatever a remote file system raises, as one line that names the address."""
        try:
            yield
        except (UserError, MemoryError, FileNotFoundError):
            raise
        except Exception as error:
            why = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(
                f"'{self.address}' cannot be used ({why}): check the address, the access and that fsspec's "
                "package for it is installed"
            ) from error


def part_file(location: str | os.PathLike, mode: str = "rb"):
    """A context manager that opens a part, wherever it lies."""
    if "://" in str(location):
        import fsspec

        return fsspec.open(str(location), mode)
    return open(location, mode)


def clear(work: Path) -> None:
    """Remove DIR/.work, and the parts if they lie elsewhere. Killed in between, it may be called again."""
    parts = Parts.of(work)
    if parts != Parts.inside(work):
        parts.clear()
    shutil.rmtree(work, ignore_errors=True)


def _flush(path: Path) -> None:
    """On the disk before it is renamed: the journal, which is flushed too, must not outlive it."""
    with open(path, "rb") as handle:
        os.fsync(handle.fileno())


def _protocols(fs: Any) -> set[str]:
    return {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
