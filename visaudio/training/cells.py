"""Targets of the encoder stages: which classes are seen in each cell of a grid over the picture, and where.

Legend: B pictures, S source slots, H x W cells (patches, or the pooled grid), K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from visaudio.training.truth import PictureTruth


@dataclass(frozen=True)
class CellTargets:
    """Targets of a batch for a grid of H x W cells (patches or pooled), built by `grid_targets`."""

    presence: Tensor  # (B, H, W, K) float: a source of the class covers the cell
    offset: Tensor  # (B, H, W, 2): x and y of a source's centre from the cell's, in cells
    has_centre: Tensor  # (B, H, W) bool
    active: Tensor  # (B, H, W) float, where a source covers the cell: it sounds
    covered: Tensor  # (B, H, W) bool
    sides: Tensor  # (B, H, W, 2) float: how far left, how far right what sounds here is; 1 = edge
    onset: Tensor  # (B, H, W) float, where a source covers the cell: it starts to sound


def grid_targets(boxes: dict[str, np.ndarray], rows: int, columns: int, classes: int) -> CellTargets:
    """boxes: x, y, half_width, half_height (B, S) in picture fractions, visible, active, label (B, S).

    onset (B, S), 0 to 1, may be absent.
    """
    x, y = boxes["x"][..., None, None], boxes["y"][..., None, None]
    column = ((np.arange(columns) + 0.5) / columns)[None, None, None, :]
    row = ((np.arange(rows) + 0.5) / rows)[None, None, :, None]
    # a quarter of a cell of margin: a small source covers the cell of its centre and no other
    reach_x = np.maximum(boxes["half_width"][..., None, None], 0) + 0.25 / columns
    reach_y = np.maximum(boxes["half_height"][..., None, None], 0) + 0.25 / rows
    inside = (x >= 0) & (x < 1) & (y >= 0) & (y < 1)
    centre = (np.floor(x * columns) == np.arange(columns)) & (np.floor(y * rows) == np.arange(rows)[:, None])
    seen = (boxes["visible"] & (boxes["label"] >= 0))[..., None, None] & inside
    centre = centre & seen
    covers = (((np.abs(column - x) <= reach_x) & (np.abs(row - y) <= reach_y)) & seen) | centre
    batch, slots = boxes["x"].shape
    presence = np.zeros((batch, rows, columns, classes), dtype=np.float32)
    offset = np.zeros((batch, rows, columns, 2), dtype=np.float32)
    active = np.zeros((batch, rows, columns), dtype=np.float32)
    onset = np.zeros((batch, rows, columns), dtype=np.float32)
    sides = np.zeros((batch, rows, columns, 2), dtype=np.float32)
    out = np.clip(np.stack([1 - 2 * boxes["x"], 2 * boxes["x"] - 1], axis=-1), 0, 1)
    index = np.arange(batch)
    for slot in range(slots):
        label = np.maximum(boxes["label"][:, slot], 0)
        presence[index, :, :, label] = np.maximum(presence[index, :, :, label], covers[:, slot])
        own = centre[:, slot]
        dx = np.broadcast_to((x[:, slot] - column[:, 0]) * columns, own.shape)
        dy = np.broadcast_to((y[:, slot] - row[:, 0]) * rows, own.shape)
        offset[own] = np.stack([dx, dy], axis=-1)[own]
        sounding = covers[:, slot] * boxes["active"][:, slot, None, None]
        active = np.maximum(active, sounding)
        sides = np.maximum(sides, sounding[..., None] * out[:, slot, None, None])
        if "onset" in boxes:
            onset = np.maximum(onset, covers[:, slot] * boxes["onset"][:, slot, None, None])
    return CellTargets(
        presence=torch.from_numpy(presence),
        offset=torch.from_numpy(offset),
        has_centre=torch.from_numpy(centre.any(axis=1)),
        active=torch.from_numpy(active.astype(np.float32)),
        covered=torch.from_numpy(covers.any(axis=1)),
        sides=torch.from_numpy(sides.astype(np.float32)),
        onset=torch.from_numpy(onset.astype(np.float32)),
    )


def boxes_at(truth: PictureTruth, clips: np.ndarray, moments: np.ndarray) -> dict[str, np.ndarray]:
    """The sources (B, S) of frames `moments` (B,) of `clips` (B,)."""
    names = ("x", "y", "half_width", "half_height", "visible", "active")
    boxes = {name: getattr(truth, name)[clips, moments] for name in names}
    return {**boxes, "label": truth.label[clips]}
