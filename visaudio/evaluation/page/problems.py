"""What was not as it should be: refused, missing, cut, mono, silent, not computed; each counted and named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from visaudio.evaluation.page.text import escape, listed, tag

if TYPE_CHECKING:
    from visaudio.evaluation.results import Problem, Results

FEW = 6  # names shown at once


def section(results: Results, notes: Mapping[str, Sequence[str]]) -> str:
    """notes: what the page itself could not show -> clips."""
    parts = [tag("h2", "Problems", id="problems")]
    if not (results.problems or results.unavailable or notes):
        parts.append(tag("p", "None: every clip was read, compared and counted.", class_="note"))
        return tag("section", *parts)
    rows = []
    for problem in sorted(results.problems, key=lambda p: not p.serious):
        more = [note for note in (problem.note, _common(problem)) if note]
        what = escape(problem.text) + (f" ({escape('; '.join(more))})" if more else "")
        weight = "serious" if problem.serious else "note"
        rows.append(_row(weight, problem.whose or "all", what, _named(problem)))
    for name, why in results.unavailable.items():
        rows.append(_row("serious", "all", f"{tag('b', escape(name))} not computed: {escape(why)}", ()))
    for what, names in notes.items():
        rows.append(_row("page only", "all", escape(what), names))
    titles = ("weight", "system", "what", "count", "clips or files")
    head = tag("thead", tag("tr", *(tag("th", t, scope="col") for t in titles)))
    table = tag("table", head, tag("tbody", *rows), class_="problems")
    parts.append(tag("div", table, class_="wide", tabindex="0", role="region", aria_label="problems"))
    return tag("section", *parts)


def _common(problem: Problem) -> str:
    """The detail that all names share, where they are several."""
    return problem.details[0] if len(problem.details) > 1 and len(set(problem.details)) == 1 else ""


def _named(problem: Problem) -> list[str]:
    """Names, each with its detail where that is its own."""
    details = problem.details if problem.details and not _common(problem) else ("",) * len(problem.names)
    pairs = zip(problem.names, details, strict=True)
    return [f"{name} ({detail})" if detail else name for name, detail in pairs]


def _row(weight: str, system: str, what: str, names: Sequence[str]) -> str:
    if len(names) > FEW:
        few = tag("summary", escape(listed(names, FEW)))
        shown = tag("details", few, tag("p", escape(", ".join(names)), class_="names"))
    else:
        shown = escape(", ".join(names))
    count = str(len(names)) if names else ""
    return tag(
        "tr",
        tag("td", weight, class_=weight.split()[0]),
        tag("td", escape(system)),
        tag("td", what),
        tag("td", count),
        tag("td", shown, class_="names"),
    )
