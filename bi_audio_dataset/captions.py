"""Captions in the form of BiAudio: `Visible sound: <...>, Invisible sound: <...>`."""

from __future__ import annotations

import re
from collections.abc import Sequence

NOTHING = "none"
_FORM = re.compile(r"Visible sound: (?P<visible>.*?), Invisible sound: (?P<invisible>.*)", re.DOTALL)


def compose(visible: Sequence[str], invisible: Sequence[str]) -> str:
    """The caption of a clip from noun phrases of what is on view and what is only heard.

    Phrases keep their order; a repeated phrase is named once; "none" stands where a side is empty.
    >>> compose(["a small brass bell"], [])
    'Visible sound: a small brass bell, Invisible sound: none'
    """
    return f"Visible sound: {_join(visible)}, Invisible sound: {_join(invisible)}"


def parse(caption: str) -> tuple[str, str]:
    """The two sides of a caption, '' for an empty one. ValueError if `compose` cannot have made it."""
    match = _FORM.fullmatch(caption.strip())
    if match is None:
        raise ValueError(f"expected 'Visible sound: ..., Invisible sound: ...', got '{caption}'")
    visible, invisible = match["visible"].strip(), match["invisible"].strip()
    return ("" if visible == NOTHING else visible), ("" if invisible == NOTHING else invisible)


def _join(phrases: Sequence[str]) -> str:
    kept = list(dict.fromkeys(phrase.strip() for phrase in phrases if phrase.strip()))
    if not kept:
        return NOTHING
    if len(kept) == 1:
        return kept[0]
    return ", ".join(kept[:-1]) + " and " + kept[-1]
