"""Ground truth as a clip's camera has it, and the caption that follows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bi_audio_dataset import captions, sphere
from bi_audio_dataset.schema import TRUTH_RATE_HZ, SourceTruth, SourceView, TruthTrack, in_view

if TYPE_CHECKING:
    from bi_audio_dataset.build_config import BuildConfig


def view_truth(
    truth: SourceTruth, start_s: float, rotations: np.ndarray, hfov_deg: float, config: BuildConfig
) -> SourceView:
    """Truth of one window in the camera's frame. rotations (F, 3, 3) are camera-to-world at config.fps."""
    count = round(config.clip_s * TRUTH_RATE_HZ)
    first = round(start_s * TRUTH_RATE_HZ)
    pick = np.clip(np.arange(first, first + count), 0, len(truth.azimuth_rad) - 1)
    at = np.minimum(np.round(np.arange(count) / TRUTH_RATE_HZ * config.fps).astype(int), len(rotations) - 1)

    world = sphere.direction(truth.azimuth_rad[pick], truth.elevation_rad[pick])
    azimuth, elevation = sphere.angles(sphere.to_camera(world, rotations[at]))
    on_view = in_view(azimuth, elevation, hfov_deg, config.width / config.height)
    onsets = [t - start_s for t in truth.onset_s if start_s <= t < start_s + config.clip_s]
    return SourceView(
        class_name=truth.class_name,
        member=truth.member,
        caption=truth.caption,
        azimuth_deg=_degrees(azimuth),
        elevation_deg=_degrees(elevation),
        lateral_deg=_degrees(sphere.lateral_angle(azimuth, elevation)),
        distance_m=_floats(truth.distance_m[pick]),
        size_deg=_degrees(truth.size_rad[pick]),
        visible=tuple(bool(v) for v in on_view & (truth.on_screen_kind != "none")),
        onset_s=_floats(onsets),
        envelope_db=_floats(truth.envelope_db[pick]),
    )


def caption_of(truth: TruthTrack, config: BuildConfig) -> str:
    """Which objects are heard, and which of them are seen. Objects that never sound are not named."""
    visible, invisible = [], []
    for view in truth.sources:
        active = np.asarray(view.envelope_db) > config.active_db
        if active.any():
            seen = np.asarray(view.visible)[active].mean() >= config.visible_fraction
            (visible if seen else invisible).append(view.caption)
    return captions.compose(visible, invisible)


def _floats(values) -> tuple[float, ...]:
    return tuple(float(v) for v in values)


def _degrees(values) -> tuple[float, ...]:
    return _floats(np.degrees(values))
