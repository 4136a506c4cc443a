"""What is measured of sound and picture, and which measurements speak against a clip.

Each filter is a frozen config with an `action`: "reject" drops the clip, "mark" keeps it and says so, "off"
does not look. Whatever is measured goes into the manifest under `filter.measure`, also where nothing is
wrong.

Field: (4, N) W, Y, Z, X. Levels in dBFS are RMS; a full-scale square wave has 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace

import numpy as np
from numpy.typing import NDArray

from bi_audio_dataset.duplicates import DuplicateFilter
from bi_audio_dataset.schema import UserError

ACTIONS = ("reject", "mark", "off")
#: Order of the channels, for messages.
CHANNELS = ("W", "Y", "Z", "X")


@dataclass(frozen=True)
class SilenceFilter:
    """Level under `level_dbfs` in more than `max_fraction` of the frames (of the loudest channel or ear)."""

    level_dbfs: float = -35.0
    max_fraction: float = 0.90
    frame_s: float = 0.1
    action: str = "reject"


@dataclass(frozen=True)
class StaticFilter:
    """Mean squared difference of grey values (0-255) under `mse` in more than `max_fraction` of the pairs of
    pictures at `rate_hz`. Fewer than `min_pairs` pairs say nothing."""

    mse: float = 5.0
    max_fraction: float = 0.85
    rate_hz: float = 2.0
    min_pairs: int = 4
    action: str = "reject"


@dataclass(frozen=True)
class ClippingFilter:
    """More than `max_fraction` of a channel's samples lie in runs of `run` or more at `level` or above."""

    level: float = 0.99
    run: int = 3
    max_fraction: float = 0.001
    action: str = "reject"


@dataclass(frozen=True)
class DeadChannelFilter:
    """W, Y or X lies `below_db` under the loudest of them over the whole recording."""

    below_db: float = 60.0
    action: str = "reject"


@dataclass(frozen=True)
class PlanarFilter:
    """Z lies `below_db` under W: the recording knows no height.

    The Z of a planar recording is not quite silent once it has been through a lossy codec: 42 to 52 dB under
    W in one that is known (JSAmbisonics' BF_rec1). In three with height it lies 6 to 10 dB under W.
    """

    below_db: float = 35.0
    action: str = "mark"


@dataclass(frozen=True)
class ProjectionFilter:
    """A panorama that is none: its sides are not 2:1, or its halves are two pictures of one scene (stereo,
    correlation over `max_half_similarity`), or its left and right edges do not meet.

    seam: difference of the outer columns over that of columns half a turn apart; seam_steps: the same over
    the largest difference of neighbours, as a panorama may have a post or a bad stitch. Both must be passed.
    Of a whole recording the least of three frames count, of a window the medians.
    """

    max_aspect_error: float = 0.05
    max_half_similarity: float = 0.95
    max_seam: float = 0.5
    max_seam_steps: float = 1.2
    action: str = "reject"


@dataclass(frozen=True)
class DamageFilter:
    """Frames that make up `min_missing_s` or more cannot be decoded, and others stand for them
    (media.Damage)."""

    min_missing_s: float = 1.0
    action: str = "reject"


@dataclass(frozen=True)
class LengthFilter:
    """Sound and picture differ in length by more than `max_difference_s`: they may not belong together.

    Coders pad and drop blocks. Where it only marks, what both have is used.
    """

    max_difference_s: float = 1.0
    action: str = "reject"


@dataclass(frozen=True)
class WeakCueFilter:
    """After rendering: sum((L-R)^2) / (2 sum(L^2+R^2)) under `min_lr_difference`."""

    min_lr_difference: float = 0.01
    action: str = "reject"


@dataclass(frozen=True)
class SpeechFilter:
    """A plug-in's probability of speech over `max_probability` (plugins.py). device: "cpu", "cuda:0"."""

    model: str = "MIT/ast-finetuned-audioset-10-10-0.4593"
    max_probability: float = 0.5
    device: str = "cpu"
    action: str = "off"


@dataclass(frozen=True)
class MatchFilter:
    """A plug-in's agreement of picture and sound under `min_score` (plugins.py). device: as of speech."""

    image_model: str = "openai/clip-vit-base-patch32"
    audio_model: str = "laion/clap-htsat-unfused"
    min_score: float = 0.15
    device: str = "cpu"
    action: str = "off"


@dataclass(frozen=True)
class SelectionConfig:
    """All filters. The default decides; `measured()` only measures and marks."""

    silent: SilenceFilter = field(default_factory=SilenceFilter)
    static: StaticFilter = field(default_factory=StaticFilter)
    clipped: ClippingFilter = field(default_factory=ClippingFilter)
    dead_channel: DeadChannelFilter = field(default_factory=DeadChannelFilter)
    planar: PlanarFilter = field(default_factory=PlanarFilter)
    not_equirectangular: ProjectionFilter = field(default_factory=ProjectionFilter)
    damaged_picture: DamageFilter = field(default_factory=DamageFilter)
    length_mismatch: LengthFilter = field(default_factory=LengthFilter)
    weak_cue: WeakCueFilter = field(default_factory=WeakCueFilter)
    duplicate: DuplicateFilter = field(default_factory=DuplicateFilter)
    speech: SpeechFilter = field(default_factory=SpeechFilter)
    av_match: MatchFilter = field(default_factory=MatchFilter)

    def __post_init__(self) -> None:
        for name, settings in self.filters().items():
            if settings.action not in ACTIONS:
                raise UserError(
                    f"filter '{name}' has action '{settings.action}', expected one of {', '.join(ACTIONS)}"
                )

    def filters(self) -> dict:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def measured(cls) -> SelectionConfig:
        """Nothing is dropped or moved: what would have been dropped is marked, and nobody looks for
        duplicates. For corpora that are right by construction."""
        default = cls()
        marked = {name: "mark" for name, f in default.filters().items() if f.action == "reject"}
        return default.with_actions(marked | {"duplicate": "off"})

    def with_actions(self, actions: dict[str, str]) -> SelectionConfig:
        """The same limits with other actions. UserError for a filter or an action that is not there."""
        known = self.filters()
        for name in actions:
            if name not in known:
                raise UserError(f"there is no filter '{name}', expected one of {', '.join(known)}")
        return replace(self, **{name: replace(known[name], action=do) for name, do in actions.items()})


