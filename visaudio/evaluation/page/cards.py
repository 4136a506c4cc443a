"""A clip to look at: players of the reference and of every system, the video, the picture, all figures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from visaudio.evaluation.page.listing import Addresses, Order, clip_figures
from visaudio.evaluation.page.summary import shown, swatch, title_of
from visaudio.evaluation.page.text import escape, tag

if TYPE_CHECKING:
    from visaudio.evaluation.results import ClipScored, Results

REFERENCE_SWATCH = (
    '<svg class="swatch" viewBox="0 0 24 8" aria-hidden="true">'
    '<path class="line reference" d="M0 4h24"/></svg>'
)


def section(cards: list[str], shown_note: str) -> str:
    if not cards:
        return ""
    text = (
        f"{shown_note} One sound plays at a time; another one of the same clip goes on where the last one "
        "was, and a click in a picture goes there. Spectrogram levels count from the loudest of the "
        "reference (of the first sound, where there is none). Triangles: true onsets."
    )
    parts = [tag("h2", "Clips in pictures", id="pictures"), tag("p", escape(text), class_="note")]
    return tag("section", *parts, *cards)


def card(
    results: Results, order: Order, place: int, rank: int, media: Addresses, picture: str, few: bool
) -> str:
    """few: so few cards that each video may show its first frame before it is played."""
    clip = results.clips[place]
    count = len(results.clips)
    where = f"{rank} of {count} from the worst by {order.spec.title} of {order.system}"
    head = tag("h3", escape(clip.id), " ", tag("small", escape(where)))
    caption = tag("p", escape(clip.caption), class_="caption") if clip.caption else ""
    return tag(
        "article",
        head,
        caption,
        tag("div", _video(media, few), _players(results, order, clip, media), class_="listen"),
        tag("div", picture, class_="wide") if picture else "",
        _figures(results, clip),
        class_="card",
        id=f"clip-{place}",
    )


def _video(media: Addresses, few: bool) -> str:
    if media.video is None:
        return ""
    preload = "metadata" if few else "none"
    return tag("video", src=media.video, muted=True, controls=True, preload=preload, playsinline=True)


def _players(results: Results, order: Order, clip: ClipScored, media: Addresses) -> str:
    rows = []
    if media.reference:
        rows.append(_player(REFERENCE_SWATCH, "reference", media.reference, ""))
    for number, (system, address) in enumerate(zip(results.systems, media.sounds, strict=True)):
        sound = clip.sounds.get(system.name)
        value = shown(sound.values.get(order.spec.name, math.nan), order.spec) if sound else "no sound"
        rows.append(_player(swatch(number), system.name, address, value))
    head = tag("thead", tag("tr", "<td></td><td></td>", tag("th", title_of(order.spec), scope="col")))
    return tag("table", head, tag("tbody", *rows), class_="players")


def _player(mark: str, name: str, address: str | None, value: str) -> str:
    audio = tag("audio", src=address, controls=True, preload="none", aria_label=name) if address else ""
    cells = (tag("th", mark, escape(name), scope="row"), tag("td", audio), tag("td", escape(value)))
    return tag("tr", *cells)


def _figures(results: Results, clip: ClipScored) -> str:
    names = [system.name for system in results.systems]
    rows = []
    for spec in clip_figures(results):
        values = [
            clip.sounds[n].values.get(spec.name, math.nan) if n in clip.sounds else math.nan for n in names
        ]
        cells = [tag("td", escape(shown(v, spec)), class_="number") for v in values]
        rows.append(tag("tr", tag("th", title_of(spec), scope="row"), *cells))
    head = tag("tr", "<td></td>", *(tag("th", escape(name), scope="col") for name in names))
    table = tag("table", tag("thead", head), tag("tbody", *rows), class_="figures")
    return tag("details", tag("summary", "all figures of this clip"), tag("div", table, class_="wide"))
