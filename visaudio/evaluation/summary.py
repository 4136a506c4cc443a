"""What collected scores come to: figures of systems and groups, differences of systems, all as Results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from visaudio.evaluation.cache import Cache
from visaudio.evaluation.collected import Collected
from visaudio.evaluation.intervals import Both, Resampled, compare, figures_of, resample
from visaudio.evaluation.measures import ClipSet, Measure
from visaudio.evaluation.pairs import ClipFiles, Folder
from visaudio.evaluation.results import (
    ClipScored,
    Comparison,
    Figure,
    MeasureUsed,
    Results,
    SoundScored,
    SystemUsed,
)
from visaudio.evaluation.synth_benchmark import GROUPS

GROUP_RESAMPLES = 300


def results_of(
    clips: Sequence[ClipFiles],
    folders: Mapping[str, Folder],
    collected: Collected,
    figures: Figures,
    made: Mapping[str, Mapping[str, Any]],
    output: Path,
) -> Results:
    """Results without what was wrong and how they were made: `runner.evaluate` adds that. output: the
    folder; paths inside it are stored relative to it, so that it can be moved."""
    scored = set().union(*collected.durations_s.values())
    groups = {
        name: tuple(clip.id for clip in clips if name in clip.reference.groups and clip.id in scored)
        for name in GROUPS
    }
    groups = {name: ids for name, ids in groups.items() if ids}
    return Results(
        systems=tuple(
            SystemUsed(
                name, _stored(folder.path, output), len(collected.durations_s[name]), made.get(name, {})
            )
            for name, folder in folders.items()
        ),
        measures=tuple(
            MeasureUsed(m.name, m.key, m.figures, min(m.resamples, figures.resamples)) for m in figures.chosen
        ),
        figures=figures.table(),
        clips=tuple(_clip(clip, collected, figures.chosen, output) for clip in clips if clip.id in scored),
        comparisons=tuple(figures.comparisons()),
        groups=groups,
        group_titles={name: GROUPS[name] for name in groups},
        group_figures={name: figures.table(set(ids)) for name, ids in groups.items()},
        folder=output,
    )


@dataclass
class Figures:
    """Figures of systems over all clips or some; what was resampled once is not resampled again."""

    chosen: Sequence[Measure]
    collected: Collected
    cache: Cache
    resamples: int
    seed: int

    def __post_init__(self) -> None:
        self._known: dict[tuple[str, str, tuple[str, ...], int], Resampled] = {}

    def table(self, among: set[str] | None = None) -> dict[str, dict[str, Figure]]:
        """system -> figure -> value and interval.

        Of some clips only what is made of rows (distances of distributions say little of few clips, and cost
        much) and has a value, with intervals of at most GROUP_RESAMPLES.
        """
        resamples = self.resamples if among is None else min(self.resamples, GROUP_RESAMPLES)
        found: dict[str, dict[str, Figure]] = {}
        for system in self.collected.systems:
            found[system] = {}
            for measure in self.chosen:
                ids = self.collected.ids(system, measure.name)
                if among is not None:
                    if measure.keeps_heard:
                        continue
                    ids = [clip for clip in ids if clip in among]
                figures = figures_of(self.resampled(system, measure, tuple(ids), resamples)[0])
                found[system] |= {k: f for k, f in figures.items() if among is None or np.isfinite(f.value)}
        return found

    def remarks(self) -> Iterator[tuple[str, str, str]]:
        """What measures say of the figures they gave: system, measure, a line."""
        for system in self.collected.systems:
            for measure in self.chosen:
                ids = tuple(self.collected.ids(system, measure.name))
                if ids:
                    clips = self.collected.clip_set(system, measure, ids, self.cache)
                    yield from ((system, measure.name, line) for line in measure.remarks(clips))

    def comparisons(self) -> Iterator[Comparison]:
        """Of every pair of systems, over the clips that both have."""
        for a, b in combinations(self.collected.systems, 2):
            both = []
            for measure in self.chosen:
                theirs = set(self.collected.ids(b, measure.name))
                ids = tuple(c for c in self.collected.ids(a, measure.name) if c in theirs)
                if ids:
                    (of_a, clips_a), (of_b, clips_b) = (
                        self.resampled(system, measure, ids, self.resamples) for system in (a, b)
                    )
                    both.append(Both(measure, of_a, of_b, clips_a, clips_b))
            yield from compare(a, b, both)

    def resampled(
        self, system: str, measure: Measure, ids: tuple[str, ...], resamples: int | None = None
    ) -> tuple[Resampled, ClipSet]:
        """Of the clips `ids`, which the measure must have scored: their figures, also over resampled clips
        (None: as often as all figures are), and their rows. Systems with the same clips are resampled alike.
        """
        resamples = self.resamples if resamples is None else resamples
        clips = self.collected.clip_set(system, measure, ids, self.cache)
        key = (system, measure.name, ids, resamples)
        if key not in self._known:
            self._known[key] = resample(measure, clips, resamples, self.seed)
        return self._known[key], clips


def _clip(clip: ClipFiles, collected: Collected, chosen: Sequence[Measure], output: Path) -> ClipScored:
    sounds = {
        system: SoundScored(
            _stored(path, output),
            collected.durations_s[system][clip.id],
            collected.values(system, clip.id, chosen),
        )
        for system, path in clip.sounds.items()
        if clip.id in collected.durations_s[system]
    }
    known = clip.reference
    own = next((clip.pictures[system] for system in sounds if system in clip.pictures), None)
    paths = (known.sound, known.video or own, known.truth)
    sound, video, truth = (None if path is None else _stored(path, output) for path in paths)
    return ClipScored(clip.id, sounds, known.caption, sound, video, truth)


def _stored(path: Path, output: Path) -> str:
    whole = path.resolve()
    return str(whole.relative_to(output) if whole.is_relative_to(output) else whole)
