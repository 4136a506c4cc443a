"""Tables that commands write into Markdown files, between marks, with the command and the commit."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bi_audio_dataset.schema import UserError
from visaudio.stored import write_whole


def marks(name: str) -> tuple[str, str]:
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def check_part(path: Path | None, name: str) -> None:
    """UserError where a file, if one is given, lacks the marks of `name`: before the table is made."""
    if path is not None:
        _around(path, name)


def publish(text: str, kept: Path | None, path: Path | None, name: str) -> None:
    """A finished table to stdout and, where given, to the file `kept` and between the marks of `name`
    in the Markdown file `path`. UserError where one cannot be written, or the marks are not there."""
    print(text)
    if kept is not None:
        write_whole(kept, text.encode())
    if path is not None:
        before, after = _around(path, name)
        begin, end = marks(name)
        write_whole(path, f"{before}{begin}\n{text.rstrip()}\n{end}{after}".encode())


def _around(path: Path, name: str) -> tuple[str, str]:
    """What stands before and after the marks of `name`. UserError where they are not there."""
    begin, end = marks(name)
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    if begin not in text or end not in text:
        raise UserError(f"{path}: holds no {begin} ... {end}")
    return text.split(begin)[0], text.split(end)[1]


def shown_command(script: str, arguments: Sequence[str]) -> str:
    """The command as typed, less where this machine keeps its folders."""
    return shlex.join(["python", script, *map(_short, arguments)])


def _short(argument: str) -> str:
    """Of an absolute path the last part, also in NAME=PATH."""
    name, equals, path = argument.rpartition("=")
    return name + equals + (Path(path).name if Path(path).is_absolute() else path)


def commit(folder: Path) -> str:
    """Of the checkout that holds `folder`, short; 'unknown' outside one."""
    try:
        command = ["git", "rev-parse", "--short", "HEAD"]
        found = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
