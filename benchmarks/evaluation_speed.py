#!/usr/bin/env python
"""How long the spatial measures take, and what memory: the whole command, on clips made for it.

    python benchmarks/evaluation_speed.py                              1,000 pairs and 200, a few minutes
    python benchmarks/evaluation_speed.py --pairs 50 200 --format wav  smaller, uncompressed
    python benchmarks/evaluation_speed.py --write-to docs/results.md

Each pair is 8 s of tones, noises and hits that move around a spherical head, and a generated sound that is
another rendering of them. `python -m visaudio.evaluation --measures space` scores them in --workers processes
(new ones: start-up, imports, reading, statistics and files are in the time). Memory is that of its largest
process. CPU time is what the processes used: on a shared machine it says more than the clock. Then each step
is timed alone on the first pair, in this process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bi_audio_dataset import media
from bi_audio_dataset.hrtf import HrirSet, spherical_head
from visaudio import tables

MARK = "evaluation_speed"
SECONDS = 8
SCENES = 24  # rendered once; clips are turned and scaled copies of them, each a file of its own

# Run by a fresh interpreter: the resources that a command and all its processes used.
WATCH = """
import json, resource, subprocess, sys, time
begun = time.monotonic()
code = subprocess.call(sys.argv[2:], stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
found = dict(code=code, wall_s=time.monotonic() - begun, cpu_s=used.ru_utime + used.ru_stime,
             peak_mb=used.ru_maxrss / 1024)
open(sys.argv[1], "w").write(json.dumps(found))
"""


@dataclass(frozen=True)
class Timing:
    """Of one whole command. peak_mb: resident memory of its largest process."""

    pairs: int
    wall_s: float
    cpu_s: float
    peak_mb: float


# -------------------- clips


def dry_sound(rng: np.random.Generator, rate: int) -> np.ndarray:
    """(S,) of SECONDS: a chord that swells, noise of a band, and hits."""
    time_s = np.arange(SECONDS * rate) / rate
    pitch = rng.uniform(80, 600)
    chord = sum(np.sin(2 * np.pi * pitch * k * time_s + rng.uniform(0, 6)) / k for k in range(1, 9))
    chord *= 0.5 + 0.5 * np.sin(2 * np.pi * rng.uniform(0.2, 2) * time_s)
    hiss = np.diff(rng.standard_normal(len(time_s) + 1)) * (rng.random() < 0.5)
    hits = np.zeros_like(time_s)
    for start in rng.integers(0, len(time_s) - rate // 4, 12):
        length = rate // 4
        hits[start : start + length] += rng.standard_normal(length) * np.exp(-np.arange(length) / 0.03 / rate)
    return 0.08 * chord + 0.02 * hiss + 0.3 * hits


def rendered(sound: np.ndarray, head: HrirSet, azimuths_deg: Sequence[float]) -> np.ndarray:
    """(2, S): the sound wanders over the azimuths, cross-faded."""
    from scipy.signal import oaconvolve

    position = np.linspace(0, len(azimuths_deg) - 1, len(sound))
    ears = np.zeros((2, len(sound)))
    for number, azimuth_deg in enumerate(azimuths_deg):
        part = sound * np.clip(1 - np.abs(position - number), 0, 1)
        ears += oaconvolve(part[None], head.nearest(np.radians(azimuth_deg)), axes=1)[:, : len(sound)]
    return ears


def make_clips(folder: Path, pairs: int, rate: int, suffix: str, seed: int = 0) -> tuple[Path, Path]:
    """Folders of generated sounds and references."""
    rng, head = np.random.default_rng(seed), spherical_head(rate)
    scenes = []
    for _ in range(min(SCENES, pairs)):
        dry, path = dry_sound(rng, rate), rng.uniform(-90, 90, 5)
        scenes.append((rendered(dry, head, path + rng.normal(0, 15, 5)), rendered(dry, head, path)))
    places = folder / "generated", folder / "reference"
    for number in range(pairs):
        turn, gain = int(rng.integers(SECONDS * rate)), rng.uniform(0.3, 1.0)
        for place, ears in zip(places, scenes[number % len(scenes)], strict=True):
            place.mkdir(exist_ok=True)
            sound = np.roll(ears, turn, axis=1) * gain * 0.7 / max(np.abs(ears).max(), 1e-9)
            media.write_audio(place / f"clip{number:05d}.{suffix}", sound, rate)
    return places


# -------------------- the command and its steps


def time_command(generated: Path, reference: Path, output: Path, limit: int, workers: int) -> Timing:
    """RuntimeError if the command fails."""
    command = [sys.executable, "-m", "visaudio.evaluation", "--generated", f"system={generated}"]
    command += ["--reference", str(reference), "--output", str(output), "--measures", "space"]
    command += ["--limit", str(limit), "--workers", str(workers), "--no-report"]
    found = output.with_suffix(".used.json")
    subprocess.run([sys.executable, "-c", WATCH, str(found), *command], check=True)
    used = json.loads(found.read_text())
    if used["code"]:
        raise RuntimeError(f"{' '.join(command)} ended with {used['code']}")
    return Timing(limit, used["wall_s"], used["cpu_s"], used["peak_mb"])


def step_costs(generated: Path, reference: Path, rounds: int = 15) -> dict[str, float]:
    """CPU ms of each step on one pair, the least of some rounds; all but the last are a file's."""
    from visaudio.evaluation import fairplay, interaural, measures

    measure = measures.make("space", measures.Settings())
    scene = measures.Scene("clip", float(SECONDS))
    sounds = [measures.Sound(*media.read_audio(path)) for path in (generated, reference)]
    heard = [measure.hear(sound, scene) for sound in sounds]
    audio, rate = sounds[0].audio, sounds[0].sample_rate
    steps: dict[str, Callable[[], object]] = {
        "read": lambda: media.read_audio(generated),
        "to 24 kHz": lambda: measures.Sound(audio, rate).at(interaural.RATE_HZ),
        "to 16 kHz": lambda: measures.Sound(audio, rate).at(fairplay.RATE_HZ),
        "interaural cues": lambda: interaural.analyse(sounds[0].at(interaural.RATE_HZ)),
        "compare (a pair)": lambda: measure.compare(*heard, scene),
    }
    return {name: _least_cpu_ms(step, rounds) for name, step in steps.items()}


def _least_cpu_ms(step: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        begun = time.process_time()
        step()
        times.append(time.process_time() - begun)
    return 1000 * min(times)


# -------------------- the table


def report(command: str, timings: Sequence[Timing], steps: dict[str, float], settings: str) -> str:
    rows = [
        [
            f"{t.pairs:,}",
            f"{t.wall_s:.1f}",
            f"{t.cpu_s:.1f}",
            f"{1000 * t.cpu_s / (2 * t.pairs):.0f}",
            f"{t.cpu_s / t.wall_s:.2f}",
            f"{t.peak_mb:.0f}",
        ]
        for t in timings
    ]
    head = ["pairs", "s by the clock", "s of CPU time", "CPU ms a file", "cores had", "MB, largest process"]
    costs = [[name, f"{ms:.1f}"] for name, ms in steps.items()]
    return "\n\n".join(
        [
            f"`{command}` at commit `{tables.commit(Path(__file__).parent)}`; {settings}.",
            tables.table(head, rows),
            tables.table(["step", "CPU ms, least"], costs),
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, nargs="+", default=[200, 1000])
    parser.add_argument("--rate", type=int, default=48000)
    parser.add_argument("--format", choices=("flac", "wav"), default="flac")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--write-to", type=Path, help="a Markdown file with the marks of this table")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        places = make_clips(folder, max(options.pairs), options.rate, options.format)
        timings = [
            time_command(*places, folder / f"output{pairs}", pairs, options.workers)
            for pairs in sorted(options.pairs)
        ]
        first = f"clip00000.{options.format}"
        steps = step_costs(places[0] / first, places[1] / first)
    settings = (
        f"{SECONDS} s stereo {options.format.upper()} at {options.rate} Hz, {options.workers} processes"
    )
    typed = sys.argv[1:] if arguments is None else arguments
    text = report(tables.shown_command("benchmarks/evaluation_speed.py", typed), timings, steps, settings)
    tables.publish(text, None, options.write_to, MARK)
    return 0


if __name__ == "__main__":
    sys.exit(main())
