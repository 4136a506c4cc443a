"""When things sound: onsets of the generated sound against the reference's, and envelopes' distance (E-L1).

docs/metrics.md has the equations. Legend: F frames of the envelope, E = 3 signals: mix, left, right.
"""

from __future__ import annotations

import numpy as np

from visaudio.evaluation import onsets
from visaudio.evaluation.measures import ClipSet, FigureSpec, Heard, Measure, Scene, Settings, Sound

RATE = 22050  # of both: sounds of all rates are heard in the same bands
FRAME, HOP = 512, 128  # of the envelope, as in T-Foley
SIGNALS = ("mix", "left", "right")
COUNTS = ("hits", "generated", "reference")


def envelope(audio: np.ndarray) -> np.ndarray:
    """(..., S) at RATE -> (..., F) root mean square of FRAME samples around every HOP-th.

    Beyond its ends the sound is taken as silent. F = 1 + S // HOP.
    """
    power = np.square(audio, dtype=np.float64)
    before = np.zeros((*audio.shape[:-1], FRAME // 2 + 1))
    after = np.zeros((*audio.shape[:-1], FRAME // 2))
    summed = np.cumsum(np.concatenate([before, power, after], axis=-1), axis=-1)
    energy = summed[..., FRAME::HOP] - summed[..., :-FRAME:HOP]
    return np.sqrt(np.maximum(energy, 0) / FRAME).astype(np.float32)


class EventTimes(Measure):
    name = "onsets"
    needs = frozenset({"reference"})
    figures = (
        FigureSpec("onset_f1", "onset F1", "%", "higher", 1, 100.0),
        FigureSpec("onset_f1_ears", "onset F1, both ears", "%", "higher", 1, 100.0),
        FigureSpec("envelope_l1", "E-L1", "", digits=4),
        FigureSpec("envelope_l1_ears", "E-L1, mean of ears", "", digits=4),
        FigureSpec("envelope_l1_matched", "E-L1 at the reference's level", "", digits=4),
    )

    @property
    def key(self) -> str:
        return "onsets-2"

    def hear(self, sound: Sound, scene: Scene) -> dict[str, np.ndarray]:
        """onset_s_SIGNAL (n,) and envelope (E, F)."""
        signals = _signals(sound.at(RATE))
        heard = {
            f"onset_s_{name}": onsets.detect_onsets(signal, RATE)
            for name, signal in zip(SIGNALS, signals, strict=True)
        }
        heard["envelope"] = envelope(signals)
        return heard

    def compare(self, generated: Heard, reference: Heard | None, scene: Scene) -> dict[str, float]:
        row = {}
        for name in SIGNALS:
            counts = onsets.match_onsets(generated[f"onset_s_{name}"], reference[f"onset_s_{name}"])
            row |= {f"{name}_{what}": float(count) for what, count in zip(COUNTS, counts, strict=True)}
        row["onset_f1"] = _f1(*(row[f"mix_{what}"] for what in COUNTS))
        row["onset_f1_ears"] = _f1(*(row[f"left_{what}"] + row[f"right_{what}"] for what in COUNTS))

        frames = min(generated["envelope"].shape[1], reference["envelope"].shape[1])
        ours, theirs = (heard["envelope"][:, :frames].astype(np.float64) for heard in (generated, reference))
        distance = np.abs(ours - theirs).mean(axis=1)
        row["envelope_l1"], row["envelope_l1_ears"] = float(distance[0]), float(distance[1:].mean())
        row["envelope_l1_matched"] = float(np.abs(_gain(ours, theirs) * ours[0] - theirs[0]).mean())
        return row

    def summarise(self, clips: ClipSet, index: np.ndarray) -> dict[str, float]:
        """Onsets are pooled: hits and numbers of all clips together. Envelopes: the mean over clips."""
        figures = super().summarise(clips, index)
        for figure, names in (("onset_f1", SIGNALS[:1]), ("onset_f1_ears", SIGNALS[1:])):
            total = [sum(np.nansum(clips.rows[f"{n}_{what}"][index]) for n in names) for what in COUNTS]
            figures[figure] = _f1(*total)
        return figures


def _f1(hits: float, generated: float, reference: float) -> float:
    """nan where neither side has an onset: that says nothing, and silence must not win by it."""
    return float(onsets.f1(hits, generated, reference)) if generated + reference else float("nan")


def _signals(audio: np.ndarray) -> np.ndarray:
    """(2, S) -> (E, S)."""
    return np.stack([audio.mean(axis=0), *audio])


def _gain(ours: np.ndarray, theirs: np.ndarray) -> float:
    """What brings both ears (E, F) together to the reference's power; nan for a silent reference."""
    power, wanted = (float(np.square(x[1:]).mean()) for x in (ours, theirs))
    if not wanted:
        return float("nan")
    return np.sqrt(wanted / power) if power else 0.0


def make(settings: Settings) -> EventTimes:
    return EventTimes()
