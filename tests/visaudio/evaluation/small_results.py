"""Results of a small evaluation whose sounds are there: what the page and the comparison are tried on."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from visaudio.data.dataset import Clip, SourceTrack
from visaudio.evaluation.measures import FigureSpec
from visaudio.evaluation.results import (
    ClipScored,
    Comparison,
    Figure,
    MeasureUsed,
    Problem,
    Results,
    SoundScored,
    SystemUsed,
)
from visaudio.evaluation.truth_files import truth_text

RATE = 16000
SECONDS = 0.5
SPECS = (
    FigureSpec("ild_error_db", "ILD error", "dB", "lower", 2),
    FigureSpec("side", "side accuracy", "%", "higher", 1, 100.0),
    FigureSpec("ratio_db", "left-right ratio", "dB", "", 1),
)
POOLED = FigureSpec("fd", "Frechet distance", "", "lower", 2, per_clip=False)


def ears(seed, left=1.0, right=1.0, seconds=SECONDS):
    """(2, S) float32: one noise, a gain for each ear."""
    noise = np.random.default_rng(seed).normal(0, 0.1, round(RATE * seconds))
    return np.stack([left * noise, right * noise]).astype(np.float32)


def write_sound(path, audio, subtype="PCM_16"):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audio.T, RATE, subtype=subtype)
    return path


def small_truth(clip_id):
    """One source that goes from 60 degrees left to 60 right, silent in the second half."""
    ramp = np.linspace(60, -60, 12)
    track = SourceTrack(
        class_name="bell",
        member="brass",
        caption="a small brass bell",
        azimuth_deg=ramp,
        elevation_deg=np.zeros(12),
        lateral_deg=ramp,
        distance_m=np.ones(12),
        size_deg=np.ones(12),
        visible=np.ones(12, bool),
        onset_s=np.array([0.1]),
        envelope_db=np.where(np.arange(12) < 6, 0.0, -80.0),
    )
    return Clip(clip_id, "test", "", SECONDS, 90.0, 8, 8, True, 25.0, (track,))


def values(clip, system):
    """What the made-up measure says: nan for one clip, different for each system."""
    error = math.nan if clip == 2 else (clip * 7 % 5) + 0.25 * system
    return {"ild_error_db": error, "side": 1 - error / 10, "ratio_db": float(clip - system)}


def small_results(
    folder: Path, systems=("ours", "mono"), clips=6, names=None, caption="a bell", seconds=SECONDS
):
    """`clips` clips of `systems`; the last system lacks the last clip, clip 0 has a truth."""
    names = names or [f"clip-{k}" for k in range(clips)]
    scored = []
    for k, name in enumerate(names):
        sounds = {}
        for s, system in enumerate(systems):
            if len(systems) > 1 and (s, k) == (len(systems) - 1, clips - 1):
                continue
            path = write_sound(folder / f"system{s}" / f"{k}.flac", ears(k, 1.0, 0.5 + 0.25 * s, seconds))
            sounds[system] = SoundScored(str(path), seconds, values(k, s))
        reference = write_sound(folder / "reference" / f"{k}.flac", ears(k, 1.0, 0.25, seconds))
        truth = None
        if k == 0:
            (folder / "truth.json").write_text(truth_text(small_truth(name)))
            truth = str(folder / "truth.json")
        scored.append(ClipScored(name, sounds, caption, str(reference), None, truth))
    figures = {system: figures_of(scored, system) | {"fd": Figure(2.0 + s, 1.0, 4.0, clips)}
               for s, system in enumerate(systems)}  # fmt: skip
    comparisons = ()
    if len(systems) > 1:
        a, b = systems[:2]
        comparisons = (
            Comparison(a, b, "ild_error_db", Figure(-0.25, -0.3, -0.2, clips - 2), 0.002, 0.01, 0.03),
            Comparison(a, b, "side", Figure(0.025, -0.02, 0.03, clips - 2), 0.3, 0.2, 0.4),
            Comparison(a, b, "ratio_db", Figure(1.0, 1.0, 1.0, clips - 1), 0.002, 0.01, math.nan),
            Comparison(a, b, "fd", Figure(-1.0, -2.0, 0.5, clips - 1), 0.2, math.nan, 0.4),
        )
    problems = (
        Problem("missing_generated", "no generated sound: left out", (names[-1],), systems[-1]),
        Problem("unreadable", "a file that cannot be read: clip refused", ("x.wav",), systems[0], "", True,
                ("x.wav: not a sound",)),
    )  # fmt: skip
    return Results(
        systems=tuple(
            SystemUsed(s, str(folder), sum(s in c.sounds for c in scored), of=clips) for s in systems
        ),
        measures=(
            MeasureUsed("space", "space-1", SPECS, 1000),
            MeasureUsed("quality", "fd-1", (POOLED,), 100),
        ),
        figures=figures,
        clips=tuple(scored),
        comparisons=comparisons,
        problems=problems,
        unavailable={"imagebind": "imagebind is not installed"},
        groups={"near": tuple(names[:2])},
        group_titles={"near": "close by"},
        group_figures={"near": {s: figures_of(scored[:2], s) for s in systems}},
        made={
            "command": "python -m visaudio.evaluation --output eval",
            "commit": "abc",
            "date": "2026-01-01",
        },
    )


def figures_of(scored, system):
    """Means over the clips that have a value; made-up intervals around them."""
    found = {}
    for spec in SPECS:
        row = [c.sounds[system].values[spec.name] for c in scored if system in c.sounds]
        row = [v for v in row if math.isfinite(v)]
        mean = float(np.mean(row))
        found[spec.name] = Figure(mean, mean - 0.1, mean + 0.1, len(row))
    return found


def with_clip(results, place, **changes):
    clips = list(results.clips)
    clips[place] = replace(clips[place], **changes)
    return replace(results, clips=tuple(clips))
