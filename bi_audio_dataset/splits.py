"""Splits without leaks: the recording decides, by hash, so clips of one recording never part; and what
belongs together (near-duplicates, takes of one event) goes to one split as a whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from bi_audio_dataset.schema import SPLITS, UserError

DEFAULT_FRACTIONS = (0.9, 0.05, 0.05)


def split_of(recording_id: str, fractions: tuple[float, float, float] = DEFAULT_FRACTIONS) -> str:
    """The split of a recording: a function of its id alone, so adding recordings moves none.

    fractions are (train, validation, test), non-negative, with sum 1; UserError otherwise.
    """
    if len(fractions) != len(SPLITS) or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise UserError(
            f"split fractions must be three non-negative numbers with sum 1, got {tuple(fractions)}"
        )
    position = int.from_bytes(hashlib.sha256(recording_id.encode()).digest()[:8], "big") / 2**64
    edge = 0.0
    for name, fraction in zip(SPLITS, fractions, strict=True):
        edge += fraction
        if position < edge:
            return name
    # rounding of the sum: the last split that takes anything
    return [name for name, fraction in zip(SPLITS, fractions, strict=True) if fraction > 0][-1]


#: A group of which one member is to be tested on must not be trained on.
PROTECTED = ("test", "validation", "train")


def split_of_group(splits: Iterable[str]) -> str:
    """The split of recordings that belong together: test if any of them is a test recording, else validation
    if any is, so that a published test set keeps its members. ValueError for none."""
    found = set(splits)
    for name in PROTECTED:
        if name in found:
            return name
    raise ValueError(f"expected splits of {', '.join(SPLITS)}, got {sorted(found)}")
