"""The plots of a dataset card: small PNG files of the same bytes wherever the same matplotlib draws them.

No dates, no program's name, no settings of the user's: matplotlib's own defaults are set for each plot.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bi_audio_dataset.figures import IN_VIEW, LATERAL_EDGES_DEG, MEASURES, OUT_OF_VIEW, Figures, Measure
from bi_audio_dataset.schema import SPLITS

ASSETS = "assets"
BINS = 32
DPI = 80
COLOURS = {IN_VIEW: "#3b6ea5", OUT_OF_VIEW: "#d08a3e"}
SPLIT_COLOURS = dict(zip(SPLITS, ("#3b6ea5", "#d08a3e", "#5a9c6e"), strict=True))


@dataclass(frozen=True)
class Plot:
    """path: below the dataset's folder, with '/'; words: what a reader who does not see it is told."""

    path: str
    words: str


#: Every file that a card may own below DIR/assets, drawn or not.
FILES = tuple(f"{ASSETS}/{name}.png" for name in ("classes", "lateral", *(m.name for m in MEASURES)))


def draw(figures: Figures, folder: Path) -> list[Plot]:
    """Write folder/assets/*.png, of what there is anything to show, and say which.

    Raises ModuleNotFoundError where matplotlib is not installed; nothing is written then.
    """
    import matplotlib

    (folder / ASSETS).mkdir(parents=True, exist_ok=True)
    plots = []
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
        for plot, figure in _figures(figures):
            # "Software" would hold matplotlib's version and address
            figure.savefig(folder / plot.path, format="png", dpi=DPI, metadata={"Software": None})
            plots.append(plot)
    return plots


def _figures(figures: Figures) -> Iterator[tuple[Plot, object]]:
    """(plot, matplotlib figure) of each plot that has something to show."""
    if figures.classes:
        yield Plot(FILES[0], "clips that hold a class, by split"), _classes(figures)
    if any(frames.any() for frames in figures.lateral.values()):
        yield Plot(FILES[1], "lateral angle of sounding objects, positive to the left"), _lateral(figures)
    for path, measure in zip(FILES[2:], MEASURES, strict=True):
        values = np.asarray(figures.values[measure.name])
        if len(values):
            yield Plot(path, f"clips by {measure.words}"), _measure(values, measure)


def _axes(height_in: float = 2.4):
    """(figure, axes) without pyplot, which would open a display and keep every figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _classes(figures: Figures):
    # the largest first, names decide between equals
    totals: dict[str, int] = {}
    for (name, _), count in figures.classes.items():
        totals[name] = totals.get(name, 0) + count
    names = sorted(totals, key=lambda name: (-totals[name], name))[:40]
    figure, axes = _axes(0.7 + 0.2 * max(len(names), 4))
    left = np.zeros(len(names))
    for split in SPLITS:
        counts = np.array([figures.classes[name, split] for name in names])
        if counts.any():
            axes.barh(range(len(names)), counts, left=left, color=SPLIT_COLOURS[split], label=split)
        left += counts
    axes.set_yticks(range(len(names)), [textwrap.shorten(name, 28, placeholder="...") for name in names])
    axes.invert_yaxis()
    axes.set_xlabel("clips")
    # above the axes: a place among the bars would have to be searched for
    figure.legend(loc="outside upper right", ncols=3, frameon=False)
    return figure


def _lateral(figures: Figures):
    figure, axes = _axes()
    total = sum(int(frames.sum()) for frames in figures.lateral.values())
    centres = (LATERAL_EDGES_DEG[1:] + LATERAL_EDGES_DEG[:-1]) / 2
    bottom = np.zeros(len(centres))
    for name in (IN_VIEW, OUT_OF_VIEW):
        shares = figures.lateral[name] / total * 100
        axes.bar(centres, shares, width=9, bottom=bottom, color=COLOURS[name], label=name)
        bottom += shares
    axes.set_xlim(90, -90)  # left on the left
    axes.set_xticks(range(-90, 91, 30))
    axes.set(xlabel="lateral angle, degrees (left is positive)", ylabel="% of sounding time")
    figure.legend(loc="outside upper right", ncols=3, frameon=False)
    return figure


def _measure(values: np.ndarray, measure: Measure):
    figure, axes = _axes()
    # what lies beyond the axis is counted at its ends, so that the bars add up to all clips
    inside = np.clip(values, measure.low, measure.high)
    counts, edges = np.histogram(inside, BINS, (measure.low, measure.high))
    axes.bar(edges[:-1], counts, width=np.diff(edges) * 0.9, align="edge", color=COLOURS[IN_VIEW])
    axes.set_xlim(measure.low, measure.high)
    axes.set(xlabel=measure.words, ylabel="clips")
    return figure
