"""Earlier evaluations side by side: python -m visaudio.evaluation.compare A/results.json B/results.json.

Nothing is measured again. The table has every system's figures as its own run stored them; systems of
different runs are tested in pairs on the clips that both have, by those clips' own values (a figure that a
measure pools over clips is tested by the mean over clips; neither system is called better where that mean and
the pooled values of the table do not point the same way). Figures that single clips do not have, distances of
distributions, keep their intervals and get no test: that takes one run of both systems.

Runs must have measured alike: a measure with another key (definition, settings, weights) than the first
run's is left out of the later one, and a clip with another reference out of the tests; both are told.
"""

from __future__ import annotations

import filecmp
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from bi_audio_dataset.schema import UserError
from visaudio.evaluation import intervals
from visaudio.evaluation.measures import ClipSet, FigureSpec, Measure
from visaudio.evaluation.problems import Problems
from visaudio.evaluation.results import ClipScored, Comparison, MeasureUsed, Results


@dataclass(frozen=True)
class Run:
    """An earlier evaluation. name: given for it, or ""; path: of its results.json."""

    name: str
    path: Path
    results: Results


class OwnValues(Measure):
    """Figures that clips have by themselves, read back from results: their means can be resampled."""

    name = "own values"

    def __init__(self, figures: Sequence[FigureSpec], resamples: int) -> None:
        self.figures, self.resamples = tuple(figures), resamples

    @property
    def key(self) -> str:
        return "own-values"

    def hear(self, sound, scene):
        raise NotImplementedError("these values were heard before")

    def compare(self, generated, reference, scene):
        raise NotImplementedError("these values were compared before")


def read_runs(given: Sequence[str]) -> list[Run]:
    """[NAME=]RESULTS.json, or the folder that holds it, each. UserError for one that cannot be read."""
    runs = []
    for text in given:
        name, equals, rest = text.partition("=")
        if not equals or Path(text).exists():
            name, rest = "", text
        path = Path(rest) / "results.json" if Path(rest).is_dir() else Path(rest)
        try:
            stored = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "not text"
            raise UserError(f"{path}: cannot be read ({why}), expected a results.json") from None
        try:
            results = Results.from_json(stored, path.resolve().parent)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        runs.append(Run(name, path, results))
    return runs


def merge(runs: Sequence[Run], resamples: int = intervals.RESAMPLES, seed: int = 0) -> Results:
    """All systems of all runs as one. UserError where two would have one name, or none of their clips is
    common."""
    runs = [replace(run, results=_renamed(run)) for run in runs]
    _check_names(runs)
    problems = Problems()
    measures = _measures(runs, problems)
    runs = [replace(run, results=_only(run.results, measures)) for run in runs]
    clips, foreign = _clips(runs, problems)
    made = {"runs": {run.name or str(k): dict(run.results.made) for k, run in enumerate(runs, start=1)}}
    merged = Results(
        systems=tuple(system for run in runs for system in run.results.systems),
        measures=measures,
        figures={name: figures for run in runs for name, figures in run.results.figures.items()},
        clips=clips,
        unavailable={name: why for run in reversed(runs) for name, why in run.results.unavailable.items()},
        groups=_groups(runs),
        group_titles={k: v for run in reversed(runs) for k, v in run.results.group_titles.items()},
        group_figures=_group_figures(runs),
        made=made,
    )
    found = {(c.a, c.b): [] for run in runs for c in run.results.comparisons}
    for run in runs:
        for comparison in run.results.comparisons:
            found[comparison.a, comparison.b].append(comparison)
    for one, other in combinations(runs, 2):
        for a in one.results.systems:
            for b in other.results.systems:
                found[a.name, b.name] = _tests(merged, a.name, b.name, foreign, problems, resamples, seed)
    order = [s.name for s in merged.systems]
    pairs = sorted(found, key=lambda pair: (order.index(pair[0]), order.index(pair[1])))
    stored = tuple(dict.fromkeys(problem for run in runs for problem in run.results.problems))
    return replace(
        merged,
        comparisons=tuple(comparison for pair in pairs for comparison in found[pair]),
        problems=(*stored, *problems.found()),
    )


# -------------------- one run made ready


def _renamed(run: Run) -> Results:
    """With its name in its systems' names, if it has one, and with whole paths."""
    results = run.results
    alone = len(results.systems) == 1
    names = [system.name for system in results.systems]
    new = {n: (run.name if alone else f"{run.name}/{n}") if run.name else n for n in names}

    def path(stored: str | None) -> str | None:
        return None if stored is None else os.path.abspath(results.path(stored))

    def clip(c: ClipScored) -> ClipScored:
        sounds = {new[name]: replace(sound, path=path(sound.path)) for name, sound in c.sounds.items()}
        places = {name: path(getattr(c, name)) for name in ("reference", "video", "truth")}
        return replace(c, sounds=sounds, **places)

    return replace(
        results,
        systems=tuple(replace(s, name=new[s.name]) for s in results.systems),
        figures={new[name]: figures for name, figures in results.figures.items()},
        clips=tuple(map(clip, results.clips)),
        comparisons=tuple(replace(c, a=new[c.a], b=new[c.b]) for c in results.comparisons),
        problems=tuple(replace(p, system=new.get(p.system, p.system) or run.name) for p in results.problems),
        group_figures={
            group: {new[name]: f for name, f in figures.items()}
            for group, figures in results.group_figures.items()
        },
    )


def _check_names(runs: Sequence[Run]) -> None:
    seen: dict[str, Run] = {}
    for run in runs:
        for system in run.results.systems:
            if system.name in seen:
                raise UserError(
                    f"a system is called '{system.name}' in {seen[system.name].path} and in {run.path}: "
                    f"give the runs names, A={seen[system.name].path} B={run.path}"
                )
            seen[system.name] = run


