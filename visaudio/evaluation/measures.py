"""What a measure of the suite is, what it is given, and what it gives.

A measure hears each sound by itself (`hear`, whose arrays the cache keeps), compares a generated sound with
its reference (`compare`: a row of numbers), and says what many clips come to (`summarise`). Intervals and
paired tests call `summarise` on resampled clips, so that every figure gets them one way, a distance of
distributions too.

Conventions: audio (2, S) float32, channel 0 = left; ILD in dB, positive = left louder; ITD in seconds,
positive = left ear first (DESIGN section 3).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bi_audio_dataset.schema import UserError

if TYPE_CHECKING:
    from visaudio.data.dataset import Clip

Heard = Mapping[str, np.ndarray]


class Unavailable(UserError):
    """What a measure needs is not here: a package, weights. One line, and what to do."""


@dataclass(frozen=True)
class Sound:
    """A sound as it was read: audio (2, S) in [-1, 1]; channels of the file (1: both ears got the same)."""

    audio: np.ndarray = field(repr=False)
    sample_rate: int
    channels: int = 2

    def at(self, rate: int) -> np.ndarray:
        """(2, S') float32 at `rate` Hz; made once."""
        made = self._resampled
        if rate not in made:
            made[rate] = self._resample(rate)
        return made[rate]

    @cached_property
    def _resampled(self) -> dict[int, np.ndarray]:
        return {self.sample_rate: np.asarray(self.audio, np.float32)}

    def _resample(self, rate: int) -> np.ndarray:
        import soxr

        audio = np.asarray(self.audio, np.float32).T
        return np.ascontiguousarray(soxr.resample(audio, self.sample_rate, rate).T, dtype=np.float32)


@dataclass(frozen=True)
class Scene:
    """What is known of a clip besides its sounds; None or empty where it is not.

    video: a file with the clip's picture. truth: the annotations of a BiAudio row (sources, directions,
    onsets). duration_s: how long the compared sounds are, the shorter of the two (for measures of the whole
    clip the truth's length).
    """

    id: str
    duration_s: float
    caption: str = ""
    video: Path | None = None
    truth: Clip | None = None


# (shown unit, factor) -> unit of the value that is multiplied by the factor to be shown
MEASURED_UNITS = {("%", 100.0): "share", ("us", 1e6): "s", ("ms", 1e3): "s"}


@dataclass(frozen=True)
class FigureSpec:
    """A column of the table. better: "higher", "lower" or "" (neither: it describes).

    factor and digits: how the value is shown (100 for shares in per cent). per_clip: the row of a clip holds
    a value of this name, for the listing and the paired tests. recentred: clips taken repeatedly move the
    value (a distance of distributions grows), so that its interval is the spread of its resamples about the
    value, not where they lie.
    """

    name: str
    title: str
    unit: str = ""
    better: str = "lower"
    digits: int = 3
    factor: float = 1.0
    per_clip: bool = True
    recentred: bool = False

    @property
    def measured_unit(self) -> str:
        """Of the values as they are stored, before `factor`: a share for per cent, s for us."""
        if self.factor == 1:
            return self.unit
        return MEASURED_UNITS.get((self.unit, self.factor), f"{self.factor:g} {self.unit}".strip())


@dataclass(frozen=True)
class ClipSet:
    """What is known of C clips when they are summed up, in one order.

    rows: name -> (C,) float64, nan where a clip has nothing to say. generated, reference: what was heard, for
    measures with `keeps_heard` (else empty); a clip without a reference has None.
    """

    ids: tuple[str, ...]
    rows: Mapping[str, np.ndarray]
    generated: Sequence[Heard] = ()
    reference: Sequence[Heard | None] = ()


class Measure(ABC):
    """One group of figures. Made once per process by a factory that raises `Unavailable` if it cannot be.

    name: of the group on the command line. figures: the columns. needs: what a clip must have, of
    "reference", "video", "caption", "truth": where it lacks one, `compare` is not called, and the report
    counts it. keeps_heard: `summarise` wants what was heard, not only rows. caches: what was heard is kept on
    disk; False where hearing again is cheaper than reading it back (waveforms). parallel: may run in worker
    processes without an accelerator (numpy); else it runs in the main process on `device`. resamples: how
    many of the bootstrap's resamples `summarise` can afford. whole_clip: both sounds are heard to the end of
    the clip that the truth describes (`needs` holds "truth"), instead of as far as the shorter one goes.
    """

    name: str
    figures: tuple[FigureSpec, ...]
    needs: frozenset[str] = frozenset()
    keeps_heard: bool = False
    caches: bool = True
    parallel: bool = True
    resamples: int = 1000
    whole_clip: bool = False

    @property
    @abstractmethod
    def key(self) -> str:
        """Short and fit for a file name; changes with the definition, the settings and the weights: cached
        arrays of another key are not used."""

    @abstractmethod
    def hear(self, sound: Sound, scene: Scene) -> dict[str, np.ndarray]:
        """Numeric arrays of one sound, generated or reference, cut to scene.duration_s (at least 0.1 s; with
        `whole_clip` a sound may end before it).

        Must not depend on the other sound; of the scene on nothing but its duration and what `needs` names (a
        video with the lens that the truth states).
        """

    @abstractmethod
    def compare(self, generated: Heard, reference: Heard | None, scene: Scene) -> dict[str, float]:
        """The clip's row: each per-clip figure by its name, and whatever sums `summarise` pools."""

    def summarise(self, clips: ClipSet, index: np.ndarray) -> dict[str, float]:
        """Figures over the clips `index` (N,) names, maybe repeatedly; here the mean of what is not nan."""
        return {f.name: finite_mean(clips.rows[f.name][index]) for f in self.figures if f.name in clips.rows}

    def remarks(self, clips: ClipSet) -> tuple[str, ...]:
        """What a reader must know of the figures over these clips: a line each."""
        return ()


def finite_mean(values: np.ndarray) -> float:
    """Of what is finite; nan without any."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


# -------------------- the suite

# name -> module:function(settings) -> Measure; loaded when asked for, so that a heavy package is not
REGISTRY: dict[str, str] = {
    "panns": "visaudio.evaluation.quality:make_panns",
    "passt": "visaudio.evaluation.quality:make_passt",
    "vggish": "visaudio.evaluation.quality:make_vggish",
    "desync": "visaudio.evaluation.desync:make",
    "onsets": "visaudio.evaluation.event_times:make",
    "clap": "visaudio.evaluation.clap:make",
    "imagebind": "visaudio.evaluation.imagebind:make",
    "space": "visaudio.evaluation.space:make",
    "align": "visaudio.evaluation.align:make",
    "fsad": "visaudio.evaluation.fsad:make",
    "plausibility": "visaudio.evaluation.plausibility:make",
    "truth": "visaudio.evaluation.truth:make",
}


@dataclass(frozen=True)
class Settings:
    """What every factory gets. weights: overrides of weight files, by the names docs/metrics.md lists;
    device: of torch. hfov_deg: the lens of pictures whose row does not say it; detector_labels: the things
    that `align` looks for, none for whatever its detector knows."""

    weights: Mapping[str, str] = field(default_factory=dict)
    device: str = "cpu"
    hfov_deg: float = 90.0
    detector_labels: tuple[str, ...] = ()


def make(name: str, settings: Settings) -> Measure:
    """The measure of that name. UserError for an unknown one, Unavailable for one that cannot be had."""
    from importlib import import_module

    if name not in REGISTRY:
        raise UserError(f"there is no measure '{name}', expected of {', '.join(REGISTRY)}")
    module, _, function = REGISTRY[name].partition(":")
    return getattr(import_module(module), function)(settings)
