"""What a generated sound got right, against the truth of its BiAudio-Synth clip: figures and their intervals.

A clip's sound is heard once (`hear` -> Cues), scored against the truth's cues and the clip's annotations
(`score` -> Score: sums, so that clips pool by adding), and clips are summarised with bootstrap intervals over
clips (`summarise`). All sounds are compared at ANALYSIS_RATE_HZ, whatever rate they were made at.

Definitions
- active frame: the dry envelope of a source is above ACTIVE_DB of its loudest frame;
- side: frames in which every active source lies more than SIDE_DEG to one side; the sign of the ILD must be
  that side's, and a silent frame counts as wrong;
- ILD, ITD: frames in which any source is active, against the truth's sound (80 ms windows at 25 Hz);
- moving: the true lateral angle spans at least MOVING_DEG in active frames.

Legend: C clips, F frames at 25 Hz, K sums, R bootstrap resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from visaudio.data.dataset import Clip, SourceTrack
from visaudio.evaluation import cues, onsets
from visaudio.evaluation.intervals import RESAMPLES, draws, interval

ANALYSIS_RATE_HZ = 22050
ACTIVE_DB = -30.0
SIDE_DEG = 20.0
MOVING_DEG = 10.0
VISIBLE_SHARE = 0.95
STATIC_DEG = 1.0
LEAST_SPREAD_DB = 0.01  # standard deviation of a truth's ILD that can be followed


# -------------------- clips and their groups


def active_frames(source: SourceTrack) -> np.ndarray:
    """(F,) bool."""
    return source.envelope_db > ACTIVE_DB


def visible_share(source: SourceTrack) -> float:
    """Of the source's active frames; nan if it has none."""
    active = active_frames(source)
    return float(source.visible[active].mean()) if active.any() else float("nan")


def lateral_span_deg(source: SourceTrack) -> float:
    """How far apart the source's lateral angles in active frames are."""
    lateral = source.lateral_deg[active_frames(source)]
    return float(np.ptp(lateral)) if lateral.size else 0.0


def world_drift_deg(source: SourceTrack, camera_deg: np.ndarray) -> float:
    """How far the source itself strays from its mean direction in the world, whatever the camera does.

    camera_deg (3, F): yaw, pitch, roll; camera-to-world is Rz(yaw) Ry(-pitch) Rx(roll).
    """
    azimuth, elevation = np.radians(source.azimuth_deg), np.radians(source.elevation_deg)
    seen = np.stack(
        [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)], axis=-1
    )
    yaw, pitch, roll = np.radians(camera_deg)
    for angle, (a, b) in ((roll, (1, 2)), (-pitch, (2, 0)), (yaw, (0, 1))):
        turned = seen.copy()
        turned[:, a] = np.cos(angle) * seen[:, a] - np.sin(angle) * seen[:, b]
        turned[:, b] = np.sin(angle) * seen[:, a] + np.cos(angle) * seen[:, b]
        seen = turned
    mean = seen.mean(axis=0)
    mean /= max(np.linalg.norm(mean), 1e-9)
    return float(np.degrees(np.arccos(np.clip(seen @ mean, -1, 1))).max())


def groups_of(clip: Clip, camera_deg: np.ndarray) -> tuple[str, ...]:
    """Which rows of the table the clip belongs to; see GROUPS. camera_deg (3, F): yaw, pitch, roll."""
    shares = [visible_share(source) for source in clip.sources]
    found = []
    if len(clip.sources) == 1:
        source, share = clip.sources[0], shares[0]
        if share >= VISIBLE_SHARE:
            found.append("gated")
            if lateral_span_deg(source) >= MOVING_DEG and world_drift_deg(source, camera_deg) <= STATIC_DEG:
                found.append("camera_only")
        elif share > 1 - VISIBLE_SHARE:
            found.append("leaves_view")
    elif len(clip.sources) > 1:
        found.append("several")
    if any(share <= 1 - VISIBLE_SHARE for share in shares):
        found.append("off_screen")
    return tuple(found)


GROUPS = {
    "gated": "one source, visible in at least 95 % of its active frames",
    "camera_only": "of these: a still source under a moving camera",
    "leaves_view": "one source that leaves or enters the view",
    "several": "two or more sources",
    "off_screen": "a source that is hardly ever in view",
}


