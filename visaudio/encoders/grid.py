"""Patch tokens pooled to a small grid: rows x columns cells, mirror-symmetric for every size.

Legend: H x W patches, R x C cells, D width.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch
from torch import Tensor


def pooling_matrix(size: int, cells: int) -> Tensor:
    """(size, cells) weights of the mean over `cells` equal parts of `size` columns, shared ones by overlap.

    Computed exactly, so that cell c of a row is cell cells-1-c of the mirrored row for every size.
    """
    if not 1 <= cells <= size:
        raise ValueError(f"cannot pool {size} patches to {cells} cells")
    matrix = np.zeros((size, cells), dtype=np.float32)
    for cell in range(cells):
        low, high = Fraction(cell * size, cells), Fraction((cell + 1) * size, cells)
        for column in range(size):
            overlap = min(high, column + 1) - max(low, column)
            matrix[column, cell] = float(max(overlap, Fraction(0)) * cells / size)
    return torch.from_numpy(matrix)


def pool_grid(tokens: Tensor, rows: int, columns: int) -> Tensor:
    """(..., H, W, D) -> (..., rows * columns, D), row-major, mirror-symmetric over the columns."""
    height, width = tokens.shape[-3:-1]
    down = pooling_matrix(height, rows).to(tokens)
    across = pooling_matrix(width, columns).to(tokens)
    return torch.einsum("...hwd,hr,wc->...rcd", tokens, down, across).flatten(-3, -2)
