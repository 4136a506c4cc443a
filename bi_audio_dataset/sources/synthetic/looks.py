"""How an object of BiAudio-Synth looks: what is drawn once (`Look`) and how it stands at one moment (`Pose`).

Every free parameter of a look lies in [0, 1]. Training draws from four fifths of that range and held-out
scenes from the remaining fifth, in interleaved cells, so that no held-out look is ever seen in training.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

HELD_OUT_EVERY = 5
CELLS = 20
DISTRACTORS = ("box", "tree", "balloon", "lamp")


def sample_unit(rng: np.random.Generator, held_out: bool) -> float:
    """A number in [0, 1) from the training cells, or from the held-out cells (every fifth of twenty)."""
    cells = [c for c in range(CELLS) if (c % HELD_OUT_EVERY == HELD_OUT_EVERY - 1) == held_out]
    return float((rng.choice(cells) + rng.random()) / CELLS)


@dataclass(frozen=True)
class Look:
    """Appearance of one object.

    kind: a sound class of `sounds.CLASSES`, a name of `DISTRACTORS`, or any other word (drawn as a badge).
    member: 0 small, 1 medium, 2 large; changes proportions, not only size.
    hue, accent, light, proportion: in [0, 1].
    sprite: optional path of a PNG with transparency that replaces the drawn body.
    """

    kind: str
    member: int
    hue: float
    accent: float
    light: float
    proportion: float
    sprite: str | None = None


def sample_look(
    kind: str, member: int, rng: np.random.Generator, held_out: bool, sprite: str | None = None
) -> Look:
    """Draw a look; `held_out` selects the interleaved cells that training never sees."""
    hue, accent, light, proportion = (sample_unit(rng, held_out) for _ in range(4))
    return Look(kind, member, hue, accent, light, proportion, sprite)


@dataclass(frozen=True)
class Pose:
    """State of an object at one picture.

    time_s: clip time. active: whether it sounds now (0..1, envelope of hums).
    since_s / until_s: seconds since the last and until the next onset (inf where there is none).
    strength: 0..1 of the onset that `since_s` counts from.
    """

    time_s: float
    active: float
    since_s: float
    until_s: float
    strength: float


def pose_at(time_s: float, events, kind: str) -> Pose:
    """The pose at `time_s` for sorted `events` (onset_s, duration_s, strength); `kind`: `SoundClass.kind`."""
    since, until, strength, active = np.inf, np.inf, 0.0, 0.0
    for event in events:
        if event.onset_s <= time_s:
            since, strength = time_s - event.onset_s, event.strength
            if since < event.duration_s:
                active = 1.0
        else:
            until = event.onset_s - time_s
            break
    if kind in ("struck", "ringing", "bounce"):
        active = float(since < 0.25)
    return Pose(time_s, active, since, until, strength)
