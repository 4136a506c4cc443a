"""Camera paths: from the sound's direction on, yaw, pitch and roll run piecewise linearly, with random drift.

Rates stay below what a head or a hand-held camera does. Angles and their signs: sphere.py. Sample k of a path
holds at time k / rate_hz.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .ambisonics import max_energy_direction
from .sphere import angle_between, rotation_matrix

#: How far the axes of two views of one recording are apart, on the mean over time.
MIN_SEPARATION_DEG = 10.0
#: Draws for one more view before the one that differs most is taken.
VIEW_TRIES = 32


@dataclass(frozen=True)
class TrajectoryConfig:
    """How cameras move. Pairs are (least, most); angles in degrees, rates in degrees per second."""

    static_probability: float = 0.25
    segment_s: tuple[float, float] = (1.5, 4.0)
    hold_probability: float = 0.25
    yaw_rate_deg: float = 35.0
    # targets stay this near the start, so that what the path first looks at is not lost for good
    yaw_range_deg: tuple[float, float] = (-90.0, 90.0)
    pitch_range_deg: tuple[float, float] = (-20.0, 20.0)
    roll_range_deg: tuple[float, float] = (-6.0, 6.0)
    first_yaw_offset_deg: float = 40.0
    first_pitch_offset_deg: float = 8.0
    drift_rate_deg: float = 2.0
    drift_time_s: float = 0.7
    max_yaw_rate_deg: float = 45.0
    max_pitch_rate_deg: float = 15.0
    max_roll_rate_deg: float = 8.0

    def within_view(self, hfov_deg: float, elevation_deg: float = 0.0) -> TrajectoryConfig:
        """The same limits, tightened so that what lies first ahead seldom leaves a lens of `hfov_deg`.

        A narrow lens gets a smaller first offset and smaller turns; pitch runs around `elevation_deg`.
        """
        yaw, pitch = 0.16 * hfov_deg, 0.07 * hfov_deg
        return replace(
            self,
            first_yaw_offset_deg=min(self.first_yaw_offset_deg, 0.26 * hfov_deg),
            first_pitch_offset_deg=min(self.first_pitch_offset_deg, pitch),
            yaw_range_deg=(max(self.yaw_range_deg[0], -yaw), min(self.yaw_range_deg[1], yaw)),
            pitch_range_deg=(
                max(self.pitch_range_deg[0], elevation_deg - pitch),
                min(self.pitch_range_deg[1], elevation_deg + pitch),
            ),
        )


@dataclass(frozen=True)
class CameraPath:
    """yaw_rad, pitch_rad, roll_rad (F,) at rate_hz; yaw is unwrapped (may pass pi)."""

    yaw_rad: NDArray[np.float64]
    pitch_rad: NDArray[np.float64]
    roll_rad: NDArray[np.float64]
    rate_hz: float

    def __len__(self) -> int:
        return len(self.yaw_rad)

    def rotations(self) -> NDArray[np.float64]:
        """Camera-to-world matrices (F, 3, 3)."""
        return rotation_matrix(self.yaw_rad, self.pitch_rad, self.roll_rad)

    @classmethod
    def fixed(
        cls,
        num_frames: int,
        rate_hz: float,
        yaw_rad: float = 0.0,
        pitch_rad: float = 0.0,
        roll_rad: float = 0.0,
    ) -> CameraPath:
        """A camera that does not move."""
        return cls(*(np.full(num_frames, float(angle)) for angle in (yaw_rad, pitch_rad, roll_rad)), rate_hz)


@dataclass(frozen=True)
class EnergyAim:
    """Where a recording's energy comes from (ambisonics.max_energy_direction), and whether it was followed.

    confidence: 0 (diffuse, or silent) to 1 (one plane wave). elsewhere: the path starts in a random
    direction instead, so that the sound may be off screen.
    """

    azimuth_rad: float
    elevation_rad: float
    confidence: float
    elsewhere: bool = False


def path_from_energy(
    foa: ArrayLike,
    sample_rate: float,
    num_frames: int,
    rate_hz: float,
    rng: np.random.Generator,
    config: TrajectoryConfig = TrajectoryConfig(),
    *,
    hfov_deg: float | None = None,
    elsewhere_probability: float = 0.0,
    apart_from: Sequence[CameraPath] = (),
    min_separation_deg: float = MIN_SEPARATION_DEG,
) -> tuple[CameraPath, EnergyAim]:
    """A path that starts near the direction from which the field (4, N) has the most energy.

    hfov_deg: the lens, to which the path's limits are tightened (TrajectoryConfig.within_view); None: the
    config as it is. With elsewhere_probability the first yaw is any. Directions far above or below are looked
    at from the nearest pitch that the config allows. apart_from: earlier views of the same length; the path
    is drawn anew until its axis is min_separation_deg from each (mean over time), and after VIEW_TRIES draws
    the one that came nearest to that is taken. All chance is rng's.
    """
    aim = EnergyAim(*max_energy_direction(foa, sample_rate))
    pitch = float(np.clip(aim.elevation_rad, *np.radians(config.pitch_range_deg)))
    limits = config if hfov_deg is None else config.within_view(hfov_deg, math.degrees(pitch))
    best, best_deg = None, -1.0
    for _ in range(VIEW_TRIES):
        # both are drawn whatever comes of it, so that one setting does not shift all later chance
        elsewhere, any_yaw = rng.random() < elsewhere_probability, rng.uniform(-math.pi, math.pi)
        yaw = float(any_yaw if elsewhere else aim.azimuth_rad)
        path = random_path(rng, num_frames, rate_hz, yaw, pitch, limits)
        apart_deg = min((mean_separation_deg(path, other) for other in apart_from), default=math.inf)
        if apart_deg > best_deg:
            best, best_deg = (path, replace(aim, elsewhere=bool(elsewhere))), apart_deg
        if best_deg >= min_separation_deg:
            break
    return best


def mean_separation_deg(a: CameraPath, b: CameraPath) -> float:
    """Angle between the viewing axes of two paths of equal length, in degrees, on the mean over time."""
    return float(np.degrees(angle_between(a.rotations()[..., 0], b.rotations()[..., 0])).mean())


def random_path(
    rng: np.random.Generator,
    num_frames: int,
    rate_hz: float,
    first_yaw_rad: float = 0.0,
    first_pitch_rad: float = 0.0,
    config: TrajectoryConfig = TrajectoryConfig(),
) -> CameraPath:
    """A path of num_frames that starts near (first_yaw_rad, first_pitch_rad); all chance is rng's.

    The start is offset by up to first_*_offset_deg, uniformly. With static_probability the camera then
    stays still. Else each segment turns the yaw at a constant rate and moves pitch and roll linearly to
    new targets inside their ranges; a segment may hold still; drift (an Ornstein-Uhlenbeck rate of
    standard deviation drift_rate_deg) is added, and the rates are limited.
    """
    yaw = np.rad2deg(first_yaw_rad) + rng.uniform(-1, 1) * config.first_yaw_offset_deg
    pitch = np.rad2deg(first_pitch_rad) + rng.uniform(-1, 1) * config.first_pitch_offset_deg
    pitch = float(np.clip(pitch, *config.pitch_range_deg))
    roll = float(np.clip(0.5 * rng.uniform(*config.roll_range_deg), *config.roll_range_deg))
    start = np.array([yaw, pitch, roll])
    if rng.uniform() < config.static_probability or num_frames < 2:
        return CameraPath.fixed(num_frames, rate_hz, *np.deg2rad(start))

    times_s = np.arange(num_frames) / rate_hz
    knot_times, knots = _draw_knots(rng, start, times_s[-1], config)
    path = np.stack([np.interp(times_s, knot_times, knots[:, axis]) for axis in range(3)])
    steps = np.diff(path, axis=1) + _drift_steps(rng, num_frames - 1, rate_hz, config)
    limits = (
        np.array([config.max_yaw_rate_deg, config.max_pitch_rate_deg, config.max_roll_rate_deg]) / rate_hz
    )
    path = start[:, None] + np.cumsum(
        np.pad(np.clip(steps, -limits[:, None], limits[:, None]), ((0, 0), (1, 0))), 1
    )
    # Clipping to the ranges cannot raise a rate, as the start lies inside them.
    path[1] = np.clip(path[1], *config.pitch_range_deg)
    path[2] = np.clip(path[2], *config.roll_range_deg)
    return CameraPath(*np.deg2rad(path), rate_hz)


def _draw_knots(
    rng: np.random.Generator, start: NDArray[np.float64], duration_s: float, config: TrajectoryConfig
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Knot times (K,) up to at least duration_s and their (yaw, pitch, roll) in degrees (K, 3)."""
    times, knots = [0.0], [start]
    while times[-1] < duration_s:
        length_s = rng.uniform(*config.segment_s)
        target = np.array(
            [
                np.clip(
                    knots[-1][0] + rng.uniform(-1, 1) * config.yaw_rate_deg * length_s,
                    start[0] + config.yaw_range_deg[0],
                    start[0] + config.yaw_range_deg[1],
                ),
                rng.uniform(*config.pitch_range_deg),
                rng.uniform(*config.roll_range_deg),
            ]
        )
        hold = rng.uniform() < config.hold_probability
        times.append(times[-1] + length_s)
        knots.append(knots[-1] if hold else target)
    return np.array(times), np.array(knots)


def _drift_steps(
    rng: np.random.Generator, count: int, rate_hz: float, config: TrajectoryConfig
) -> NDArray[np.float64]:
    """Per-frame drift (3, count) in degrees; pitch drifts half, roll a quarter as much as yaw."""
    keep = np.exp(-1.0 / (config.drift_time_s * rate_hz))
    noise = rng.standard_normal((3, count))
    rates = np.empty_like(noise)
    state = noise[:, 0]
    for k in range(count):
        rates[:, k] = state
        state = keep * state + np.sqrt(1 - keep**2) * noise[:, (k + 1) % count]
    return rates * config.drift_rate_deg / rate_hz * np.array([[1.0], [0.5], [0.25]])
