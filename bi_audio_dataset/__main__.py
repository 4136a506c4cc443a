"""Command line: python -m bi_audio_dataset COMMAND. A mistake gives one line and exit 2.

synth, build        make clips
caption, review     what models and people say about them (captioning.py, review/)
status, filter      what is there, and what finalize would leave out
finalize            the dataset of it; validate checks one, card describes it, upgrade renews an older one
push, publish       to the Hub, or as a recipe without media; rebuild (build --recipe) makes a recipe's clips
remove              takes clips out again, for good
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from bi_audio_dataset.arguments import Parser, add_running, positive
from bi_audio_dataset.schema import UserError

# commands with a parser of their own: module that has main(argv)
_OTHERS = {
    "caption": ("bi_audio_dataset.captioning", "caption clips by models, or from a file of your own"),
    "review": ("bi_audio_dataset.review", "judge clips one by one on a local page"),
    "card": ("bi_audio_dataset.card_command", "write a finished dataset's card anew"),
    "upgrade": ("bi_audio_dataset.upgrade", "rewrite a dataset of an older schema version"),
    "push": ("bi_audio_dataset.push", "upload a finished dataset to the Hugging Face Hub"),
    "publish": ("bi_audio_dataset.publish", "write a dataset's recipe, which holds no media"),
    "rebuild": ("bi_audio_dataset.rebuild", "make the clips of a recipe again out of its recordings"),
    "remove": ("bi_audio_dataset.remove", "take clips out of a finished dataset, and keep them out"),
}
_SIZE_HELP = "pixels of a view, even sides (default: 256x144)"


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if arguments and arguments[0] in _OTHERS:
            return importlib.import_module(_OTHERS[arguments[0]][0]).main(arguments[1:])
        if arguments[:1] == ["build"] and any(a.split("=")[0] == "--recipe" for a in arguments):
            return importlib.import_module(_OTHERS["rebuild"][0]).main(arguments[1:])
        options = _parser().parse_args(arguments)
        return options.run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        where = f"'{error.filename}': " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted: run the same command again to go on from here", file=sys.stderr)
        return 130
    return 2


def _parser() -> argparse.ArgumentParser:
    """All commands; of those with a parser of their own, a place that takes whatever follows."""
    parser = Parser(prog="python -m bi_audio_dataset", description="Build and check BiAudio datasets.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)

    synth = commands.add_parser("synth", help="render procedural 360-degree scenes and build clips of them")
    synth.add_argument("--clips", type=positive, required=True, metavar="N", help="number of clips")
    synth.add_argument(
        "--sounds", type=Path, metavar="DIR", help="folder of sounds, instead of procedural ones"
    )
    synth.add_argument(
        "--sprites", type=Path, metavar="DIR", help="folder of sprites, instead of procedural ones"
    )
    synth.add_argument(
        "--held-out",
        action="store_true",
        help="backgrounds, sprites and sounds that no other set holds; split test",
    )
    _shared(synth)
    synth.set_defaults(run=_synth)

    _add_build(
        commands.add_parser("build", help="build clips of recordings: 360-degree video, or ready pairs")
    )
    for name, (_, words) in _OTHERS.items():
        other = commands.add_parser(name, help=words, add_help=False)
        other.add_argument("rest", nargs=argparse.REMAINDER)

    counts = commands.add_parser("status", help="how far a build is, and what it has left out")
    counts.add_argument("folder", type=Path)
    counts.add_argument("--all", action="store_true", help="name all recordings in quarantine, not 20")
    counts.set_defaults(run=_status)
    ahead = commands.add_parser("filter", help="what finalize would leave out, without writing anything")
    _add_decisions(ahead)
    ahead.set_defaults(run=_filter)
    final = commands.add_parser("finalize", help="make the dataset of clips that were made with --review")
    _add_decisions(final)
    final.add_argument("--keep", action="store_true", help="keep the clips for another finalize")
    _add_any_version(final)
    final.set_defaults(run=_finalize)

    check = commands.add_parser("validate", help="check a dataset: columns, media, truth, splits")
    check.add_argument("folder", type=Path)
    check.add_argument("--quick", action="store_true", help="do not decode video and audio")
    check.set_defaults(run=_validate)
    return parser


def _add_build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="where the recordings lie")
    parser.add_argument(
        "--source",
        choices=("folder", "sphere360", "fairplay", "perspective"),
        default="folder",
        help="folder: 360-degree videos with ambisonics (default); sphere360, fairplay: those corpora; "
        "perspective: videos that have their binaural or stereo sound",
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
    parser.add_argument("--sound", help="perspective: binaural (default) or stereo")
    parser.add_argument(
        "--hfov-deg", type=float, metavar="DEG", help="fairplay, perspective: the lens, if known"
    )
    parser.add_argument(
        "--clip-s", type=float, default=8.0, help="seconds of a clip, 0.5 to 600 (default: 8)"
    )
    parser.add_argument("--size", type=_size, default=(256, 144), metavar="WxH", help=_SIZE_HELP)
    parser.add_argument(
        "--views", type=positive, default=1, metavar="N", help="views of each window (default: 1)"
    )
    parser.add_argument("--sofa", metavar="FILE", help="HRIR set (default: spherical-head model)")
    parser.add_argument(
        "--denoiser", metavar="NAME", help="wiener, or package.module:function (default: none)"
    )
    for action, words in (
        ("reject", "drop clips that this filter finds"),
        ("mark", "keep them and say so"),
        ("off", "do not look"),
    ):
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
    _shared(parser)
    parser.set_defaults(run=_build)


def _add_decisions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--decisions",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="of another reviewer, beside DIR/decisions.jsonl; may be repeated",
    )
    parser.add_argument(
        "--removals",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="another removal list, beside DIR/removals.jsonl; may be repeated",
    )


def _add_any_version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--any-version", action="store_true", help="go on though other versions of the libraries began DIR"
    )


def _shared(parser: argparse.ArgumentParser) -> None:
    _add_any_version(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seed", type=_not_negative, default=0)
    parser.add_argument(
        "--review", action="store_true", help="leave the clips for caption, review and finalize"
    )
    add_running(parser)


def _not_negative(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {value}")
    return value


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"expected WxH, such as 640x360, got '{text}'")
    size = int(width), int(height)
    if any(side < 16 or side % 2 for side in size):
        raise argparse.ArgumentTypeError(f"sides must be even and at least 16, got {text}")
    return size


def _synth(options: argparse.Namespace) -> int:
    from bi_audio_dataset.build import BuildConfig
    from bi_audio_dataset.sources.synthetic.source import SyntheticSource

    _settle_paths(options, "sounds", "sprites")
    settings = {
        "seed": options.seed,
        "held_out": options.held_out,
        "sounds": _listing(options.sounds),
        "sprites": _listing(options.sprites),
    }
    source = SyntheticSource(
        clips=options.clips,
        seed=options.seed,
        sounds_dir=options.sounds,
        sprites_dir=options.sprites,
        held_out=options.held_out,
    )
    config = BuildConfig(seed=options.seed)
    return _run(source, options, config, settings, finalize=not options.review)


def _settle_paths(options: argparse.Namespace, *names: str) -> None:
    """On a Ray cluster each worker has a working directory of its own: relative paths become absolute."""
    if options.executor == "ray":
        for name in names:
            value = getattr(options, name)
            setattr(options, name, value and type(value)(Path(value).absolute()))


def _listing(folder: Path | None) -> str:
    """Names and sizes of a folder's files as a digest: another folder makes another dataset."""
    if folder is None:
        return "procedural"
    if not folder.is_dir():
        raise UserError(f"'{folder}' is not a folder")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    text = "\n".join(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}" for path in files)
    return hashlib.sha256(text.encode()).hexdigest()


