"""Procedural sounds of BiAudio-Synth: eight classes, three members each, and the plan of when they sound.

The road of one sound: `sample_sound` draws its parameters, `plan_events` says when it strikes, chirps or
hums, `render_sound` makes the dry mono signal. Each is deterministic in its arguments. `FolderSound`s
(recorded samples, folder_sounds.py) walk the same road.

Training and held-out sounds never share a parameter value: each parameter's range is cut into 20 cells, of
which every fifth is held out, and a sound takes all its parameters from one side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from . import timbres
from .folder_sounds import FolderSound, load_folder_sounds, sample_folder_sound

__all__ = [
    "CLASSES",
    "Event",
    "FolderSound",
    "Member",
    "SoundClass",
    "SoundSpec",
    "envelope_db",
    "load_folder_sounds",
    "plan_events",
    "render_sound",
    "sample_folder_sound",
    "sample_sound",
]

FIRST_ONSET_S = 0.15
ENVELOPE_FLOOR_DB = -80.0
HELD_OUT_CELLS, HELD_OUT_EVERY, HELD_OUT_PHASE = 20, 5, 2
LOUDNESS_RMS = 0.12  # of the loudest 125 ms ("fast"), before distance; the same for all classes
PEAK_LIMIT = 0.95
BALL_REST_S = (1.1, 1.8)  # between two series: longer than any gap within one (at most 1 / rate)


@dataclass(frozen=True)
class Member:
    """One kind within a class; the ranges are drawn from log-uniformly."""

    name: str
    caption: str  # a noun phrase with its sounding verb
    pitch_hz: tuple[float, float]
    decay_s: tuple[float, float]  # to -60 dB of a strike; the length of a chirp; the fade-in of a hum
    rate: tuple[float, float]  # strikes, chirp groups, or wails per second; ball: 1 / first gap


@dataclass(frozen=True)
class SoundClass:
    name: str
    kind: str  # 'ringing' | 'struck' | 'bounce' | 'hum' | 'vocal'
    members: dict[str, Member]
    min_gap_s: float  # between two onsets; for 'hum' between two intervals


@dataclass(frozen=True)
class SoundSpec:
    """One concrete sound. `brightness` in [0, 1]; `seed` fixes every random detail of the rendering."""

    class_name: str
    member: str
    caption: str
    kind: str
    pitch_hz: float
    brightness: float
    decay_s: float
    rate: float
    seed: int


@dataclass(frozen=True)
class Event:
    """One strike, bounce or chirp, or one interval of humming. strength in [0.5, 1] scales the amplitude."""

    onset_s: float
    duration_s: float
    strength: float


def _sound_class(name: str, kind: str, min_gap_s: float, *members: Member) -> SoundClass:
    return SoundClass(name, kind, {member.name: member for member in members}, min_gap_s)


CLASSES: dict[str, SoundClass] = {
    sound_class.name: sound_class
    for sound_class in (
        _sound_class(
            "bell", "ringing", 0.6,
            Member("small", "a small brass bell ringing", (1350, 1900), (1.0, 1.5), (0.5, 1.2)),
            Member("medium", "a brass bell ringing", (700, 1000), (1.3, 2.0), (0.45, 1.0)),
            Member("large", "a large bronze bell tolling", (340, 500), (1.7, 2.5), (0.4, 0.8)),
        ),
        _sound_class(
            "drum", "struck", 0.25,
            Member("small", "a small hand drum being struck", (240, 310), (0.18, 0.26), (0.7, 2.0)),
            Member("medium", "a tom drum being struck", (160, 205), (0.22, 0.32), (0.6, 1.7)),
            Member("large", "a big bass drum booming", (100, 135), (0.3, 0.45), (0.5, 1.4)),
        ),
        _sound_class(
            "woodblock", "struck", 0.25,
            Member("small", "a small woodblock clicking", (2250, 2900), (0.035, 0.05), (0.7, 2.0)),
            Member("medium", "a woodblock knocking", (1500, 1950), (0.045, 0.065), (0.7, 2.0)),
            Member("large", "a large temple block knocking", (950, 1250), (0.06, 0.085), (0.6, 1.8)),
        ),
        _sound_class(
            "ball", "bounce", 0.18,
            Member("small", "a small rubber ball bouncing", (620, 800), (0.07, 0.1), (1.4, 1.9)),
            Member("medium", "a ball bouncing", (430, 550), (0.1, 0.14), (1.2, 1.7)),
            Member("large", "a heavy basketball bouncing", (290, 380), (0.14, 0.2), (1.05, 1.5)),
        ),
        _sound_class(
            "engine", "hum", 0.4,
            Member("small", "a scooter motor puttering", (88, 116), (0.03, 0.06), (1, 1.01)),
            Member("medium", "a car engine running", (60, 78), (0.03, 0.06), (1, 1.01)),
            Member("large", "a big diesel engine rumbling", (40, 52), (0.03, 0.06), (1, 1.01)),
        ),
        _sound_class(
            "bee", "hum", 0.4,
            Member("small", "a small bee buzzing", (275, 320), (0.03, 0.06), (1, 1.01)),
            Member("medium", "a honeybee buzzing", (225, 260), (0.03, 0.06), (1, 1.01)),
            Member("large", "a large bumblebee droning", (180, 210), (0.03, 0.06), (1, 1.01)),
        ),
        _sound_class(
            "bird", "vocal", 0.2,
            Member("small", "a tiny wren chirping", (3900, 4700), (0.08, 0.11), (0.8, 1.5)),
            Member("medium", "a sparrow chirping", (2950, 3600), (0.11, 0.15), (0.7, 1.3)),
            Member("large", "a blackbird whistling", (2150, 2700), (0.15, 0.19), (0.6, 1.1)),
        ),
        _sound_class(
            "siren", "hum", 0.4,
            Member("small", "a two-tone ambulance siren sounding", (900, 1040), (0.03, 0.06), (0.7, 1.0)),
            Member("medium", "a police siren wailing", (700, 860), (0.03, 0.06), (0.4, 0.7)),
            Member("large", "a low factory siren howling", (500, 600), (0.03, 0.06), (0.25, 0.4)),
        ),
    )
}  # fmt: skip


def _unit_draw(rng: np.random.Generator, held_out: bool) -> float:
    """A number in [0, 1) from the held-out cells, or from the others."""
    cells = [c for c in range(HELD_OUT_CELLS) if (c % HELD_OUT_EVERY == HELD_OUT_PHASE) == held_out]
    return float((cells[rng.integers(len(cells))] + rng.uniform(0.01, 0.99)) / HELD_OUT_CELLS)


def sample_sound(class_name: str, rng: np.random.Generator, held_out: bool = False) -> SoundSpec:
    """Draw a member of a class and its parameters. ValueError for an unknown class."""
    if class_name not in CLASSES:
        raise ValueError(f"no sound class {class_name!r}; known: {', '.join(CLASSES)}")
    sound_class = CLASSES[class_name]
    member = list(sound_class.members.values())[rng.integers(len(sound_class.members))]

    def draw(bounds: tuple[float, float]) -> float:
        return bounds[0] * (bounds[1] / bounds[0]) ** _unit_draw(rng, held_out)

    return SoundSpec(
        class_name=class_name,
        member=member.name,
        caption=member.caption,
        kind=sound_class.kind,
        pitch_hz=draw(member.pitch_hz),
        brightness=_unit_draw(rng, held_out),
        decay_s=draw(member.decay_s),
        rate=draw(member.rate),
        seed=int(rng.integers(2**31)),
    )


# --- when -------------------------------------------------------------------------------------------------


def plan_events(
    spec: SoundSpec | FolderSound, rng: np.random.Generator, duration_s: float = 8.0
) -> tuple[Event, ...]:
    """When a sound sounds, in order, at least once. Some three in ten start after more than a second."""
    if duration_s <= FIRST_ONSET_S:
        raise ValueError(f"duration_s is {duration_s}, expected more than {FIRST_ONSET_S}")
    last_onset_s = max(duration_s - 0.15, FIRST_ONSET_S)
    late = rng.uniform() < 0.3
    start_s = FIRST_ONSET_S + (rng.uniform(1.0, 2.5) if late else rng.uniform(0.0, 0.7)) * duration_s / 8.0
    if spec.kind == "hum":
        return _plan_hum(spec, rng, duration_s, start_s)
    if spec.kind == "bounce":
        onsets, strengths = _plan_bounces(spec, rng, start_s, last_onset_s)
    elif spec.kind == "vocal":
        onsets, strengths = _plan_chirps(spec, rng, start_s, last_onset_s)
    else:
        onsets, strengths = _plan_strikes(spec, rng, start_s, last_onset_s)
    return tuple(
        Event(onset, min(spec.decay_s, duration_s - onset), strength)
        for onset, strength in zip(onsets, strengths, strict=True)
    )


def _min_gap_s(spec: SoundSpec | FolderSound) -> float:
    return spec.min_gap_s if isinstance(spec, FolderSound) else CLASSES[spec.class_name].min_gap_s


def _plan_strikes(spec, rng, start_s: float, last_s: float) -> tuple[list[float], list[float]]:
    """Irregular gaps: the smallest one plus a gamma-distributed rest, 1 / rate on average."""
    onsets, min_gap = [start_s], _min_gap_s(spec)
    rest = max(1.0 / spec.rate - min_gap, 0.05)
    while (onset := onsets[-1] + min_gap + rest * rng.gamma(2.0, 0.5)) < last_s:
        onsets.append(onset)
    return onsets, list(rng.uniform(0.5, 1.0, len(onsets)))


def _plan_bounces(spec, rng, start_s: float, last_s: float) -> tuple[list[float], list[float]]:
    """Two to four series; within one the gaps, and with them the speed of impact, shrink geometrically."""
    onsets: list[float] = []
    strengths: list[float] = []
    onset = start_s
    for _ in range(4):
        ratio, gap, strength = rng.uniform(0.72, 0.84), 1.0 / spec.rate, 1.0
        for _ in range(int(rng.integers(3, 7))):
            if onset >= last_s and onsets:
                return onsets, strengths
            onsets.append(onset)
            strengths.append(max(0.5, strength))
            if gap < CLASSES["ball"].min_gap_s:
                break
            onset, gap, strength = onset + gap, gap * ratio, strength * ratio
        onset = onsets[-1] + rng.uniform(*BALL_REST_S)
    return onsets, strengths


def _plan_chirps(spec, rng, start_s: float, last_s: float) -> tuple[list[float], list[float]]:
    """Groups of one to three chirps."""
    onsets: list[float] = []
    onset = start_s
    while onset < last_s or not onsets:
        for index in range(int(rng.integers(1, 4))):
            if index and onset >= last_s:
                break
            onsets.append(onset)
            onset += spec.decay_s + rng.uniform(0.12, 0.2)
        onset += max(0.3, (1.0 / spec.rate - 0.5) * rng.gamma(2.0, 0.5) + 0.2)
    return onsets, list(rng.uniform(0.6, 1.0, len(onsets)))


def _plan_hum(spec, rng, duration_s: float, start_s: float) -> tuple[Event, ...]:
    """One to three intervals that cover 40-85 % of the clip, each 1.2-4 s long in an 8 s clip."""
    covered_s = rng.uniform(0.4, 0.85) * duration_s
    fewest = max(1, math.ceil(covered_s / 4.0))
    most = max(fewest, min(3, int(covered_s / 1.2)))  # more than three only where 4 s each do not reach
    count = int(rng.integers(fewest, most + 1))
    weights = rng.uniform(0.7, 1.3, count)
    lengths = covered_s * weights / weights.sum()
    spare_s = max(0.0, duration_s - FIRST_ONSET_S - covered_s)
    inner_s = min(_min_gap_s(spec), spare_s / (count + 1))
    rest = spare_s - inner_s * (count - 1)
    shares = rng.dirichlet(np.ones(count + 1)) * rest  # before, between, after
    events, onset = [], FIRST_ONSET_S
    for index in range(count):
        onset += shares[index] + (inner_s if index else 0.0)
        length = min(float(lengths[index]), duration_s - onset)
        events.append(Event(float(onset), length, float(rng.uniform(0.7, 1.0))))
        onset += length
    return tuple(events)


# --- the signal -------------------------------------------------------------------------------------------


def render_sound(
    spec: SoundSpec | FolderSound, events: tuple[Event, ...], num_samples: int, sample_rate: int
) -> np.ndarray:
    """The dry mono signal (num_samples,) float32. An event at onset_s starts at sample round(onset_s *
    sample_rate), where it is at once (strikes, within 1 ms) or fades in (hum, 30-60 ms). The loudest 125 ms
    have the same RMS for every class, unless the peak would pass 0.95."""
    signal = np.zeros(num_samples, np.float32)
    body = _strike_body(spec, sample_rate)
    for index, event in enumerate(events):
        start = int(round(event.onset_s * sample_rate))
        if start >= num_samples:
            continue
        rng = np.random.default_rng((spec.seed, index))
        samples = _event_samples(spec, body, event, rng, sample_rate)[: num_samples - start]
        signal[start : start + len(samples)] += np.float32(event.strength) * samples
    return signal * _loudness_gain(signal, sample_rate)


def _strike_body(spec, sample_rate: int) -> np.ndarray | None:
    if isinstance(spec, FolderSound) or spec.class_name not in ("bell", "drum", "woodblock", "ball"):
        return None
    make = getattr(timbres, f"{spec.class_name}_body")
    return make(spec.pitch_hz, spec.brightness, spec.decay_s, sample_rate)


# class -> (level, length, low edge, high edge) of the noise that each strike adds to the body
_STRIKE_NOISE = {
    "bell": (0.25, 0.04, 1500.0, 7000.0),
    "drum": (0.55, 0.16, 250.0, 4000.0),
    "woodblock": (0.3, 0.012, 500.0, 6000.0),
    "ball": (0.6, 0.03, 400.0, 2500.0),
}


def _event_samples(spec, body, event: Event, rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    length = max(8, int(round(event.duration_s * sample_rate)))
    if isinstance(spec, FolderSound):
        samples = spec.looped(length, sample_rate) if spec.kind == "hum" else spec.at_rate(sample_rate)
        return _faded(samples, 0.04, sample_rate) if spec.kind == "hum" else samples
    if body is not None:
        level, noise_s, low_hz, high_hz = _STRIKE_NOISE[spec.class_name]
        noise = timbres.noise_burst(
            rng, noise_s, sample_rate, low_hz, high_hz * (0.6 + 0.8 * spec.brightness)
        )
        samples = body.copy() if len(body) >= len(noise) else np.pad(body, (0, len(noise) - len(body)))
        samples[: len(noise)] += np.float32(level) * noise
        return samples
    if spec.class_name == "bird":
        tune = np.random.default_rng(spec.seed)  # a bird's chirps are alike: mostly up or mostly down
        sweep = tune.choice([-1.0, 1.0]) * tune.uniform(0.25, 0.55) + rng.uniform(-0.1, 0.1)
        pitch = spec.pitch_hz * 2 ** rng.uniform(-0.06, 0.06)
        chirp_length = max(8, int(round(spec.decay_s * sample_rate)))
        return timbres.bird_chirp(rng, pitch, spec.brightness, sweep, chirp_length, sample_rate)
    if spec.class_name == "siren":
        two_tone = spec.member == "small"
        hum = timbres.siren_hum(rng, spec.pitch_hz, spec.brightness, spec.rate, two_tone, length, sample_rate)
    else:
        make = {"engine": timbres.engine_hum, "bee": timbres.bee_hum}[spec.class_name]
        hum = make(rng, spec.pitch_hz, spec.brightness, length, sample_rate)
    return _faded(hum, spec.decay_s, sample_rate)


def _faded(hum: np.ndarray, fade_s: float, sample_rate: int) -> np.ndarray:
    """Fade in over fade_s and out over twice that."""
    fade = min(int(fade_s * sample_rate), len(hum) // 3)
    ramp = np.sin(np.linspace(0.0, np.pi / 2, fade, dtype=np.float32)) ** 2
    faded = hum.astype(np.float32)
    faded[:fade] *= ramp
    out = np.sin(np.linspace(np.pi / 2, 0.0, min(2 * fade, len(hum) // 2), dtype=np.float32)) ** 2
    faded[len(faded) - len(out) :] *= out
    return faded


def _loudness_gain(signal: np.ndarray, sample_rate: int) -> np.float32:
    energy = np.concatenate([[0.0], np.cumsum(signal.astype(np.float64) ** 2)])
    window = min(len(signal), max(1, int(0.125 * sample_rate)))
    loudest = (
        math.sqrt(max(0.0, float(np.max(energy[window:] - energy[:-window]))) / window) if window else 0.0
    )
    if loudest == 0.0:
        return np.float32(1.0)
    return np.float32(min(LOUDNESS_RMS / loudest, PEAK_LIMIT / float(np.abs(signal).max())))


def envelope_db(signal: np.ndarray, sample_rate: int, rate_hz: float) -> np.ndarray:
    """RMS of each frame [i / rate_hz, (i + 1) / rate_hz) in dB relative to the loudest frame, floor -80; all
    frames of a silent signal are at the floor. (N,) -> (T,) float32, T = ceil(N rate_hz / sample_rate)."""
    num_frames = math.ceil(len(signal) * rate_hz / sample_rate - 1e-9)
    edges = np.round(np.arange(num_frames + 1) * sample_rate / rate_hz).astype(int).clip(0, len(signal))
    energy = np.concatenate([[0.0], np.cumsum(np.asarray(signal, np.float64) ** 2)])
    power = np.maximum(np.diff(energy[edges]), 0.0) / np.maximum(np.diff(edges), 1)
    loudest = power.max(initial=0.0)
    if loudest <= 0.0:
        return np.full(num_frames, ENVELOPE_FLOOR_DB, np.float32)
    floor = 10.0 ** (ENVELOPE_FLOOR_DB / 10)
    return (10.0 * np.log10(np.maximum(power / loudest, floor))).astype(np.float32)
