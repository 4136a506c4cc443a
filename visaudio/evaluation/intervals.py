"""How sure a figure is: percentile bootstrap over clips, and paired tests between systems.

Every figure is resampled through its measure's `summarise`, a distance of distributions like a mean; plain
means are resampled as matrix products. The draws depend on the seed and the number of clips alone, so that
two systems which have the same clips are resampled alike. Resamples of `recentred` figures, which repeated
clips shift, are moved to have the value as their mean: the interval is their spread alone.

Sources: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentile interval);
Wilcoxon 1945; Holm 1979.

Legend: C clips, R resamples, F figures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from visaudio.evaluation.measures import ClipSet, Measure
from visaudio.evaluation.results import Comparison, Figure

RESAMPLES = 1000
LEVEL = 0.95
BLOCK = 64  # resamples that are multiplied at once


@dataclass(frozen=True)
class Resampled:
    """Of one system and measure. values: figure -> value over all clips; resampled: figure -> (R,);
    clips: figure -> number of clips behind it."""

    values: Mapping[str, float]
    resampled: Mapping[str, np.ndarray] = field(repr=False)
    clips: Mapping[str, int]


def draws(count: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """`resamples` times (count,) numbers of clips, with replacement."""
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        yield rng.integers(count, size=count)


def resample(measure: Measure, clips: ClipSet, resamples: int = RESAMPLES, seed: int = 0) -> Resampled:
    """Every figure of a measure over the clips, and over resampled clips (none for fewer than two)."""
    count = len(clips.ids)
    names = [spec.name for spec in measure.figures]
    values = dict.fromkeys(names, float("nan"))
    if count:
        values |= _known(names, measure.summarise(clips, np.arange(count)))
    wanted = min(resamples, measure.resamples) if count > 1 else 0
    if type(measure).summarise is Measure.summarise:
        means = _resampled_means([clips.rows[n] for n in names if n in clips.rows], count, wanted, seed)
        resampled = dict(zip([n for n in names if n in clips.rows], means, strict=True))
    else:
        drawn = [_known(names, measure.summarise(clips, index)) for index in draws(count, wanted, seed)]
        resampled = {n: np.array([row.get(n, np.nan) for row in drawn], float) for n in names}
    for name in [f.name for f in measure.figures if f.recentred and f.name in resampled]:
        resampled[name] = _recentred(resampled[name], values[name])
    nothing = np.full(wanted, np.nan)
    there = {name: int(np.isfinite(row).sum()) for name, row in clips.rows.items()}
    behind = {f.name: there.get(f.name, 0) if f.per_clip else count for f in measure.figures}
    return Resampled(values, {n: resampled.get(n, nothing) for n in names}, behind)


def _recentred(resampled: np.ndarray, value: float) -> np.ndarray:
    finite = resampled[np.isfinite(resampled)]
    return resampled + (value - finite.mean()) if finite.size else resampled


def _known(names: Sequence[str], found: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in found.items() if name in names}


def _resampled_means(rows: Sequence[np.ndarray], count: int, resamples: int, seed: int) -> np.ndarray:
    """(F, R) means of what is finite in each of F rows (C,), over the same draws as any other measure."""
    if not rows or not resamples:
        return np.zeros((len(rows), resamples))
    table_CF = np.stack(rows, axis=1).astype(float)
    there_CF = np.isfinite(table_CF)
    table_CF = np.where(there_CF, table_CF, 0.0)
    means = np.empty((len(rows), resamples))
    done, block = 0, []
    for index in draws(count, resamples, seed):
        block.append(np.bincount(index, minlength=count))
        if len(block) == BLOCK or done + len(block) == resamples:
            weights_BC = np.stack(block).astype(float)
            number_BF = weights_BC @ there_CF
            with np.errstate(invalid="ignore", divide="ignore"):
                mean_BF = np.where(number_BF > 0, weights_BC @ table_CF / number_BF, np.nan)
            means[:, done : done + len(block)] = mean_BF.T
            done, block = done + len(block), []
    return means


def figures_of(found: Resampled) -> dict[str, Figure]:
    """Values with their percentile intervals."""
    return {
        name: Figure(value, *interval(found.resampled[name]), found.clips[name])
        for name, value in found.values.items()
    }


def interval(resampled: np.ndarray) -> tuple[float, float]:
    """The central LEVEL of what is finite; nan without any."""
    finite = resampled[np.isfinite(resampled)]
    if not finite.size:
        return float("nan"), float("nan")
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(finite, [tail, 100 - tail])
    return float(low), float(high)


# -------------------- two systems


@dataclass(frozen=True)
class Both:
    """Two systems under one measure, over the clips that both have, in one order."""

    measure: Measure
    a: Resampled
    b: Resampled
    clips_a: ClipSet
    clips_b: ClipSet


def compare(a: str, b: str, measures: Sequence[Both]) -> list[Comparison]:
    """Every figure of system a less that of b.

    A figure with a direction is judged: by its signed-rank test, or by the bootstrap's p where it is of all
    clips together and has none. Holm's correction is over all judged figures of the pair. Figures without a
    direction have no corrected p, and do not count in it.
    """
    found, judged = [], []
    for both in measures:
        if both.clips_a.ids != both.clips_b.ids:
            raise ValueError(f"{a} and {b} are compared over different clips")
        for spec in both.measure.figures:
            name = spec.name
            spread = both.a.resampled[name] - both.b.resampled[name]
            value = both.a.values[name] - both.b.values[name]
            if spec.per_clip:
                apart = _paired(both, name)
                p, tested, clips = p_bootstrap(spread), p_wilcoxon(apart), int(np.isfinite(apart).sum())
            else:
                clips = len(both.clips_a.ids)
                p, tested = p_spread(value, spread, clips), float("nan")
            found.append((name, Figure(value, *interval(spread), clips), p, tested))
            judged.append((tested if spec.per_clip else p) if spec.better else float("nan"))
    return [Comparison(a, b, *known, p) for known, p in zip(found, holm(judged), strict=True)]


def _paired(both: Both, figure: str) -> np.ndarray:
    """(C,) clips' own values of a less those of b; nan where either has none."""
    none = np.full(len(both.clips_a.ids), np.nan)
    return both.clips_a.rows.get(figure, none) - both.clips_b.rows.get(figure, none)


