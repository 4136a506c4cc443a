"""python -m visaudio.data.features: a dataset's clips through the frozen parts, into a features folder.

Models and their libraries are loaded after the command line and the dataset have been looked at.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bi_audio_dataset.schema import UserError
from visaudio.cli.common import Parser, guard, positive_int

if TYPE_CHECKING:
    from visaudio.data.parts import Parts
    from visaudio.presets import Preset

#: Between processes, at the start alone: one may have to fetch weights that another has.
START_TIMEOUT = timedelta(hours=2)
EPILOG = """\
On several processes: accelerate launch --num_processes N -m visaudio.data.features ..., or torchrun, on one
machine or on several that share the folder. On CPUs torchrun, with ACCELERATE_USE_CPU=true: accelerate launch
--cpu starts one process. Stopped at any time, the same command goes on; finished shards stay.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    return guard(lambda: run(options))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m visaudio.data.features",
        description="Encode the clips of a dataset, and their mirror images, for training.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--dataset", required=True, metavar="DIR_OR_REPO", help="BiAudio folder or Hub repository")
    add("--output", required=True, type=Path, metavar="DIR", help="features folder")
    add(
        "--preset",
        default="tiny",
        metavar="NAME",
        help="small, medium, large: with their published parts; tiny, a model folder or a Hub "
        "repository: with the parts of that model (default: tiny)",
    )
    add("--config", type=Path, metavar="FILE", help="a training's YAML (configs/), in place of --preset")
    add(
        "--weights",
        action="append",
        default=[],
        type=_part,
        metavar="PART=FILE",
        help="take a part (codec, clip, synchformer, spatial) from another file, or from another model's "
        "folder; may be repeated",
    )
    add("--splits", metavar="a,b", help="rows of these splits alone (default: all)")
    add("--batch-size", type=positive_int, default=8, help="clips encoded at once (default: 8)")
    add("--workers", type=_count, default=2, help="decoding processes beside each process (default: 2)")
    add(
        "--precision",
        choices=("auto", "bf16", "fp32"),
        default="auto",
        help="of the picture towers (default: bf16 where the machine is fast at it)",
    )
    return parser


def _part(text: str) -> tuple[str, str]:
    part, equals, source = text.partition("=")
    if not (part and equals and source):
        raise argparse.ArgumentTypeError(f"expected PART=FILE, got '{text}'")
    return part, source


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, got {text}")
    return value


def run(options: argparse.Namespace) -> int:
    from visaudio.data.dataset import check_location

    check_location(options.dataset)
    from visaudio.data.features import extract_features, processes
    from visaudio.precision import use_bf16
    from visaudio.training.memory import keep_freed_memory

    keep_freed_memory()  # on a CPU: half the time of a batch of clips
    processes(timeout=START_TIMEOUT)
    parts = load(options.preset, options.config, dict(options.weights))
    parts.bf16 = use_bf16(options.precision)
    done = extract_features(
        options.dataset,
        options.output,
        parts,
        splits=options.splits.split(",") if options.splits else None,
        batch_size=options.batch_size,
        workers=options.workers,
    )
    if done.clips:
        print(
            f"{done.clips} clips in {done.seconds:.0f} s ({done.clips / done.seconds:.2f} a second), "
            f"{100 * done.waited_s / done.seconds:.0f} % of them waiting for decoded clips",
            file=sys.stderr,
        )
    return 0


def load(preset: str, config: Path | None = None, weights: Mapping[str, str] | None = None) -> Parts:
    """The frozen parts of a preset, a model or a training's configuration, on the CPU.

    weights: part -> another source of it. Raises UserError where a part is not to be had.
    """
    from visaudio.data.parts import Parts
    from visaudio.hub import load_pretrained, packaged_models
    from visaudio.presets import PRESETS, get_preset
    from visaudio.training.recipe import load_train_config

    weights = dict(weights or {})
    if config is None and (preset in packaged_models() or preset not in PRESETS):
        model = load_pretrained(preset, overrides=weights)
        sequence = model.preset.sequence
        return Parts(model.codec, model.clip, model.synchformer, sequence, spatial=model.spatial)
    if config is None:
        return _published(get_preset(preset), weights, Path(preset))
    settings = load_train_config(config)
    return _published(settings.model, weights, settings.folder)


def _published(model: Preset, weights: Mapping[str, str], root: Path) -> Parts:
    """The parts that a preset's configs name, or that the training below `root` has made."""
    from visaudio.data.parts import Parts
    from visaudio.training.parts import FROZEN, load_parts, load_spatial

    changed: dict[str, Any] = {}
    for part, source in weights.items():
        own = getattr(model, part) if part in (*FROZEN, "spatial") else None
        if not hasattr(own, "weights"):
            raise UserError(
                f"{part}={source}: this preset has no {part} that takes a file; give a model folder "
                "by --preset"
            )
        changed[part] = replace(own, weights=source)
    model = replace(model, **changed)
    return Parts(*load_parts(model, root), model.sequence, spatial=load_spatial(model))