# -------------------- one sound


@dataclass(frozen=True)
class Cues:
    """What is heard in one sound. Arrays (F,): dB, bool, seconds; sound_class is None for silence."""

    ild_db: np.ndarray
    silent: np.ndarray
    itd_gcc_s: np.ndarray
    itd_phase_s: np.ndarray
    onset_s: np.ndarray
    sound_class: str | None


def hear(
    audio: np.ndarray, sample_rate: int, classify: Callable[[np.ndarray, int], str | None], duration_s: float
) -> Cues:
    """audio (2, S), cut or padded to duration_s; classify(audio, sample_rate) names the class."""
    if sample_rate != ANALYSIS_RATE_HZ:
        import soxr

        audio = soxr.resample(np.asarray(audio).T, sample_rate, ANALYSIS_RATE_HZ).T
    length, rate = round(duration_s * ANALYSIS_RATE_HZ), ANALYSIS_RATE_HZ
    audio = np.pad(audio[:, :length], ((0, 0), (0, max(0, length - audio.shape[1]))))
    return Cues(
        ild_db=cues.ild_db(audio, rate),
        silent=cues.is_silent(audio, rate),
        itd_gcc_s=cues.itd_gcc_phat(audio, rate),
        itd_phase_s=cues.itd_from_phase(audio, rate),
        onset_s=onsets.detect_onsets(audio, rate),
        sound_class=classify(audio, rate),
    )


# what Score.sums holds, one column each
SUMS = (
    "side_right", "side_silent", "side_frames", "frames", "x", "y", "xx", "yy", "xy", "ild_error_db",
    "itd_gcc_error_s", "itd_phase_error_s", "hits", "estimated", "true", "class_right", "class_asked",
)  # fmt: skip


@dataclass(frozen=True)
class Score:
    """sums: (K,), see SUMS. r_moving: Pearson r of the ILD within the clip; nan unless its source moves."""

    sums: np.ndarray
    r_moving: float


def score(heard: Cues, truth: Cues, clip: Clip) -> Score:
    """A sound's cues against those of the true sound and the clip's annotations."""
    frames = min(len(heard.ild_db), len(truth.ild_db), *(len(s.envelope_db) for s in clip.sources))
    active = np.stack([active_frames(source)[:frames] for source in clip.sources])
    lateral = np.stack([source.lateral_deg[:frames] for source in clip.sources])
    any_active = active.any(axis=0)
    x, y = truth.ild_db[:frames][any_active], heard.ild_db[:frames][any_active]
    side_deg, silent = common_side_deg(lateral, active), heard.silent[:frames]
    right, counted = cues.side_correct(heard.ild_db[:frames], side_deg, silent, SIDE_DEG)
    unheard = (silent & (np.abs(side_deg) > SIDE_DEG)).sum()
    true_onsets = np.concatenate([source.onset_s for source in clip.sources])
    hits, estimated, true = onsets.match_onsets(heard.onset_s, true_onsets)
    one = len(clip.sources) == 1
    moves = one and lateral_span_deg(clip.sources[0]) >= MOVING_DEG

    def error(name: str) -> float:
        return float(np.abs(getattr(heard, name)[:frames] - getattr(truth, name)[:frames])[any_active].sum())

    sums = [
        right, unheard, counted, len(x), x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum(),
        error("ild_db"), error("itd_gcc_s"), error("itd_phase_s"), hits, estimated, true,
        one and heard.sound_class == clip.sources[0].class_name, one,
    ]  # fmt: skip
    within = cues.pearson(x, y)
    if moves and not np.isfinite(within):
        within = 0.0  # an ILD that does not follow a moving source at all
    return Score(np.array(sums, np.float64), within if moves else float("nan"))


def common_side_deg(lateral_deg: np.ndarray, active: np.ndarray) -> np.ndarray:
    """(N, F), (N, F) bool -> (F,): the least lateral of the active sources if all are on one side, else 0."""
    size = np.where(active, np.abs(lateral_deg), np.inf).min(axis=0)
    left = (np.where(active, lateral_deg, 1) > 0).all(axis=0)
    right = (np.where(active, lateral_deg, -1) < 0).all(axis=0)
    side = np.where(left & active.any(axis=0), 1.0, 0.0) - np.where(right & active.any(axis=0), 1.0, 0.0)
    return np.where(np.isfinite(size), size, 0.0) * side


