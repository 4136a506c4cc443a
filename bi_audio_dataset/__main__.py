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
from pathlib import Path

from bi_audio_dataset import build_command
from bi_audio_dataset.arguments import Parser, add_running, not_negative, positive
from bi_audio_dataset.schema import BENCHMARK_CLIPS, BENCHMARK_SEED, UserError

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
    number = synth.add_mutually_exclusive_group(required=True)
    number.add_argument("--clips", type=positive, metavar="N", help="number of clips")
    number.add_argument(
        "--benchmark",
        action="store_true",
        help=f"the BiAudio-Synth benchmark: {BENCHMARK_CLIPS} held-out scenes of seed {BENCHMARK_SEED}, "
        "the same for everyone, that systems are scored on",
    )
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

    recorded = commands.add_parser(
        "build", help="build clips of recordings: 360-degree video, or ready pairs"
    )
    build_command.add_options(recorded)
    _shared(recorded)
    recorded.set_defaults(run=_build, seed=None)  # a seed may stand in --config
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
    parser.add_argument("--seed", type=not_negative, default=0)
    parser.add_argument(
        "--review", action="store_true", help="leave the clips for caption, review and finalize"
    )
    add_running(parser)


def _synth(options: argparse.Namespace) -> int:
    from bi_audio_dataset.build_config import BuildConfig
    from bi_audio_dataset.sources.synthetic.source import SyntheticSource

    if options.benchmark:
        _settle_benchmark(options)
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


def _settle_benchmark(options: argparse.Namespace) -> None:
    """The benchmark's own scenes. UserError for flags that would make others of them."""
    for name, value in (("seed", options.seed), ("sounds", options.sounds), ("sprites", options.sprites)):
        if value:
            raise UserError(f"--benchmark is the same for everyone: leave out --{name}, or give --clips N")
    options.clips, options.seed, options.held_out = BENCHMARK_CLIPS, BENCHMARK_SEED, True


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
    _settle_paths(options, "folder", "lists")
    config = build_command.config_of(options)
    source = build_command.source_of(options)
    if options.dry_run:
        from bi_audio_dataset.forecast import forecast

        if options.retry:
            raise UserError("--dry-run knows nothing of --retry: `status` names the recordings it would try")
        workers, finalize = options.workers or 1, not options.review
        lines = forecast(source, config, options.output, workers, options.any_version, finalize)
        print("\n".join(lines))
        return 0
    return _run(source, options, config, finalize=not options.review, retry=options.retry)


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
