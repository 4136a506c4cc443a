"""`python -m bi_audio_dataset build`: its flags, and the source and the config that they name.

Settings come from three places, each before the last: the defaults for recordings
(BuildConfig.of_recordings), the file of --config, the command line. On the command line each setting has one
place: its flag, or --set.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bi_audio_dataset import settings
from bi_audio_dataset.arguments import positive
from bi_audio_dataset.schema import UserError

if TYPE_CHECKING:
    from bi_audio_dataset.build_config import BuildConfig
    from bi_audio_dataset.sources.base import Source

#: --source -> module and class, and whether its recordings are panoramas.
SOURCES = {
    "folder": ("folder", "FolderSource", True),
    "sphere360": ("sphere360", "Sphere360Source", True),
    "fairplay": ("fairplay", "FairPlaySource", False),
    "perspective": ("perspective", "PerspectiveSource", False),
}
ACTIONS = (
    ("reject", "drop clips that this filter finds"),
    ("mark", "keep them and say so"),
    ("off", "do not look"),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """What `build` takes beside what it shares with `synth`."""
    parser.add_argument("folder", type=Path, help="where the recordings lie")
    parser.add_argument(
        "--source",
        choices=tuple(SOURCES),
        default="folder",
        help="folder: 360-degree videos with ambisonics (default); sphere360, fairplay: those corpora; "
        "perspective: ordinary videos with binaural, stereo or mono sound",
    )
    parser.add_argument("--licence", help="recorded in each row (default: unknown)")
    parser.add_argument("--provenance", help="recorded in each row, beside the file's name")
    parser.add_argument("--channels", help="ambisonic order where no file states it: ambix, fuma, ...")
    parser.add_argument(
        "--trust-picture",
        action="store_true",
        default=None,
        help="take pictures that do not look like one whole 360-degree view",
    )
    parser.add_argument("--lists", type=Path, metavar="DIR", help="sphere360: folder of the split lists")
    parser.add_argument("--fairplay-split", type=positive, metavar="N", help="fairplay: 1 to 10 (default: 1)")
    parser.add_argument("--sound", help="perspective: binaural (default), stereo, or mono (both ears equal)")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="YAML file of any settings of the build (docs/dataset.md); what is given beside it wins",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="one setting, such as selection.silent.level_dbfs=-40; may be repeated",
    )
    parser.add_argument(
        "--hfov-deg",
        type=_lens,
        metavar="DEG",
        help="the lens: of 360-degree video what views get, 90 (default) or a range to draw from, such as "
        "50-110; fairplay, perspective: what the films were made with, if known",
    )
    parser.add_argument("--clip-s", type=float, metavar="S", help="length of a clip, 0.5 to 600 (default: 8)")
    parser.add_argument(
        "--size", type=_size, metavar="WxH", help="pixels of a view, even sides (default: 256x144)"
    )
    parser.add_argument("--views", type=positive, metavar="N", help="views of each window (default: 1)")
    parser.add_argument("--sofa", metavar="FILE", help="HRIR set (default: spherical-head model)")
    parser.add_argument(
        "--denoiser", metavar="NAME", help="wiener, or package.module:function (default: none)"
    )
    for action, words in ACTIONS:
        parser.add_argument(f"--{action}", action="append", default=[], metavar="FILTER", help=words)
    parser.add_argument(
        "--retry",
        action="store_true",
        help="of a finished dataset: try the recordings in quarantine again, and take them in",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument(
        "--recipe",
        metavar="FILE",
        help="make a recipe's clips of these recordings, which is the command rebuild: its options hold",
    )


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"expected WxH, such as 640x360, got '{text}'")
    size = int(width), int(height)
    if any(side < 16 or side % 2 for side in size):
        raise argparse.ArgumentTypeError(f"sides must be even and at least 16, got {text}")
    return size


def _lens(text: str) -> tuple[float, ...]:
    """One angle, or the least and the most, in degrees."""
    try:
        lens = tuple(float(part) for part in text.split("-", 1))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected degrees, such as 90 or 50-110, got '{text}'") from None
    if not (all(10 <= angle <= 170 for angle in lens) and lens[0] <= lens[-1]):
        raise argparse.ArgumentTypeError(f"expected 10 to 170 degrees, the lesser first, got '{text}'")
    return lens


# -------------------- source


def source_of(options: argparse.Namespace) -> Source:
    """The source that --source names. UserError for a flag that is about another one."""
    module, name, panoramas = SOURCES[options.source]
    given = {
        "licence": options.licence,
        "provenance": options.provenance,
        "channels": options.channels,
        "trust_picture": options.trust_picture,
        "lists": options.lists,
        "number": options.fairplay_split,
        "sound": options.sound,
    }
    if options.hfov_deg and not panoramas:  # of panoramas it is the config's: views have no lens of their own
        if len(options.hfov_deg) > 1:
            raise UserError(f"--source {options.source}: films have one lens, give --hfov-deg one number")
        given["hfov_deg"] = options.hfov_deg[0]
    given = {name: value for name, value in given.items() if value is not None}
    source = getattr(importlib.import_module(f"bi_audio_dataset.sources.{module}"), name)
    known = {field.name for field in fields(source)}
    for flag in given:
        if flag not in known:
            shown = {"number": "--fairplay-split"}.get(flag, f"--{flag.replace('_', '-')}")
            raise UserError(f"{shown} is not for --source {options.source}: leave it out")
    return source(options.folder, **given)


# -------------------- config


def config_of(options: argparse.Namespace) -> BuildConfig:
    """The settings that file and flags give. UserError where they contradict each other or do not fit."""
    from bi_audio_dataset.build_config import BuildConfig

    config = BuildConfig.of_recordings()
    selection = config.selection
    if options.source == "fairplay":  # its published splits stay as they are, though scenes recur in them
        selection = replace(selection, duplicate=replace(selection.duplicate, keep_together=False))
        config = replace(config, selection=selection)
    if options.config is not None:
        config = settings.overlay(config, settings.read_file(options.config), f"'{options.config}'")
    one_by_one = settings.read_set(options.set)
    flags, names = _flags(options)
    filters = selection.filters()
    for name in flags.get("selection", {}):
        if name not in filters:
            raise UserError(f"there is no filter '{name}', expected one of {', '.join(filters)}")
    for name in settings.leaves(one_by_one):
        if name in names:
            raise UserError(f"'{name}' is given both by --set and by {names[name]}: choose one")
    config = settings.overlay(config, one_by_one, "--set")
    config = settings.overlay(config, flags, "command line")
    if options.executor == "ray" and config.sofa:  # each worker has a working directory of its own
        config = replace(config, sofa=str(Path(config.sofa).absolute()))
    return config


def _flags(options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, str]]:
    """What flags set, as nested mappings, and the dotted names of these with the flag of each."""
    found: list[tuple[str, Any, str]] = [
        ("seed", options.seed, "--seed"),
        ("clip_s", options.clip_s, "--clip-s"),
        ("views_per_recording", options.views, "--views"),
        ("sofa", options.sofa, "--sofa"),
        ("denoiser", options.denoiser, "--denoiser"),
    ]
    if options.size is not None:
        found += [("width", options.size[0], "--size"), ("height", options.size[1], "--size")]
    if options.hfov_deg and SOURCES[options.source][2]:
        fixed = len(options.hfov_deg) == 1
        lens = ("hfov_fixed_deg", options.hfov_deg[0]) if fixed else ("hfov_range_deg", options.hfov_deg)
        found += [(*lens, "--hfov-deg"), ("hfov_fixed_probability", float(fixed), "--hfov-deg")]
    flags = {name: value for name, value, _ in found if value is not None}
    names = {name: flag for name, value, flag in found if value is not None}
    for name, (action, flag) in _actions(options).items():
        flags.setdefault("selection", {})[name] = {"action": action}
        names[f"selection.{name}.action"] = flag
    return flags, names


def _actions(options: argparse.Namespace) -> Mapping[str, tuple[str, str]]:
    """Filter -> its action, and the flag that gives it."""
    found: dict[str, tuple[str, str]] = {}
    for action, _ in ACTIONS:
        for name in getattr(options, action):
            other, flag = found.setdefault(name, (action, f"--{action}"))
            if other != action:
                raise UserError(f"filter '{name}' is given both {flag} and --{action}: choose one")
    return found
