"""Does the sound come from what moves in the picture? Asked without a reference.

Ten times a second the sound's lateral angle x (lateral.py) is set beside the azimuth y of what moves by
itself (motion.py: camera motion is taken out), the centroid of its columns. A column counts by how well its
motion follows the sound's envelope over the clip, max(0, r)^2, so that a wheel that turns in silence does not
draw the centroid away from the drum that is struck. A frame counts by

    w = a / (1 + (s / SPREAD_DEG)^2)      a: the sound's amplitude, s: how far the motion is spread about y

and not at all where the sound is silent, or nothing moves. Over the frames of all clips

    plausibility         sum w x y / sqrt(sum w x^2 sum w y^2): -1 to 1, chance 0; mirrored: the negative
    plausibility_side    share of w where x has the sign of y, |y| > SIDE_DEG; chance 0.5, x = 0 counts half
    plausibility_follow  correlation of x and y within a clip, median over the clips whose y spreads by
                         MOVING_DEG or more; chance 0; a sound that stays has 0

It believes what is seen: of several sources it asks for the one that moves most in time with the sound, and
a sound from outside the view is counted against whatever moves. The truth scores below 1: compare with it.

Legend: F frames, X columns.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from visaudio.evaluation import cues, lateral, motion
from visaudio.evaluation.lens import hfov_of
from visaudio.evaluation.measures import ClipSet, FigureSpec, Heard, Measure, Scene, Settings, Sound

RANGE_DB = 30.0  # of the frames that count, below the loudest
ENVELOPE_RANGE_DB = 40.0
ENVELOPE_WINDOW_S = 0.1
ENVELOPE_LEAST_DB = 3.0  # standard deviation of an envelope that something can follow
LEAST_MOTION = 0.05  # grey levels, summed over the means of the columns
MOTION_FLOOR = 1e-2
SPREAD_DEG = 10.0
SIDE_DEG = 5.0
MOVING_DEG = 5.0

SUMS = ("xx", "yy", "xy", "side_right", "side_weight", "judged", "sounding")


class Plausibility(Measure):
    """hear: `lateral_deg`, `level_db`, `envelope_db` (F,), `motion` (F, X)."""

    name = "plausibility"
    figures = (
        FigureSpec("plausibility", "sound follows motion (r)", "", "higher", 3),
        FigureSpec("plausibility_side", "sound on the side that moves", "%", "higher", 1, 100),
        FigureSpec("plausibility_follow", "median r, motion that moves", "", "higher", 3),
        FigureSpec("plausibility_judged", "sounding frames with motion", "%", "", 1, 100),
    )
    needs = frozenset({"video"})

    def __init__(self, settings: Settings) -> None:
        self.hfov_deg = settings.hfov_deg
        self._seen: tuple[object, np.ndarray] | None = None

    @property
    def key(self) -> str:
        return "plausibility-2"

    def hear(self, sound: Sound, scene: Scene) -> dict[str, np.ndarray]:
        rate = lateral.ANALYSIS_RATE_HZ
        audio = sound.at(rate)[:, : round(scene.duration_s * rate)]
        return hear_sound(audio, rate) | {"motion": self._motion(scene.video, scene.duration_s)}

    def compare(self, generated: Heard, reference: Heard | None, scene: Scene) -> dict[str, float]:
        sums, follow = judge(generated, hfov_of(scene, self.hfov_deg))
        row = {f"plausibility_{name}_sum": value for name, value in sums.items()}
        return row | {"plausibility_follow": follow} | _figures(sums)

    def summarise(self, clips: ClipSet, index: np.ndarray) -> dict[str, float]:
        sums = {n: float(np.nansum(clips.rows[f"plausibility_{n}_sum"][index])) for n in SUMS}
        follow = clips.rows["plausibility_follow"][index]
        follow = follow[np.isfinite(follow)]
        return _figures(sums) | {"plausibility_follow": float(np.median(follow)) if follow.size else np.nan}

    def _motion(self, video: Path, duration_s: float) -> np.ndarray:
        """Of the picture; the last one's is kept, since the reference is heard after the sound."""
        key = (video, duration_s)
        if self._seen is None or self._seen[0] != key:
            self._seen = (key, motion.column_motion(video, duration_s))
        return self._seen[1]


def hear_sound(audio: np.ndarray, sample_rate: int) -> dict[str, np.ndarray]:
    """(2, S) -> arrays (F,): degrees; dB of the frame, for weights; dB of both ears in shorter windows."""
    windows = {"rate_hz": motion.RATE_HZ, "window_s": lateral.WINDOW_S}
    short = {"rate_hz": motion.RATE_HZ, "window_s": ENVELOPE_WINDOW_S}
    return {
        "lateral_deg": lateral.lateral_deg(audio, sample_rate, **windows),
        "level_db": cues.levels_db(audio, sample_rate, **windows).max(axis=1),
        "envelope_db": cues.levels_db(audio, sample_rate, **short).max(axis=1),
    }


