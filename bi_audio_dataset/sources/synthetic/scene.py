"""What happens in one BiAudio-Synth scene: which objects there are, where they go, when they sound.

`plan_scene` is a pure function of (seed, index, options). Positions are seen from the microphone, which is
the camera: azimuth, elevation and distance per picture at `TRUTH_RATE_HZ` (axes as in `sphere.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bi_audio_dataset.schema import TRUTH_RATE_HZ
from bi_audio_dataset.sources.synthetic import rooms, sounds
from bi_audio_dataset.sources.synthetic.looks import DISTRACTORS, Look, sample_look, sample_unit

# how often each kind of scene is drawn: one object, several at once, one seen and one far behind the camera
SCENE_KINDS = {"single": 0.64, "several": 0.2, "offscreen": 0.16}
MOVING_PROBABILITY = {"struck": 0.3, "ringing": 0.3, "bounce": 0.7, "hum": 0.75, "vocal": 0.45}
BOUNCE_HEIGHT_RAD = np.radians(7.0)


@dataclass(frozen=True)
class SceneObject:
    """One object: look, path and (for sources) sound. Paths are (T,) arrays, radians and metres."""

    look: Look
    azimuth_rad: np.ndarray
    elevation_rad: np.ndarray
    distance_m: np.ndarray
    size_rad: np.ndarray
    sound: object | None = None
    events: tuple = ()
    kind: str = ""

    @property
    def positions_m(self) -> np.ndarray:
        """(T, 3) metres, x front, y left, z up."""
        cos = np.cos(self.elevation_rad)
        x, y = cos * np.cos(self.azimuth_rad), cos * np.sin(self.azimuth_rad)
        unit = np.stack([x, y, np.sin(self.elevation_rad)], axis=-1)
        return unit * self.distance_m[:, None]


@dataclass(frozen=True)
class Scene:
    """A scene: `objects` that sound, `distractors` that never do, room and background."""

    kind: str
    duration_s: float
    objects: tuple[SceneObject, ...]
    distractors: tuple[SceneObject, ...]
    room: object
    background_seed: int
    held_out: bool
    noise_db: float
    extras: dict = field(default_factory=dict)


def plan_scene(
    seed: int,
    index: int,
    duration_s: float = 8.0,
    held_out: bool = False,
    folder_sounds=None,
    sprites: dict[str, str] | None = None,
) -> Scene:
    """Draw scene `index` of `seed`. `folder_sounds` and `sprites` replace the procedural ones where given."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, index, int(held_out)]))
    kind = str(rng.choice(list(SCENE_KINDS), p=list(SCENE_KINDS.values())))
    centre = rng.uniform(-np.pi, np.pi)
    azimuths = [centre]
    if kind == "several":
        spread = rng.permutation([-1.0, 0.0, 1.0])[: rng.integers(2, 4)]
        azimuths = [centre + np.radians(26.0) * s + rng.normal(0, np.radians(4)) for s in spread]
    if kind == "offscreen":
        azimuths.append(centre + np.radians(rng.uniform(100, 260)))
    chosen = _choose_classes(len(azimuths), rng, folder_sounds)
    objects = []
    for i, (name, azimuth) in enumerate(zip(chosen, azimuths, strict=True)):
        reach = np.radians(20.0 if kind == "single" else 8.0)
        far = kind == "offscreen" and i == 1
        objects.append(
            _plan_object(name, azimuth, reach, far, rng, duration_s, held_out, folder_sounds, sprites)
        )
    distractors = [_plan_distractor(centre, rng, duration_s, held_out) for _ in range(rng.integers(0, 4))]
    return Scene(
        kind=kind,
        duration_s=duration_s,
        objects=tuple(objects),
        distractors=tuple(distractors),
        room=rooms.sample_room(rng),
        background_seed=int(rng.integers(2**31)),
        held_out=held_out,
        # 40 dB and more below the loudest: the truth's own ILD must not drown in the decays
        noise_db=float(rng.uniform(-78, -64)),
    )


def _choose_classes(count: int, rng: np.random.Generator, folder_sounds) -> list[str]:
    names = sorted({s.class_name for s in folder_sounds}) if folder_sounds else list(sounds.CLASSES)
    return [str(n) for n in rng.choice(names, size=count, replace=count > len(names))]


