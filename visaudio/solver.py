"""Integration of any velocity(t, x) over a time grid, by torchdiffeq.

Methods: `euler` (1 evaluation a step), `midpoint` and `heun` (2 a step, second order) walk the given
grid; `dopri5` is adaptive and uses the grid's two ends only.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# our name -> torchdiffeq's ("heun2" there is the explicit trapezoidal rule that the field calls Heun)
METHODS = {"euler": "euler", "midpoint": "midpoint", "heun": "heun2", "dopri5": "dopri5"}


def time_grid(num_steps: int, device: torch.device | str = "cpu") -> Tensor:
    """num_steps + 1 equally spaced times from 0 (noise) to 1 (data), float32."""
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
    return torch.linspace(0.0, 1.0, num_steps + 1, device=device)


def solve(
    velocity: Callable[[Tensor, Tensor], Tensor],
    noise: Tensor,
    grid: Tensor,
    method: str = "euler",
    *,
    rtol: float = 1e-4,
    atol: float = 1e-4,
) -> Tensor:
    """x at the end of `grid`, starting from `noise` at its beginning.

    velocity(t, x) takes a scalar tensor t and x of noise's shape, and returns dx/dt of that shape.
    rtol and atol matter for dopri5 alone. Only the end point is kept, so memory does not grow with
    the number of steps.
    """
    from torchdiffeq import odeint

    if method not in METHODS:
        raise ValueError(f"unknown solver method {method!r}; choose one of {', '.join(METHODS)}")
    if grid.ndim != 1 or len(grid) < 2:
        raise ValueError(f"grid must be a vector of at least two times, got shape {tuple(grid.shape)}")
    ends = torch.stack([grid[0], grid[-1]])
    if method == "dopri5":
        return odeint(velocity, noise, ends, method="dopri5", rtol=rtol, atol=atol)[-1]
    options = {"grid_constructor": lambda func, y0, t: grid}
    return odeint(velocity, noise, ends, method=METHODS[method], options=options)[-1]
