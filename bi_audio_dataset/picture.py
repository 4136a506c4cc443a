"""What is measured of a window's pictures while they pass: motion, projection, perceptual hashes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from bi_audio_dataset import media
from bi_audio_dataset.duplicates import HASHES, picture_hash
from bi_audio_dataset.filters import Finding, ProjectionFilter, SelectionConfig, StaticFilter, damaged
from bi_audio_dataset.media import Damage, MediaInfo

#: Pictures are measured at no more than this width.
MEASURED_WIDTH = 512
#: A picture flatter than this (standard deviation of grey values) has no hash worth comparing.
FLAT = 3.0
#: Where the projection is looked at, pictures are this small: (width, height).
_LOOK_SIZE = (128, 64)
#: Less contrast than this (mean difference, or standard deviation) tells nothing about the projection.
_LEAST_CONTRAST = 8.0


class PictureProbe:
    """Fed with the source's pictures of one window (H, W, 3) u8 at StaticFilter.rate_hz, in order.

    panorama: whether they ought to be equirectangular; trusted: the user's word that they are, however they
    look. damage: filled by whoever reads the pictures. Keeps
    small grey copies only, and one picture in colour from the middle, at most MEASURED_WIDTH wide.
    """

    def __init__(
        self, config: SelectionConfig, count: int, panorama: bool = True, trusted: bool = False
    ) -> None:
        self.config, self.panorama, self.trusted = config, panorama, trusted
        self.size = (0, 0)
        self.damage: Damage | None = None
        # of a window of fewer pictures some are hashed more than once
        places = [min(count - 1, int((i + 0.5) * count / HASHES)) for i in range(HASHES)] if count else []
        self._hashed = Counter(places)
        self.middle: NDArray[np.uint8] | None = None
        self._middle = count // 2
        self._seen = 0
        self._last: NDArray[np.float32] | None = None
        self._differences: list[float] = []
        self._hashes: list[int] = []
        self._flat = 0
        self._shapes: list[dict[str, float]] = []

    def add(self, frame: NDArray[np.uint8]) -> None:
        self.size = (frame.shape[1], frame.shape[0])
        frame = small_picture(frame)
        if self._seen == self._middle:
            self.middle = frame.copy()
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
        if self._last is not None:
            self._differences.append(float(np.mean((grey - self._last) ** 2)))
        if times := self._hashed[self._seen]:
            self._hashes += times * [picture_hash(grey)]
            self._flat += times * (float(grey.std()) < FLAT)
            if self.panorama:
                self._shapes.append(projection_measures(frame))
        self._last = grey
        self._seen += 1

    def hashes(self) -> list[int]:
        """HASHES 64-bit hashes; [] if most of the pictures show nothing, or there were too few."""
        enough = len(self._hashes) == HASHES and 2 * self._flat < HASHES
        return self._hashes if enough else []

    def findings(self) -> list[Finding]:
        found = []
        if self.config.static.action != "off":
            found.append(motion(self._differences, self.config.static))
        if self.panorama and self.config.not_equirectangular.action != "off" and self._seen:
            measures = {k: float(np.median([s[k] for s in self._shapes])) for k in (self._shapes or [{}])[0]}
            found.append(projection(self.size, measures, self.config.not_equirectangular, self.trusted))
        if self.damage is not None and self.config.damaged_picture.action != "off":
            found.append(damaged(self.damage.fraction, self.damage.seconds, self.config.damaged_picture))
        return found


def small_picture(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3), at most MEASURED_WIDTH wide."""
    height, width = frame.shape[:2]
    if width <= MEASURED_WIDTH:
        return frame
    size = (MEASURED_WIDTH, max(2, round(height * MEASURED_WIDTH / width)))
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


def motion(differences: list[float], config: StaticFilter) -> Finding:
    """Of the mean squared differences of successive pictures."""
    still = float(np.mean(np.array(differences) < config.mse)) if differences else 0.0
    return Finding(
        "static",
        config.action,
        len(differences) >= config.min_pairs and still > config.max_fraction,
        {
            "fraction": still,
            "pairs": len(differences),
            "median_mse": float(np.median(differences or [0.0])),
        },
        f"{still:.0%} of the pairs of pictures hardly differ (limit {config.max_fraction:.0%})",
    )


def look_at(video: Path, info: MediaInfo, config: ProjectionFilter, trusted: bool = False) -> Finding:
    """`projection` of a whole recording: it looks wrong if three frames of it all do."""
    times_s = info.first_frame_s + (info.duration_s - info.first_frame_s) * np.array([0.1, 0.5, 0.9])
    shapes = [projection_measures(frame) for frame in media.read_frames(video, times_s)]
    least = {name: min(shape[name] for shape in shapes) for name in shapes[0]}
    return projection((info.width, info.height), least, config, trusted)


def projection_measures(frame: NDArray[np.uint8]) -> dict[str, float]:
    """Of (H, W, 3): seam, seam_steps, top_bottom and side_by_side of ProjectionFilter; 0 without contrast."""
    grey = cv2.resize(frame, _LOOK_SIZE, interpolation=cv2.INTER_AREA).mean(axis=2)
    height, width = grey.shape
    far = float(np.abs(grey - np.roll(grey, width // 2, axis=1)).mean())
    largest = float(np.abs(np.diff(grey, axis=1)).mean(axis=0).max())
    step = float(np.abs(grey[:, 0] - grey[:, -1]).mean())
    tells = far >= _LEAST_CONTRAST
    return {
        "seam": step / far if tells else 0.0,
        "seam_steps": step / max(largest, 0.1) if tells else 0.0,
        "top_bottom": _likeness(*np.split(grey, 2, axis=0)),
        "side_by_side": _likeness(*np.split(grey, 2, axis=1)),
    }


def _likeness(first: NDArray, second: NDArray) -> float:
    """Correlation of two pictures without what is the same all along a row (sky over ground, which any two
    directions share); 0 where one has too little contrast to tell."""
    first, second = (half - half.mean(axis=1, keepdims=True) for half in (first, second))
    if min(first.std(), second.std()) < _LEAST_CONTRAST:
        return 0.0
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def projection(
    size: tuple[int, int], measures: dict[str, float], config: ProjectionFilter, trusted: bool = False
) -> Finding:
    """size = (width, height) of the picture itself. trusted: looks may only mark."""
    aspect = size[0] / size[1]
    why, action = "", config.action
    if abs(aspect - 2) > config.max_aspect_error:
        hint = {1: " (two eyes, top-bottom?)", 4: " (two eyes, side by side?)"}.get(round(aspect, 1), "")
        why = f"the picture is {size[0]}x{size[1]}{hint}, expected an equirectangular one, 2:1"
    else:
        if trusted and action == "reject":
            action = "mark"
        if measures.get("top_bottom", 0) > config.max_half_similarity:
            why = "it shows the same twice, top-bottom: stereo 360? crop it to one eye, or --trust-picture"
        elif measures.get("side_by_side", 0) > config.max_half_similarity:
            why = "it shows the same twice, side by side: stereo 360? crop it to one eye, or --trust-picture"
        elif measures.get("seam", 0) > config.max_seam and measures["seam_steps"] > config.max_seam_steps:
            why = "its left and right edges do not meet: a flat picture? else --trust-picture"
    return Finding("not_equirectangular", action, bool(why), {"aspect": aspect, **measures}, why)