def _plan_object(
    name, azimuth, reach_rad, far, rng, duration_s, held_out, folder_sounds, sprites
) -> SceneObject:
    if folder_sounds:
        sound = sounds.sample_folder_sound(folder_sounds, name, rng, held_out)
        kind, member = sound.kind, 1
    else:
        sound = sounds.sample_sound(name, rng, held_out)
        kind = sounds.CLASSES[name].kind
        member = list(sounds.CLASSES[name].members).index(sound.member)
    events = sounds.plan_events(sound, rng, duration_s)
    sprite = None
    if sprites:
        sprite = sprites.get(name) or sprites[str(rng.choice(sorted(sprites)))]
    look = sample_look(name, member, rng, held_out, sprite)
    frames = round(duration_s * TRUTH_RATE_HZ)
    # farther is quieter and smaller: 12 to 36 degrees wide
    distance = 1.0 + 1.6 * sample_unit(rng, held_out)
    width = np.radians((23.0 + 5.0 * member) / distance * 1.15)
    if far:
        distance *= 1.6
    moving = rng.random() < MOVING_PROBABILITY[kind]
    elevation = np.radians(rng.uniform(-7, 7))
    path = azimuth + (_wander(frames, reach_rad, rng) if moving else np.zeros(frames))
    rise = _wander(frames, np.radians(4.0), rng) if moving and name in ("bee", "bird") else np.zeros(frames)
    if kind == "bounce":
        rise = rise + bounce_height(events, frames)
    return SceneObject(
        look=look,
        azimuth_rad=path,
        elevation_rad=elevation + rise,
        distance_m=np.full(frames, distance),
        size_rad=np.full(frames, width),
        sound=sound,
        events=tuple(events),
        kind=kind,
    )


def _plan_distractor(centre, rng, duration_s, held_out) -> SceneObject:
    frames = round(duration_s * TRUTH_RATE_HZ)
    # a third of the silent objects look just like sources, but never act
    names = list(sounds.CLASSES) if rng.random() < 0.33 else list(DISTRACTORS)
    look = sample_look(str(rng.choice(names)), int(rng.integers(3)), rng, held_out)
    path = centre + np.radians(rng.uniform(-60, 60))
    path = path + (_wander(frames, np.radians(12.0), rng) if rng.random() < 0.35 else np.zeros(frames))
    return SceneObject(
        look=look,
        azimuth_rad=path,
        elevation_rad=np.full(frames, np.radians(rng.uniform(-14, 12))),
        distance_m=np.full(frames, 4.0),
        size_rad=np.full(frames, np.radians(rng.uniform(9, 20))),
    )


def _wander(frames: int, reach_rad: float, rng: np.random.Generator) -> np.ndarray:
    """A smooth path (T,) through random points within +-reach, about one every 2 s."""
    from scipy.interpolate import PchipInterpolator

    knots = max(2, round(frames / TRUTH_RATE_HZ / 2.0) + 1)
    return PchipInterpolator(np.linspace(0, frames - 1, knots), rng.uniform(-reach_rad, reach_rad, knots))(
        np.arange(frames)
    )


def bounce_height(events, frames: int) -> np.ndarray:
    """Elevation (T,) in radians of a ball that touches the ground at each onset: parabolas between them."""
    times = np.arange(frames) / TRUTH_RATE_HZ
    height = np.zeros(frames)
    onsets = [event.onset_s for event in events]
    for i, onset in enumerate(onsets):
        fall_s = 0.32
        first = i == 0 or onset - onsets[i - 1] > 1.0
        if first:  # dropped from the hand
            inside = (times >= onset - fall_s) & (times < onset)
            height[inside] = BOUNCE_HEIGHT_RAD * (1 - ((times[inside] - onset + fall_s) / fall_s) ** 2)
        following = onsets[i + 1] if i + 1 < len(onsets) else np.inf
        if following - onset <= 1.0:
            inside = (times >= onset) & (times < following)
            phase = (times[inside] - onset) / (following - onset)
            height[inside] = 4 * BOUNCE_HEIGHT_RAD * min(1.0, (following - onset) / 0.6) * phase * (1 - phase)
    return height
