"""Which clips come first, and which get pictures."""

from __future__ import annotations

import math

import numpy as np


def worst_first(values: np.ndarray, better: str) -> np.ndarray:
    """(C,) -> (C,) places, the worst first; equal ones in their own order, nan last. A figure that is
    neither good nor bad goes from large to small."""
    values = np.asarray(values, np.float64)
    key = values if better == "higher" else -values
    return np.argsort(np.where(np.isnan(key), np.inf, key), kind="stable")


def with_pictures(order: np.ndarray, count: int) -> list[int]:
    """`count` of the places in `order`, in that order: its first half of them from the head, the others at
    even distances over what is left, the last one among them."""
    count = min(count, len(order))
    head = (count + 1) // 2
    left, wanted = len(order) - head, count - head
    spread = (head + math.ceil((k + 1) * left / wanted) - 1 for k in range(wanted))
    return [int(order[k]) for k in (*range(head), *spread)]
