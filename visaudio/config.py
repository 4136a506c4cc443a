"""Strict configuration: frozen dataclasses filled from YAML and key=value overrides.

The dataclass is the schema and holds every default. A key that it does not have is an error that
names the near ones; so is a value of another type. OmegaConf reads the files, merges the layers and
resolves ${...}. A YAML file may start from another with `base: other.yaml` (relative to itself), so
that an ablation is a diff of a few lines.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bi_audio_dataset.schema import UserError

T = TypeVar("T")
TYPE_KEY = "type"  # names the class where a field may hold one of several dataclasses


def to_dict(config: Any) -> dict[str, Any]:
    """Nested dataclasses -> plain dicts, lists and scalars that JSON and YAML can hold."""
    hints = typing.get_type_hints(type(config))
    out = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        out[field.name] = _plain(value)
        if dataclasses.is_dataclass(value) and len(_dataclasses_of(hints[field.name])) > 1:
            out[field.name] = {TYPE_KEY: type(value).__name__, **out[field.name]}
    return out


def from_dict(cls: type[T], values: Mapping[str, Any], *, defaults: T | None = None, where: str = "") -> T:
    """A `cls` from a mapping, strictly; fields that are absent come from `defaults` or the class."""
    if not isinstance(values, Mapping):
        raise UserError(f"{where or 'config'}: expected a group of keys, got {values!r}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    kwargs = {}
    for key, value in values.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in fields:
            raise UserError(_unknown_key(path, str(key), list(fields), where))
        current = getattr(defaults, key) if defaults is not None else None
        kwargs[key] = _convert(hints[key], value, current, path)
    try:
        if defaults is not None:
            return dataclasses.replace(defaults, **kwargs)
        return cls(**kwargs)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where or cls.__name__}: {error}") from error


def load_config(
    schema: type[T] | T,
    path: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> T:
    """Defaults of `schema` (a dataclass, or an instance that holds them) < YAML at `path` < overrides.

    overrides: "a.b=value" with YAML values, e.g. "network.hidden_dim=256"; "a.0.b=value" reaches into a list.
    """
    values = read_layers(path, overrides)
    if isinstance(schema, type):
        return from_dict(schema, values)
    return from_dict(type(schema), values, defaults=schema)


def read_layers(path: str | Path | None = None, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """YAML at `path` (and its bases) < overrides, merged and resolved, not yet checked."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for item in overrides:
        if "=" not in item or not item.split("=", 1)[0].strip():
            raise UserError(f"override {item!r} is not of the form key=value")
    try:
        merged = OmegaConf.create(_read_yaml(Path(path)) if path else {})
        merged.merge_with_dotlist(list(overrides))
        return OmegaConf.to_container(merged, resolve=True)
    except UserError:
        raise
    except (OmegaConfBaseException, ValueError, TypeError) as error:
        said = " ".join(str(error).split())
        if not isinstance(error, OmegaConfBaseException):  # a name where a list has numbers, or the reverse
            said = f"a list takes numbers, as in data.0.path=FOLDER, and stands for no group of keys ({said})"
        raise UserError(f"config {path or ''} {' '.join(overrides)}: {said}") from error


def _read_yaml(path: Path, seen: tuple[Path, ...] = ()) -> Any:
    """One YAML file over its `base`, if it names one."""
    import yaml
    from omegaconf import DictConfig, OmegaConf

    if path.resolve() in seen:
        raise UserError(f"config {path} is its own base: {' -> '.join(p.name for p in seen)}")
    try:
        loaded = OmegaConf.load(path)
    except OSError as error:
        raise UserError(f"config {path}: cannot be read ({error.strerror or error})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"config {path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(loaded, DictConfig):
        raise UserError(f"config {path}: expected keys at the top level, got a list")
    base = loaded.pop("base", None)
    if base is None:
        return loaded
    return OmegaConf.merge(_read_yaml(path.parent / str(base), (*seen, path.resolve())), loaded)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    return value


def _unknown_key(path: str, key: str, known: list[str], where: str) -> str:
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known keys: {', '.join(known)}"
    return f"unknown key {path!r} in {where or 'the config'}; {hint}"


def _options(hint: Any) -> tuple[Any, ...]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def _dataclasses_of(hint: Any) -> list[type]:
    return [o for o in _options(hint) if dataclasses.is_dataclass(o)]


def _convert(hint: Any, value: Any, current: Any, path: str) -> Any:
    """`value` as `hint`, or a UserError that says what was expected at `path`."""
    options = _options(hint)
    if hint is Any:
        return value
    if value is None and type(None) in options:
        return None
    groups = _dataclasses_of(hint)
    if groups and isinstance(value, Mapping):
        return _convert_group(groups, dict(value), current, path)
    for option in options:
        ok, result = _convert_one(option, value, path)
        if ok:
            return result
    names = " or ".join(_name(o) for o in options)
    raise UserError(f"{path}: expected {names}, got {value!r} ({type(value).__name__})")


def _convert_group(groups: list[type], value: dict[str, Any], current: Any, path: str) -> Any:
    """A nested dataclass; among several, `type` names it, else the present default's class is kept."""
    cls = type(current) if type(current) in groups else groups[0]
    if len(groups) > 1 and TYPE_KEY in value:
        named = {g.__name__: g for g in groups}
        wanted = value.pop(TYPE_KEY)
        if wanted not in named:
            raise UserError(f"{path}.{TYPE_KEY}: expected one of {', '.join(named)}, got {wanted!r}")
        cls = named[wanted]
    return from_dict(cls, value, defaults=current if type(current) is cls else None, where=path)


def _convert_one(option: Any, value: Any, path: str) -> tuple[bool, Any]:
    origin, args = typing.get_origin(option), typing.get_args(option)
    if origin is typing.Literal:
        return value in args, value
    if origin in (tuple, list) or option in (tuple, list):
        if not isinstance(value, (list, tuple)):
            return False, None
        kind = origin or option
        if kind is tuple and args and Ellipsis not in args:
            if len(args) != len(value):
                return False, None
            pairs = enumerate(zip(args, value, strict=True))
            return True, tuple(_convert(a, v, None, f"{path}[{i}]") for i, (a, v) in pairs)
        item = args[0] if args else Any
        return True, kind(_convert(item, v, None, f"{path}[{i}]") for i, v in enumerate(value))
    if origin is dict or option is dict:
        if not isinstance(value, Mapping):
            return False, None
        item = args[1] if args else Any
        return True, {str(k): _convert(item, v, None, f"{path}.{k}") for k, v in value.items()}
    if option is bool:
        return isinstance(value, bool), value
    if option is int:
        if isinstance(value, float) and value.is_integer():  # YAML writes 1e5 as a float
            return True, int(value)
        return isinstance(value, int) and not isinstance(value, bool), value
    if option is float:
        if isinstance(value, str):  # YAML 1.1 reads 1e-4 as a string
            try:
                return True, float(value)
            except ValueError:
                return False, None
        return isinstance(value, (int, float)) and not isinstance(value, bool), _as_float(value)
    if option is str:
        return isinstance(value, str), value
    if option is Path:
        return isinstance(value, (str, Path)), Path(value) if isinstance(value, (str, Path)) else None
    return isinstance(option, type) and isinstance(value, option), value


def _as_float(value: Any) -> Any:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _name(option: Any) -> str:
    if typing.get_origin(option) is typing.Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(option)))
    return "null" if option is type(None) else getattr(option, "__name__", str(option))
