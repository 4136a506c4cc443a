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
from typing import IO, Any
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
#: DIR/.work/cache: parts that were fetched from elsewhere to be looked at.
CACHE = "cache"
#: What a worker leaves beside the parts for DIR/review/evidence; `build` brings it there.
EVIDENCE = ".evidence.npz"
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
            with part_file(name) as handle:
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
        found = self._listing()
        return {name: int(info["size"] or 0) for name, info in found.items() if name.endswith(suffix)}

    def _listing(self) -> dict[str, dict[str, Any]]:
        """File name -> what a remote file system says of it."""
        fs, root = self._fs()
        with self._told():
            fs.invalidate_cache(root)
            try:
                found = fs.ls(root, detail=True)
            except FileNotFoundError:
                return {}
        return {info["name"].rstrip("/").rpartition("/")[2]: info for info in found}

    def stamps(self, suffix: str = ".parquet") -> dict[str, str]:
        """File name -> a text that is another once the file is replaced, in one listing."""
        if not self.remote:
            try:
                with os.scandir(self.address) as found:
                    stats = {e.name: e.stat() for e in found if e.name.endswith(suffix)}
            except FileNotFoundError:
                return {}
            return {name: f"{stat.st_mtime_ns}-{stat.st_size}" for name, stat in stats.items()}
        found = {name: info for name, info in self._listing().items() if name.endswith(suffix)}
        texts = {name: repr(sorted((key, str(info[key])) for key in info)) for name, info in found.items()}
        return {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in texts.items()}

    def fetch(self, name: str, stamp: str, cache: Path) -> Path:
        """A file of these as a local one. One from elsewhere is downloaded once for each stamp, and then lies
        in `cache`, whole or not at all."""
        if not self.remote:
            return Path(self.address, name)
        path = cache / f"{name}.{stamp}"
        if not path.exists():
            cache.mkdir(parents=True, exist_ok=True)
            beside = cache / f"{uuid.uuid4().hex[:12]}.tmp"
            try:
                with part_file(f"{self.address}/{name}") as there, open(beside, "wb") as here:
                    shutil.copyfileobj(there, here, 1 << 20)
                os.replace(beside, path)
            finally:
                beside.unlink(missing_ok=True)
            for other in cache.iterdir():  # as it was before it was replaced
                if other != path and other.name.rpartition(".")[0] == name:
                    other.unlink(missing_ok=True)
        return path

    def put(self, name: str, content: bytes, scratch: Path | None = None) -> None:
        """A file beside the parts; it appears as they do."""
        with self._writing(name, scratch) as path:
            path.write_bytes(content)

    def take(self, name: str, to: Path) -> None:
        """Move a file from beside the parts to a local path; killed in between, it is still there."""
        beside = to.with_name(f"{to.name}.{uuid.uuid4().hex[:12]}.tmp")
        with part_file(f"{self.address}/{name}") as handle:
            beside.write_bytes(handle.read())
        os.replace(beside, to)
        self._remove(name)

    def remove(self, recording_id: str) -> None:
        """Remove a recording's part, if there is one."""
        self._remove(part_name(recording_id))

    def clear(self) -> None:
        """Remove the parts and what is this build's own beside them; never another file."""
        for suffix in (".parquet", ".tmp", EVIDENCE):
            for name in self.sizes(suffix):
                self._remove(name)
        self._remove(_CLAIM)

    def _remove(self, name: str) -> None:
        if not self.remote:
            Path(self.address, name).unlink(missing_ok=True)
            return
        fs, root = self._fs()
        with self._told(), contextlib.suppress(FileNotFoundError):
            fs.invalidate_cache(root)
            if fs.exists(f"{root}/{name}"):  # the Hub refuses a commit that deletes what is not there
                fs.rm_file(f"{root}/{name}")

    def _fs(self) -> tuple[Any, str]:
        """(file system, path of the folder in it). UserError where no such file system can be had."""
        with self._told():
            import fsspec

            try:
                fs, root = fsspec.core.url_to_fs(self.address)
            except ImportError as error:
                name = self.address.partition("://")[0]
                remedy = "pip install 'visaudio[s3]'" if name in ("s3", "s3a") else "install it"
                raise UserError(f"{name}:// needs a package that is missing ({error}): {remedy}") from None
        return fs, root.rstrip("/")

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Whatever a remote file system raises, as one line that names the address."""
        try:
            yield
        except (UserError, MemoryError):
            raise
        except Exception as error:
            if type(error).__module__.partition(".")[0] == "pyarrow":
                raise  # what came over is no Parquet file, which is not the address's fault
            why = " ".join(str(error).split())[:200] or type(error).__name__
            why = f"not found: {why}" if isinstance(error, FileNotFoundError) else why
            raise UserError(
                f"'{self.address}' cannot be used ({why}): check the address and the access to it"
            ) from error


@contextlib.contextmanager
def part_file(location: str | os.PathLike, block: int | None = None) -> Iterator[IO[bytes]]:
    """A part opened for reading, wherever it lies. UserError where a remote one cannot be read. block: bytes
    that are read ahead from a remote one, if not as many as its file system likes."""
    folder, _, name = str(location).rpartition("/")
    parts = Parts(folder)
    if not parts.remote:
        with open(location, "rb") as handle:
            yield handle
        return
    fs, root = parts._fs()
    with parts._told():
        fs.invalidate_cache(root)  # another process may have replaced it since it was listed
        with fs.open(f"{root}/{name}", "rb", block_size=block) as handle:
            yield handle


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