def p_bootstrap(spread: np.ndarray) -> float:
    """Two-sided: twice the smaller share of resampled differences on one side of 0, never 0 itself."""
    finite = spread[np.isfinite(spread)]
    if not finite.size:
        return float("nan")
    below, above = ((finite <= 0).sum() + 1, (finite >= 0).sum() + 1)
    return float(min(1.0, 2 * min(below, above) / (finite.size + 1)))


def p_spread(value: float, spread: np.ndarray, clips: int) -> float:
    """Two-sided, of a difference whose standard error is the spread of its resamples: Student's t of
    clips - 1 degrees of freedom.

    Counting R resamples cannot give less than 2 / (R + 1), which a correction for tens of figures puts above
    any level; and measures that cost much have R = 100.
    """
    from scipy.stats import t

    finite = spread[np.isfinite(spread)]
    if finite.size < 2 or clips < 2 or not np.isfinite(value):
        return float("nan")
    error = finite.std(ddof=1)
    if not error:  # every resample is the same: nothing to measure by but their number
        return p_bootstrap(spread)
    return float(2 * t.sf(abs(value) / error, clips - 1))


def p_wilcoxon(difference: np.ndarray) -> float:
    """Signed-rank test of the clips' differences (C,); nan for fewer than two, 1 if all are 0."""
    from scipy.stats import wilcoxon

    finite = difference[np.isfinite(difference)]
    if finite.size < 2:
        return float("nan")
    if not finite.any():
        return 1.0
    return float(wilcoxon(finite).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction; nan stays nan and does not count."""
    corrected = [float("nan")] * len(p_values)
    order = sorted((i for i, p in enumerate(p_values) if np.isfinite(p)), key=lambda i: p_values[i])
    least = 0.0
    for rank, index in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * p_values[index]))
        corrected[index] = least
    return corrected
