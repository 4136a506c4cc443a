"""Targets of the Synchformer stage: the sound, the onsets and the classes of each slot of 0.08 s.

Legend: B segments, C clips, T frames at 25 Hz, t slots (tokens; z = 2 frames each), E ears, M mel bands,
K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from visaudio.data.dataset import Clip
from visaudio.training.truth import (
    PictureTruth,
    band_levels_db,
    onset_tracks,
    picture_truth,
    source_onset_tracks,
    visible_onsets,
)

FPS = 25.0
BANDS = 16
FLOOR_DB = -60.0
LEVEL_SCALE_DB = 20.0  # levels are learned in units of this, from -3 to 0
ONSET_SIGMA_S = 0.03


@dataclass(frozen=True)
class SlotTruth:
    """At 25 Hz: levels (C, E, T, M) in dB re the clip's loudest frame, onsets (C, T), sounding (C, T, K).

    picture, source_onsets: where each source is in the picture, and its own onsets (C, T, source slots).
    """

    classes: tuple[str, ...]
    levels_db: np.ndarray
    onsets: np.ndarray
    sounding: np.ndarray
    onset_times: list[list[float]]
    picture: PictureTruth
    source_onsets: np.ndarray


def slot_truth(
    clips: list[Clip], audio: np.ndarray, sample_rate: int, classes: tuple[str, ...], num_frames: int
) -> SlotTruth:
    """Targets of `clips` whose audio is (C, 2, S) int16."""
    levels = np.empty((len(clips), 2, num_frames, BANDS), dtype=np.float16)
    for index in range(len(clips)):
        ears = audio[index].astype(np.float32) / 32767
        levels[index] = band_levels_db(ears, sample_rate, FPS, num_frames, BANDS, FLOOR_DB)
    picture = picture_truth(clips, classes, FPS, num_frames)
    sounding = np.zeros((len(clips), num_frames, len(classes)), dtype=bool)
    for slot in range(picture.label.shape[1]):
        for index in np.flatnonzero(picture.label[:, slot] >= 0):
            now = picture.visible[index, :, slot] & picture.active[index, :, slot]
            sounding[index, :, picture.label[index, slot]] |= now
    onsets = onset_tracks(clips, FPS, num_frames, ONSET_SIGMA_S)
    own = source_onset_tracks(clips, FPS, num_frames, ONSET_SIGMA_S, picture.label.shape[1])
    return SlotTruth(
        classes, levels, onsets, sounding, [visible_onsets(clip) for clip in clips], picture, own
    )


def pool_slots(
    levels: np.ndarray, onsets: np.ndarray, sounding: np.ndarray, tubelet: int
) -> dict[str, Tensor]:
    """Frames (B, T, ...) -> slots: levels_db (B, t, E, M), onset (B, t, z), sounding (B, t, K)."""
    power = rearrange(10 ** (levels / 10), "b (t z) e m -> b t z e m", z=tubelet).mean(axis=2)
    active = rearrange(sounding, "b (t z) k -> b t z k", z=tubelet).any(axis=2)
    return {
        "levels_db": torch.from_numpy((10 * np.log10(power)).astype(np.float32)),
        "onset": torch.from_numpy(rearrange(onsets, "b (t z) -> b t z", z=tubelet).astype(np.float32)),
        "sounding": torch.from_numpy(active.astype(np.float32)),
    }


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the positives of the precision at their rank; nan without any."""
    if not labels.any():
        return float("nan")
    ranked = labels[np.argsort(-scores, kind="stable")]
    precision = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
    return float(precision[ranked].mean())


def onset_labels(times: list[float], count: int) -> tuple[np.ndarray, np.ndarray]:
    """(count,) bool: the frame that holds an onset; that frame and its neighbours."""
    hit, near = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
    for time in times:
        frame = int(time * FPS)
        if frame < count:
            hit[frame] = True
            near[max(0, frame - 1) : frame + 2] = True
    return hit, near


def total_ild_db(levels_db: Tensor) -> Tensor:
    """(N, E, M) band levels -> (N,) ILD of the whole band, positive = left louder."""
    power = (10 ** (levels_db / 10)).sum(dim=-1)
    return 10 * torch.log10(power[:, 0] / power[:, 1])
