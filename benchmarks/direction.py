#!/usr/bin/env python
"""How near the direction of most energy comes to the source, in free field and in rooms with diffuse noise.

    python benchmarks/direction.py              200 rooms of RT60 0.5 s, half a minute on one core

A source stands 2 m or more from the listener in a shoebox of 4-10 x 4-8 x 2.5-4 m. The field is the sum of
all image sources of the reverberation time (pyroomacoustics; Allen and Berkley 1979), each encoded from its
own direction, and diffuse noise 10 dB below the reverberant sound (in W). Three kinds of sound: steady white
noise, syllables (pink noise in four bursts a second, with pauses) and impacts (six decays of 50 ms).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, fftconvolve, lfilter, sosfilt

from bi_audio_dataset import ambisonics, sphere

RATE = 16000
DURATION_S = 4.0
RT60_S = 0.5
NOISE_DB = -10.0
LEAST_DISTANCE_M = 2.0
SPEED_OF_SOUND_M_S = 343.0
HIGH_PASS_HZ = 100.0  # after Allen and Berkley
SOUNDS = ("white", "syllables", "impacts")
LIMIT_FREE_DEG, LIMIT_ROOM_DEG = 5.0, 15.0


def random_room(
    rng: np.random.Generator, rt60_s: float = RT60_S
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(impulse response (4, L) from source to listener, unit vector (3,) to the source)."""
    import pyroomacoustics

    while True:
        size = np.array([rng.uniform(4, 10), rng.uniform(4, 8), rng.uniform(2.5, 4)])
        listener = np.array([*size[:2] * rng.uniform(0.3, 0.7, 2), rng.uniform(1.2, 1.8)])
        source = np.array([*rng.uniform(0.5, size[:2] - 0.5), rng.uniform(0.5, min(2.2, size[2] - 0.3))])
        if np.linalg.norm(source - listener) < LEAST_DISTANCE_M:
            continue
        try:
            absorption, order = pyroomacoustics.inverse_sabine(rt60_s, size)
        except ValueError:  # a room so large that even full absorption rings longer
            continue
        break
    room = pyroomacoustics.ShoeBox(
        size, fs=RATE, materials=pyroomacoustics.Material(absorption), max_order=order
    )
    room.add_source(source)
    room.add_microphone(listener)
    room.image_source_model()
    offsets = room.sources[0].images.T - listener
    distances = np.linalg.norm(offsets, axis=1)
    waves = ambisonics.gains(*sphere.angles(offsets)) * (room.sources[0].damping[0] / distances)
    arrivals = np.round(distances / SPEED_OF_SOUND_M_S * RATE).astype(int)
    response = np.zeros((4, arrivals.max() + 1))
    for channel, gains in zip(response, waves, strict=True):
        np.add.at(channel, arrivals, gains)
    straight = source - listener
    # Image sources of one sign add up to a constant pressure, which would ring longer than any room.
    response = sosfilt(butter(2, HIGH_PASS_HZ, "high", fs=RATE, output="sos"), response, axis=1)
    return response[:, : round(1.5 * rt60_s * RATE)], straight / np.linalg.norm(straight)


def sound(kind: str, rng: np.random.Generator, num_samples: int) -> NDArray[np.float64]:
    noise = rng.standard_normal(num_samples)
    if kind == "white":
        return noise
    noise = lfilter([1], [1, -0.9], noise)
    seconds = np.arange(num_samples) / RATE
    if kind == "syllables":
        bursts = np.maximum(0, np.sin(2 * np.pi * 4 * seconds + rng.uniform(0, 2 * np.pi))) ** 2
        speaks = rng.random(int(2 * seconds[-1]) + 2) > 0.3
        return noise * bursts * speaks[(2 * seconds).astype(int)]
    starts_s = rng.uniform(0, 0.75 * seconds[-1], 6)
    return noise * sum(np.exp(-np.maximum(seconds - t, 0) / 0.05) * (seconds >= t) for t in starts_s)


def diffuse_noise(rng: np.random.Generator, num_samples: int) -> NDArray[np.float64]:
    """(4, N) of unit power in W; in a diffuse field the others have a third of it each, uncorrelated."""
    return rng.standard_normal((4, num_samples)) * np.sqrt([[1], [1 / 3], [1 / 3], [1 / 3]])


def error_deg(field: NDArray[np.float64], towards: NDArray[np.float64]) -> float:
    azimuth, elevation, _ = ambisonics.max_energy_direction(field.astype(np.float32), RATE)
    return float(np.degrees(sphere.angle_between(sphere.direction(azimuth, elevation), towards)))


def room_errors_deg(seed: int) -> dict[str, float]:
    """One room; the error for each kind of sound."""
    rng = np.random.default_rng(np.random.SeedSequence((20, seed)))
    response, towards = random_room(rng)
    num_samples = round(DURATION_S * RATE)
    errors = {}
    for kind in SOUNDS:
        field = fftconvolve(response, sound(kind, rng, num_samples)[None], axes=1)[:, :num_samples]
        level = np.sqrt(np.mean(field[0] ** 2) * 10 ** (NOISE_DB / 10))
        errors[kind] = error_deg(field + level * diffuse_noise(rng, num_samples), towards)
    return errors


def free_errors_deg(seed: int) -> dict[str, float]:
    """A plane wave from anywhere, without noise."""
    rng = np.random.default_rng(np.random.SeedSequence((21, seed)))
    towards = sphere.direction(rng.uniform(-np.pi, np.pi), np.arcsin(rng.uniform(-1, 1)))
    num_samples = round(DURATION_S * RATE)
    return {
        kind: error_deg(ambisonics.encode(sound(kind, rng, num_samples), *sphere.angles(towards)), towards)
        for kind in SOUNDS
    }


def summary(errors: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    found = {}
    for kind in SOUNDS:
        values = np.array([each[kind] for each in errors])
        found[kind] = {"median": float(np.median(values)), "90 %": float(np.quantile(values, 0.9))}
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rooms", type=int, default=200)
    parser.add_argument("--output", type=Path, help="a JSON file for the figures")
    options = parser.parse_args(arguments)
    free = summary([free_errors_deg(seed) for seed in range(min(options.rooms, 50))])
    rooms = summary([room_errors_deg(seed) for seed in range(options.rooms)])
    figures = {"rooms": options.rooms, "free field": free, "rooms and noise": rooms}
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(figures, indent=1) + "\n")
    print(f"Error of the direction of most energy, degrees; {options.rooms} rooms.\n")
    print("| sound | free field, median | rooms, median | rooms, 90 % |\n|---|---|---|---|")
    for kind in SOUNDS:
        shown = (free[kind]["median"], rooms[kind]["median"], rooms[kind]["90 %"])
        print(f"| {kind} | " + " | ".join(f"{value:.1f}" for value in shown) + " |")
    reached = all(
        free[kind]["median"] <= LIMIT_FREE_DEG and rooms[kind]["median"] <= LIMIT_ROOM_DEG for kind in SOUNDS
    )
    bounds = f"{LIMIT_FREE_DEG:g} and {LIMIT_ROOM_DEG:g} degrees"
    print(f"\n{'Within' if reached else 'BEYOND'} the bounds: {bounds}.")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
