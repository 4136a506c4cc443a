"""The picture of a clip, one SVG: spectrograms of both ears of every sound, below them ILD and ITD over
time with the truth drawn in.

Conventions: audio (2, S), row 0 = left; ILD in dB, positive = left louder; ITD in us, positive = left ear
first; lateral angle in degrees, positive = left. All three share their zero line, so what goes up is left.
Cues are those of cues.py: 25 frames a second, gaps where a frame is silent.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from visaudio.evaluation import cues
from visaudio.evaluation.page import spectrogram
from visaudio.evaluation.page.axes import Panel, line, signed, words
from visaudio.evaluation.page.text import MINUS, escape

WIDTH, LEFT, RIGHT, GAP = 960, 58, 66, 26
SPECTROGRAM, CUE, TITLE, BELOW = 78, 130, 21, 24
FREQUENCIES_KHZ = (1, 2, 4, 8, 16)
ILD_DB = (12.0, 30.0)  # the axis ends between these two
ITD_US = 1000.0
STYLES = 6  # of systems' lines, in the style sheet; more systems begin again


@dataclass(frozen=True)
class ShownSound:
    """A sound of the picture. style: CSS class of its lines."""

    name: str
    audio: np.ndarray = field(repr=False)
    sample_rate: int
    style: str


@dataclass(frozen=True)
class Track:
    """Where a source truly is: (F,) lateral angles in degrees, nan where it is silent. onsets_s: its own."""

    name: str
    lateral_deg: np.ndarray = field(repr=False)
    rate_hz: float
    onsets_s: np.ndarray = field(repr=False, default_factory=lambda: np.zeros(0))


def data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def system_style(number: int) -> str:
    return f"s{number % STYLES}"


def draw(
    sounds: Sequence[ShownSound],
    tracks: Sequence[Track],
    duration_s: float,
    label: str,
    image: Callable[[str, bytes], str] = lambda name, png: data_uri(png),
) -> str:
    """The SVG. image(name, png) gives the address of each spectrogram; label: read out by screen readers."""
    parts: list[str] = []
    levels = [spectrogram.levels_db(s.audio, s.sample_rate, duration_s) for s in sounds]
    # of the first, the reference where there is one: then a sound's loudness can be compared with it
    loudest = max(float(levels[0].max(initial=-120.0)), -100.0)
    top = 4.0
    for number, (sound, heard) in enumerate(zip(sounds, levels, strict=True)):
        last = number == len(sounds) - 1
        top = _spectrograms(parts, top, sound, heard, tracks, loudest, duration_s, last, image)
    top += 10
    top = _legend(parts, top, sounds, tracks)
    shown = [(sound, *_cues(sound)) for sound in sounds]
    biggest = max((float(np.nanmax(np.abs(ild), initial=0.0)) for _, ild, _ in shown), default=0.0)
    reach = float(np.clip(4 * np.ceil(biggest / 4), *ILD_DB))
    step = 5.0 if reach <= 16 else 10.0
    ticks = [(v, signed(v)) for v in np.arange(-(reach // step) * step, reach + 1e-9, step)]
    ild = Panel(LEFT, top, WIDTH - LEFT - RIGHT, CUE, duration_s, -reach, reach)
    _cue_panel(parts, ild, ticks, "ILD in dB, + left louder", [(s, i) for s, i, _ in shown], tracks)
    itd = Panel(LEFT, ild.bottom + BELOW, ild.width, CUE, duration_s, -ITD_US, ITD_US)
    ticks = [(v, signed(v)) for v in (-800.0, -400.0, 0.0, 400.0, 800.0)]
    _cue_panel(
        parts, itd, ticks, "ITD in \N{MICRO SIGN}s, + left first", [(s, d) for s, _, d in shown], tracks
    )
    height = itd.bottom + BELOW
    return (
        f'<svg class="picture" viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(label)}">'
        + "".join(parts)
        + "</svg>"
    )


def _spectrograms(parts, top, sound, levels, tracks, loudest, duration_s, last, image) -> float:
    """One row, left and right ear. Gives where the next row begins."""
    width = (WIDTH - LEFT - RIGHT - GAP) / 2
    ends = float(spectrogram.mel(spectrogram.TOP_HZ))
    for ear, side in enumerate(("left", "right")):
        panel = Panel(LEFT + ear * (width + GAP), top + TITLE, width, SPECTROGRAM, duration_s, 0, ends)
        address = image(f"{sound.name}-{side}", spectrogram.png(levels[ear], loudest))
        parts.append(words(panel.left, top + 12, f"{sound.name}, {side} ear", "name"))
        parts.append(
            f'<image x="{panel.left:g}" y="{panel.top:g}" width="{panel.width:g}" height="{panel.height:g}" '
            f'preserveAspectRatio="none" href="{escape(address)}"/>'
        )
        parts.append(panel.frame())
        for track in tracks:
            for onset in track.onsets_s[track.onsets_s <= duration_s]:
                x = panel.x(onset)
                parts.append(f'<path class="onset" d="M{x - 3:.1f} {panel.top - 5:.1f}h6l-3 5z"/>')
        if ear == 0:
            heights = [(float(spectrogram.mel(1000.0 * f)), f"{f}") for f in FREQUENCIES_KHZ]
            parts.append(panel.value_axis(heights, "kHz"))
        else:
            _colour_bar(parts, panel)
        if last:
            parts.append(panel.time_axis(label=ear == 1))
    return top + TITLE + SPECTROGRAM + (BELOW - 8 if last else 4)


def _colour_bar(parts, panel: Panel) -> None:
    ramp = spectrogram.png(np.linspace(-spectrogram.RANGE_DB, 0, 128)[:, None], 0.0)
    parts.append(
        f'<image x="{panel.right + 6:g}" y="{panel.top:g}" width="8" height="{panel.height:g}" '
        f'preserveAspectRatio="none" href="{data_uri(ramp)}"/>'
    )
    parts.append(words(panel.right + 18, panel.top + 8, "0 dB", "tick"))
    parts.append(words(panel.right + 18, panel.bottom, f"{MINUS}{spectrogram.RANGE_DB:g} dB", "tick"))


def _legend(parts, top, sounds: Sequence[ShownSound], tracks: Sequence[Track]) -> float:
    """Names beside a piece of their lines, in as many rows as they need. Gives where the panels begin."""
    entries = [(f"line {s.style}", s.name) for s in sounds]
    entries += [(f"lateral t{n % 3}", f"true lateral angle, {t.name}") for n, t in enumerate(tracks)]
    x = float(LEFT)
    for style, name in entries:
        name = name if len(name) <= 60 else name[:59] + "\N{HORIZONTAL ELLIPSIS}"
        room = 40 + 6.3 * len(name)
        if x > LEFT and x + room > WIDTH - RIGHT:
            x, top = float(LEFT), top + 15
        parts.append(f'<path class="{style}" d="M{x:.1f} {top + 6:.1f}h24"/>')
        parts.append(words(x + 29, top + 10, name, "name"))
        x += room
    return top + 20


def _cues(sound: ShownSound) -> tuple[np.ndarray, np.ndarray]:
    """(F,) ILD in dB and ITD in us, nan where a frame is silent."""
    silent = cues.is_silent(sound.audio, sound.sample_rate)
    ild = cues.ild_db(sound.audio, sound.sample_rate)
    itd = cues.itd_gcc_phat(sound.audio, sound.sample_rate) * 1e6
    return np.where(silent, np.nan, ild), np.where(silent, np.nan, itd)


def _cue_panel(
    parts,
    panel: Panel,
    ticks: Sequence[tuple[float, str]],
    title: str,
    lines: Sequence[tuple[ShownSound, np.ndarray]],
    tracks: Sequence[Track],
) -> None:
    parts.append(panel.value_axis(ticks, title, grid=True))
    parts.append(line(panel.left, panel.y(0), panel.right, panel.y(0), "zero"))
    if tracks:
        angles = {angle: panel.high * angle / 90 for angle in (-90, -45, 0, 45, 90)}
        degrees = [(value, signed(angle) + "\N{DEGREE SIGN}") for angle, value in angles.items()]
        parts.append(panel.right_axis(degrees, "lateral angle, + left"))
        for number, track in enumerate(tracks):
            values = track.lateral_deg / 90 * panel.high
            parts.append(panel.path(values, track.rate_hz, f"lateral t{number % 3}"))
    # the reference is drawn first and wide, the systems over it
    for sound, values in lines:
        first = 0.5 / cues.FRAME_RATE_HZ
        parts.append(panel.path(values, cues.FRAME_RATE_HZ, f"line {sound.style}", first))
    parts.append(panel.frame())
    parts.append(panel.time_axis())
