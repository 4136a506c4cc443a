"""How much of the pictures that were asked for is missing from a damaged file."""

from dataclasses import dataclass, field

import numpy as np

from bi_audio_dataset.media.probe import ROUNDING_S, Timeline

# A file keeps a constant rate if this share of its gaps between frames is the usual one.
_MOST = 0.9
# Pictures may be this many usual gaps old: alternate references of VP8 and second fields have packets of
# their own, and no picture.
_OLD = 2.5
# A gap of this many usual ones is a hole in a file of constant rate.
_HOLE = 1.5


@dataclass
class Damage:
    """Counts, while `iter_frames` reads, the wanted frames that stand for others.

    A frame is missing if it could not be decoded (another is given for it), if it lies between an error of
    the decoder and the next key frame, or if it falls into a hole in the times of a file of constant rate.
    What a decoder conceals without an error (a few bytes of H.264, most of VP9) is not seen.

    wanted, missing: frames asked for so far, and those of them that were missing; rate_hz: of the asking.
    """

    rate_hz: float
    wanted: int = 0
    missing: int = 0

    @property
    def fraction(self) -> float:
        return self.missing / self.wanted if self.wanted else 0.0

    @property
    def seconds(self) -> float:
        return self.missing / self.rate_hz

    def add(self, missing: np.ndarray) -> None:
        """missing: (n,) bool, of the next n wanted frames."""
        self.wanted += len(missing)
        self.missing += int(missing.sum())


@dataclass
class Suspects:
    """Spans of time in which pictures lack what they are made from: from an error to the next key frame."""

    spans: list[list[float]] = field(default_factory=list)

    def begin(self, time_s: float) -> None:
        if self.spans and self.spans[-1][1] == np.inf:
            self.spans[-1][0] = min(self.spans[-1][0], time_s)
        else:
            self.spans.append([time_s, np.inf])

    def single(self, time_s: float) -> None:
        """A picture that its decoder calls corrupt."""
        self.spans.insert(0, [time_s - 1e-6, time_s + 1e-6])

    def end(self, time_s: float) -> None:
        if self.spans and self.spans[-1][1] == np.inf:
            self.spans[-1][1] = time_s

    def hold(self, time_s: float) -> bool:
        return any(first <= time_s < last for first, last in self.spans)


def too_old(line: Timeline, index: int, time_s: float, usual_s: float) -> bool:
    """Whether a picture of `time_s` cannot be the one that `line` has at `index`. usual_s: `usual_gap_s`."""
    return abs(line.times_s[index] - time_s) > _OLD * usual_s + ROUNDING_S


def in_holes(line: Timeline, times_s: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """(T,) bool: whether frames that ought to be on screen at times_s (T,) are not in the file.

    indices: (T,) of the frames that are. A file of variable rate has no holes, nor is its end one.
    """
    shown_s = line.times_s[line.shown]
    usual_s = usual_gap_s(line)
    gaps_s = np.diff(shown_s)
    if len(gaps_s) < 2 or np.mean(np.abs(gaps_s - usual_s) <= ROUNDING_S) < _MOST:
        return np.zeros(len(times_s), bool)
    place = np.searchsorted(shown_s, line.times_s[indices])
    gap_s = np.append(gaps_s, 0.0)[place]  # after the last frame there is none
    past_s = times_s - line.times_s[indices]
    return (gap_s > _HOLE * usual_s + ROUNDING_S) & (past_s > usual_s - ROUNDING_S)


def usual_gap_s(line: Timeline) -> float:
    """The median time between frames that are shown; 0 for a single one."""
    gaps_s = np.diff(line.times_s[line.shown])
    return float(np.median(gaps_s)) if len(gaps_s) else 0.0
