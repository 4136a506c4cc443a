"""What the clips' scores come to: rows by system and measure, kept as numbers alone."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from visaudio.evaluation.cache import Cache, HeardFiles
from visaudio.evaluation.measures import ClipSet, Measure
from visaudio.evaluation.problems import Problems
from visaudio.evaluation.scoring import ClipScore


class Rows:
    """Rows of one system and measure: one array of doubles per clip, in the order of `names`."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self.of: dict[str, array] = {}
        self.entries: dict[str, tuple[str, str | None]] = {}

    def add(self, clip: str, row: dict[str, float], entries: tuple[str, str | None] | None) -> None:
        for name in row:
            self.names.setdefault(name, len(self.names))
        values = array("d", [float("nan")]) * len(self.names)
        for name, value in row.items():
            values[self.names[name]] = value
        self.of[clip] = values
        if entries is not None:
            self.entries[clip] = entries

    def table(self, ids: Sequence[str]) -> dict[str, np.ndarray]:
        """name -> (C,) float64; nan where a clip's row had no such name."""
        wide = np.full((len(ids), len(self.names)), np.nan)
        for place, clip in enumerate(ids):
            wide[place, : len(self.of[clip])] = self.of[clip]
        return {name: np.ascontiguousarray(wide[:, column]) for name, column in self.names.items()}


class Collected:
    """Scores of all clips, whichever process made them and in whatever order."""

    def __init__(self, systems: Sequence[str]) -> None:
        self.systems = tuple(systems)
        self.durations_s: dict[str, dict[str, float]] = {name: {} for name in systems}
        self._rows: dict[tuple[str, str], Rows] = {}

    def add(self, score: ClipScore, problems: Problems) -> None:
        for found in score.problems:
            problems.add(**{"name": score.id, **asdict(found)})
        for system, scored in score.systems.items():
            self.durations_s[system][score.id] = scored.duration_s
            for measure, row in scored.rows.items():
                rows = self._rows.setdefault((system, measure), Rows())
                rows.add(score.id, dict(row), scored.entries.get(measure))

    @property
    def measured(self) -> bool:
        """Whether any measure has scored any clip."""
        return bool(self._rows)

    def ids(self, system: str, measure: str) -> list[str]:
        """The clips that the measure has scored, sorted."""
        return sorted(self._rows[system, measure].of) if (system, measure) in self._rows else []

    def clip_set(self, system: str, measure: Measure, ids: Sequence[str], cache: Cache) -> ClipSet:
        rows = self._rows.get((system, measure.name), Rows())
        if not measure.keeps_heard:
            return ClipSet(tuple(ids), rows.table(ids))
        generated, reference = (
            HeardFiles(cache, measure.key, [rows.entries[clip][side] for clip in ids]) for side in (0, 1)
        )
        return ClipSet(tuple(ids), rows.table(ids), generated, reference)

    def values(self, system: str, clip: str, measures: Sequence[Measure]) -> dict[str, float]:
        """The clip's own figures, in the order of the columns."""
        found = {}
        for measure in measures:
            rows = self._rows.get((system, measure.name))
            row = rows.of.get(clip) if rows else None
            for spec in measure.figures:
                place = rows.names.get(spec.name) if row is not None else None
                if spec.per_clip:
                    found[spec.name] = row[place] if place is not None and place < len(row) else float("nan")
        return found
