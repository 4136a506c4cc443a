"""What is measured of a window's pictures while they pass: motion, projection, perceptual hashes."""

from __future__ import annotations

from collections import Counter

import cv2
import numpy as np
from numpy.typing import NDArray

from bi_audio_dataset.duplicates import HASHES, picture_hash
from bi_audio_dataset.filters import Finding, ProjectionFilter, SelectionConfig, StaticFilter, damaged
from bi_audio_dataset.media import Damage

#: Pictures are measured at no more than this width.
MEASURED_WIDTH = 512
#: A picture flatter than this (standard deviation of grey values) has no hash worth comparing.
FLAT = 3.0


class PictureProbe:
    """Fed with the source's pictures of one window (H, W, 3) u8 at StaticFilter.rate_hz, in order.

    panorama: whether they ought to be equirectangular. damage: filled by whoever reads the pictures. Keeps
    small grey copies only, and one picture in colour from the middle, at most MEASURED_WIDTH wide.
    """

    def __init__(self, config: SelectionConfig, count: int, panorama: bool = True) -> None:
        self.config, self.panorama = config, panorama
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
                self._shapes.append(projection_measures(grey))
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
            found.append(projection(self.size, measures, self.config.not_equirectangular))
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


def projection_measures(grey: NDArray[np.float32]) -> dict[str, float]:
    """seam, seam_steps, top_bottom and side_by_side of ProjectionFilter; a flat picture has zeros."""
    height, width = grey.shape
    far = float(np.abs(grey - np.roll(grey, width // 2, axis=1)).mean())
    usual = float(np.median(np.abs(np.diff(grey, axis=1)).mean(axis=0)))
    step = float(np.abs(grey[:, 0] - grey[:, -1]).mean())
    # what all columns share (sky over ground) makes no second picture
    relief = grey - grey.mean(axis=1, keepdims=True)
    return {
        "seam": step / far if far > FLAT else 0.0,
        "seam_steps": step / max(usual, 0.1) if far > FLAT else 0.0,
        "top_bottom": _similarity(relief[: height // 2], relief[height - height // 2 :]),
        "side_by_side": _similarity(relief[:, : width // 2], relief[:, width - width // 2 :]),
    }


def _similarity(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt(np.sum(a**2) * np.sum(b**2)))
    return float(np.sum(a * b) / scale) if scale > FLAT**2 * a.size else 0.0


def projection(size: tuple[int, int], measures: dict[str, float], config: ProjectionFilter) -> Finding:
    """size = (width, height) of the picture itself."""
    aspect = size[0] / size[1]
    why = ""
    if abs(aspect - 2) > config.max_aspect_error:
        why = f"the picture is {size[0]}x{size[1]}, not twice as wide as high"
    elif measures.get("top_bottom", 0) > config.max_half_similarity:
        why = "upper and lower half show the same: stereo, one eye over the other"
    elif measures.get("side_by_side", 0) > config.max_half_similarity:
        why = "left and right half show the same: stereo, side by side"
    elif measures.get("seam", 0) > config.max_seam and measures["seam_steps"] > config.max_seam_steps:
        why = "its left and right edges do not meet: a flat picture"
    return Finding("not_equirectangular", config.action, bool(why), {"aspect": aspect, **measures}, why)