def judge(heard: Heard, hfov_deg: float) -> tuple[dict[str, float], float]:
    """Sums of the clip (SUMS), and its correlation within; nan where its motion stays in one place."""
    count = min(len(heard["lateral_deg"]), len(heard["motion"]))
    x, level, envelope = (heard[n][:count] for n in ("lateral_deg", "level_db", "envelope_db"))
    y, strength, spread = seen_azimuth(heard["motion"][:count], envelope, hfov_deg)
    loudest = level.max(initial=-np.inf)
    sounding = (level > cues.SILENCE_DBFS) & (level > loudest - RANGE_DB)
    judged = sounding & (strength > LEAST_MOTION)
    w = np.where(judged, 10 ** ((level - loudest) / 20) / (1 + (spread / SPREAD_DEG) ** 2), 0.0)
    beside = w * (np.abs(y) > SIDE_DEG)
    agree = np.where(x == 0, 0.5, np.sign(x) == np.sign(y))
    values = ((w * x * x).sum(), (w * y * y).sum(), (w * x * y).sum(), (beside * agree).sum(), beside.sum())
    sums = dict(zip(SUMS, (*map(float, values), float(judged.sum()), float(sounding.sum())), strict=True))
    return sums, _within(x, y, w)


def seen_azimuth(
    columns: np.ndarray, envelope_db: np.ndarray, hfov_deg: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(F, X) motion, (F,) dB -> (F,) azimuth of the motion that follows the sound, degrees, positive left;
    how much of it there is; how far it is spread about the azimuth, degrees.
    """
    columns = columns.astype(np.float64)
    weighted = columns * follows(columns, envelope_db)
    weighted = np.stack([np.convolve(c, np.ones(3), "same")[: len(columns)] for c in weighted.T], axis=1)
    total = weighted.sum(axis=1)
    share = weighted / np.maximum(total, 1e-12)[:, None]
    place = 1 - 2 * (np.arange(columns.shape[1]) + 0.5) / columns.shape[1]  # 1 at the left edge
    tangent = np.tan(np.radians(hfov_deg) / 2)
    azimuth = np.degrees(np.arctan(share @ place * tangent))
    apart = np.degrees(np.arctan(place * tangent)) - azimuth[:, None]
    return azimuth, total, np.sqrt((share * apart**2).sum(axis=1))


def follows(columns: np.ndarray, envelope_db: np.ndarray) -> np.ndarray:
    """(F, X), (F,) -> (X,) max(0, r)^2: r between the log of a column's motion and the envelope in dB.

    Everything counts alike where the sound does not vary: then nothing can be said to follow it.
    """
    envelope = np.maximum(envelope_db, envelope_db.max(initial=-np.inf) - ENVELOPE_RANGE_DB)
    envelope = envelope - envelope.mean() if envelope.size else envelope
    if not envelope.size or envelope.std() < ENVELOPE_LEAST_DB:
        return np.ones(columns.shape[1])
    log = np.log(columns + MOTION_FLOOR)
    log = log - log.mean(axis=0)
    r = (envelope[:, None] * log).mean(axis=0) / (envelope.std() * log.std(axis=0) + 1e-6)
    return np.maximum(r, 0.0) ** 2


def _within(x: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
    """Weighted correlation; nan where y does not move, 0 where only x stays."""
    if w.sum() <= 0:
        return float("nan")
    x, y = x - np.average(x, weights=w), y - np.average(y, weights=w)
    spread = [np.sqrt(np.average(v * v, weights=w)) for v in (x, y)]
    if spread[1] < MOVING_DEG:
        return float("nan")
    return float(np.average(x * y, weights=w) / (spread[0] * spread[1])) if spread[0] > 1e-6 else 0.0


def _figures(sums: dict[str, float]) -> dict[str, float]:
    """A sound that never leaves the middle follows nothing: 0."""
    size = float(np.sqrt(sums["xx"] * sums["yy"]))
    nan = float("nan")
    return {
        "plausibility": sums["xy"] / size if size > 0 else (0.0 if sums["yy"] > 0 else nan),
        "plausibility_side": sums["side_right"] / sums["side_weight"] if sums["side_weight"] > 0 else nan,
        "plausibility_judged": sums["judged"] / sums["sounding"] if sums["sounding"] else nan,
    }


def make(settings: Settings) -> Plausibility:
    return Plausibility(settings)
