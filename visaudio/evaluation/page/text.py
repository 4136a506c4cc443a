"""Text for a page: file names, captions and ids come from anywhere, so each is made safe here, once."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

# what HTML forbids in text, and what turns the direction of the text that follows
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")
MINUS = "\N{MINUS SIGN}"
NOTHING = "\N{EM DASH}"


def plain(value: object) -> str:
    """As text that UTF-8 can hold, without control characters: they become U+FFFD."""
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def escape(value: object) -> str:
    """For the text of an element or a quoted attribute."""
    return html.escape(plain(value), quote=True)


def tag(name: str, *children: str, **attributes: object) -> str:
    """An element. children: HTML as it is (escape text first). Attributes are escaped; None leaves one out,
    True writes its name alone; `class_` and `for_` lose the bar, other bars become hyphens."""
    parts = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        parts.append(key if value is True else f'{key}="{escape(value)}"')
    return f"<{' '.join(parts)}>{''.join(children)}</{name}>"


def script_json(value: Any) -> str:
    """JSON to stand inside <script>: nothing in it can end the element; nan and infinity become null."""
    text = json.dumps(_finite(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {plain(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return plain(value) if isinstance(value, str) else value


def number(value: float, digits: int, factor: float = 1.0) -> str:
    """The value times `factor`, with `digits` decimals and a real minus sign; a dash for nan."""
    if value is None or not math.isfinite(value):
        return NOTHING
    text = f"{value * factor:.{digits}f}"
    if text.startswith("-") and not text.strip("-0."):
        text = text[1:]
    return text.replace("-", MINUS)


def p_value(value: float) -> str:
    if value is None or not math.isfinite(value):
        return NOTHING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def slug(text: str, taken: Iterable[str] = (), longest: int = 60) -> str:
    """Letters, digits, dot, dash and bar, for a file name or an id of the page; not one of `taken`, in any
    case (some file systems fold it)."""
    base = re.sub(r"[^A-Za-z0-9._-]+", "-", plain(text)).strip(".-")[:longest] or "x"
    folded = {name.lower() for name in taken}
    name, count = base, 1
    while name.lower() in folded:
        count += 1
        name = f"{base}-{count}"
    return name


def link(*parts: str) -> str:
    """A relative address of a file."""
    return "/".join(quote(part) for part in parts)


def listed(names: Iterable[str], most: int = 5) -> str:
    """Names in one line, not more than `most`."""
    names = [plain(name) for name in names]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
