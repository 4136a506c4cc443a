"""Paired tests between systems, a table for each pair."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from visaudio.evaluation.page.summary import ALPHA, shown, title_of, told_apart
from visaudio.evaluation.page.text import escape, p_value, tag

if TYPE_CHECKING:
    from visaudio.evaluation.measures import FigureSpec
    from visaudio.evaluation.results import Comparison, Results

NOTE = (
    "Each over the clips that both systems have. Difference: the first less the second, with its paired 95 % "
    "interval (bootstrap); clips: those behind it, of means over clips the ones where both systems have a "
    "value. Wilcoxon: signed-rank test of the clips' own values, two-sided. Verdicts go by Holm's p, below "
    "{alpha}, over the figures of the pair that have a direction: of Wilcoxon's p for means over clips (1 "
    "where the ranks point the other way than the difference, or it than the values in the table), of the "
    "bootstrap's for figures that are pooled over frames or onsets, for medians and distances. Figures "
    "without a direction are not judged. {without}"
)


def section(results: Results) -> str:
    if not results.comparisons:
        return ""
    specs = results.specs
    pairs: dict[tuple[str, str], list[Comparison]] = {}
    for comparison in results.comparisons:
        if comparison.figure in specs:
            pairs.setdefault((comparison.a, comparison.b), []).append(comparison)
    parts = [tag("h2", "Paired tests", id="tests"), tag("p", escape(_note(results)), class_="note")]
    for number, ((a, b), found) in enumerate(pairs.items()):
        counts = verdict_counts(found, specs)
        line = (
            f"{a} against {b}: {a} better in {counts['a']} figures, {b} in {counts['b']}, "
            f"not told apart in {counts['']}"
        )
        head = tag("summary", escape(line))
        parts.append(tag("details", head, _table(a, b, found, results), open=number == 0))
    return tag("section", *parts)


def _note(results: Results) -> str:
    """Names the figures of these results that have no signed-rank test."""
    tested = {c.figure for c in results.comparisons}
    titles = [spec.title for name, spec in results.specs.items() if name in tested and not spec.per_clip]
    without = f"Without a signed-rank test here: {', '.join(titles)}." if titles else ""
    return NOTE.format(alpha=ALPHA, without=without).rstrip()


def verdict(comparison: Comparison, spec: FigureSpec) -> str:
    """ "a" or "b", whichever is better beyond chance; "" where they are not told apart or none is better."""
    if not spec.better or not told_apart(comparison) or not comparison.difference.value:
        return ""
    return "a" if (comparison.difference.value > 0) == (spec.better == "higher") else "b"


def verdict_counts(found: Sequence[Comparison], specs: Mapping[str, FigureSpec]) -> dict[str, int]:
    verdicts = [verdict(c, specs[c.figure]) for c in found if specs[c.figure].better]
    return {key: verdicts.count(key) for key in ("a", "b", "")}


def _table(a: str, b: str, found: Sequence[Comparison], results: Results) -> str:
    """Under the measures' names: some have figures of one title."""
    titles = (
        "figure",
        "difference",
        "95 % interval",
        "p bootstrap",
        "p Wilcoxon",
        "p Holm",
        "clips",
        "better",
    )
    head = tag("tr", *(tag("th", escape(t), scope="col") for t in titles))
    bodies = []
    for measure in results.measures:
        specs = {spec.name: spec for spec in measure.figures}
        rows = [_row(a, b, c, specs[c.figure]) for c in found if c.figure in specs]
        if rows:
            name = tag("th", escape(measure.name), colspan=len(titles), scope="rowgroup")
            bodies.append(tag("tbody", tag("tr", name), *rows))
    table = tag("table", tag("thead", head), *bodies, class_="figures")
    return tag("div", table, class_="wide", tabindex="0", role="region", aria_label=f"{a} against {b}")


def _row(a: str, b: str, c: Comparison, spec: FigureSpec) -> str:
    d = c.difference
    whole = math.isfinite(d.low) and math.isfinite(d.high)
    who = {"a": a, "b": b, "": ""}[verdict(c, spec)]
    cells = (
        shown(d.value, spec),
        f"[{shown(d.low, spec)}, {shown(d.high, spec)}]" if whole else "",
        p_value(c.p_bootstrap),
        p_value(c.p_wilcoxon),
        p_value(c.p_holm),
        d.clips,
    )
    row = [tag("td", escape(cell)) for cell in cells]
    better = tag("td", escape(who or "not told apart") if spec.better else "", class_="who" if who else None)
    return tag("tr", tag("th", title_of(spec), scope="row"), *row, better)
