"""What the settings of a build may be: a range for each number, by the name of its field.

`check` is called where a config is made (build_config.BuildConfig), so files, flags, recipes and code
meet the same limits. A name that stands nowhere here may hold any finite number.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from bi_audio_dataset.schema import UserError

LEVEL_MEASURES = ("rms", "lufs")
X264_PRESETS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow",
)  # fmt: skip
CHOICES = {"level_measure": LEVEL_MEASURES, "preset": X264_PRESETS}
#: Pictures are yuv420p, which halves the colour.
EVEN = ("width", "height")

_SHARE = (0.0, 1.0)
_DB_BELOW = (0.0, 200.0)
_RATE_DEG = (0.0, 1000.0)
#: Field -> (least, most), both allowed.
RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**63 - 1),
    # shorter clips hold no scene, longer ones no longer fit into memory
    "clip_s": (0.5, 600.0),
    "width": (16, 8192),
    "height": (16, 8192),
    "fps": (1.0, 240.0),
    "crf": (0, 51),
    "aim_from_hz": (0.0, 20_000.0),
    "views_per_recording": (1, 1000),
    "hfov_fixed_deg": (10.0, 170.0),
    "hfov_range_deg": (10.0, 170.0),
    "hfov_fixed_probability": _SHARE,
    "random_yaw_probability": _SHARE,
    "rms_dbfs": (-100.0, 0.0),
    "true_peak_dbfs": (-60.0, 0.0),
    "max_gain_db": (-100.0, 120.0),
    "visible_fraction": _SHARE,
    "active_db": (-200.0, 0.0),
    "rows_per_shard": (1, 1_000_000),
    # trajectory.TrajectoryConfig
    "static_probability": _SHARE,
    "hold_probability": _SHARE,
    "segment_s": (0.05, 3600.0),
    "yaw_range_deg": (-360.0, 360.0),
    "pitch_range_deg": (-90.0, 90.0),
    "roll_range_deg": (-180.0, 180.0),
    "first_yaw_offset_deg": (0.0, 180.0),
    "first_pitch_offset_deg": (0.0, 90.0),
    "drift_rate_deg": _RATE_DEG,
    "drift_time_s": (0.01, 3600.0),
    "yaw_rate_deg": _RATE_DEG,
    "max_yaw_rate_deg": _RATE_DEG,
    "max_pitch_rate_deg": _RATE_DEG,
    "max_roll_rate_deg": _RATE_DEG,
    # filters.SelectionConfig
    "level_dbfs": (-200.0, 0.0),
    "max_fraction": _SHARE,
    "frame_s": (0.001, 60.0),
    "mse": (0.0, 65025.0),
    "min_missing_s": (0.0, 600.0),
    "rate_hz": (0.01, 240.0),
    "min_pairs": (1, 1_000_000),
    "level": _SHARE,
    "run": (1, 1_000_000),
    "below_db": _DB_BELOW,
    "max_aspect_error": (0.0, 10.0),
    "max_half_similarity": (-1.0, 1.0),
    "max_difference_s": (0.0, 1e6),
    "min_lr_difference": _SHARE,
    "max_probability": _SHARE,
    "max_picture_error": _SHARE,
    "max_audio_error": _SHARE,
    "min_overlap_s": (0.0, 600.0),
}


def check(config: Any) -> None:
    """UserError for the first number of a config, or of one inside it, that cannot be."""
    for problem in problems(config):
        raise UserError(problem)


def problems(config: Any, path: str = "") -> Iterator[str]:
    for field in fields(config):
        name, value = field.name, getattr(config, field.name)
        where = f"{path}.{name}" if path else name
        if is_dataclass(value):
            yield from problems(value, where)
        elif name in CHOICES:
            if value not in CHOICES[name]:
                yield f"{where} is '{value}', expected one of {', '.join(CHOICES[name])}"
        else:
            yield from _of_numbers(name, where, value)


def _of_numbers(name: str, where: str, value: Any) -> Iterator[str]:
    numbers = value if isinstance(value, tuple) else (value,)
    low, high = RANGES.get(name, (-math.inf, math.inf))
    for number in numbers:
        if not isinstance(number, (int, float)) or isinstance(number, bool):
            continue
        if not math.isfinite(number):
            yield f"{where} is {number}, expected a finite number"
        elif not low <= number <= high:
            yield f"{where} is {number:g}, expected {low:g} to {high:g}"
        elif name in EVEN and number % 2:
            yield f"{where} is {number:g}, expected an even number"
    if isinstance(value, tuple) and len(value) == 2 and value[0] > value[1]:
        yield f"{where} is {value[0]:g} to {value[1]:g}, expected the lesser first"
