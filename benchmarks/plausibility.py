#!/usr/bin/env python
"""What the reference-free plausibility tells apart: the truth, its mirror image, other clips' sounds, mono.

    python -m bi_audio_dataset synth --clips 240 --seed 1000 --held-out --output data/heldout
    python benchmarks/plausibility.py --dataset data/heldout --generated runs/quality/sounds/model

Every clip of the dataset's test split; each group of synth_benchmark.GROUPS has its own rows, with 95 %
bootstrap intervals over clips. --generated: a folder of ID.wav or ID.flac, one more row. What was heard is
kept in --work, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bi_audio_dataset import media
from bi_audio_dataset.schema import UserError
from visaudio.data.dataset import Clip, open_dataset, read_clip
from visaudio.evaluation import plausibility
from visaudio.evaluation.intervals import RESAMPLES, figures_of, resample
from visaudio.evaluation.lateral import ANALYSIS_RATE_HZ
from visaudio.evaluation.measures import ClipSet, Heard, Scene, Settings
from visaudio.evaluation.synth_benchmark import GROUPS, derangement, groups_of

SYSTEMS = {
    "truth": "the clip's own sound",
    "generated": "the generated sound",
    "mirrored": "its own, ears exchanged",
    "mono": "its own, mono",
    "shuffled": "another clip's sound",
}
FIGURES = ("plausibility", "plausibility_side", "plausibility_follow")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", type=Path, required=True, help="a BiAudio-Synth folder; its test split")
    parser.add_argument("--generated", type=Path, help="folder of sounds ID.wav or ID.flac")
    parser.add_argument("--limit", type=int, help="only the first N clips")
    parser.add_argument("--work", type=Path, help="folder to keep what was heard in (default: nowhere)")
    options = parser.parse_args(arguments)
    try:
        print(table(*hear_all(options)))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def hear_all(
    options: argparse.Namespace,
) -> tuple[dict[str, Clip], dict[str, set[str]], dict[str, dict[str, Heard]]]:
    """By id: clips, their groups, and {"truth", "generated"} -> what was heard."""
    rows = open_dataset(options.dataset, ["test"])
    count = len(rows) if options.limit is None else min(options.limit, len(rows))
    clips: dict[str, Clip] = {}
    member: dict[str, set[str]] = {}
    heard: dict[str, dict[str, Heard]] = {}
    for index in tqdm(range(count), desc="clips", unit="clip", smoothing=0.1):
        clip = read_clip(rows[index], sample_rate=ANALYSIS_RATE_HZ)
        if not clip.sources:
            raise UserError(f"{options.dataset}: clip {clip.id} has no ground truth")
        clips[clip.id] = replace(clip, audio=None)
        camera = np.array([rows[index]["camera"][f"{angle}_deg"] for angle in ("yaw", "pitch", "roll")])
        member[clip.id] = {"all", *groups_of(clip, camera)}
        kept = options.work / f"{clip.id}.npz" if options.work else None
        if kept and kept.is_file():
            arrays = dict(np.load(kept))
        else:
            arrays = {f"truth {name}": a for name, a in hear_clip(rows[index], clip).items()}
            if kept:
                kept.parent.mkdir(parents=True, exist_ok=True)
                np.savez(kept, **arrays)
        heard[clip.id] = {"truth": {name.removeprefix("truth "): a for name, a in arrays.items()}}
        if options.generated:
            audio, _ = media.read_audio(sound_of(options.generated, clip.id), ANALYSIS_RATE_HZ)
            audio = np.resize(audio, (2, audio.shape[1])) if len(audio) == 1 else audio
            picture = {"motion": heard[clip.id]["truth"]["motion"]}
            heard[clip.id]["generated"] = plausibility.hear_sound(audio, ANALYSIS_RATE_HZ) | picture
    if not clips:
        raise UserError(f"{options.dataset}: no clip in its test split")
    return clips, member, heard


def hear_clip(row: dict, clip: Clip) -> dict[str, np.ndarray]:
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        file.write(row["video"]["bytes"])
        file.flush()
        picture = plausibility.motion.column_motion(file.name, clip.duration_s)
    return plausibility.hear_sound(clip.audio, ANALYSIS_RATE_HZ) | {"motion": picture}


def sound_of(folder: Path, name: str) -> Path:
    found = [path for path in (folder / f"{name}.flac", folder / f"{name}.wav") if path.is_file()]
    if not found:
        raise UserError(f"{folder}: no {name}.flac or {name}.wav; expected a sound for every clip")
    return found[0]


def as_heard(system: str, name: str, heard: dict[str, dict[str, Heard]], partner: str) -> Heard:
    """The sound of a system to the picture of clip `name`."""
    if system == "generated":
        return heard[name]["generated"]
    own = dict(heard[partner if system == "shuffled" else name]["truth"])
    turn = {"mirrored": -1.0, "mono": 0.0}.get(system, 1.0)
    return own | {"lateral_deg": turn * own["lateral_deg"], "motion": heard[name]["truth"]["motion"]}


def table(clips: dict[str, Clip], member: dict[str, set[str]], heard: dict[str, dict[str, Heard]]) -> str:
    measure, ids = plausibility.make(Settings()), list(clips)
    systems = [s for s in SYSTEMS if s != "generated" or "generated" in heard[ids[0]]]
    partners = dict(zip(ids, (ids[k] for k in derangement(len(ids))), strict=True))
    groups = {"all": "all clips"} | GROUPS
    lines = ["| clips | sound | plausibility | side % | median r, motion that moves |", "|---" * 5 + "|"]
    for group, title in groups.items():
        chosen = np.array([k for k, name in enumerate(ids) if group in member[name]], int)
        for system in systems if len(chosen) else ():
            rows = [
                measure.compare(
                    as_heard(system, name, heard, partners[name]),
                    None,
                    Scene(name, clips[name].duration_s, truth=clips[name]),
                )
                for name in (ids[k] for k in chosen)
            ]
            of = ClipSet(tuple(ids[k] for k in chosen), {n: np.array([r[n] for r in rows]) for n in rows[0]})
            cells = intervals(measure, of)
            lines.append(f"| {title} ({len(chosen)}) | {SYSTEMS[system]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def intervals(measure: plausibility.Plausibility, clips: ClipSet) -> list[str]:
    figures = figures_of(resample(measure, clips, RESAMPLES))
    cells = []
    for spec in (s for s in measure.figures if s.name in FIGURES):
        found = figures[spec.name]
        shown = (spec.factor * value for value in (found.value, found.low, found.high))
        cells.append("{:.{n}f} [{:.{n}f}, {:.{n}f}]".format(*shown, n=min(spec.digits, 2)))
    return cells


if __name__ == "__main__":
    raise SystemExit(main())
