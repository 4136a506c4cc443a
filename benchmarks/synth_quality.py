#!/usr/bin/env python
"""How well the model hears what it sees: the quality table on held-out BiAudio-Synth clips.

    python -m bi_audio_dataset synth --clips 240 --seed 1000 --held-out --output data/heldout
    python benchmarks/synth_quality.py --dataset data/heldout --output runs/quality

For every clip of the dataset's test split the sound is made from its MP4 alone (no prompt, unknown lens, one
fixed seed, the first and only sample); nothing is left out. Sounds are kept under --output, so an interrupted
run goes on where it stopped. Writes report.json, table.md and plots/*.png there.

The sound classifier was trained on renders of the training split (never on model or codec output) with
`python -m visaudio.evaluation.classifier --dataset DIR --output FILE`; its weights are the package's own.
"""

from __future__ import annotations

import argparse
import functools
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bi_audio_dataset import media
from bi_audio_dataset.schema import UserError
from visaudio import hub
from visaudio.cli.common import seed_number
from visaudio.data.dataset import Clip, open_dataset, read_clip
from visaudio.evaluation import classifier as classifiers
from visaudio.evaluation import synth_outputs, synth_report
from visaudio.evaluation.figures import plot_clip
from visaudio.evaluation.synth_benchmark import ANALYSIS_RATE_HZ, GROUPS, derangement, groups_of
from visaudio.model_card import weights_digest

HERE = Path(__file__).resolve().parent
MARKS = ("<!-- synth_quality: begin -->", "<!-- synth_quality: end -->")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    try:
        run(options, list(sys.argv[1:] if arguments is None else arguments))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--dataset", type=Path, required=True, help="a BiAudio-Synth folder; its test split is used")
    add("--model", default=hub.DEFAULT_MODEL, help="packaged name, model folder or Hub repository")
    add("--output", type=Path, required=True, help="folder for sounds, report.json, table.md and plots")
    add("--limit", type=int, help="only the first N clips (for a quick look)")
    add("--workers", type=int, default=2, help="processes of one thread each (default: 2)")
    add("--batch", type=int, default=4, help="clips sampled together (default: 4)")
    add(
        "--seed",
        type=seed_number,
        default=0,
        help="of the noise; each clip's is drawn from it and the clip's id",
    )
    add("--mirror-clips", type=int, default=60, help="gated clips for the mirror tests (default: 60)")
    add("--shuffled-clips", type=int, help="gated clips to shuffle (default: all of them)")
    add("--classifier", type=Path, default=classifiers.PACKAGED)
    add("--plots", type=int, default=6, help="clips to draw (default: 6; needs matplotlib)")
    add("--write-to", type=Path, help="a Markdown file whose marked part the table replaces")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace, arguments: list[str]) -> None:
    clips, groups = unpack(options)
    ids = list(clips)
    if not groups["gated"]:
        raise UserError(f"{options.dataset}: no clip of one visible source among {len(ids)}")
    identity = check_identity(options)
    gated = groups["gated"]
    # between gated clips: only their rows show what shuffled conditions give
    shuffled = evenly(gated, options.shuffled_clips)
    partners = {name: shuffled[k] for name, k in zip(shuffled, derangement(len(shuffled)), strict=True)}
    mirror_ids = evenly(gated, options.mirror_clips)

    jobs = synth_outputs.plan_jobs(ids, partners, mirror_ids, options.batch)
    durations_s = {name: clip.duration_s for name, clip in clips.items()}
    load = functools.partial(hub.load_pretrained, options.model)
    work = synth_outputs.Work(options.output, load, options.seed, durations_s)
    with tqdm(total=sum(len(job.ids) for job in jobs), desc="sounds", unit="sound", smoothing=0.1) as bar:
        synth_outputs.run_jobs(jobs, work, options.workers, bar.update)

    wanted = [(system, i) for system in ("truth", "codec", "model") for i in ids]
    wanted += [("mono", i) for i in gated] + [("shuffled", i) for i in partners]
    wanted += [(system, i) for system in ("flipped", "noise_swapped") for i in mirror_ids]
    with tqdm(total=len(wanted), desc="scores", unit="sound", smoothing=0.1) as bar:
        heard = synth_report.hear_sounds(
            options.output, wanted, durations_s, options.classifier, options.workers, bar.update
        )
    figures = synth_report.report(clips, groups, heard, partners, mirror_ids)
    figures["made"] = identity | {"command": shown_command(arguments), "commit": commit()}
    (options.output / "report.json").write_text(json.dumps(figures, indent=1) + "\n")
    table = header(figures["made"]) + synth_report.markdown(figures)
    (options.output / "table.md").write_text(table)
    if options.write_to:
        replace_part(options.write_to, table)
    draw(options, clips, gated, groups)
    print(table)


