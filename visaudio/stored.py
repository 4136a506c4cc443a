"""Files that commands leave for themselves and each other: written whole or not at all, and one line for what
cannot be written or read."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bi_audio_dataset.schema import UserError, reason_of


def write_whole(path: Path, data: bytes) -> None:
    """Nothing half-written is ever found under `path`. UserError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = error.strerror or error
        raise UserError(f"{path.parent}: cannot be made a folder to write to ({why})") from error
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with writing(path):
            partial.write_bytes(data)
            partial.replace(path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """An OSError within becomes a UserError that names what cannot be written."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error


def holds(path: Path, data: bytes) -> bool:
    """Whether the file is there, with these bytes in it. UserError where it cannot be read."""
    try:
        return path.read_bytes() == data
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


def read_object(path: Path, advice: str) -> dict[str, Any] | None:
    """The JSON object in a file; None where there is none. UserError, with the advice, for anything else."""
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); {advice}") from error
    except (ValueError, RecursionError) as error:
        reason = reason_of(error, 120)
        raise UserError(f"{path}: is damaged, no JSON ({reason}); {advice}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: is damaged, expected a JSON object; {advice}")
    return found
