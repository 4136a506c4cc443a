"""The BiAudio-Synth benchmark's tables: all clips, then each kind of clip, with methods' differences.

Every system is scored on every clip: one that lacks a clip, or whose file cannot be read, ends the command.
What else was noticed (silent sounds, which count as wrong, other lengths) stands below the tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bi_audio_dataset.schema import BENCHMARK_CLIPS, BENCHMARK_VERSION, UserError, is_benchmark_id
from visaudio.evaluation import references
from visaudio.evaluation.problems import Problems, line
from visaudio.evaluation.runner import Options, score
from visaudio.evaluation.seeds import SeedTable, markdown
from visaudio.evaluation.synth_benchmark import GROUPS

MEASURES = ("truth", "space", "onsets", "plausibility", "fsad")
# of all clips; then of the kinds of clip that the truth tells apart
OF_ALL = ("fsad", "plausibility", "plausibility_side", "stft_distance", "envelope_distance", "onset_f1")
OF_KINDS = (
    "truth_side", "truth_r", "truth_r_moving", "truth_ild_error_db", "truth_itd_phase_us", "truth_onset_f1",
    "truth_sound_class", "silent_share",
)  # fmt: skip
# of all clips, where the paper's measures are asked for
OF_NETWORKS = (
    "fd_vgg_avg", "fd_panns_avg", "fd_passt_avg", "kl_panns_avg", "kl_passt_avg", "is_panns_avg", "desync",
    "clap_text", "ib_score",
)  # fmt: skip
NETWORKS = ("panns", "passt", "vggish", "desync", "clap", "imagebind")
# problems after which a system is not scored on every clip, or not on the whole of it
LEFT_OUT = (
    "missing_generated", "unreadable", "truncated", "not_finite", "too_large", "low_rate", "empty",
    "too_short", "channels", "length", "failed",
)  # fmt: skip


@dataclass(frozen=True)
class Clips:
    """What is scored on. limit: the first so many by name, None for all; ids: those. what: in words, for the
    table."""

    dataset: str
    config: str
    limit: int | None
    what: str
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Published:
    """Measures of published networks that are asked for too. measures: of NETWORKS; weights, device: of
    measures.Settings."""

    measures: tuple[str, ...] = ()
    weights: Mapping[str, str] = field(default_factory=dict)
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in self.measures:
            if name not in NETWORKS:
                raise UserError(f"--measures: there is no '{name}' to add, expected of {', '.join(NETWORKS)}")


def benchmark_clips(
    dataset: str | Path, config: str, limit: int | None = None, any_set: bool = False
) -> Clips:
    """The benchmark, or (any_set) another dataset's test split. UserError for what is not the benchmark."""
    ids = references.open_rows(dataset, "test", config).ids
    whole = len(ids) == BENCHMARK_CLIPS and all(map(is_benchmark_id, ids))
    if not whole and not any_set:
        raise UserError(
            f"'{dataset}', configuration {config}, is not the BiAudio-Synth benchmark: expected its "
            f"{BENCHMARK_CLIPS} clips (python -m bi_audio_dataset synth --benchmark), or --any-set"
        )
    what = f"BiAudio-Synth benchmark, version {BENCHMARK_VERSION}"
    what = what if whole else f"{Path(dataset).name}, which is not the benchmark"
    if limit is not None and limit < len(ids):
        what = f"the first {limit} of {len(ids)} clips of {what}"
    return Clips(str(dataset), config, limit, what, tuple(sorted(ids)[:limit]))


def benchmark_table(
    systems: Mapping[str, Sequence[Path]],
    clips: Clips,
    output: Path,
    titles: Mapping[str, str],
    before: Mapping[str, str] | None = None,
    workers: int = 1,
    published: Published = Published(),
) -> str:
    """Markdown. systems: method -> folders of sounds, one for each seed; titles: of methods, in words;
    before: method -> the one it is held against. output: gets the cache. UserError where a system lacks a
    clip, or a measure that is asked for cannot be had."""
    folders = {f"{name}-{seed}": folder for name, of in systems.items() for seed, folder in enumerate(of)}
    options = Options(
        measures=(*MEASURES, *published.measures),
        weights=published.weights,
        device=published.device,
        workers=workers,
        limit=clips.limit,
        config=clips.config,
    )
    scored = score(folders, clips.dataset, output, options, say=print)
    _check_all_there(scored.problems)
    methods = {name: [f"{name}-{seed}" for seed in range(len(of))] for name, of in systems.items()}
    kinds = {name: {c.id for c in scored.clips if name in c.reference.groups} for name in GROUPS}
    parts = [f"Scored on: {clips.what}.\n"]
    for name, among in {"": None, **kinds}.items():
        if among is not None and not among:
            continue
        found = SeedTable(scored.figures, methods, among)
        columns = [figure for figure in (OF_KINDS if name else OF_ALL) if figure in found.figures]
        count = max(found.clips.values())
        networks = [figure for figure in OF_NETWORKS if figure in found.figures and not name]
        what = (
            f"{GROUPS[name]} ({count} {'clip' if count == 1 else 'clips'})" if among else f"All {count} clips"
        )
        parts.append(f"{what[0].upper()}{what[1:]}:\n\n{markdown(found, titles, columns, before or {})}")
        if networks:
            parts.append(
                f"{what}, by published networks:\n\n{markdown(found, titles, networks, before or {})}"
            )
    noticed = [f"- {line(problem)}" for problem in scored.problems.found() if problem.serious]
    return "\n".join([*parts, *(["Noticed:\n", *noticed, ""] if noticed else [])])


def _check_all_there(problems: Problems) -> None:
    for problem in problems.found():
        if problem.kind in LEFT_OUT:
            raise UserError(f"every system needs a sound of every clip: {line(problem)}")
