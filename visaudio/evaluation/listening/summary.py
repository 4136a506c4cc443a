"""What the answers come to: mean opinion scores, and who wins against whom, each with a 95 % interval.

- A mean opinion score is the mean of all ratings of a system under a question (ITU-T P.800). Ratings of one
  listener, and of one clip, go together: its interval resamples listeners and clips, both at once (Owen, The
  pigeonhole bootstrap, 2007), so that it speaks of other listeners and other clips. A side of which there is
  only one is not resampled, and the table says so.
- A win rate is the share of choices for a system among the choices for either; "no difference" is counted
  beside it. Its interval and two-sided test are the exact binomial's (Clopper and Pearson 1934), of choices
  as if they were independent.
- How often the first sound was chosen shows whether order mattered; orders are balanced by the plan.

A trial that was answered twice counts once, by its first answer.

Legend: N ratings, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from bi_audio_dataset.schema import UserError
from visaudio.evaluation.listening.answers import CHECK
from visaudio.evaluation.listening.questions import NAMES, QUESTIONS
from visaudio.evaluation.listening.trials import PAIR, RATING

LEVEL = 0.95
RESAMPLES = 2000


@dataclass(frozen=True)
class Score:
    """Of a system under a question: mean of `ratings` ratings by `listeners` listeners of `clips` clips."""

    system: str
    question: str
    mean: float
    low: float
    high: float
    ratings: int
    listeners: int
    clips: int


@dataclass(frozen=True)
class Preference:
    """Of two systems under a question. rate: wins_a / (wins_a + wins_b); nan where nobody chose."""

    a: str
    b: str
    question: str
    wins_a: int
    wins_b: int
    same: int
    rate: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Summary:
    """first_chosen: (chosen, choices, rate, low, high) of the first sound over all questions; checks: passed
    and failed; plans: how many different tests the answers are of."""

    scores: tuple[Score, ...]
    preferences: tuple[Preference, ...]
    first_chosen: tuple[int, int, float, float, float]
    listeners: tuple[str, ...]
    checks: tuple[int, int]
    plans: int

    def to_json(self) -> dict[str, Any]:
        return _plain(asdict(self))


def summarise(rows: Sequence[Mapping[str, Any]], seed: int = 0) -> Summary:
    """UserError where there is no rating and no choice."""
    answers = _once([row for row in rows if row["kind"] != CHECK])
    if not answers:
        raise UserError("there are no answers yet: nobody has rated or chosen")
    checks = [row["passed"] for row in rows if row["kind"] == CHECK]
    return Summary(
        scores=_scores([row for row in answers if row["kind"] == RATING], seed),
        preferences=_preferences([row for row in answers if row["kind"] == PAIR]),
        first_chosen=_first_chosen([row for row in answers if row["kind"] == PAIR]),
        listeners=tuple(sorted({row["listener"] for row in answers})),
        checks=(sum(checks), len(checks) - sum(checks)),
        plans=len({row["plan"] for row in answers}),
    )


def _once(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    kept: dict[tuple, Mapping[str, Any]] = {}
    for row in rows:
        kept.setdefault((row["plan"], row["listener"], row["trial"]), row)
    return list(kept.values())


# -------------------- ratings


def _scores(rows: Sequence[Mapping[str, Any]], seed: int) -> tuple[Score, ...]:
    found = []
    for system in sorted({row["order"][0] for row in rows}):
        for question in NAMES:
            mine = [row for row in rows if row["order"][0] == system and question in row["ratings"]]
            if not mine:
                continue
            values = np.array([row["ratings"][question] for row in mine], float)
            listeners, clips = ([row[name] for row in mine] for name in ("listener", "clip"))
            low, high = interval(values, listeners, clips, seed)
            counts = len(mine), len(set(listeners)), len(set(clips))
            found.append(Score(system, question, float(values.mean()), low, high, *counts))
    return tuple(found)


def interval(
    values: np.ndarray, listeners: Sequence[str], clips: Sequence[str], seed: int = 0
) -> tuple[float, float]:
    """Of the mean of (N,) ratings; nan where there is one listener and one clip."""
    groups = [np.unique(list(names), return_inverse=True)[1] for names in (listeners, clips)]
    if all(group.max() == 0 for group in groups):
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    means = []
    while len(means) < RESAMPLES:
        weights = np.ones(len(values))
        for group in groups:
            count = group.max() + 1
            if count > 1:
                weights = weights * rng.multinomial(count, np.full(count, 1 / count))[group]
        if weights.any():  # where listeners and clips hardly cross, a draw may hold no rating
            means.append(float(weights @ values / weights.sum()))
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)


# -------------------- choices


def _preferences(rows: Sequence[Mapping[str, Any]]) -> tuple[Preference, ...]:
    found = []
    systems = sorted({name for row in rows for name in row["order"]})
    for a, b in combinations(systems, 2):
        mine = [row for row in rows if row["systems"] == [a, b]]
        for question in NAMES:
            chosen = [_winner(row, question) for row in mine if question in row["choices"]]
            if chosen:
                wins_a, wins_b = chosen.count(a), chosen.count(b)
                rate, low, high, p = binomial(wins_a, wins_a + wins_b)
                counts = wins_a, wins_b, chosen.count(None)
                found.append(Preference(a, b, question, *counts, rate, low, high, p))
    return tuple(found)


def _winner(row: Mapping[str, Any], question: str) -> str | None:
    choice = row["choices"][question]
    return None if choice == "same" else row["order"][choice == "second"]


def _first_chosen(rows: Sequence[Mapping[str, Any]]) -> tuple[int, int, float, float, float]:
    chosen = [choice for row in rows for choice in row["choices"].values() if choice != "same"]
    rate, low, high, _ = binomial(chosen.count("first"), len(chosen))
    return chosen.count("first"), len(chosen), rate, low, high


def binomial(wins: int, count: int) -> tuple[float, float, float, float]:
    """Rate, its exact interval, and the two-sided p of 1/2; nan of nothing."""
    from scipy.stats import binomtest

    if not count:
        return (float("nan"),) * 4
    test = binomtest(wins, count)
    ends = test.proportion_ci(LEVEL, method="exact")
    return wins / count, float(ends.low), float(ends.high), float(test.pvalue)


# -------------------- shown


def table(summary: Summary) -> str:
    """For a terminal."""
    titles = {question.name: question.title for question in QUESTIONS}
    passed, failed = summary.checks
    tests = "" if summary.plans == 1 else f", of {summary.plans} different tests"
    count = len(summary.listeners)
    lines = [f"{count} listeners{tests}; headphones checks: {passed} passed, {failed} failed"]
    if summary.scores:
        lines += ["", "mean opinion score, 1 (bad) to 5 (excellent), 95 % interval over listeners and clips"]
        lines += _mos_lines(summary, titles)
    if summary.preferences:
        lines += ["", "preferred, share of those who chose, 95 % interval (exact binomial)"]
        lines += _preference_lines(summary, titles)
        chosen, count, rate, low, high = summary.first_chosen
        lines += ["", f"the first of two was chosen {chosen} times of {count}: {_rate(rate, low, high)}"]
    return "\n".join(lines)


def _mos_lines(summary: Summary, titles: Mapping[str, str]) -> list[str]:
    systems = list(dict.fromkeys(score.system for score in summary.scores))
    found = {(score.question, score.system): score for score in summary.scores}
    rows = [["", *systems]]
    for name in NAMES:
        scores = [found.get((name, system)) for system in systems]
        if any(scores):
            rows.append([titles[name], *(_score(score) for score in scores)])
    few = [f"{s.system} has {n}" for s in summary.scores if (n := _alone(s))]
    return [*_columns(rows), *([f"note: {line}" for line in dict.fromkeys(few)])]


def _alone(score: Score) -> str:
    """Which side the interval does not speak of."""
    if score.listeners == score.clips == 1:
        return "one listener and one clip: no interval"
    if score.listeners == 1:
        return "one listener: its interval is over clips alone"
    return "one clip: its interval is over listeners alone" if score.clips == 1 else ""


def _score(score: Score | None) -> str:
    if score is None:
        return "-"
    ends = "" if np.isnan(score.low) else f" [{score.low:.2f}, {score.high:.2f}]"
    return f"{score.mean:.2f}{ends} n {score.ratings}"


def _preference_lines(summary: Summary, titles: Mapping[str, str]) -> list[str]:
    rows = [["", "", "share of the former", "p", "chose", "no difference"]]
    for found in summary.preferences:
        pair = f"{found.a} over {found.b}"
        p = "-" if np.isnan(found.p) else f"{found.p:.3f}"
        chose = f"{found.wins_a}:{found.wins_b}"
        share = _rate(found.rate, found.low, found.high)
        rows.append([pair, titles[found.question], share, p, chose, str(found.same)])
    return _columns(rows)


def _rate(rate: float, low: float, high: float) -> str:
    return "-" if np.isnan(rate) else f"{100 * rate:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value
