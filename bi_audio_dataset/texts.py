"""Texts that go into a manifest or a recipe: without what belongs to one machine or one moment."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

#: An absolute path in a text, quoted (then it may hold spaces) or not, but not the slashes of an address.
_PATH = re.compile(
    r"(?<=')/[^'\n]+(?=')|(?<=\")/[^\"\n]+(?=\")|(?<![\w:/.])(?:/[^\s/'\"]+){2,}/?|\b[A-Za-z]:\\[^\s'\"]+"
)
#: Where Python shows an object without a name of its own.
_MEMORY = re.compile(r" at 0x[0-9a-fA-F]+")


def without_paths(value: Any) -> Any:
    """A text, or plain values with texts in them, of whose absolute paths only the last part is left."""
    if isinstance(value, str):
        return _PATH.sub(lambda found: re.split(r"[/\\]", found[0].rstrip("/\\"))[-1], value)
    if isinstance(value, dict):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_paths(item) for item in value]
    return value


def without_places(text: str, folders: Iterable[str | os.PathLike] = ()) -> str:
    """A message as any machine would give it: files are named from these folders on, relative ones too; of
    other absolute paths the last part is left; addresses in memory go."""
    given = {str(folder).rstrip("/") for folder in folders} - {".", ""}
    text = _from(text, {os.path.abspath(folder) for folder in given})
    return _MEMORY.sub("", _from(without_paths(text), {f for f in given if not os.path.isabs(f)}))


def _from(text: str, folders: Iterable[str]) -> str:
    for name in sorted(folders, key=len, reverse=True):
        quoted = re.escape(name)
        text = re.sub(rf"(?<![\w.\-/]){quoted}/+(?=[^\s'\"])", "", text)
        text = re.sub(rf"(['\"]){quoted}/*\1", "the folder", text)
    return text


def folders_of(source: Any) -> list[Path]:
    """The folders that a source, or one that it wraps, is told to read."""
    found = []
    for value in getattr(source, "__dict__", {}).values():
        if isinstance(value, Path):
            found.append(value)
        elif hasattr(value, "fetch"):
            found += folders_of(value)
    return found
