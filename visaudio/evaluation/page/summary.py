"""The table of all systems side by side, and the same for each kind of clip."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from visaudio.evaluation.page.pictures import system_style
from visaudio.evaluation.page.text import escape, number, tag

if TYPE_CHECKING:
    from visaudio.evaluation.measures import FigureSpec
    from visaudio.evaluation.results import Comparison, Figure, Results

ALPHA = 0.05
ARROWS = {
    "higher": ("\N{UPWARDS ARROW}", "higher is better"),
    "lower": ("\N{DOWNWARDS ARROW}", "lower is better"),
    "": ("", "neither end is better"),
}
STAR, OPEN_STAR = "\N{BLACK STAR}", "\N{WHITE STAR}"


def section(results: Results) -> str:
    """Figures by measure, one column a system; best marked."""
    total = f"{len(results.clips)} clips" if len(results.clips) != 1 else "1 clip"
    legend = (
        f"Value, below it its 95 % interval over clips (bootstrap). {STAR} best of its row; {OPEN_STAR} not "
        f"told apart from the best (paired test, p at least {ALPHA} after Holm). \N{UPWARDS ARROW} higher is "
        "better, \N{DOWNWARDS ARROW} lower is better. n: the clips behind a value, where they are fewer than "
        "all."
    )
    parts = [tag("h2", "All systems", id="systems"), tag("p", escape(f"{total}. {legend}"), class_="note")]
    if told := _different_clips(results):
        parts.append(tag("p", tag("strong", escape(told))))
    parts.append(_table(results, results.figures, results.comparisons, len(results.clips)))
    for name, figures in results.group_figures.items():
        count = len(results.groups.get(name, ()))
        title = results.group_titles.get(name, name)
        head = tag("summary", escape(f"{title}: {count} clip{'s' if count != 1 else ''}"))
        parts.append(tag("details", head, _table(results, figures, (), count)))
    return tag("section", *parts)


def _different_clips(results: Results) -> str:
    """What to know of values side by side where systems have not the same clips; "" where they have."""
    names = [system.name for system in results.systems]
    scored = [{clip.id for clip in results.clips if name in clip.sounds} for name in names]
    if all(ids == scored[0] for ids in scored):
        return ""
    counts = ", ".join(f"{name} {len(ids)}" for name, ids in zip(names, scored, strict=True))
    common = len(set.intersection(*scored))
    return (
        f"Systems were scored over different clips ({counts}; common to all: {common}): their values and "
        "stars here are not directly comparable. The paired tests are: each takes the clips that both have."
    )


def arrow(spec: FigureSpec) -> str:
    sign, meaning = ARROWS[spec.better]
    return tag("span", sign, class_="arrow", title=meaning, role="img", aria_label=meaning) if sign else ""


def title_of(spec: FigureSpec) -> str:
    """Title, unit and arrow, as HTML."""
    unit = " " + tag("span", escape(unit_of(spec)), class_="unit") if spec.unit else ""
    return f"{escape(spec.title)}{unit} {arrow(spec)}".rstrip()


def unit_of(spec: FigureSpec) -> str:
    """With the real sign for micro-."""
    return {"us": "\N{MICRO SIGN}s"}.get(spec.unit, spec.unit)


def shown(value: float, spec: FigureSpec) -> str:
    return number(value, spec.digits, spec.factor)


def marks(
    figures: Mapping[str, Figure], spec: FigureSpec, comparisons: Sequence[Comparison]
) -> dict[str, str]:
    """system -> "best" or "near". Values that look alike in the table are best together."""
    values = {name: f.value for name, f in figures.items() if math.isfinite(f.value)}
    if not spec.better or len(values) < 2:
        return {}
    best = max(values.values()) if spec.better == "higher" else min(values.values())
    marked = {name: "best" for name, v in values.items() if shown(v, spec) == shown(best, spec)}
    for c in comparisons:
        if c.figure == spec.name and told_apart(c) is False:
            for one, other in ((c.a, c.b), (c.b, c.a)):
                if values.get(one) == best and other in values:
                    marked.setdefault(other, "near")
    return marked


def told_apart(comparison: Comparison) -> bool | None:
    """By the corrected p; None where there is none."""
    return comparison.p_holm < ALPHA if math.isfinite(comparison.p_holm) else None


def _table(results: Results, figures, comparisons: Sequence[Comparison], total: int) -> str:
    names = [system.name for system in results.systems]
    head = [tag("th", "figure", scope="col")]
    head += [tag("th", swatch(k), escape(name), scope="col") for k, name in enumerate(names)]
    head.append(tag("th", "intervals", scope="col"))
    body = []
    for measure in results.measures:
        rows = []
        for spec in measure.figures:
            row = {name: figures.get(name, {}).get(spec.name) for name in names}
            if any(row.values()):
                rows.append(_row(spec, row, comparisons, total))
        if rows:
            head_row = tag("tr", tag("th", escape(measure.name), colspan=len(names) + 2, scope="rowgroup"))
            body.append(tag("tbody", head_row, *rows))
    table = tag("table", tag("thead", tag("tr", *head)), *body, class_="figures")
    return tag("div", table, class_="wide", tabindex="0", role="region", aria_label="figures of all systems")


def _row(spec: FigureSpec, row: Mapping[str, Figure | None], comparisons, total: int) -> str:
    found = {name: figure for name, figure in row.items() if figure is not None}
    marked = marks(found, spec, comparisons)
    cells = [_cell(figure, spec, marked.get(name, ""), total) for name, figure in row.items()]
    return tag("tr", tag("th", title_of(spec), scope="row"), *cells, tag("td", _bars(list(row.values()))))


def _cell(figure: Figure | None, spec: FigureSpec, mark: str, total: int) -> str:
    if figure is None:
        return tag("td", escape(number(math.nan, 0)))
    star = {
        "best": tag("span", STAR, class_="star", title="best", role="img", aria_label="best"),
        "near": tag(
            "span",
            OPEN_STAR,
            class_="star",
            title="not told apart from the best",
            role="img",
            aria_label="not told apart from the best",
        ),
        "": "",
    }[mark]
    parts = [tag("span", escape(shown(figure.value, spec)), class_="value"), star]
    if math.isfinite(figure.low) and math.isfinite(figure.high):
        interval = f"[{shown(figure.low, spec)}, {shown(figure.high, spec)}]"
        parts.append(tag("span", escape(interval), class_="interval"))
    if figure.clips != total:
        parts.append(tag("span", f"n {figure.clips}", class_="interval"))
    return tag("td", *parts, class_=mark or None)


def swatch(number_: int) -> str:
    """A piece of the line that the system has in the pictures."""
    return (
        '<svg class="swatch" viewBox="0 0 24 8" aria-hidden="true">'
        f'<path class="line {system_style(number_)}" d="M0 4h24"/></svg>'
    )


def _bars(row: Sequence[Figure | None], width: float = 150, pitch: float = 9) -> str:
    """The intervals of a row on one scale, from the lowest to the highest end."""
    ends = [e for f in row if f for e in (f.low, f.high, f.value) if math.isfinite(e)]
    if len(ends) < 2 or max(ends) == min(ends):
        return ""
    low, scale = min(ends), (width - 8) / (max(ends) - min(ends))
    parts = []
    for k, figure in enumerate(row):
        if figure is None or not math.isfinite(figure.value):
            continue
        y, x = pitch * k + pitch / 2, 4 + (figure.value - low) * scale
        if math.isfinite(figure.low) and math.isfinite(figure.high):
            start, end = 4 + (figure.low - low) * scale, 4 + (figure.high - low) * scale
            parts.append(f'<path class="bar {system_style(k)}" d="M{start:.1f} {y:g}H{end:.1f}"/>')
        parts.append(f'<circle class="dot {system_style(k)}" cx="{x:.1f}" cy="{y:g}" r="3"/>')
    height = pitch * len(row)
    return (
        f'<svg class="bars" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" '
        f'aria-hidden="true">{"".join(parts)}</svg>'
    )
