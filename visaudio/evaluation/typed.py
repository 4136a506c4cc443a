"""Whether plain values, read from a file, are what a dataclass says of its fields."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}
LARGEST = 1 << 1000  # whole numbers in JSON have no end, a float's range has


def fault(value: Any, hint: Any) -> str:
    """Where a value is not of its type, and what was expected there ("clips[3].id: expected
    text"); "" if it is.

    Known: dataclasses, Mapping[K, V], tuple[T, ...], unions, Any and the types of WORDS. A whole number is a
    number; true is neither.
    """
    found = _fault(value, hint)
    return "" if found is None else f"{found[0].lstrip('.') or 'it'}: expected {found[1]}"


def _fault(value: Any, hint: Any) -> tuple[str, str] | None:
    """(place below this value, what was expected there)."""
    if hint is Any:
        return None
    if is_dataclass(hint):
        if not isinstance(value, hint):
            return "", f"a {hint.__name__}"
        return _first((f".{name}", getattr(value, name), kind) for name, kind in _hints(hint).items())
    origin, kinds = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        faults = [_fault(value, kind) for kind in kinds]
        return None if None in faults else faults[0]
    if origin is tuple:
        if not isinstance(value, tuple):
            return "", "a list"
        return _first((f"[{place}]", item, kinds[0]) for place, item in enumerate(value))
    if origin is Mapping:
        if not isinstance(value, Mapping):
            return "", "an object"
        return _first((f".{key}", item, kinds[1]) for key, item in value.items())
    if hint is type(None):
        return None if value is None else ("", "null")
    if hint is float and isinstance(value, int) and abs(value) > LARGEST:
        return "", "a smaller number"
    fitting = (int, float) if hint is float else hint
    if isinstance(value, fitting) and (hint is bool or not isinstance(value, bool)):
        return None
    return "", WORDS[hint]


def _first(parts) -> tuple[str, str] | None:
    for place, value, hint in parts:
        if (found := _fault(value, hint)) is not None:
            return place + found[0], found[1]
    return None


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)