def unpack(options: argparse.Namespace) -> tuple[dict[str, Clip], dict[str, list[str]]]:
    """Clips by id and ids by group; the media go to --output as plain files."""
    table = open_dataset(options.dataset, ["test"])
    count = len(table) if options.limit is None else min(options.limit, len(table))
    clips: dict[str, Clip] = {}
    groups: dict[str, list[str]] = {name: [] for name in GROUPS}
    for index in range(count):
        row = table[index]
        clip = read_clip(row)
        if not clip.sources:
            raise UserError(f"{options.dataset}: clip {clip.id} has no ground truth")
        camera = np.array([row["camera"][f"{angle}_deg"] for angle in ("yaw", "pitch", "roll")])
        synth_outputs.write_media(options.output, clip.id, row["video"]["bytes"], row["audio"]["bytes"])
        clips[clip.id] = clip
        for name in groups_of(clip, camera):
            groups[name].append(clip.id)
    if not clips:
        raise UserError(f"{options.dataset}: no clip in its test split")
    return clips, groups


def evenly(names: list[str], count: int | None) -> list[str]:
    """`count` of the names, spread over them; all if count is None or larger."""
    count = len(names) if count is None else min(count, len(names))
    return [names[k] for k in np.unique(np.linspace(0, len(names) - 1, count).astype(int))]


def check_identity(options: argparse.Namespace) -> dict:
    """What the sounds in --output are made from. UserError if those there are of something else."""
    digest = weights_digest(hub.find_model(options.model))
    identity = {"model": str(options.model), "weights_sha256": digest, "seed": options.seed}
    path = options.output / "made.json"
    if path.is_file() and (old := json.loads(path.read_text())) != identity:
        raise UserError(f"{options.output} holds sounds of {old}, not of {identity}: give another --output")
    path.write_text(json.dumps(identity) + "\n")
    return identity


def shown_command(arguments: Sequence[str]) -> str:
    """The command as typed, less where this machine keeps its folders."""
    short = [Path(a).name if Path(a).is_absolute() else a for a in arguments]
    return shlex.join(["python", "benchmarks/synth_quality.py", *short])


def commit() -> str:
    try:
        command = ["git", "rev-parse", "--short", "HEAD"]
        return subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def header(made: dict) -> str:
    name = Path(made["model"]).name
    return (
        f"`{made['command']}` at commit `{made['commit']}`; model `{name}`, "
        f"weights `{made['weights_sha256']}`, seed {made['seed']}.\n\n"
    )


def replace_part(path: Path, table: str) -> None:
    """Puts the table between the marks of a Markdown file."""
    text = path.read_text() if path.is_file() else ""
    if not all(mark in text for mark in MARKS):
        raise UserError(f"{path}: holds no {MARKS[0]} ... {MARKS[1]}")
    before, after = text.split(MARKS[0])[0], text.split(MARKS[1])[1]
    path.write_text(f"{before}{MARKS[0]}\n{table}{MARKS[1]}{after}")


def draw(options: argparse.Namespace, clips: dict[str, Clip], gated: list[str], groups: dict) -> None:
    """Plots of the first gated clips that move, then of others: chosen before anything was heard."""
    moving = groups["camera_only"][: options.plots // 3]
    rest = [i for i in gated + groups["several"][:1] if i not in moving]
    for name in (moving + rest)[: options.plots]:
        sounds = {
            label: media.read_audio(synth_outputs.sound_path(options.output, system, name), ANALYSIS_RATE_HZ)[
                0
            ]
            for system, label in (("truth", "truth"), ("codec", "codec"), ("model", "model"))
        }
        try:
            plot_clip(options.output / "plots" / f"{name}.png", clips[name], sounds, ANALYSIS_RATE_HZ)
        except ModuleNotFoundError as error:
            print(f"no plots: {error} (pip install matplotlib)", file=sys.stderr)
            return


if __name__ == "__main__":
    raise SystemExit(main())
