"""What moves in a picture by itself: motion left over when the camera's own is taken out, column by column.

Of two pictures `1 / rate_hz` apart picture_motion.py takes the camera's motion out; what is left over is
motion of things. Legend: F pairs, X columns, H W pixels.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from bi_audio_dataset import media
from visaudio.evaluation.picture_motion import residual

RATE_HZ = 10.0
SIZE = (192, 108)  # pictures are squashed to it; columns keep their meaning
COLUMNS = 64


def column_motion(video: str | Path, duration_s: float, rate_hz: float = RATE_HZ) -> np.ndarray:
    """-> (F, X) float32: residual motion in pair k, between k / rate_hz and (k + 1) / rate_hz seconds.

    F as `cues.frames` counts over duration_s. Grey levels beyond the misfit, mean over each column's pixels.
    """
    count = round(duration_s * rate_hz)
    times = np.minimum(np.arange(count + 1) / rate_hz, max(0.0, duration_s - 1e-3))
    pictures = media.read_frames(str(video), times, size=SIZE, num_threads=1)
    return motion_of(pictures)


def motion_of(pictures: np.ndarray) -> np.ndarray:
    """(F + 1, H, W, 3) uint8 -> (F, X) float32."""
    grey = [cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) for p in pictures]
    width = pictures.shape[2]
    edges = np.linspace(0, width, COLUMNS + 1).round().astype(int)[:-1]
    share = np.diff(np.append(edges, width)) * pictures.shape[1]
    found = np.zeros((max(0, len(grey) - 1), COLUMNS), np.float32)
    for k, (before, after) in enumerate(zip(grey, grey[1:], strict=False)):
        left_over = residual(before, after)
        found[k] = np.add.reduceat(left_over.sum(axis=0), edges) / share
    return found
