"""Settings from a YAML file and from `--set NAME=VALUE`, laid over a frozen config dataclass, strictly.

The dataclass holds every default; a name that it does not have is an error that tells the near ones, and so
is a value of another type. What numbers may be: limits.py. YAML is read as 1.2 has it: `off` is a word.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from bi_audio_dataset.schema import UserError

T = TypeVar("T")


def overlay(base: T, values: Mapping[str, Any], origin: str, path: str = "") -> T:
    """`base` with the named values in it. origin: where they come from, for messages.

    UserError for a name or a value that does not fit.
    """
    hints = typing.get_type_hints(type(base))
    changes = {}
    for name, value in values.items():
        where = f"{path}.{name}" if path else str(name)
        if name not in hints:
            raise UserError(f"{origin}: {unknown(where, str(name), hints)}")
        current = getattr(base, name)
        if dataclasses.is_dataclass(current):
            if not isinstance(value, Mapping):
                names = ", ".join(typing.get_type_hints(type(current)))
                raise UserError(f"{origin}: '{where}' is a group of settings ({names}), got {value!r}")
            changes[name] = overlay(current, value, origin, where)
        else:
            changes[name] = _convert(hints[name], value, f"{origin}: '{where}'")
    try:
        return dataclasses.replace(base, **changes)
    except UserError as error:
        raise UserError(f"{origin}: {error}") from None


def unknown(where: str, name: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"expected one of {', '.join(known)}"
    return f"there is no setting '{where}': {hint}"


def read_file(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds; of an empty one {}. UserError if it is none."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"'{path}' is no text, expected YAML") from None
    found = _parse(text, f"'{path}'")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise UserError(f"'{path}' holds no settings: expected lines such as 'clip_s: 8'")
    return found


def read_set(texts: Iterable[str]) -> dict[str, Any]:
    """["selection.silent.level_dbfs=-40", ...] -> nested mappings. UserError if one is named twice."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        names = name.strip().split(".")
        if not equals or not all(names):
            raise UserError(f"--set {text}: expected NAME=VALUE, such as selection.silent.level_dbfs=-40")
        group = found
        for part in names[:-1]:
            group = group.setdefault(part, {})
            if not isinstance(group, dict):
                raise UserError(f"--set: '{name}' lies inside of what is set already: choose one")
        if names[-1] in group:
            raise UserError(f"--set: '{name.strip()}' is set twice: choose one")
        group[names[-1]] = _parse(value, f"--set {name.strip()}")
    return found


def leaves(values: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Dotted names of what nested mappings set."""
    for name, value in values.items():
        where = f"{path}.{name}" if path else str(name)
        if isinstance(value, Mapping):
            yield from leaves(value, where)
        else:
            yield where


def _parse(text: str, where: str) -> Any:
    import yaml

    try:
        return yaml.load(text, Loader=_loader())
    except yaml.YAMLError as error:
        raise UserError(f"{where} is no valid YAML: {' '.join(str(error).split())}") from None


def _loader() -> type:
    import yaml

    class Loader(yaml.SafeLoader):
        """Plain values; a name that stands twice in one mapping is an error, not the last one's."""

        def construct_mapping(self, node, deep=False):
            names = [self.construct_object(key, deep=True) for key, _ in node.value]
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                why = f"'{twice}' is set twice"
                raise yaml.constructor.ConstructorError(None, None, why, node.start_mark)
            return super().construct_mapping(node, deep)

    # YAML 1.1 takes yes, no, on and off for booleans; "off" is what a filter may be
    kept = {
        sign: [(tag, rule) for tag, rule in rules if tag != "tag:yaml.org,2002:bool"]
        for sign, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.yaml_implicit_resolvers = kept
    booleans = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:bool", booleans, list("tTfF"))
    return Loader


def _convert(hint: Any, value: Any, where: str) -> Any:
    """The value as the field's type, or UserError."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for option in options:
        if option is type(None):
            if value is None:
                return None
        elif typing.get_origin(option) is tuple:
            kinds = typing.get_args(option)
            if isinstance(value, (list, tuple)) and len(value) == len(kinds):
                return tuple(_convert(kind, part, where) for kind, part in zip(kinds, value, strict=True))
        elif (found := _plain(option, value)) is not None:
            return found
    raise UserError(f"{where} is {value!r}, expected {' or '.join(map(_words, options))}")


def _plain(kind: type, value: Any) -> Any:
    """None if it does not fit."""
    if isinstance(value, bool) or kind is bool:
        return value if isinstance(value, bool) and kind is bool else None
    if kind is float and isinstance(value, str):  # YAML 1.1 reads 1e-4 as a word
        try:
            return float(value)
        except ValueError:
            return None
    if kind is float and isinstance(value, int):
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, kind) else None


def _words(kind: Any) -> str:
    if typing.get_origin(kind) is tuple:
        return f"{len(typing.get_args(kind))} numbers in brackets"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a word or text"}
    return names.get(kind, "null")
