"""Small pieces of SVG: a panel with axes, lines with gaps. Text and lines take the page's colours by CSS
class, so that a picture follows its light and dark themes.

Lengths are units of the picture's viewBox, y downwards. Legend: F frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from visaudio.evaluation.page.text import MINUS, escape


@dataclass(frozen=True)
class Panel:
    """A rectangle of the picture with time across and a value upwards, `low` at the bottom."""

    left: float
    top: float
    width: float
    height: float
    seconds: float
    low: float
    high: float

    @property
    def right(self) -> float:
        return self.left + self.width

    @property
    def bottom(self) -> float:
        return self.top + self.height

    def x(self, time_s: np.ndarray | float) -> np.ndarray | float:
        return self.left + np.asarray(time_s) / self.seconds * self.width

    def y(self, value: np.ndarray | float) -> np.ndarray | float:
        return self.bottom - (np.asarray(value) - self.low) / (self.high - self.low) * self.height

    def frame(self) -> str:
        """The border; the page's script finds the panel by it, for the line that moves with the sound."""
        return (
            f'<rect class="panel" x="{self.left:g}" y="{self.top:g}" width="{self.width:g}" '
            f'height="{self.height:g}" data-seconds="{self.seconds:g}"/>'
        )

    def time_axis(self, label: bool = True) -> str:
        parts = []
        for tick in time_ticks(self.seconds):
            x = self.x(tick)
            parts.append(line(x, self.bottom, x, self.bottom + 3, "axis"))
            parts.append(words(x, self.bottom + 13, f"{tick:g}", "tick middle"))
        if label:
            parts.append(words(self.right + 4, self.bottom + 13, "s", "tick"))
        return "".join(parts)

    def value_axis(self, ticks: Sequence[tuple[float, str]], title: str, grid: bool = False) -> str:
        """ticks: (value, text). title: turned, beside the numbers."""
        parts = []
        for value, text in ticks:
            y = self.y(value)
            if grid:
                parts.append(line(self.left, y, self.right, y, "grid"))
            parts.append(words(self.left - 5, y + 3, text, "tick end"))
        middle = (self.top + self.bottom) / 2
        parts.append(turned(self.left - 38, middle, title))
        return "".join(parts)

    def right_axis(self, ticks: Sequence[tuple[float, str]], title: str) -> str:
        """ticks: (value on this panel's own scale, text)."""
        parts = [words(self.right + 5, self.y(value) + 3, text, "tick truth") for value, text in ticks]
        parts.append(turned(self.right + 42, (self.top + self.bottom) / 2, title, "title truth"))
        return "".join(parts)

    def path(self, values: np.ndarray, rate_hz: float, style: str, first_s: float = 0.0) -> str:
        """A line through (F,) values, the first at `first_s`; nan leaves a gap, a lone value is a dot."""
        times = first_s + np.arange(len(values)) / rate_hz
        inside = np.isfinite(values) & (times <= self.seconds)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], inside.astype(np.int8), [0]])))
        steps = []
        for start, end in zip(edges[::2], edges[1::2], strict=True):
            xs, ys = self.x(times[start:end]), self.y(np.clip(values[start:end], self.low, self.high))
            points = [f"{x:.1f} {y:.1f}" for x, y in zip(xs, ys, strict=True)]
            steps.append("M" + "L".join(points) + ("h0.1" if len(points) == 1 else ""))
        return f'<path class="{escape(style)}" d="{"".join(steps)}"/>' if steps else ""


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def words(x: float, y: float, text: str, style: str = "") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def turned(x: float, y: float, text: str, style: str = "title") -> str:
    return (
        f'<text class="{style} middle" x="{x:.1f}" y="{y:.1f}" '
        f'transform="rotate(-90 {x:.1f} {y:.1f})">{escape(text)}</text>'
    )


def time_ticks(seconds: float, most: int = 9) -> list[float]:
    """From 0 on, at a step of 1, 2 or 5 times a power of ten."""
    step = 10 ** np.floor(np.log10(seconds / most))
    for factor in (1, 2, 5, 10):
        if seconds / (step * factor) <= most:
            step = step * factor
            break
    return [float(t) for t in np.round(np.arange(0, seconds * (1 + 1e-9), step), 10)]


def signed(value: float) -> str:
    """+10, 0, -10 with a real minus sign."""
    return f"{value:+g}".replace("-", MINUS) if value else "0"
