"""Opening and replacing files: what the operating system or FFmpeg says, as one line for a user."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import av

from bi_audio_dataset.schema import UserError


def check_input(path: str | os.PathLike) -> Path:
    """`path` as a readable, non-empty file.

    Raises:
        UserError: missing, a folder, empty, or not readable.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: is a folder, expected a media file")
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path}: no permission to read the file")
    return path


def open_input(path: Path) -> av.container.InputContainer:
    """`path` opened by FFmpeg. Absolute, since FFmpeg takes what stands before a colon for a protocol."""
    return av.open(str(path.absolute()))


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns FFmpeg's and the system's errors while reading `path` into a UserError."""
    try:
        yield
    except UserError:
        raise
    except (av.error.FFmpegError, OSError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise UserError(f"{path}: cannot be read as media ({reason}); is it damaged or cut short?") from error


def _write_failure(path: Path, error: Exception) -> UserError:
    code = getattr(error, "errno", None)
    if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return UserError(f"{path}: cannot be written, no space left; free some or write elsewhere")
    reason = " ".join(str(getattr(error, "strerror", None) or error).split())
    return UserError(f"{path}: cannot be written ({reason})")


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path beside `path`, same suffix; renames it to `path` when the block ends well.

    On any error the temporary file is removed and `path` is as before.

    Raises:
        UserError: the folder is missing or not writable, the disk is full, or the encoder failed.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: is a folder, expected the name of a file to write")
    if not path.parent.is_dir():
        raise UserError(f"{path.parent}: no such folder to write to")
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        with temporary.open("wb"):  # fails here, with the system's own reason, rather than inside an encoder
            pass
        yield temporary
        os.replace(temporary, path)
    except UserError:
        raise
    except (av.error.FFmpegError, OSError) as error:
        raise _write_failure(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
