"""All clips in one table. What stands in the HTML is the worst first by one figure, with links to the
sounds; the page's script sorts it, takes other figures, filters, and opens players, from the numbers that it
is given here.

Legend: C clips, Y systems, G figures of single clips.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from visaudio.evaluation.page.summary import shown, swatch, unit_of
from visaudio.evaluation.page.text import escape, script_json, tag

if TYPE_CHECKING:
    from visaudio.evaluation.measures import FigureSpec
    from visaudio.evaluation.results import Results


@dataclass(frozen=True)
class Addresses:
    """Where a clip's media are, relative to the page; None where there is none. sounds: (Y,)."""

    reference: str | None
    video: str | None
    sounds: tuple[str | None, ...]


@dataclass(frozen=True)
class Order:
    """Worst first by `spec` of one system. places: (C,) clips in that order."""

    spec: FigureSpec
    system: str
    places: np.ndarray


def clip_figures(results: Results) -> list[FigureSpec]:
    """The figures that at least one clip has by itself, in the order of the table."""
    seen = {name for clip in results.clips for sound in clip.sounds.values() for name in sound.values}
    return [spec for spec in results.specs.values() if spec.per_clip and spec.name in seen]


def values_of(results: Results, system: str, figure: str) -> np.ndarray:
    """(C,) float64, nan where the clip has none."""
    sounds = (clip.sounds.get(system) for clip in results.clips)
    return np.array([s.values.get(figure, math.nan) if s else math.nan for s in sounds], np.float64)


def section(results: Results, order: Order | None, media: Sequence[Addresses], cards: Sequence[int]) -> str:
    """media: (C,); cards: the clips that have a picture on the page."""
    parts = [tag("h2", "All clips", id="clips")]
    if order is None:
        parts.append(tag("p", "No figure of single clips was computed.", class_="note"))
        return tag("section", *parts)
    where = f"{order.spec.title} of {order.system}"
    parts.append(
        tag(
            "p",
            escape(
                f"The worst first by what is chosen, at first {where}. A column's head sorts by it; the sign "
                "at a row's left opens its players and all its figures. The same numbers are in results.json."
            ),
            class_="note",
        )
    )
    parts.append(_controls(results, order))
    names = [system.name for system in results.systems]
    head = [tag("th", tag("span", "open", class_="hidden"), scope="col")]
    head += [tag("th", escape(title), scope="col") for title in ("clip", "caption")]
    head += [tag("th", swatch(k), escape(name), scope="col") for k, name in enumerate(names)]
    rows = [_row(results, order, int(place), media[place], place in cards) for place in order.places]
    caption = tag("caption", escape(where), id="listing-caption")
    table = tag("table", caption, tag("thead", tag("tr", *head)), tag("tbody", *rows), id="listing")
    region = tag("div", table, class_="wide tall", tabindex="0", role="region", aria_label="all clips")
    return tag("section", *parts, region)


def data(results: Results, order: Order | None, media: Sequence[Addresses], cards: Sequence[int]) -> str:
    """The <script> element that holds what the page's script needs. values: (G, Y, C), as they are shown."""
    specs = clip_figures(results)
    systems = [system.name for system in results.systems]
    place = {clip.id: k for k, clip in enumerate(results.clips)}
    stored: dict[str, Any] = {
        "systems": systems,
        "figures": [
            {"title": s.title, "unit": unit_of(s), "better": s.better, "digits": s.digits} for s in specs
        ],
        "clips": [
            {
                "id": clip.id,
                "caption": clip.caption,
                "reference": m.reference,
                "video": m.video,
                "sounds": m.sounds,
            }
            for clip, m in zip(results.clips, media, strict=True)
        ],
        "values": [
            [[_short(v * s.factor) for v in values_of(results, y, s.name)] for y in systems] for s in specs
        ],
        "cards": [int(k) for k in cards],
        "groups": [{"clips": [place[i] for i in ids if i in place]} for ids in results.groups.values()],
        "figure": specs.index(order.spec) if order else 0,
        "system": systems.index(order.system) if order else 0,
    }
    return f'<script type="application/json" id="data">{script_json(stored)}</script>'


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _controls(results: Results, order: Order) -> str:
    """Choices that the script listens to; hidden where there is none (see the style sheet)."""
    specs = clip_figures(results)

    def select(name: str, label: str, options: Sequence[tuple[int, str]], chosen: int) -> str:
        made = [tag("option", escape(text), value=v, selected=v == chosen) for v, text in options]
        return tag("label", escape(label), " ", tag("select", *made, id=name))

    units = [(k, f"{s.title}{f' ({unit_of(s)})' if s.unit else ''}") for k, s in enumerate(specs)]
    systems = list(enumerate(system.name for system in results.systems))
    chosen = [k for k, name in systems if name == order.system][0]
    parts = [
        select("figure", "worst by", units, specs.index(order.spec)),
        select("system", "of", systems, chosen),
        select("columns", "columns", [(0, "this figure, every system"), (1, "every figure, this system")], 0),
    ]
    if results.groups:
        titles = [results.group_titles.get(name, name) for name in results.groups]
        kinds = [(-1, "all clips"), *enumerate(titles)]
        parts.append(select("group", "show", kinds, -1))
    parts.append(tag("label", "find ", '<input type="search" id="find" size="14">'))
    parts.append(tag("output", f"{len(results.clips)} clips", id="count"))
    return tag("div", *parts, class_="controls")


def _row(results: Results, order: Order, place: int, media: Addresses, has_card: bool) -> str:
    clip, names = results.clips[place], [system.name for system in results.systems]
    name = tag("a", escape(clip.id), href=f"#clip-{place}") if has_card else escape(clip.id)
    links = [("reference", media.reference), *zip(names, media.sounds, strict=True), ("video", media.video)]
    listen = " ".join(tag("a", escape(label), href=address) for label, address in links if address)
    sounds = [clip.sounds.get(system) for system in names]
    values = [s.values.get(order.spec.name, math.nan) if s else math.nan for s in sounds]
    return tag(
        "tr",
        tag("td", tag("noscript", listen)),
        tag("th", name, scope="row"),
        tag("td", escape(clip.caption), class_="caption"),
        *(tag("td", escape(shown(v, order.spec)), class_="number") for v in values),
    )
