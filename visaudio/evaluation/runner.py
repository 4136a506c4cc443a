"""evaluate(): folders of sounds in, figures with intervals out. The command line is cli/evaluation.py.

results = evaluate({"mine": "out/mine", "other": "out/other"}, "clips/reference", "runs/eval")
results.figures["mine"]["ild_error_db"]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from bi_audio_dataset.schema import UserError
from visaudio.evaluation import measures as suite_of
from visaudio.evaluation import pairs, references
from visaudio.evaluation.cache import Cache
from visaudio.evaluation.collected import Collected
from visaudio.evaluation.intervals import Both, Resampled, compare, figures_of, resample
from visaudio.evaluation.measures import Measure, Settings, Unavailable
from visaudio.evaluation.pairs import ClipFiles
from visaudio.evaluation.problems import Problems, line
from visaudio.evaluation.results import ClipScored, Figure, MeasureUsed, Results, SoundScored, SystemUsed
from visaudio.evaluation.scoring import Scorer, Suite
from visaudio.evaluation.synth_benchmark import GROUPS
from visaudio.evaluation.workers import score_in_pool


@dataclass(frozen=True)
class Options:
    """How to evaluate.

    measures: names, None for all that can be had. split, config: of a BiAudio reference. limit: the first
    so many clips. workers: processes; 1 is this one alone. strict: UserError at any serious problem.
    resamples, seed: of the bootstrap. videos: a folder of pictures, before the reference's own.
    unpack_videos: write a dataset's videos out even if no measure wants them (for the page).
    """

    measures: tuple[str, ...] | None = None
    weights: Mapping[str, str] = field(default_factory=dict)
    device: str = "cpu"
    split: str = "test"
    config: str = "default"
    limit: int | None = None
    workers: int = 1
    strict: bool = False
    resamples: int = 1000
    seed: int = 0
    videos: Path | None = None
    unpack_videos: bool = True
    progress: bool = True

    def __post_init__(self) -> None:
        for name in ("workers", "resamples"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.limit is not None and self.limit < 1:
            raise UserError(f"limit must be at least 1, got {self.limit}")


def evaluate(
    systems: Mapping[str, str | Path],
    reference: str | Path | None,
    output: str | Path,
    options: Options = Options(),
    *,
    made: Mapping[str, Mapping[str, Any]] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Results:
    """Scores folders of sounds against a reference folder, a BiAudio dataset, or nothing.

    systems: name -> folder. output: gets the cache and a dataset's media (`writing.write` puts the results
    there). made: how a system's sounds came about, for the record. say: is told each thing worth a line.
    Raises UserError for what cannot be evaluated, and with options.strict for any problem.
    """
    output = Path(output)
    problems = Problems()
    # what costs nothing first: a mistake in the command line is told before weights are loaded
    _check_names(options.measures)
    folders = {name: pairs.find_sounds(Path(path), problems, system=name) for name, path in systems.items()}
    if not folders:
        raise UserError("no system was given: expected at least one folder of sounds")
    videos = pairs.find_videos(options.videos) if options.videos is not None else {}
    clips, rows = _pair(folders, reference, options, problems)
    _check_strict(options, problems)
    chosen, unavailable = choose_measures(options, say)
    if reference is None:
        say("no reference: only what needs none is measured")
    _make_folder(output)
    if rows is not None:
        wants = options.unpack_videos or any("video" in measure.needs for measure in chosen)
        ids = [clip.id for clip in clips]
        written = references.write_out(rows, ids, output, videos=wants, progress=options.progress)
        clips = pairs.with_references(clips, written)
    clips = pairs.with_videos(clips, videos)
    cache = Cache(output / "cache")
    collected = Collected(list(folders))
    _score(clips, chosen, cache, options, collected, problems)
    for system, scored in collected.durations_s.items():
        if len(scored) == 1:
            problems.add("one_clip", next(iter(scored)), system)
    _check_scored(collected, problems)
    _check_strict(options, problems)
    return _results(clips, folders, chosen, collected, cache, options, problems, unavailable, made or {})


def choose_measures(options: Options, say: Callable[[str], None]) -> tuple[list[Measure], dict[str, str]]:
    """The measures, and why others could not be had. Unavailable is raised for one asked for by name."""
    names = list(suite_of.REGISTRY) if options.measures is None else list(dict.fromkeys(options.measures))
    weights = _Overrides(options.weights)
    settings = Settings(weights, options.device)
    chosen, unavailable = [], {}
    for name in names:
        try:
            chosen.append(suite_of.make(name, settings))
        except Unavailable as error:
            if options.measures is not None:
                raise Unavailable(f"{name}: {error}") from error
            unavailable[name] = str(error)
            say(f"without {name}: {error}")
    if unasked := sorted(set(weights) - weights.asked):
        known = ", ".join(sorted(weights.asked)) or "none at all"
        raise UserError(f"--weights {unasked[0]}=...: the measures taken ask for {known}")
    if not chosen:
        raise UserError("no measure can be had: " + ("; ".join(unavailable.values()) or "none is registered"))
    taken: dict[str, str] = {}
    for measure in chosen:
        for spec in measure.figures:
            if taken.setdefault(spec.name, measure.name) != measure.name:
                raise ValueError(f"{measure.name} and {taken[spec.name]} both have a figure '{spec.name}'")
    return chosen, unavailable


class _Overrides(dict):
    """Weights by name, and which names the measures have asked for: a misspelt one must not pass."""

    def __init__(self, weights: Mapping[str, str]) -> None:
        super().__init__(weights)
        self.asked: set[str] = set()

    def get(self, name: str, default: str | None = None) -> str | None:
        self.asked.add(name)
        return super().get(name, default)

    def __getitem__(self, name: str) -> str:
        self.asked.add(name)
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        self.asked.add(str(name))
        return super().__contains__(name)


def _check_names(names: Sequence[str] | None) -> None:
    for name in names or ():
        if name not in suite_of.REGISTRY:
            raise UserError(f"there is no measure '{name}', expected of {', '.join(suite_of.REGISTRY)}")


def _check_strict(options: Options, problems: Problems) -> None:
    serious = [problem for problem in problems.found() if problem.serious]
    if options.strict and serious:
        raise UserError(f"--strict: {line(serious[0])}")


def _check_scored(collected: Collected, problems: Problems) -> None:
    """UserError where there is not one figure."""
    found = problems.found()
    if not any(collected.durations_s.values()):
        refused = [problem for problem in found if "clip refused" in problem.text]
        raise UserError(f"no clip could be scored: {line(refused[0])}")
    if not collected.measured:
        lacking = [problem for problem in found if problem.kind in ("lacks", "failed")]
        raise UserError(f"nothing could be measured: {'; '.join(line(problem) for problem in lacking[:3])}")


def _make_folder(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{output}: cannot be made a folder to write to ({error.strerror or error})"
        ) from error


# -------------------- clips


def _pair(
    folders: Mapping[str, pairs.Folder],
    reference: str | Path | None,
    options: Options,
    problems: Problems,
) -> tuple[list[ClipFiles], references.Rows | None]:
    """The clips to score; and the rows that their references are to be written out from, if any."""
    if reference is None:
        problems.add("no_reference", "all clips")
        return pairs.pair_up(folders, None, problems, options.limit), None
    if references.is_dataset(reference):
        rows = references.open_rows(reference, options.split, options.config)
        return pairs.pair_up(folders, rows.ids, problems, options.limit), rows
    found = pairs.reference_of_folder(Path(reference), problems)
    return pairs.pair_up(folders, found, problems, options.limit), None


def _score(
    clips: Sequence[ClipFiles],
    chosen: Sequence[Measure],
    cache: Cache,
    options: Options,
    collected: Collected,
    problems: Problems,
) -> None:
    from tqdm import tqdm

    passes: list[tuple[Sequence[Measure], int]] = [(chosen, 1)]
    if options.workers > 1:
        # a process decodes a file once for all its measures, so those of this process come in one pass too
        here = [measure for measure in chosen if not measure.parallel]
        there = [measure for measure in chosen if measure.parallel]
        passes = [(part, n) for part, n in ((there, options.workers), (here, 1)) if part]
    for part, workers in passes:
        names = ", ".join(measure.name for measure in part)
        bar = tqdm(total=len(clips), desc=names, unit="clip", disable=not options.progress, smoothing=0.1)
        with bar:

            def done(score, bar=bar) -> None:
                collected.add(score, problems)
                bar.update(1)

            if workers > 1:
                targets = {measure.name: suite_of.REGISTRY[measure.name] for measure in part}
                settings = Settings(dict(options.weights))
                score_in_pool(clips, Suite(targets, settings, cache.folder), workers, done)
            else:
                scorer = Scorer(part, cache)
                for clip in clips:
                    done(scorer.score(clip))


# -------------------- figures


def _results(
    clips: Sequence[ClipFiles],
    folders: Mapping[str, pairs.Folder],
    chosen: Sequence[Measure],
    collected: Collected,
    cache: Cache,
    options: Options,
    problems: Problems,
    unavailable: Mapping[str, str],
    made: Mapping[str, Mapping[str, Any]],
) -> Results:
    figures = _Figures(chosen, collected, cache, options)
    scored = set().union(*collected.durations_s.values())
    groups = {
        name: tuple(clip.id for clip in clips if name in clip.reference.groups and clip.id in scored)
        for name in GROUPS
    }
    groups = {name: ids for name, ids in groups.items() if ids}
    return Results(
        systems=tuple(
            SystemUsed(name, str(folder.path.resolve()), len(collected.durations_s[name]), made.get(name, {}))
            for name, folder in folders.items()
        ),
        measures=tuple(
            MeasureUsed(m.name, m.key, m.figures, min(m.resamples, options.resamples)) for m in chosen
        ),
        figures=figures.table(),
        clips=tuple(_clip(clip, collected, chosen) for clip in clips if clip.id in scored),
        comparisons=tuple(figures.comparisons()),
        problems=problems.found(),
        unavailable=unavailable,
        groups=groups,
        group_titles={name: GROUPS[name] for name in groups},
        group_figures={name: figures.table(set(ids)) for name, ids in groups.items()},
        made={"settings": _settings(options)},
    )


class _Figures:
    """Figures of systems over all clips or some; what was resampled once is not resampled again."""

    def __init__(
        self, chosen: Sequence[Measure], collected: Collected, cache: Cache, options: Options
    ) -> None:
        self.chosen, self.collected, self.cache, self.options = chosen, collected, cache, options
        self._known: dict[tuple[str, str, tuple[str, ...]], Resampled] = {}

    def table(self, among: set[str] | None = None) -> dict[str, dict[str, Figure]]:
        """system -> figure -> value and interval. Of some clips only what is made of rows: distances of
        distributions say little of few clips, and cost much."""
        found: dict[str, dict[str, Figure]] = {}
        for system in self.collected.systems:
            found[system] = {}
            for measure in self.chosen:
                ids = self.collected.ids(system, measure.name)
                if among is not None:
                    if measure.keeps_heard:
                        continue
                    ids = [clip for clip in ids if clip in among]
                found[system] |= figures_of(self._resampled(system, measure, tuple(ids))[0])
        return found

    def comparisons(self):
        for a, b in combinations(self.collected.systems, 2):
            both = []
            for measure in self.chosen:
                theirs = set(self.collected.ids(b, measure.name))
                ids = tuple(c for c in self.collected.ids(a, measure.name) if c in theirs)
                if ids:
                    (of_a, clips_a), (of_b, clips_b) = (self._resampled(s, measure, ids) for s in (a, b))
                    both.append(Both(measure, of_a, of_b, clips_a, clips_b))
            yield from compare(a, b, both)

    def _resampled(self, system: str, measure: Measure, ids: tuple[str, ...]):
        clips = self.collected.clip_set(system, measure, ids, self.cache)
        key = (system, measure.name, ids)
        if key not in self._known:
            self._known[key] = resample(measure, clips, self.options.resamples, self.options.seed)
        return self._known[key], clips


def _clip(clip: ClipFiles, collected: Collected, chosen: Sequence[Measure]) -> ClipScored:
    sounds = {
        system: SoundScored(
            str(path.resolve()),
            collected.durations_s[system][clip.id],
            collected.values(system, clip.id, chosen),
        )
        for system, path in clip.sounds.items()
        if clip.id in collected.durations_s[system]
    }
    known = clip.reference
    own = next((clip.pictures[system] for system in sounds if system in clip.pictures), None)
    return ClipScored(
        clip.id,
        sounds,
        known.caption,
        *(
            None if path is None else str(path.resolve())
            for path in (known.sound, known.video or own, known.truth)
        ),
    )


def _settings(options: Options) -> dict[str, Any]:
    stored = asdict(options)
    stored["videos"] = None if options.videos is None else str(options.videos)
    for name in ("progress", "unpack_videos"):
        del stored[name]
    return stored
