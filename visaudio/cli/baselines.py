"""python -m visaudio.evaluation.baselines: baselines, the training of their head, other systems' outputs.

Models and their libraries are loaded after the command line has been looked at.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bi_audio_dataset.schema import INNER
from visaudio.cli.common import Parser, guard, positive, positive_int, seed_number
from visaudio.evaluation.baselines import NAMES

PROGRAM = "python -m visaudio.evaluation.baselines"
MONO_SOURCE = ("mono", "two-stage-truth", "two-stage-motion", "two-stage-learned")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    return guard(lambda: options.run(options))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog=PROGRAM, description="Baselines of the evaluation suite; see docs/evaluation.md.")
    commands = parser.add_subparsers(dest="system", required=True, metavar="NAME", parser_class=Parser)
    for name, what in NAMES.items():
        one = commands.add_parser(
            name, prog=f"{PROGRAM} {name}", help=what, description=what[0].upper() + what[1:]
        )
        one.set_defaults(run=_make)
        _add_common(one)
        _add_own(one, name)
    _add_training(commands)
    _add_import(commands)
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--dataset", required=True, metavar="DIR_OR_REPO", help="BiAudio folder or Hub repository")
    add("--split", default="test", metavar="NAME", help="default: test")
    add("--config", default="default", choices=("default", *INNER), help="of the dataset (default: default)")
    add("--output", required=True, type=Path, metavar="DIR", help="sounds go to DIR/NAME")
    add("--limit", type=positive_int, metavar="N", help="the first N clips by name alone")
    add("--workers", type=positive_int, default=1, metavar="N", help="processes (default: 1)")


def _add_own(parser: argparse.ArgumentParser, name: str) -> None:
    """What some of the baselines take."""
    from visaudio.evaluation.baselines.running import Request

    add = parser.add_argument
    add("--model", default=Request.model, metavar="DIR_OR_REPO", help=f"default: {Request.model}")
    add("--device", default=Request.device, metavar="NAME", help="of the model (default: cpu)")
    if name in MONO_SOURCE:
        add(
            "--sounds",
            type=Path,
            metavar="DIR",
            help="make it of these sounds, any system's, one file per clip (default: the model's own)",
        )
    if name != "codec":
        add("--seed", type=seed_number, default=Request.seed, metavar="N", help="of the noise (default: 0)")
        add(
            "--batch",
            type=positive_int,
            default=Request.batch,
            metavar="N",
            help="clips sampled at once (default: 4)",
        )
    if name in ("two-stage-truth", "two-stage-motion"):
        add(
            "--sofa",
            metavar="FILE",
            help="HRIRs the dataset was built with (default: spherical head)",
        )
    if name == "two-stage-motion":
        add(
            "--hfov_deg",
            type=positive,
            default=Request.hfov_deg,
            metavar="DEG",
            help="horizontal field of view assumed of every clip (default: 90)",
        )
    if name == "two-stage-learned":
        add("--spatialiser", type=Path, required=True, metavar="DIR", help="what train-spatialiser wrote")


def _make(options: argparse.Namespace) -> int:
    from visaudio.evaluation.baselines.running import Request, run

    given = {key: value for key, value in vars(options).items() if key != "run"}
    folder = run(Request(**given), _bar)
    print(folder)
    return 0


def _bar(what: str, total: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, desc=what, unit="clip", smoothing=0.05)


# -------------------- training of the head


def _add_training(commands) -> None:
    from visaudio.evaluation.baselines.head_settings import TrainConfig

    parser = commands.add_parser(
        "train-spatialiser",
        prog=f"{PROGRAM} train-spatialiser",
        help="train the head of two-stage-learned (minutes of one core)",
        description="Train the mono-to-binaural head on a dataset's training split.",
    )
    parser.set_defaults(run=_train)
    add = parser.add_argument
    add("--dataset", required=True, metavar="DIR_OR_REPO", help="BiAudio folder or Hub repository")
    add(
        "--features",
        required=True,
        type=Path,
        metavar="DIR",
        help="its features (visaudio.data.features)",
    )
    add(
        "--output",
        required=True,
        type=Path,
        metavar="DIR",
        help="for the head, and decoded sounds",
    )
    add(
        "--minutes", type=positive, default=TrainConfig.minutes, metavar="N", help="of the clock (default: 5)"
    )
    add("--steps", type=positive_int, metavar="N", help="so many steps, whatever the clock says")
    add("--clips", type=positive_int, default=TrainConfig.clips, metavar="N", help="at most (default: 4000)")
    add(
        "--batch-size",
        type=positive_int,
        default=TrainConfig.batch_size,
        metavar="N",
        help="crops (default: 16)",
    )
    add("--seed", type=seed_number, default=TrainConfig.seed, metavar="N")
    add("--threads", type=positive_int, default=1, metavar="N", help="of torch (default: 1)")


def _train(options: argparse.Namespace) -> int:
    import json

    import torch
    from tqdm import tqdm

    from visaudio.evaluation.baselines import head_training
    from visaudio.evaluation.baselines.head_settings import TrainConfig

    torch.set_num_threads(options.threads)
    names = ("minutes", "steps", "clips", "batch_size", "seed")
    settings = TrainConfig(**{name: getattr(options, name) for name in names})
    with tqdm(total=100, desc="spatialiser", unit="%", bar_format="{l_bar}{bar}| {elapsed}{postfix}") as bar:

        def progress(share: float, loss: float) -> None:
            bar.update(round(100 * share) - bar.n)
            bar.set_postfix(loss=f"{loss:.4f}")

        notes = head_training.run(options.dataset, options.features, options.output, settings, progress)
    print(json.dumps({key: notes[key] for key in ("clips", "steps", "parameters", "validation")}))
    return 0


# -------------------- other systems' outputs


def _add_import(commands) -> None:
    parser = commands.add_parser(
        "import",
        prog=f"{PROGRAM} import",
        help="other systems' outputs: file names, ambisonics, 5.1",
        description="Bring another system's sounds into a folder of two ears by clip.",
    )
    parser.set_defaults(run=_import)
    add = parser.add_argument
    add("--from", dest="folder", required=True, type=Path, metavar="DIR", help="its outputs")
    add("--output", required=True, type=Path, metavar="DIR", help="sounds go to DIR/NAME")
    add("--name", required=True, metavar="NAME", help="of the system")
    add("--pattern", default="**/{id}.*", metavar="GLOB", help="its file names (default: **/{id}.*)")
    add("--mapping", type=Path, metavar="CSV", help="columns file,id[,layout,yaw_deg], in place of --pattern")
    add("--layout", default="ears", metavar="NAME", help="ears (one or two channels, default), ambix, fuma, "
        "acn-n3d, ..., 5.1 (L R C LFE Ls Rs), 5.1-film (L C R Ls Rs LFE)")  # fmt: skip
    add(
        "--yaw_deg",
        type=float,
        default=0.0,
        metavar="DEG",
        help="ambix: camera's yaw in the field, to the left",
    )
    add(
        "--downmix",
        action="store_true",
        help="5.1: BS.775-3's matrix (default: through the head)",
    )
    add(
        "--dataset",
        metavar="DIR_OR_REPO",
        help="whose clips are wanted (default: all)",
    )
    add("--split", default="test", metavar="NAME", help="default: test")
    add("--config", default="default", choices=("default", *INNER), help="of the dataset (default: default)")
    add("--allow-missing", action="store_true", help="import what there is of the dataset's clips")
    add("--workers", type=positive_int, default=1, metavar="N", help="processes (default: 1)")


def _import(options: argparse.Namespace) -> int:
    from visaudio.evaluation.baselines import importing, sources
    from visaudio.evaluation.baselines.running import is_done, run_jobs
    from visaudio.evaluation.pairs import check_name

    check_name(options.name, f"--name '{options.name}'")
    ids = None
    if options.dataset:
        ids = sources.rows_of(options.dataset, options.split, options.config).ids
    plain = importing.Item(Path(), "", options.layout, options.yaw_deg)
    items, missing = importing.items_of(
        options.folder, ids, options.pattern, options.mapping, plain, options.allow_missing
    )
    notes = {item.id: importing.note_of(item, options.downmix) for item in items}
    todo = [item for item in items if not is_done(options.output, options.name, item.id, notes[item.id])]
    jobs = [(item, options.output, options.name, notes[item.id], options.downmix) for item in todo]
    done = len(items) - len(todo)
    run_jobs(importing.write_one, jobs, options.workers, _bar(options.name, len(items)), done)
    if missing:
        print(f"note: {len(missing)} clips have no file, the first is '{missing[0]}'", file=sys.stderr)
    print(options.output / options.name)
    return 0