# -------------------- many clips


@dataclass(frozen=True)
class Figure:
    """A value with its 95 % interval over clips; nan where there is nothing to say."""

    value: float
    low: float
    high: float


def summarise(scores: Sequence[Score], seed: int = 0) -> dict[str, Figure]:
    """Figures over clips: side, side_silent, r, r_moving, ild_error_db, onset_f1, sound_class, itd_gcc_us,
    itd_phase_us.

    Frames, onsets and clips are pooled; intervals are percentiles over resampled clips.
    """
    if not scores:
        return {}
    count = len(scores)
    drawn = np.stack(list(draws(count, RESAMPLES, seed)))
    sums = np.stack([score.sums for score in scores])
    within = np.array([score.r_moving for score in scores])
    weights = np.stack([np.bincount(row, minlength=count) for row in drawn])
    values = pooled(sums.sum(axis=0)) | {"r_moving": _nanmedian(within)}
    resampled = pooled(weights @ sums) | {"r_moving": _nanmedian(within[drawn])}
    figures = {}
    for name, value in values.items():
        figures[name] = Figure(float(value), *interval(resampled[name]))
    return figures


def paired_difference(a: Sequence[Score], b: Sequence[Score], seed: int = 0) -> dict[str, Figure]:
    """Figures of `a` less those of `b`, which scored the same clips: both over the same resamples."""
    if len(a) != len(b) or not a:
        raise ValueError(f"expected scores of the same clips, got {len(a)} and {len(b)}")
    drawn = draws(len(a), RESAMPLES, seed)
    weights = np.stack([np.bincount(row, minlength=len(a)) for row in drawn])
    ours, theirs = (np.stack([score.sums for score in scores]) for scores in (a, b))
    values, others = pooled(ours.sum(axis=0)), pooled(theirs.sum(axis=0))
    resampled, other_resampled = pooled(weights @ ours), pooled(weights @ theirs)
    figures = {}
    for name, value in values.items():
        bounds = interval(resampled[name] - other_resampled[name])
        figures[name] = Figure(float(value - others[name]), *bounds)
    return figures


def pooled(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Figures of summed scores (..., K). r: nan where the truth's ILD does not vary, so that there is nothing
    to follow; 0 where the generated one's does not."""
    total: Mapping[str, np.ndarray] = dict(zip(SUMS, np.moveaxis(sums, -1, 0), strict=True))
    n = total["frames"]
    with np.errstate(divide="ignore", invalid="ignore"):
        covariance = total["xy"] / n - total["x"] * total["y"] / n**2
        true, said = (np.sqrt(np.maximum(total[2 * k] / n - (total[k] / n) ** 2, 0)) for k in ("x", "y"))
        r = np.clip(covariance / np.maximum(true * said, 1e-12), -1, 1)
        return {
            "side": total["side_right"] / total["side_frames"],
            "side_silent": total["side_silent"] / total["side_frames"],
            "r": np.where(true < LEAST_SPREAD_DB, np.nan, np.where(said < 1e-3 * LEAST_SPREAD_DB, 0.0, r)),
            "ild_error_db": total["ild_error_db"] / n,
            "onset_f1": 2 * total["hits"] / (total["estimated"] + total["true"]),
            "sound_class": total["class_right"] / total["class_asked"],
            "itd_gcc_us": 1e6 * total["itd_gcc_error_s"] / n,
            "itd_phase_us": 1e6 * total["itd_phase_error_s"] / n,
        }


def _nanmedian(values: np.ndarray) -> np.ndarray:
    """Median over the last axis of what is not nan; nan where nothing is."""
    have = np.isfinite(values).any(axis=-1)
    return np.where(have, np.nanmedian(np.where(have[..., None], values, 0.0), axis=-1), np.nan)


def derangement(count: int, seed: int = 0) -> np.ndarray:
    """(count,) a fixed permutation in one cycle (Sattolo 1986): no index stays where it is (count > 1)."""
    rng, order = np.random.default_rng(seed), np.arange(count)
    for last in range(count - 1, 0, -1):
        other = rng.integers(last)
        order[last], order[other] = order[other], order[last]
    return order
