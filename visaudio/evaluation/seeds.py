"""Several trainings of one method as one row of a table: its mean over seeds, and how sure that is.

Each seed's sounds are a system of their own. All are scored on the same clips, and resampled alike
(intervals.py): the mean over seeds is taken within each resample, so that the interval says how sure the mean
is over clips. How much one training differs from another is said beside it: the least and the greatest seed.

Legend: R resamples.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bi_audio_dataset.schema import UserError
from visaudio import tables
from visaudio.evaluation.intervals import Resampled, interval
from visaudio.evaluation.measures import FigureSpec
from visaudio.evaluation.summary import Figures


@dataclass(frozen=True)
class OverSeeds:
    """value: mean over seeds, with its 95 % interval over clips; seeds: each seed's own value."""

    value: float
    low: float
    high: float
    seeds: tuple[float, ...]

    @property
    def least(self) -> float:
        return min(self.seeds)

    @property
    def greatest(self) -> float:
        return max(self.seeds)


@dataclass(frozen=True)
class Step:
    """A method less another: the difference of their rows, with its 95 % interval over the same resamples.

    wins: of the pairs of seeds of the two, the share in which the first is the better one (ties count half);
    nan where neither direction is better.
    """

    value: float
    low: float
    high: float
    wins: float


class SeedTable:
    """Figures of methods over their seeds. systems: method -> names of its systems, one for each seed.

    among: the clips that count, None for all; of them those that every system has. UserError where there
    are none.
    """

    def __init__(
        self,
        figures: Figures,
        systems: Mapping[str, Sequence[str]],
        among: Collection[str] | None = None,
    ) -> None:
        self.systems = {method: tuple(names) for method, names in systems.items()}
        self.specs = {spec.name: spec for measure in figures.chosen for spec in measure.figures}
        self.clips: dict[str, int] = {}
        self._found: dict[str, dict[str, Resampled]] = {}
        every = [name for names in self.systems.values() for name in names]
        for measure in figures.chosen:
            common = sorted(set.intersection(*(set(figures.collected.ids(s, measure.name)) for s in every)))
            common = common if among is None else [clip for clip in common if clip in among]
            if not common or (among is not None and measure.keeps_heard):  # distances of few clips say little
                continue
            self.clips[measure.name] = len(common)
            for system in every:
                found, _ = figures.resampled(system, measure, tuple(common))
                for spec in measure.figures:
                    self._found.setdefault(spec.name, {})[system] = found
        if not self._found:
            raise UserError("there is no clip that all seeds of all methods have")

    @property
    def figures(self) -> tuple[str, ...]:
        return tuple(self._found)

    def of(self, method: str, figure: str) -> OverSeeds:
        seeds = tuple(self._found[figure][s].values[figure] for s in self.systems[method])
        return OverSeeds(float(np.mean(seeds)), *interval(self._mean(method, figure)), seeds)

    def step(self, method: str, other: str, figure: str) -> Step:
        """method less other."""
        a, b = self.of(method, figure), self.of(other, figure)
        spread = self._mean(method, figure) - self._mean(other, figure)
        wins = _wins(self.specs[figure], a.seeds, b.seeds)
        return Step(a.value - b.value, *interval(spread), wins)

    def _mean(self, method: str, figure: str) -> np.ndarray:
        """(R,) mean over seeds, resample by resample."""
        return np.mean([self._found[figure][s].resampled[figure] for s in self.systems[method]], axis=0)


def _wins(spec: FigureSpec, a: Sequence[float], b: Sequence[float]) -> float:
    if not spec.better:
        return float("nan")
    sign = 1.0 if spec.better == "higher" else -1.0
    apart = sign * (np.asarray(a)[:, None] - np.asarray(b)[None])
    return float(((apart > 0) + 0.5 * (apart == 0)).mean())


# -------------------- as Markdown


def markdown(
    table: SeedTable, titles: Mapping[str, str], figures: Sequence[str], before: Mapping[str, str]
) -> str:
    """Two tables: each method's figures; each method's difference from the one that `before` names.

    Cells are mean [interval over clips], then the least and the greatest seed where there are several; of
    differences, in how many of the pairs of seeds the first method is the better one.
    """
    head = [_title(table.specs[name]) for name in figures]
    rows = [[titles[m], *(_cell(table, m, name) for name in figures)] for m in table.systems]
    text = tables.table(["method", *head], rows) + "\n"
    steps = [
        [f"{titles[m]}, less {titles[before[m]]}", *(_step(table, m, before[m], name) for name in figures)]
        for m in table.systems
        if m in before
    ]
    return text + ("\n" + tables.table(["step", *head], steps) + "\n" if steps else "")


def _title(spec: FigureSpec) -> str:
    arrow = {"higher": " ↑", "lower": " ↓"}.get(spec.better, "")
    unit = "%" if spec.factor == 100 and not spec.unit else spec.unit
    return f"{spec.title}{f' ({unit})' if unit and unit not in spec.title else ''}{arrow}"


def _cell(table: SeedTable, method: str, name: str) -> str:
    spec, found = table.specs[name], table.of(method, name)
    if not np.isfinite(found.value):
        return "-"
    text = f"{_show(spec, found.value)}{_interval(spec, found.low, found.high)}"
    if len(found.seeds) > 1:
        text += f"; {_show(spec, found.least)} to {_show(spec, found.greatest)}"
    return text


def _step(table: SeedTable, method: str, other: str, name: str) -> str:
    spec, found = table.specs[name], table.step(method, other, name)
    if not np.isfinite(found.value):
        return "-"
    sign = "+" if found.value > 0 else ""
    text = f"{sign}{_show(spec, found.value)}{_interval(spec, found.low, found.high)}"
    pairs = len(table.systems[method]) * len(table.systems[other])
    if pairs > 1 and np.isfinite(found.wins):
        text += f"; {pairs * found.wins:g} of {pairs}"
    return text


def _interval(spec: FigureSpec, low: float, high: float) -> str:
    return f" [{_show(spec, low)}, {_show(spec, high)}]" if np.isfinite(low) else ""


def _show(spec: FigureSpec, value: float) -> str:
    return f"{spec.factor * value:.{spec.digits}f}"