@dataclass(frozen=True)
class Finding:
    """One filter's outcome: measured values, whether they speak against the clip, and in which words."""

    name: str
    action: str
    failed: bool
    measures: dict[str, float]
    why: str = ""


@dataclass(frozen=True)
class Verdict:
    """reasons and marks: {filter: words}; measures: {"filter.measure": value} of all findings."""

    reasons: dict[str, str]
    marks: dict[str, str]
    measures: dict[str, float]

    @property
    def accepted(self) -> bool:
        return not self.reasons


def verdict(findings: Iterable[Finding]) -> Verdict:
    """Findings added up. A filter that is off was not looked at and gives no finding."""
    reasons, marks, measures = {}, {}, {}
    for finding in findings:
        measures |= {f"{finding.name}.{key}": _plain(value) for key, value in finding.measures.items()}
        if finding.failed:
            (reasons if finding.action == "reject" else marks)[finding.name] = finding.why
    return Verdict(reasons, marks, measures)


# -------------------- sound


def silence(audio: NDArray, sample_rate: int, config: SilenceFilter) -> Finding:
    """Of (C, N) float. The loudest channel of each frame counts."""
    size = max(1, round(config.frame_s * sample_rate))
    count = max(1, audio.shape[1] // size)
    frames = audio[:, : count * size].reshape(len(audio), count, -1).astype(np.float64)
    level = 10 * np.log10(np.maximum(np.mean(frames**2, axis=2).max(axis=0), 1e-20))
    fraction = float(np.mean(level < config.level_dbfs))
    return Finding(
        "silent",
        config.action,
        fraction > config.max_fraction,
        {"fraction": fraction},
        f"under {config.level_dbfs:g} dBFS for {fraction:.0%} of the time (limit {config.max_fraction:.0%})",
    )


def clipping(audio: NDArray, config: ClippingFilter) -> Finding:
    """Of (C, N) float, full scale 1."""
    fraction = max(_share_in_runs(np.abs(channel) >= config.level, config.run) for channel in audio)
    return Finding(
        "clipped",
        config.action,
        fraction > config.max_fraction,
        {"fraction": fraction, "peak": float(np.abs(audio).max(initial=0))},
        f"{fraction:.2%} of a channel's samples are clipped (limit {config.max_fraction:.2%})",
    )


def _share_in_runs(mask: NDArray[np.bool_], least: int) -> float:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    lengths = edges[1::2] - edges[::2]
    return float(lengths[lengths >= least].sum() / max(1, len(mask)))


def channels(power: NDArray, dead: DeadChannelFilter, planar: PlanarFilter) -> list[Finding]:
    """Of the mean squares (4,) of a whole recording's field. `field_ratio` is the energy of Y, Z, X over
    that of W: about 1 for SN3D whatever the sound field, 2 for FuMa, 3 for N3D."""
    level_db = 10 * np.log10(np.maximum(power, 1e-20))
    under = {name: float(level_db[[0, 1, 3]].max() - level_db[i]) for i, name in enumerate(CHANNELS)}
    lost = [name for name in "WYX" if under[name] > dead.below_db]
    z_under_db = float(level_db[0] - level_db[2])
    return [
        Finding(
            "dead_channel",
            dead.action,
            bool(lost),
            {
                **{f"{name.lower()}_under_db": under[name] for name in "WYX"},
                "field_ratio": float(power[1:].sum() / max(power[0], 1e-20)),
            },
            f"channel {' and '.join(lost)} more than {dead.below_db:g} dB under the loudest",
        ),
        Finding(
            "planar",
            planar.action,
            z_under_db > planar.below_db,
            {"z_under_db": z_under_db},
            f"Z lies {z_under_db:.0f} dB under W: no height",
        ),
    ]


def weak_cue(lr_difference: float, config: WeakCueFilter) -> Finding:
    return Finding(
        "weak_cue",
        config.action,
        lr_difference < config.min_lr_difference,
        {"lr_difference": lr_difference},
        f"left-right difference {lr_difference:.4f} (at least {config.min_lr_difference:g})",
    )


def lengths(audio_s: float, video_s: float, config: LengthFilter) -> Finding:
    difference = abs(audio_s - video_s)
    return Finding(
        "length_mismatch",
        config.action,
        difference > config.max_difference_s,
        {"audio_s": audio_s, "video_s": video_s},
        f"{audio_s:.2f} s of sound and {video_s:.2f} s of picture: is one cut short, or of another take?",
    )


def damaged(fraction: float, seconds: float, config: DamageFilter) -> Finding:
    """Of the wanted frames of a window, those that are missing: their share, and how long they last."""
    return Finding(
        "damaged_picture",
        config.action,
        seconds >= config.min_missing_s - 1e-9,
        {"fraction": fraction, "seconds": seconds},
        f"{seconds:.2f} s of the picture ({fraction:.0%}) cannot be decoded: the file is damaged there",
    )


def _plain(value: float) -> float:
    """A JSON number with six significant digits: no NaN, and the same text on each machine."""
    value = float(value)
    return float(f"{value:.6g}") if math.isfinite(value) else 0.0
