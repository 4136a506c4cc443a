"""Classifier-free guidance in one batched call: v = v_null + w (v_cond - v_null); w = 1 is off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def _concat(first: Any, second: Any) -> Any:
    """Batch-join: tensors by torch.cat, condition objects by their own `concat`."""
    if isinstance(first, Tensor):
        return torch.cat([first, second])
    return type(first).concat([first, second])


def guided(
    model: Callable[[Tensor, Tensor, Any], Tensor],
    conditions: Any,
    null_conditions: Any,
    scale: float,
) -> Callable[[Tensor, Tensor], Tensor]:
    """A velocity(t, x) for `solver.solve` from model(x (B, ...), t (B,), conditions of batch B).

    conditions and null_conditions: tensors (B, ...), or objects whose class has a static `concat(list)`.
    They are joined once here, not at each step. With scale 1 the null half is never computed.
    """
    if scale == 1.0:

        def plain(t: Tensor, x: Tensor) -> Tensor:
            return model(x, t.expand(x.shape[0]), conditions)

        return plain

    joined = _concat(conditions, null_conditions)

    def velocity(t: Tensor, x: Tensor) -> Tensor:
        both = model(torch.cat([x, x]), t.expand(2 * x.shape[0]), joined)
        v_cond, v_null = both.chunk(2)
        return v_null + scale * (v_cond - v_null)

    return velocity