def _build(options: argparse.Namespace) -> int:
    from bi_audio_dataset.clip import AIM_FROM_HZ, CLIP_BOUNDS_S, BuildConfig

    low, high = CLIP_BOUNDS_S
    if not low <= options.clip_s <= high:
        raise UserError(f"--clip-s must be {low:g} to {high:g} seconds, got {options.clip_s:g}")
    _settle_paths(options, "folder", "lists", "sofa")
    source = _source(options)
    config = BuildConfig(
        seed=options.seed,
        clip_s=options.clip_s,
        width=options.size[0],
        height=options.size[1],
        views_per_recording=options.views,
        sofa=options.sofa,
        denoiser=options.denoiser,
        aim_from_hz=AIM_FROM_HZ,
        selection=_selection(options),
    )
    if options.dry_run:
        from bi_audio_dataset.forecast import forecast

        print("\n".join(forecast(source, config, options.output, options.workers or 1, options.any_version)))
        return 0
    return _run(source, options, config, finalize=not options.review, retry=options.retry)


def _selection(options: argparse.Namespace):
    from bi_audio_dataset.filters import SelectionConfig

    selection = SelectionConfig()
    if options.source == "fairplay":  # its published splits stay as they are, though scenes recur in them
        selection = replace(selection, duplicate=replace(selection.duplicate, keep_together=False))
    actions = {"not_equirectangular": "mark"} if options.trust_picture else {}
    for action in ("reject", "mark", "off"):
        for name in getattr(options, action):
            if actions.setdefault(name, action) != action:
                raise UserError(f"filter '{name}' is given both --{actions[name]} and --{action}: choose one")
    return selection.with_actions(actions)


