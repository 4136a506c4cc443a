"""The cameras of a clip: the lens, and a path that first looks near the direction of most energy.

All chance comes from (seed, recording id, window, view, rendering), so that a view is the same whatever else
is made of its recording.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bi_audio_dataset.render import high_passed
from bi_audio_dataset.schema import AUDIO_RATE_HZ, CameraTrack
from bi_audio_dataset.trajectory import CameraPath, path_from_energy

if TYPE_CHECKING:
    from bi_audio_dataset.build_config import BuildConfig


@dataclass(frozen=True)
class Camera:
    """facing: the direction of most energy in degrees, its confidence, and whether the path looks
    elsewhere."""

    hfov_deg: float
    path: CameraPath
    facing: dict[str, Any]


class WindowCameras:
    """The cameras of one window of a recording, whose field is foa (4, N) at AUDIO_RATE_HZ.

    Views look apart from each other, whichever rendering of each is asked for: they are ordered, first
    renderings before second ones and in each the lower view first, and a view is kept apart from all that
    come before it in this order and are other views'. What comes later moves nothing that is there already.
    """

    def __init__(self, foa: np.ndarray, recording_id: str, window: int, config: BuildConfig) -> None:
        self.foa, self.recording_id, self.window, self.config = foa, recording_id, window, config
        self._made: dict[tuple[int, int], Camera] = {}

    def camera(self, view: int, render: int = 0) -> Camera:
        """Of a view, in its so-manieth rendering."""
        if (render, view) not in self._made:
            before = [
                self.camera(other, number).path
                for number in range(render + 1)
                for other in range(self.config.views_per_recording)
                if other != view and (number, other) < (render, view)
            ]
            self._made[render, view] = self._draw(view, render, before)
        return self._made[render, view]

    def _draw(self, view: int, render: int, apart_from: Sequence[CameraPath]) -> Camera:
        config = self.config
        rng = clip_rng(config.seed, self.recording_id, self.window, view, render)
        hfov_deg = choose_hfov(rng, config)
        return Camera(hfov_deg, *plan_camera(rng, self.foa, hfov_deg, config, apart_from))


def plan_camera(
    rng: np.random.Generator,
    foa: np.ndarray,
    hfov_deg: float,
    config: BuildConfig,
    apart_from: Sequence[CameraPath] = (),
) -> tuple[CameraPath, dict[str, Any]]:
    """A path that first looks near the direction of most energy, and that direction in degrees."""
    path, aim = path_from_energy(
        high_passed(foa, AUDIO_RATE_HZ, config.aim_from_hz),
        AUDIO_RATE_HZ,
        config.num_frames,
        config.fps,
        rng,
        config.trajectory,
        hfov_deg=hfov_deg,
        elsewhere_probability=config.random_yaw_probability,
        apart_from=apart_from,
    )
    facing = {
        "azimuth_deg": round(math.degrees(aim.azimuth_rad), 3),
        "elevation_deg": round(math.degrees(aim.elevation_rad), 3),
        "confidence": float(aim.confidence),
        "elsewhere": aim.elsewhere,
    }
    return path, facing


def clip_rng(
    seed: int, recording_id: str, window: int = 0, view: int = 0, render: int = 0
) -> np.random.Generator:
    """The clip's own random numbers."""
    key = (seed, zlib.crc32(recording_id.encode()), window)
    return np.random.default_rng(np.random.SeedSequence(key + ((view, render) if view or render else ())))


def choose_hfov(rng: np.random.Generator, config: BuildConfig) -> float:
    """Horizontal field of view in degrees. Draws two numbers whatever it returns."""
    fixed, other = rng.random() < config.hfov_fixed_probability, rng.uniform(*config.hfov_range_deg)
    return float(config.hfov_fixed_deg if fixed else other)


def camera_track(path: CameraPath) -> CameraTrack:
    yaw, pitch, roll = (np.degrees(a).tolist() for a in (path.yaw_rad, path.pitch_rad, path.roll_rad))
    return CameraTrack(float(path.rate_hz), tuple(yaw), tuple(pitch), tuple(roll))
