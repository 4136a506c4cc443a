"""Tables that commands write into Markdown files, between marks, with the command and the commit."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bi_audio_dataset.schema import UserError


def marks(name: str) -> tuple[str, str]:
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def check_part(path: Path | None, name: str) -> None:
    """UserError where a file, if one is given, lacks the marks of `name`: before the table is made."""
    begin, end = marks(name)
    text = path.read_text() if path is not None and path.is_file() else ""
    if path is not None and (begin not in text or end not in text):
        raise UserError(f"{path}: holds no {begin} ... {end}")


def publish(text: str, kept: Path, path: Path | None, name: str) -> None:
    """A finished table to stdout, to the file `kept`, and between the marks of `name` in `path` if given.
    UserError where one cannot be written."""
    print(text)
    try:
        kept.write_text(text)
        if path is not None:
            replace_part(path, name, text)
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be written ({error.strerror})") from error


def replace_part(path: Path, name: str, table: str) -> None:
    """Puts the table between the marks of `name` in a Markdown file. UserError where they are not there."""
    check_part(path, name)
    begin, end = marks(name)
    text = path.read_text()
    before, after = text.split(begin)[0], text.split(end)[1]
    path.write_text(f"{before}{begin}\n{table.rstrip()}\n{end}{after}")


def shown_command(script: str, arguments: Sequence[str]) -> str:
    """The command as typed, less where this machine keeps its folders."""
    short = [Path(a).name if Path(a).is_absolute() else a for a in arguments]
    return shlex.join(["python", script, *short])


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
