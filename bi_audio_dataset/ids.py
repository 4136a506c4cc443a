"""Ids of clips: the recording's own, "-0003" for its fourth window where it has several, "-v1" for the second
view where several are made. Rows, media and decisions are found by them, so no two clips may share one."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bi_audio_dataset.schema import UserError

#: What may be added to a recording's id.
_ADDED = re.compile(r"(?=.)(-(\d{4}|[1-9]\d{4,}))?(-v(0|[1-9]\d*))?$")


def window_id(recording_id: str, number: int, count: int) -> str:
    """Of a recording's window, out of so many."""
    return f"{recording_id}-{number:04d}" if count > 1 else recording_id


def view_id(window: str, view: int, count: int) -> str:
    """Of a window's view, out of so many; with one view of each window it is the window's."""
    return f"{window}-v{view}" if count > 1 else window


def check_ids(ids: Sequence[str]) -> None:
    """UserError where there are no recordings, two of one id, or two whose clips could have one id."""
    if not ids:
        raise UserError("the source has no recordings: nothing to build")
    known = set(ids)
    if len(known) != len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise UserError(f"recording id '{twice}' occurs more than once: ids must be unique")
    for longer in ids:
        for start in range(len(longer) - 1, 0, -1):
            if longer[start] == "-" and longer[:start] in known and _ADDED.match(longer, start):
                raise UserError(
                    f"a window or view of recording '{longer[:start]}' could have the id of recording "
                    f"'{longer}': rename the files of one, as {longer[start:]} is how clips are numbered"
                )
