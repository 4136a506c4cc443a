"""What a clip's features cost on the disk, from a preset's sizes alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from visaudio.presets import Preset

#: The paper's set, and the disk that its features are to fit, mirror included.
PAPER_CLIPS = 97_000
PAPER_BYTES = 400e9


def feature_shapes(model: Preset) -> dict[str, tuple[tuple[int, ...], str]]:
    """Column of a shard -> (shape of one clip, dtype), as feature_store.py stores them."""
    sequence, network = model.sequence, model.network
    cells = network.spatial_rows * network.spatial_columns
    shapes: dict[str, tuple[tuple[int, ...], str]] = {
        "latents": ((2, sequence.num_frames, model.codec.latent_dim), "float16"),
        "text": ((network.text_tokens, network.text_dim), "float16"),
    }
    for ending in ("", "_mirror"):
        shapes |= {
            f"clip{ending}": ((sequence.num_clip_frames, network.clip_dim), "float16"),
            f"sync{ending}": ((sequence.num_sync_tokens, network.sync_dim), "float16"),
            f"grid{ending}": ((sequence.num_clip_frames, cells, network.spatial_dim), "uint8"),
            f"grid_range{ending}": ((2, network.spatial_dim), "float32"),
        }
    return shapes


def bytes_per_clip(model: Preset) -> dict[str, int]:
    """Column -> bytes of one clip with Arrow's list offsets; their sum is what the folder takes per clip.

    Names, captions and Arrow's own headers add less than 1 kB.
    """
    sizes = {}
    for name, (shape, dtype) in feature_shapes(model).items():
        offsets = sum(math.prod(shape[:axis]) for axis in range(len(shape)))
        sizes[name] = math.prod(shape) * np.dtype(dtype).itemsize + 4 * offsets
    return sizes
