"""`accelerate launch train.py`, `python train.py`, `visaudio-train`: train a model from nothing."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bi_audio_dataset.schema import UserError, reason_of
from visaudio.cli.common import Parser

EPILOG = """\
With no arguments: makes a BiAudio-Synth set and trains the tiny preset on it, below runs/tiny, within
four hours on two CPU cores. Run again, it goes on where it stopped. key=value sets one value, for example
flow.loop.steps=500, model.network.inter_ear_attention=false or data.path=FOLDER; --show-config lists them
all.
"""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="train.py", description=__doc__, epilog=EPILOG)
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="values on top of the configuration"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML on top of the defaults (configs/)")
    parser.add_argument(
        "--stages", metavar="a,b", help="only these: data,codec,clip,synchformer,features,flow,export"
    )
    parser.add_argument("--adopt", action="store_true", help="take stages that were made with other settings")
    parser.add_argument("--show-config", action="store_true", help="print the resolved configuration and end")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and end")
    return parser.parse_intermixed_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 a mistake of the user (one line on stderr), 130 stopped by a signal."""
    options = parse(arguments)
    try:
        return run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        if not could_not_write(error):
            raise
        print(f"error: a file cannot be written ({reason_of(error)})", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130


def could_not_write(error: Exception) -> bool:
    """Whether it is what safetensors and torch make of a full disk, where Python has OSError."""
    said = str(error)
    if type(error).__name__ == "SafetensorError":
        return "I/O error" in said
    return isinstance(error, RuntimeError) and ("inline_container" in said or "PytorchStreamWriter" in said)


def run(options: argparse.Namespace) -> int:
    # Imported here: --help and mistakes on the command line should not wait for torch.
    import torch

    from visaudio.config import to_dict
    from visaudio.training.checks import check_dataset, check_flow, check_tools, check_weights
    from visaudio.training.full_run import plan, synthetic_splits
    from visaudio.training.memory import keep_freed_memory
    from visaudio.training.progress import say
    from visaudio.training.push import check_wanted
    from visaudio.training.recipe import load_train_config

    keep_freed_memory()
    config = load_train_config(options.config, options.overrides)
    if options.show_config:
        print(json.dumps(to_dict(config), indent=1))
        return 0
    stages = plan(config)
    chosen = stages.select(options.stages.split(",") if options.stages else None)
    stages.check(chosen, options.adopt)
    unfinished = [stage.name for stage in chosen if not stages.finished(stage.name)]
    check_dataset(config, unfinished)
    names = [stage.name for stage in chosen]
    if "flow" in names:
        check_flow(config, unfinished, synthetic_splits(config))
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if not options.dry_run:
        if "flow" in names:
            check_tools(config)
        check_wanted(config.hub, names)
        if not several:  # else once on each machine, while the others are told to wait
            check_weights(config, unfinished)
    set_threads(config.threads)
    first = int(os.environ.get("RANK", "0")) == 0
    if not options.dry_run:
        try:
            config.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"output={config.folder} cannot be made a folder ({error.strerror or error})"
            ) from error
        if first:
            (config.folder / "config.json").write_text(json.dumps(to_dict(config), indent=1) + "\n")
    if first:
        device = (
            torch.cuda.get_device_name()
            if torch.cuda.is_available()
            else f"CPU, {torch.get_num_threads()} threads"
        )
        say(f"training {config.preset} into {config.folder} ({device})")
        stages.show(chosen)
    if options.dry_run:
        return 0
    if not stages.execute(chosen, partial(check_weights, config, unfinished) if several else None):
        return 130
    if first and chosen[-1].name == "export":
        say(f"done: python sample.py --video x.mp4 --variant {config.folder / 'model'}")
    return 0


def set_threads(threads: int) -> None:
    """CPU threads of this process. `accelerate launch` puts OMP_NUM_THREADS=1 into a single process,
    which would leave all cores but one idle; without a number asked for, that one case is set right.
    """
    import torch

    environment = os.environ
    launched_alone = "ACCELERATE_MIXED_PRECISION" in environment and environment.get("WORLD_SIZE", "1") == "1"
    if threads == 0 and launched_alone and environment.get("OMP_NUM_THREADS") == "1":
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads > 0:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    raise SystemExit(main())
