"""Spatial AV-Align: is there something to be seen where the sound comes from?

After SAVGBench (Shimada et al. 2024, arXiv 2412.13462, and its published script): sounds are localised at
10 Hz, objects detected at 4 Hz. A sound is a true positive if, within one picture before or after its own,
a box overlaps the sound's column +- 40 of 256 columns; else a false negative. The figure is recall,
TP / (TP + FN), pooled over all clips. Theirs localises events in stereo by a network trained on STARSS23;
ours finds one lateral angle a frame in binaural sound (lateral.py), taken to lie in front and level.

Legend: F sound frames at 10 Hz, N boxes, P pictures at 4 Hz.
"""

from __future__ import annotations

import numpy as np

from visaudio.evaluation import detectors, lateral
from visaudio.evaluation.lens import column_of, hfov_of
from visaudio.evaluation.measures import ClipSet, FigureSpec, Heard, Measure, Scene, Settings, Sound

SUMS = ("hits", "anywhere", "middle", "frames", "sounding")
TOLERANCE = 40 / 256  # of the picture's width, to either side
NEAR_PICTURES = 1


class Align(Measure):
    """hear: `lateral_deg` (F,), `active` (F,) bool, `boxes` (N, 3) of detectors.py."""

    name = "align"
    figures = (
        FigureSpec("align", "Spatial AV-Align", "%", "higher", 1, 100),
        FigureSpec("align_chance", "AV-Align of a sound anywhere in view", "%", "", 1, 100),
        FigureSpec("align_middle", "AV-Align of a sound in the middle", "%", "", 1, 100),
        FigureSpec("align_heard", "frames with a sound", "%", "", 1, 100),
    )

    def __init__(self, settings: Settings) -> None:
        name = settings.weights.get("detector", "truth")
        self.hfov_deg = settings.hfov_deg
        self.detector: detectors.Detector
        if name == "truth":
            self.detector, made_of = detectors.truth_boxes, "truth"
            self.needs = frozenset({"truth"})
        else:
            self.detector = detectors.TransformersDetector(name, settings.detector_labels, settings.device)
            made_of = f"{self.detector.digest}-{'+'.join(sorted(settings.detector_labels)) or 'all'}"
            self.needs = frozenset({"video"})
            self.parallel = False
        self._key = f"align-1-{made_of}-{self.hfov_deg:g}"
        self._seen: tuple[object, np.ndarray] | None = None

    @property
    def key(self) -> str:
        return self._key

    def hear(self, sound: Sound, scene: Scene) -> dict[str, np.ndarray]:
        rate = lateral.ANALYSIS_RATE_HZ
        audio = sound.at(rate)[:, : round(scene.duration_s * rate)]
        return {
            "lateral_deg": lateral.lateral_deg(audio, rate),
            "active": lateral.is_active(audio, rate),
            "boxes": self._boxes(scene),
        }

    def compare(self, generated: Heard, reference: Heard | None, scene: Scene) -> dict[str, float]:
        hfov_deg = hfov_of(scene, self.hfov_deg)
        found = count(generated["lateral_deg"], generated["active"], generated["boxes"], hfov_deg)
        sums = dict(zip(SUMS, map(float, found), strict=True))
        return _figures(sums) | {f"align_{name}_sum": value for name, value in sums.items()}

    def summarise(self, clips: ClipSet, index: np.ndarray) -> dict[str, float]:
        return _figures({n: float(np.nansum(clips.rows[f"align_{n}_sum"][index])) for n in SUMS})

    def _boxes(self, scene: Scene) -> np.ndarray:
        """Of the scene; those of the last one are kept, since its reference is heard after its sound."""
        key = (scene.id, scene.video, scene.duration_s)
        if self._seen is None or self._seen[0] != key:
            self._seen = (key, self.detector(scene))
        return self._seen[1]


def count(
    lateral_deg: np.ndarray, active: np.ndarray, boxes: np.ndarray, hfov_deg: float
) -> tuple[int, float, int, int, int]:
    """(F,) degrees, (F,) bool, (N, 3) -> SUMS: true positives; those expected of a sound anywhere in view,
    each column alike; those of one in the middle (mono); frames; frames that sound."""
    column = column_of(lateral_deg, hfov_deg)
    picture = np.round(np.arange(len(lateral_deg)) / lateral.FRAME_RATE_HZ * detectors.RATE_HZ)
    hits, anywhere, middle = 0, 0.0, 0
    for k in np.flatnonzero(active):
        near = boxes[np.abs(boxes[:, 0] - picture[k]) <= NEAR_PICTURES]
        first, last = near[:, 1] - TOLERANCE, near[:, 2] + TOLERANCE
        hits += bool(((first <= column[k]) & (column[k] <= last)).any())
        anywhere += covered(first, last)
        middle += bool(((first <= 0.5) & (last >= 0.5)).any())
    return hits, anywhere, middle, len(lateral_deg), int(active.sum())


def _figures(sums: dict[str, float]) -> dict[str, float]:
    sounding, frames, nan = sums["sounding"], sums["frames"], float("nan")
    return {
        "align": sums["hits"] / sounding if sounding else nan,
        "align_chance": sums["anywhere"] / sounding if sounding else nan,
        "align_middle": sums["middle"] / sounding if sounding else nan,
        "align_heard": sounding / frames if frames else nan,
    }


def covered(first: np.ndarray, last: np.ndarray) -> float:
    """Share of [0, 1] that the intervals cover together."""
    total, end = 0.0, 0.0
    for a, b in sorted(zip(first.tolist(), last.tolist(), strict=True)):
        a, b = max(a, end), min(b, 1.0)
        if b > a:
            total, end = total + b - a, b
    return total


def make(settings: Settings) -> Align:
    return Align(settings)
