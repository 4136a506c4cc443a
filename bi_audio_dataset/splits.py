"""Splits without leaks: the recording decides, by hash, so clips of one recording never part."""

from __future__ import annotations

import hashlib

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
