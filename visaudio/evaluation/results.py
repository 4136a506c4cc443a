"""What an evaluation found, as it is stored in results.json and shown on the page.

    results = Results.from_json(Path("runs/eval/results.json").read_text())
    results.figures["model"]["ild_error_db"]          Figure(value, low, high, clips)
    results.clips[0].sounds["model"].values           the clip's own figures of that system

Every path is absolute, or relative to the folder of results.json (`Results.path` resolves both). Values are
as the measures gave them: `FigureSpec.factor` and `digits` say how they are shown. In JSON nan is null.

Legend: figures are keyed by `FigureSpec.name`, which no two measures share.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bi_audio_dataset.schema import UserError, reason_of
from visaudio.evaluation.measures import FigureSpec
from visaudio.evaluation.typed import fault

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Figure:
    """A value, its 95 % interval over clips, and the number of clips behind it: 0 where there is no value.

    nan: nothing to say; low and high are nan where there is no interval (a single clip).
    """

    value: float
    low: float
    high: float
    clips: int


@dataclass(frozen=True)
class MeasureUsed:
    """A measure that scored. key: of definition, settings and weights; resamples: behind its intervals."""

    name: str
    key: str
    figures: tuple[FigureSpec, ...]
    resamples: int


@dataclass(frozen=True)
class SystemUsed:
    """A system whose sounds were scored. folder: where they were; made: how, where this command made them.

    clips: that were scored, of those that were asked of it: the reference's (of them the first, with a
    limit), or without a reference those of any system. of 0: not known.
    """

    name: str
    folder: str
    clips: int
    made: Mapping[str, Any] = field(default_factory=dict)
    of: int = 0

    @property
    def counted(self) -> str:
        """ "8 of 20 clips"; "20 clips" where none is missing."""
        return f"{self.clips} of {self.of} clips" if self.of > self.clips else f"{self.clips} clips"


@dataclass(frozen=True)
class SoundScored:
    """One system's sound of a clip. values: figure name -> this clip's own value, nan where it has none.

    duration_s: how much of it was compared.
    """

    path: str
    duration_s: float
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ClipScored:
    """One clip. sounds: by system; a system that lacks the clip, or whose file was refused, is not there.

    reference: the sound it was compared with. video: a file with the picture. truth: a file that
    `visaudio.evaluation.truth_files.read_truth` reads into a `data.dataset.Clip`. Each None where there is
    none.
    """

    id: str
    sounds: Mapping[str, SoundScored]
    caption: str = ""
    reference: str | None = None
    video: str | None = None
    truth: str | None = None


@dataclass(frozen=True)
class Problem:
    """Something that was not as it should be, and what was done about it; nothing is dropped without one.

    kind: a key of `problems.KINDS`, of which `text` says what was done. system: whose sound, "" for the
    reference or all. names: the clips or files; details: why, for each of them, "" where there is no more to
    say. note: of all of them, e.g. the largest difference. serious: makes --strict fail. of_reference: the
    names are of the reference's files, which are called as the generated ones are.
    """

    kind: str
    text: str
    names: tuple[str, ...]
    system: str = ""
    note: str = ""
    serious: bool = True
    details: tuple[str, ...] = ()
    of_reference: bool = False

    @property
    def whose(self) -> str:
        """ "mine"; "reference", or "mine, reference" where its run is named; "" for all."""
        return ", ".join(filter(None, (self.system, "reference" if self.of_reference else "")))


@dataclass(frozen=True)
class Comparison:
    """A figure of system `a` less that of `b`, over the clips that both have.

    difference: with its paired bootstrap interval; its clips are those behind it: of means over clips those
    on which both have a value, of other figures that clips have by themselves those on which either has, or
    all common ones. p_bootstrap: two-sided, from the same resamples. p_wilcoxon: signed-rank test of the
    clips' own values, nan for figures that clips do not have. p_holm: what verdicts go by: p_wilcoxon for
    means over clips (1 where its ranks, or the values shown, point the other way than the difference),
    p_bootstrap for all others, after Holm's correction over the figures of this pair that have a direction;
    nan for those without one.
    """

    a: str
    b: str
    figure: str
    difference: Figure
    p_bootstrap: float
    p_wilcoxon: float
    p_holm: float


@dataclass(frozen=True)
class Results:
    """Everything. figures: system -> figure name -> Figure; groups: clips by kind, where the truth says it;
    group_figures: group -> system -> figure name -> Figure. unavailable: measure -> why it could not be had.
    made: command, commit, date, versions, settings. folder: of results.json; not stored."""

    systems: tuple[SystemUsed, ...]
    measures: tuple[MeasureUsed, ...]
    figures: Mapping[str, Mapping[str, Figure]]
    clips: tuple[ClipScored, ...]
    comparisons: tuple[Comparison, ...] = ()
    problems: tuple[Problem, ...] = ()
    unavailable: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    group_titles: Mapping[str, str] = field(default_factory=dict)
    group_figures: Mapping[str, Mapping[str, Mapping[str, Figure]]] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)
    folder: Path = field(default=Path(), compare=False)

    @property
    def specs(self) -> dict[str, FigureSpec]:
        """Every column by its name, in the order of the table."""
        return {spec.name: spec for measure in self.measures for spec in measure.figures}

    def path(self, stored: str | None) -> Path | None:
        """A stored path as one that can be opened."""
        return None if stored is None else self.folder / stored

    def to_json(self) -> str:
        """Text that `from_json` reads back to an equal object."""
        stored = asdict(self)
        del stored["folder"]
        for figures in (stored["figures"], *stored["group_figures"].values()):
            for system, values in figures.items():
                figures[system] = {name: _list(figure) for name, figure in values.items()}
        for comparison in stored["comparisons"]:
            comparison["difference"] = _list(comparison["difference"])
        return json.dumps(_plain({"schema_version": SCHEMA_VERSION} | stored), indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, folder: Path | None = None) -> Results:
        """UserError if it is of another version, damaged, or no results at all."""
        try:
            stored = json.loads(text)
            version = stored.pop("schema_version")
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise UserError("not the results.json of an evaluation: expected a schema_version") from error
        if version != SCHEMA_VERSION:
            raise UserError(f"results of schema version {version}, expected {SCHEMA_VERSION}: evaluate again")
        try:
            found = cls(**_parts(stored), folder=folder or Path())
            wrong = fault(found, cls) or _disagreement(found)
        except KeyError as error:
            wrong = f"it lacks {error}"
        except (TypeError, AttributeError, ValueError, OverflowError) as error:
            wrong = reason_of(error, 120)
        if wrong:
            raise UserError(f"not as an evaluation writes its results.json ({wrong}): evaluate again")
        return found


def _parts(stored: dict[str, Any]) -> dict[str, Any]:
    """The fields of Results. Raises what a file that is none of `to_json` makes it raise."""
    return stored | {
        "systems": tuple(SystemUsed(**s) for s in stored["systems"]),
        "measures": tuple(
            MeasureUsed(**(m | {"figures": tuple(FigureSpec(**f) for f in m["figures"])}))
            for m in stored["measures"]
        ),
        "figures": _figures(stored["figures"]),
        "group_figures": {name: _figures(f) for name, f in stored["group_figures"].items()},
        "groups": {name: _names(ids) for name, ids in stored["groups"].items()},
        "clips": tuple(
            ClipScored(**(c | {"sounds": {name: _sound(s) for name, s in c["sounds"].items()}}))
            for c in stored["clips"]
        ),
        "comparisons": tuple(
            Comparison(
                **(c | {k: _number(v) for k, v in c.items() if k.startswith("p_")})
                | {"difference": _figure(c["difference"])}
            )
            for c in stored["comparisons"]
        ),
        "problems": tuple(
            Problem(**(p | {key: _names(p[key]) for key in ("names", "details")})) for p in stored["problems"]
        ),
    }


def _disagreement(results: Results) -> str:
    """What one part says that another contradicts, "" for nothing."""
    systems, figures = {system.name for system in results.systems}, set(results.specs)
    if len(systems) < len(results.systems):
        return "two systems of one name"
    if len({clip.id for clip in results.clips}) < len(results.clips):
        return "two clips of one id"
    if lacking := systems - set(results.figures):
        return f"no figures of system '{min(lacking)}'"
    named = [set(results.figures), *(set(found) for found in results.group_figures.values())]
    named += [set(clip.sounds) for clip in results.clips] + [{c.a, c.b} for c in results.comparisons]
    if unknown := set().union(*named) - systems:
        return f"there is no system '{min(unknown)}'"
    if unknown := {c.figure for c in results.comparisons} - figures:
        return f"there is no figure '{min(unknown)}'"
    for spec in results.specs.values():
        if spec.better not in ("higher", "lower", "") or not 0 <= spec.digits <= 20:
            return f"figure '{spec.name}': better '{spec.better}', digits {spec.digits}"
    if any(len(p.details) not in (0, len(p.names)) for p in results.problems):
        return "a problem with more or fewer details than names"
    return ""


def _list(figure: Mapping[str, Any]) -> list:
    return [figure["value"], figure["low"], figure["high"], figure["clips"]]


def _figure(stored: list) -> Figure:
    value, low, high, clips = stored
    return Figure(*map(_number, (value, low, high)), clips)


def _figures(stored: Mapping[str, Mapping[str, list]]) -> dict[str, dict[str, Figure]]:
    return {s: {name: _figure(value) for name, value in values.items()} for s, values in stored.items()}


def _sound(stored: Mapping[str, Any]) -> SoundScored:
    return SoundScored(**(stored | {"values": {k: _number(v) for k, v in stored["values"].items()}}))


def _number(stored: float | None) -> float:
    if isinstance(stored, (str, bool)):
        raise TypeError(f"{stored!r} in place of a number")
    return math.nan if stored is None else float(stored)


def _names(stored: list) -> tuple:
    if not isinstance(stored, list):
        raise TypeError(f"{stored!r} in place of a list")
    return tuple(stored)


def _plain(value: Any) -> Any:
    """nan and infinity as null: JSON knows neither."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value
