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

from visaudio.evaluation.measures import ClipSet, FigureSpec, Measure, finite_mean
from visaudio.evaluation.results import Comparison, Figure

RESAMPLES = 1000
LEVEL = 0.95
BLOCK = 64  # resamples that are multiplied at once


@dataclass(frozen=True)
class Resampled:
    """Of one system and measure. values: figure -> value over all clips; resampled: figure -> (R,);
    clips: figure -> number of clips behind it, 0 where it is nan. means: figures that are the mean of the
    clips' own values, of all clips and in every resample; the others are pooled over frames or onsets,
    medians, or distances. seed: of the draws."""

    values: Mapping[str, float]
    resampled: Mapping[str, np.ndarray] = field(repr=False)
    clips: Mapping[str, int]
    means: frozenset[str]
    seed: int


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
    behind = {name: number if np.isfinite(values[name]) else 0 for name, number in behind.items()}
    resampled = {n: resampled.get(n, nothing) for n in names}
    return Resampled(values, resampled, behind, _means(measure, clips, values, resampled, seed), seed)


def _means(measure: Measure, clips: ClipSet, values, resampled, seed: int) -> frozenset[str]:
    """Figures that are plain means over clips: seen from what `summarise` gives, so that no measure has to
    say it, and none can say it wrongly."""
    names = [f.name for f in measure.figures if f.per_clip and f.name in clips.rows]
    if type(measure).summarise is Measure.summarise:
        return frozenset(names)
    rows = [clips.rows[n] for n in names]
    drawn = len(next(iter(resampled.values()), ()))
    for_all = [[finite_mean(row)] for row in rows]
    for_drawn = _resampled_means(rows, len(clips.ids), drawn, seed)
    return frozenset(
        name
        for name, mean, means in zip(names, for_all, for_drawn, strict=True)
        if np.allclose(np.append(resampled[name], values[name]), np.append(means, mean), 1e-9, equal_nan=True)
    )


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
    """Two systems under one measure, over the clips that both have, in one order.

    shown: figure -> difference of the values that readers see side by side, where it is not that of a and b.
    """

    measure: Measure
    a: Resampled
    b: Resampled
    clips_a: ClipSet
    clips_b: ClipSet
    shown: Mapping[str, float] = field(default_factory=dict)


def compare(a: str, b: str, measures: Sequence[Both]) -> list[Comparison]:
    """Every figure of system a less that of b.

    A figure with a direction is judged, so that its p speaks of the difference that is shown: a mean over
    clips by the signed-rank test of the clips' values, unless that points the other way; all others by their
    resamples. Holm's correction is over all judged figures of the pair. Figures without a direction have no
    corrected p, and do not count in it.
    """
    found, judged = [], []
    for both in measures:
        if both.clips_a.ids != both.clips_b.ids:
            raise ValueError(f"{a} and {b} are compared over different clips")
        for spec in both.measure.figures:
            is_mean = spec.name in both.a.means & both.b.means
            *known, p = _of_mean(both, spec.name) if is_mean else _of_all(both, spec)
            found.append((spec.name, *known))
            judged.append(p if spec.better else float("nan"))
    return [Comparison(a, b, *known, p) for known, p in zip(found, holm(judged), strict=True)]


def _of_mean(both: Both, name: str) -> tuple[Figure, float, float, float]:
    """Difference over the clips on which both have a value, p of its resamples, of signed ranks, and the
    judging one: 1 where mean and ranks, or the values shown, do not point the same way (some clips that
    differ much outweigh the many, or the systems lack different clips): neither system can be named then."""
    apart = _paired(both, name)
    value, spread = both.a.values[name] - both.b.values[name], both.a.resampled[name] - both.b.resampled[name]
    shown, there = both.shown.get(name, value), np.isfinite(apart)
    if any((np.isfinite(clips.rows[name]) != there).any() for clips in (both.clips_a, both.clips_b)):
        value = finite_mean(apart)
        spread = _resampled_means([apart], len(apart), len(spread), both.a.seed)[0]
    tested, ranks = p_wilcoxon(apart), signed_ranks(apart)
    p = 1.0 if np.isfinite(tested) and (value * ranks < 0 or value * shown < 0) else tested
    return Figure(value, *interval(spread), int(there.sum())), p_bootstrap(spread), tested, p


def _of_all(both: Both, spec: FigureSpec) -> tuple[Figure, float, float, float]:
    """The same of a figure that is of all clips together. Clips may have values of their own, which weigh
    otherwise: their signed ranks are given, and judge nothing."""
    name, clips = spec.name, len(both.clips_a.ids)
    value, spread = both.a.values[name] - both.b.values[name], both.a.resampled[name] - both.b.resampled[name]
    tested = float("nan")
    if spec.per_clip:
        tested = p_wilcoxon(_paired(both, name))
        rows = [c.rows[name] for c in (both.clips_a, both.clips_b) if name in c.rows]
        clips = int(np.isfinite(rows).any(axis=0).sum()) if rows else 0
    p = p_spread(value, spread, clips)
    return Figure(value, *interval(spread), clips if np.isfinite(value) else 0), p, tested, p


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
    clips - 1 degrees of freedom. Where resamples lie on the other side of 0 than the value, at least twice
    their share: the spread alone does not know that a single clip may have made the difference.

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
    p = float(2 * t.sf(abs(value) / error, clips - 1))
    other = int((finite * np.sign(value) <= 0).sum())
    return max(p, min(1.0, 2 * (other + 1) / (finite.size + 1))) if other else p


def p_wilcoxon(difference: np.ndarray) -> float:
    """Signed-rank test of the clips' differences (C,); nan for fewer than two, 1 if all are 0."""
    from scipy.stats import wilcoxon

    finite = difference[np.isfinite(difference)]
    if finite.size < 2:
        return float("nan")
    if not finite.any():
        return 1.0
    return float(wilcoxon(finite).pvalue)


def signed_ranks(difference: np.ndarray) -> float:
    """1 or -1: the side of 0 to which Wilcoxon's ranks of the clips' differences (C,) sum up; 0 for none."""
    from scipy.stats import rankdata

    finite = difference[np.isfinite(difference) & (difference != 0)]
    return float(np.sign((np.sign(finite) * rankdata(np.abs(finite))).sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction; nan stays nan and does not count."""
    corrected = [float("nan")] * len(p_values)
    order = sorted((i for i, p in enumerate(p_values) if np.isfinite(p)), key=lambda i: p_values[i])
    least = 0.0
    for rank, index in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * p_values[index]))
        corrected[index] = least
    return corrected