def _measures(runs: Sequence[Run], problems: Problems) -> tuple[MeasureUsed, ...]:
    """The first run's, then those that only later ones have; another key is told of."""
    found: dict[str, MeasureUsed] = {}
    for run in runs:
        for measure in run.results.measures:
            first = found.setdefault(measure.name, measure)
            if first.key != measure.key:
                for system in run.results.systems:
                    problems.add("other_measure", measure.name, system.name)
    return tuple(found.values())


def _only(results: Results, measures: Sequence[MeasureUsed]) -> Results:
    """Without figures of measures whose key is another."""
    keys = {measure.name: measure.key for measure in measures}
    gone = {f.name for m in results.measures if keys[m.name] != m.key for f in m.figures}
    if not gone:
        return results

    def left(named: dict) -> dict:
        return {name: value for name, value in named.items() if name not in gone}

    return replace(
        results,
        figures={system: left(figures) for system, figures in results.figures.items()},
        group_figures={
            group: {system: left(figures) for system, figures in found.items()}
            for group, found in results.group_figures.items()
        },
        comparisons=tuple(c for c in results.comparisons if c.figure not in gone),
        clips=tuple(
            replace(c, sounds={name: replace(s, values=left(s.values)) for name, s in c.sounds.items()})
            for c in results.clips
        ),
    )


# -------------------- all runs together


def _clips(runs: Sequence[Run], problems: Problems) -> tuple[tuple[ClipScored, ...], set[tuple[str, str]]]:
    """Clips in the order of their first run, and (system, clip) of another reference than there."""
    merged: dict[str, ClipScored] = {}
    foreign: set[tuple[str, str]] = set()
    for run in runs:
        for clip in run.results.clips:
            first = merged.setdefault(clip.id, clip)
            if first is clip:
                continue
            same = _same_reference(first.reference, clip.reference)
            if not same:
                kind = "reference_gone" if same is None else "other_reference"
                for system in clip.sounds:
                    problems.add(kind, clip.id, system)
                    if same is False:
                        foreign.add((system, clip.id))
            places = ("reference", "video", "truth", "caption")
            known = {name: getattr(first, name) or getattr(clip, name) for name in places}
            merged[clip.id] = replace(first, sounds={**first.sounds, **clip.sounds}, **known)
    return tuple(merged.values()), foreign


def _same_reference(a: str | None, b: str | None) -> bool | None:
    """By their bytes; None where one is not there any more."""
    if a == b:
        return True
    if a is None or b is None:
        return False
    if not (os.path.isfile(a) and os.path.isfile(b)):
        return None
    try:
        return filecmp.cmp(a, b, shallow=False)
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror or error})") from error


def _groups(runs: Sequence[Run]) -> dict[str, tuple[str, ...]]:
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        for group, ids in run.results.groups.items():
            found.setdefault(group, {}).update(dict.fromkeys(ids))
    return {group: tuple(ids) for group, ids in found.items()}


def _group_figures(runs: Sequence[Run]) -> dict:
    found: dict[str, dict] = {}
    for run in runs:
        for group, figures in run.results.group_figures.items():
            found.setdefault(group, {}).update(figures)
    return found


def _tests(
    merged: Results,
    a: str,
    b: str,
    foreign: set[tuple[str, str]],
    problems: Problems,
    resamples: int,
    seed: int,
) -> list[Comparison]:
    """Of two systems of different runs. UserError where they have no clip in common."""
    common = []
    for clip in merged.clips:
        if {(a, clip.id), (b, clip.id)} & foreign:
            continue
        if a in clip.sounds and b in clip.sounds:
            common.append(clip)
        elif a in clip.sounds or b in clip.sounds:
            problems.add("not_common", clip.id, f"{a}, {b}")
    if not common:
        raise UserError(
            f"{a} and {b} have no clip with the same reference in common (of {len(merged.clips)}): there is "
            "nothing to compare"
        )
    ids = tuple(clip.id for clip in common)
    sets = []
    for system in (a, b):
        values = [clip.sounds[system].values for clip in common]
        names = {name for row in values for name in row}
        rows = {name: np.array([row.get(name, np.nan) for row in values], float) for name in names}
        sets.append(ClipSet(ids, rows))
    specs = [
        spec
        for spec in merged.specs.values()
        if spec.per_clip and all(np.isfinite(s.rows.get(spec.name, np.nan)).any() for s in sets)
    ]
    measure = OwnValues(specs, resamples)
    one, other = (intervals.resample(measure, s, resamples, seed) for s in sets)
    shown = _pooled_differences(merged, a, b, specs)
    return intervals.compare(a, b, [intervals.Both(measure, one, other, *sets, shown)])


def _pooled_differences(merged: Results, a: str, b: str, specs: Sequence[FigureSpec]) -> dict[str, float]:
    """Figure -> difference in the table, where that is not one of means of the clips' own values."""
    found = {}
    for name in [spec.name for spec in specs]:
        in_table, means = [], []
        for system in (a, b):
            own = [c.sounds[system].values.get(name, np.nan) for c in merged.clips if system in c.sounds]
            in_table.append(merged.figures[system][name].value)
            means.append(np.nanmean(own))
        if not np.allclose(in_table, means, rtol=1e-9):
            found[name] = in_table[0] - in_table[1]
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """python -m visaudio.evaluation.compare RESULTS.json RESULTS.json --output DIR."""
    from visaudio.cli.compare import main as run

    return run(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
