"""evaluate(): folders of sounds in, figures with intervals out. The command line is cli/evaluation.py.

results = evaluate({"mine": "out/mine", "other": "out/other"}, "clips/reference", "runs/eval")
results.figures["mine"]["ild_error_db"]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bi_audio_dataset.schema import UserError
from visaudio.evaluation import measures as suite_of
from visaudio.evaluation import pairs, references
from visaudio.evaluation.cache import Cache
from visaudio.evaluation.choosing import check_names, choose_measures
from visaudio.evaluation.collected import Collected
from visaudio.evaluation.measures import Measure, Settings
from visaudio.evaluation.pairs import ClipFiles
from visaudio.evaluation.problems import Problems, line
from visaudio.evaluation.results import Results
from visaudio.evaluation.scoring import Scorer, Suite
from visaudio.evaluation.summary import Figures, results_of
from visaudio.evaluation.workers import score_in_pool


@dataclass(frozen=True)
class Options:
    """How to evaluate.

    measures: names, None for all that can be had. weights, device, hfov_deg, detector_labels: of
    `measures.Settings`. split, config: of a BiAudio reference. limit: the first
    so many clips. workers: processes; 1 is this one alone. strict: UserError at any serious problem.
    resamples, seed: of the bootstrap. videos: a folder of pictures, before the reference's own.
    captions: a file of captions (`pairs.read_captions`), before the dataset's.
    unpack_videos: write a dataset's videos out even if no measure wants them (for the page).
    """

    measures: tuple[str, ...] | None = None
    weights: Mapping[str, str] = field(default_factory=dict)
    device: str = "cpu"
    hfov_deg: float = 90.0
    detector_labels: tuple[str, ...] = ()
    split: str = "test"
    config: str = "default"
    limit: int | None = None
    workers: int = 1
    strict: bool = False
    resamples: int = 1000
    seed: int = 0
    videos: Path | None = None
    captions: Path | None = None
    unpack_videos: bool = True
    progress: bool = True

    def __post_init__(self) -> None:
        for name in ("workers", "resamples"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.hfov_deg < 180:
            raise UserError(f"hfov_deg must lie between 0 and 180 degrees, got {self.hfov_deg:g}")
        if self.limit is not None and self.limit < 1:
            raise UserError(f"limit must be at least 1, got {self.limit}")


@dataclass(frozen=True)
class Scored:
    """All clips heard and compared, before anything is said of them. figures: of systems over any clips."""

    clips: tuple[ClipFiles, ...]
    folders: Mapping[str, pairs.Folder]
    figures: Figures
    collected: Collected
    problems: Problems
    unavailable: Mapping[str, str]


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
    scored, where = score(systems, reference, output, options, say=say), Path(output).resolve()
    for system, measure, text in scored.figures.remarks():
        scored.problems.add("remark", "all clips", system, about=measure, detail=text)
    results = results_of(scored.clips, scored.folders, scored.collected, scored.figures, made or {}, where)
    return replace(
        results,
        systems=tuple(replace(system, of=_asked(scored)) for system in results.systems),
        problems=scored.problems.found(),
        unavailable=scored.unavailable,
        made={"reference": None if reference is None else str(reference), "settings": _settings(options)},
    )


def _asked(scored: Scored) -> int:
    """How many clips were asked of every system, those that no system has among them."""
    lacking = (p.names for p in scored.problems.found() if p.kind == "missing_generated")
    return len({clip.id for clip in scored.clips}.union(*lacking))


def score(
    systems: Mapping[str, str | Path],
    reference: str | Path | None,
    output: str | Path,
    options: Options = Options(),
    *,
    say: Callable[[str], None] = lambda line: None,
) -> Scored:
    """As `evaluate`, up to where figures are made of what was found."""
    output = Path(output)
    problems = Problems()
    # what costs nothing first: a mistake in the command line is told before weights are loaded
    check_names(options.measures)
    folders = {name: pairs.find_sounds(Path(path), problems, system=name) for name, path in systems.items()}
    if not folders:
        raise UserError("no system was given: expected at least one folder of sounds")
    videos = pairs.find_videos(options.videos) if options.videos is not None else {}
    captions = pairs.read_captions(options.captions) if options.captions is not None else {}
    clips, rows = _pair(folders, reference, options, problems)
    _check_strict(options, problems)
    settings = _suite_settings(options, options.device)
    chosen, unavailable = choose_measures(options.measures, settings, say)
    if reference is None:
        say("no reference: only what needs none is measured")
    _make_folder(output)
    if rows is not None:
        wants = options.unpack_videos or any("video" in measure.needs for measure in chosen)
        ids = [clip.id for clip in clips]
        written = references.write_out(rows, ids, output, videos=wants, progress=options.progress)
        clips = pairs.with_references(clips, written)
    clips = pairs.with_captions(pairs.with_videos(clips, videos), captions)
    if options.measures is not None:
        _check_needs(chosen, clips)
    cache = Cache(output / "cache")
    collected = Collected(list(folders))
    _score(clips, chosen, cache, options, collected, problems)
    for system, scored in collected.durations_s.items():
        if len(scored) == 1:
            problems.add("one_clip", next(iter(scored)), system)
    _check_scored(collected, problems)
    if options.measures is not None:
        _check_lacking(chosen, collected, problems)
    _check_strict(options, problems)
    figures = Figures(chosen, collected, cache, options.resamples, options.seed)
    return Scored(tuple(clips), folders, figures, collected, problems, unavailable)


def _check_strict(options: Options, problems: Problems) -> None:
    serious = [problem for problem in problems.found() if problem.serious]
    if options.strict and serious:
        raise UserError(f"--strict: {line(serious[0])}")


def _check_needs(chosen: Sequence[Measure], clips: Sequence[ClipFiles]) -> None:
    """UserError for a measure asked for by name that no clip has the files for: before anything is heard."""

    def there(clip: ClipFiles) -> set[str]:
        known, video = clip.reference, any(clip.video(system) for system in clip.sounds)
        has = {"reference": known.sound, "truth": known.truth, "caption": known.caption, "video": video}
        return {name for name, is_there in has.items() if is_there}

    having = [there(clip) for clip in clips]
    for measure in chosen:
        if not any(measure.needs <= has for has in having):
            lacking = sorted(need for need in measure.needs if not all(need in has for has in having))
            raise UserError(f"{measure.name}: no clip has what it needs (no {', no '.join(lacking)})")


def _check_lacking(chosen: Sequence[Measure], collected: Collected, problems: Problems) -> None:
    """The same of what only reading the files tells: a video without a picture, a truth without a source."""
    lacks = [problem for problem in problems.found() if problem.kind == "lacks"]
    for measure in chosen:
        of_it = [problem for problem in lacks if problem.note.startswith(f"{measure.name}:")]
        if of_it and not any(collected.ids(system, measure.name) for system in collected.systems):
            raise UserError(f"{measure.name}: no clip has what it needs: {line(of_it[0])}")


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
                settings = _suite_settings(options, "cpu")
                score_in_pool(clips, Suite(targets, settings, cache.folder), workers, done)
            else:
                scorer = Scorer(part, cache)
                for clip in clips:
                    done(scorer.score(clip))


def _suite_settings(options: Options, device: str) -> Settings:
    return Settings(dict(options.weights), device, options.hfov_deg, options.detector_labels)


def _settings(options: Options) -> dict[str, Any]:
    stored = asdict(options)
    for name in ("videos", "captions"):
        stored[name] = None if stored[name] is None else str(stored[name])
    for name in ("progress", "unpack_videos"):
        del stored[name]
    return stored
