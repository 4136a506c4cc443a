"""From which direction a clip may sound, by what moves in its picture; nothing of its truth is used.

Motion is what is left over between two pictures when the camera's own motion is taken out
(../picture_motion.py); its places become directions through the lens, and their mean, weighted by
squared motion and smoothed over a second, is the path. Where nothing moves it leads to the front. What is
out of view is never found, and of several things that move the one that moves most draws the direction.
The lens is assumed, as a model is not told it either.

Legend: H W pixels, T pairs of pictures.
"""

from __future__ import annotations

import math
from pathlib import Path as FilePath

import numpy as np

from bi_audio_dataset import media
from bi_audio_dataset.sphere import view_directions
from visaudio.evaluation import picture_motion
from visaudio.evaluation.baselines.directions import smooth
from visaudio.evaluation.baselines.spatialise import FRONT, Path

ASSUMED_HFOV_DEG = 90.0
RATE_HZ = 12.5
SMOOTH_S = 1.0
#: Squared grey levels, mean over the picture: the weight of the front against what moves.
FRONT_WEIGHT = 0.02
LARGEST_SIDE_PX = 192


def motion_path(video: str | FilePath, hfov_deg: float = ASSUMED_HFOV_DEG) -> Path:
    """The path of a video file through a lens of `hfov_deg`. UserError if it cannot be read."""
    info = media.probe(video)
    scale = min(1.0, LARGEST_SIDE_PX / max(info.width, info.height))
    size = tuple(max(16, 2 * round(side * scale / 2)) for side in (info.width, info.height))
    count = max(2, round(info.duration_s * RATE_HZ))
    times_s = np.minimum(np.arange(count) / RATE_HZ, max(0.0, info.duration_s - 1e-3))
    weight, moment, before = [], [], None
    rays = view_directions(*size, math.radians(hfov_deg))
    for block in media.iter_frames(video, times_s, size=size, num_threads=1):
        for picture in block:
            grey = picture @ np.array([0.299, 0.587, 0.114])
            grey = grey.round().astype(np.uint8)
            if before is not None:
                moved = picture_motion.residual(before, grey).astype(np.float64) ** 2
                weight.append(moved.mean())
                moment.append((moved[..., None] * rays).mean(axis=(0, 1)))
            before = grey
    return of_moments(np.array(weight), np.array(moment))


def of_moments(weight: np.ndarray, moment: np.ndarray) -> Path:
    """weight (T,) and weighted directions (T, 3) of the pairs -> their smoothed mean, drawn to the front."""
    weight = smooth(weight, SMOOTH_S * RATE_HZ) + FRONT_WEIGHT
    moment = smooth(moment.T, SMOOTH_S * RATE_HZ).T + FRONT_WEIGHT * FRONT
    vectors = moment / weight[:, None]
    # pair k lies between pictures k and k + 1: half a step later than the path's own times
    return Path(np.concatenate([vectors[:1], (vectors[:-1] + vectors[1:]) / 2, vectors[-1:]]), RATE_HZ)
