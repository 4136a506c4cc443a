"""Captions in the form of BiAudio: `Visible sound: <...>, Invisible sound: <...>`.

`compose` makes them from noun phrases, `parse` takes them apart and is strict, `problem` says in words why a
text is none, and `tidy` brings what a language model wrote around a caption (quotes, a code fence, a
preamble) off it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

NOTHING = "none"
MAX_SIDE_CHARS = 400
_FORM = re.compile(r"Visible sound: (?P<visible>.+?), Invisible sound: (?P<invisible>.+)")
_LABEL = re.compile(r"\b(?:in)?visible sounds?\s*:", re.IGNORECASE)
# what models write for an empty side, in the place of NOTHING
_EMPTY = re.compile(r"(?:none|nothing|n/?a|no (?:audible |other )?sounds?)", re.IGNORECASE)
_LOOSE = re.compile(
    r"visible sounds?\s*:\s*(?P<visible>.*?)[\s,;.]*\binvisible sounds?\s*:\s*(?P<invisible>.*)",
    re.IGNORECASE | re.DOTALL,
)


def compose(visible: Sequence[str], invisible: Sequence[str]) -> str:
    """The caption of a clip from noun phrases of what is on view and what is only heard.

    Phrases keep their order; a repeated phrase is named once; "none" stands where a side is empty.
    >>> compose(["a small brass bell"], [])
    'Visible sound: a small brass bell, Invisible sound: none'
    """
    return f"Visible sound: {_join(visible)}, Invisible sound: {_join(invisible)}"


def parse(caption: str) -> tuple[str, str]:
    """The two sides of a caption, '' for an empty one. ValueError if `compose` cannot have made it."""
    reason = problem(caption)
    if reason is not None:
        raise ValueError(f"expected 'Visible sound: ..., Invisible sound: ...', got '{caption}': {reason}")
    match = _FORM.fullmatch(caption)
    visible, invisible = match["visible"], match["invisible"]
    return ("" if visible == NOTHING else visible), ("" if invisible == NOTHING else invisible)


def problem(caption: object) -> str | None:
    """Why a text is no caption, as a short phrase; None if it is one.

    Strict: one line, the two labels once each and spelt so, both sides with text ("none" where there is
    nothing) that is at most MAX_SIDE_CHARS long, without brackets, spare spaces or a final full stop.
    """
    if not isinstance(caption, str):
        return f"a text is expected, got {type(caption).__name__}"
    if "\n" in caption or "\r" in caption:
        return "it has more than one line"
    match = _FORM.fullmatch(caption)
    if match is None:
        return "it is not of the form 'Visible sound: ..., Invisible sound: ...'"
    for name in ("visible", "invisible"):
        side = match[name]
        if side != " ".join(side.split()):
            return f"the {name} side has spare spaces"
        if _LABEL.search(side):
            return f"a label is repeated inside the {name} side"
        if not any(letter.isalnum() for letter in side):
            return f"the {name} side says nothing: write '{NOTHING}'"
        if side != NOTHING and _EMPTY.fullmatch(side):
            return f"an empty side is written '{NOTHING}', not '{side}'"
        if any(sign in side for sign in "<>[]{}|"):
            return f"the {name} side holds brackets"
        if side.endswith((".", ",", ";")):
            return f"the {name} side ends with '{side[-1]}'"
        if len(side) > MAX_SIDE_CHARS:
            return f"the {name} side has {len(side)} characters, at most {MAX_SIDE_CHARS} are taken"
    return None


def tidy(raw: str) -> str:
    """A model's answer with what stands around the caption taken off; itself (stripped) where it holds none.

    Takes the last pair of labels, whatever its case and separator; drops a reasoning block, code fences,
    quotes, emphasis, <angle brackets> around a side and final full stops; writes "none" for an empty side.
    Words stay. >>> tidy('Sure! "Visible sound: <A dog barking>; Invisible sounds: None."')
    'Visible sound: A dog barking, Invisible sound: none'
    """
    text = re.sub(r"<think>.*?(?:</think>|$)", " ", raw, flags=re.DOTALL)
    text = re.sub(r"[*`]+|(?<!\w)_+|_+(?!\w)", "", text)
    starts = [m.start() for m in re.finditer(r"\bvisible sounds?\s*:", text, re.IGNORECASE)]
    match = _LOOSE.match(text[starts[-1] :]) if starts else None
    if match is None:
        return raw.strip()
    # a caption is one paragraph: what follows an empty line, or a second line of explanation, is not its
    sides = match["visible"], re.split(r"\n", match["invisible"].strip())[0]
    return f"Visible sound: {_clean(sides[0])}, Invisible sound: {_clean(sides[1])}"


def _clean(side: str) -> str:
    side = " ".join(side.split()).strip(" \"'“”‘’")
    if side.startswith("<") and side.endswith(">"):
        side = side[1:-1]
    side = side.strip(" \"'“”‘’.,;")
    return NOTHING if not side or _EMPTY.fullmatch(side) else side


def _join(phrases: Sequence[str]) -> str:
    kept = list(dict.fromkeys(phrase.strip() for phrase in phrases if phrase.strip()))
    if not kept:
        return NOTHING
    if len(kept) == 1:
        return kept[0]
    return ", ".join(kept[:-1]) + " and " + kept[-1]


#: What the builder writes for a recording of which nobody knows anything.
UNKNOWN = compose([], [])