def _source(options: argparse.Namespace):
    """The source that --source names. UserError for a flag that is about another one."""
    given = {
        "licence": options.licence,
        "provenance": options.provenance,
        "channels": options.channels,
        "trust_picture": options.trust_picture,
        "lists": options.lists,
        "number": options.fairplay_split,
        "sound": options.sound,
        "hfov_deg": options.hfov_deg,
    }
    given = {name: value for name, value in given.items() if value is not None}
    module, name = {
        "folder": ("folder", "FolderSource"),
        "sphere360": ("sphere360", "Sphere360Source"),
        "fairplay": ("fairplay", "FairPlaySource"),
        "perspective": ("perspective", "PerspectiveSource"),
    }[options.source]
    source = getattr(importlib.import_module(f"bi_audio_dataset.sources.{module}"), name)
    known = {field.name for field in fields(source)}
    for flag in given:
        if flag not in known:
            shown = {"number": "--fairplay-split"}.get(flag, f"--{flag.replace('_', '-')}")
            raise UserError(f"{shown} is not for --source {options.source}: leave it out")
    return source(options.folder, **given)


def _run(
    source,
    options: argparse.Namespace,
    config,
    settings: dict | None = None,
    finalize: bool = True,
    retry: bool = False,
) -> int:
    from bi_audio_dataset.build import build
    from bi_audio_dataset.executors import choose
    from bi_audio_dataset.retry import already_complete

    executor = choose(options.executor, options.workers, options.address)
    result = build(
        source,
        options.output,
        config,
        settings=settings,
        finalize=finalize,
        executor=executor,
        parts=options.parts,
        retry_quarantined=retry,
        any_version=options.any_version,
    )
    if result.already_complete:
        print(already_complete(options.output, len(result.skipped), retry))
        return 2 if retry and result.skipped else 0
    for problem in result.problems:
        print(problem, file=sys.stderr)
    if result.figures is None:
        print(f"{options.output}: {result.waiting} clips wait for caption, review and finalize")
        return _skipped(result.skipped)
    clips = ", ".join(f"{count} {split}" for split, count in sorted(result.figures.clips.items()))
    print(f"{options.output}: {clips} clips, {result.figures.seconds / 3600:.2f} h")
    return _skipped(result.skipped)


def _skipped(skipped: dict[str, str]) -> int:
    if not skipped:
        return 0
    print(f"error: {len(skipped)} recordings skipped: {', '.join(skipped)}", file=sys.stderr)
    return 2


def _status(options: argparse.Namespace) -> int:
    from bi_audio_dataset.status import NAMED, status

    print("\n".join(status(options.folder, None if options.all else NAMED)))
    return 0


def _filter(options: argparse.Namespace) -> int:
    return _finalize(options, write=False)


def _finalize(options: argparse.Namespace, write: bool = True) -> int:
    from bi_audio_dataset.finalize import finalize
    from bi_audio_dataset.status import report

    done = finalize(
        options.folder,
        options.decisions,
        keep=write and options.keep,
        write=write,
        more_removals=options.removals,
        progress=sys.stderr.isatty(),
        any_version=write and options.any_version,
    )
    for problem in done.problems:
        print(problem, file=sys.stderr)
    for note in done.notes:
        print(note)
    print("\n".join(report(done.tally)))
    if done.figures is not None:
        clips = ", ".join(f"{count} {split}" for split, count in sorted(done.figures.clips.items()))
        print(f"{options.folder}: {clips} clips, {done.figures.bytes / 1e6:.1f} MB")
    return 2 if done.problems else 0


def _validate(options: argparse.Namespace) -> int:
    from bi_audio_dataset.validate import validate

    report = validate(options.folder, media=not options.quick, progress=sys.stderr.isatty())
    for problem in report.problems:
        print(problem, file=sys.stderr)
    print(report.summary())
    return 2 if report.problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
