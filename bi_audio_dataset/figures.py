"""Counts and distributions of a dataset's rows, filled row by row: what the card and the validator report.

Angles in degrees, positive to the left; levels in dB full scale; what is None or not finite in a row was not
measured and is not counted.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

#: Bins of 10 degrees, symmetric about straight ahead.
LATERAL_EDGES_DEG = np.linspace(-90, 90, 19)
#: An object counts as sounding in frames where its envelope is above this, re its loudest frame.
SOUNDING_DB = -40.0
IN_VIEW, OUT_OF_VIEW = "in view", "out of view"
#: Columns that `Figures.add` does not look at, and which are most of a row's bytes.
HEAVY_COLUMNS = ("video", "audio", "camera")


@dataclass(frozen=True)
class Measure:
    """One value a clip that the card shows as a distribution: where it stands in a row, and its axis."""

    name: str
    words: str
    low: float
    high: float
    column: tuple[str, ...]

    def of(self, row: Mapping[str, Any]) -> float | None:
        value: Any = row
        for key in self.column:
            value = None if value is None else value.get(key)
        return value if value is not None and math.isfinite(value) else None


MEASURES = (
    Measure("confidence", "direction confidence", 0, 1, ("filters", "direction_confidence")),
    Measure("level", "level, dB re full scale", -60, 0, ("filters", "rms_dbfs")),
    Measure("difference", "left-right difference", 0, 1, ("filters", "lr_difference")),
    Measure("hfov", "horizontal field of view, degrees", 10, 170, ("hfov_deg",)),
)


def _empty() -> dict[str, array]:
    return {measure.name: array("d") for measure in MEASURES}


def _no_frames() -> dict[str, np.ndarray]:
    return {name: np.zeros(len(LATERAL_EDGES_DEG) - 1, np.int64) for name in (IN_VIEW, OUT_OF_VIEW)}


@dataclass
class Figures:
    """values: measure -> one entry a clip; lateral: frames of truth in which an object sounds, (18,) by
    LATERAL_EDGES_DEG, with the object in view or not."""

    clips: Counter = field(default_factory=Counter)  # by split
    split_seconds: Counter = field(default_factory=Counter)
    classes: Counter = field(default_factory=Counter)  # (class, split): clips that hold the class
    origins: Counter = field(default_factory=Counter)  # (source name, licence): clips
    origin_seconds: Counter = field(default_factory=Counter)
    hrir_sets: Counter = field(default_factory=Counter)
    sources: Counter = field(default_factory=Counter)  # clips by number of sounding objects
    off_screen: int = 0  # clips with an object that is never on view
    bytes: int = 0  # of all shards
    values: dict[str, array] = field(default_factory=_empty)
    lateral: dict[str, np.ndarray] = field(default_factory=_no_frames)

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a row; of its columns HEAVY_COLUMNS may be missing."""
        origin = row["source_name"], row["licence"]
        self.clips[row["split"]] += 1
        self.split_seconds[row["split"]] += row["duration_s"]
        self.origins[origin] += 1
        self.origin_seconds[origin] += row["duration_s"]
        self.hrir_sets[row["hrir_set"]] += 1
        for measure in MEASURES:
            value = measure.of(row)
            if value is not None:
                self.values[measure.name].append(value)
        views = row["truth"]["sources"]
        self.sources[len(views)] += 1
        self.off_screen += any(not any(view["visible"]) for view in views)
        for name in {view["class_name"] for view in views}:
            self.classes[name, row["split"]] += 1
        for view in views:
            self._add_directions(view)

    def _add_directions(self, view: Mapping[str, Any]) -> None:
        lateral_deg = np.clip(np.asarray(view["lateral_deg"], np.float64), -90, 90)
        sounding = np.asarray(view["envelope_db"], np.float64) > SOUNDING_DB
        visible = np.asarray(view["visible"], bool)
        for name, chosen in ((IN_VIEW, sounding & visible), (OUT_OF_VIEW, sounding & ~visible)):
            self.lateral[name] += np.histogram(lateral_deg[chosen], LATERAL_EDGES_DEG)[0]

    @property
    def seconds(self) -> float:
        return float(sum(self.split_seconds.values()))

    @property
    def licences(self) -> Counter:
        """Licence -> clips."""
        found: Counter = Counter()
        for (_, licence), count in self.origins.items():
            found[licence] += count
        return found
