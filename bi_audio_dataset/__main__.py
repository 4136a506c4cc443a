"""Command line: python -m bi_audio_dataset {synth,build,validate}. A mistake gives one line and exit 2."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from bi_audio_dataset.schema import UserError


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options) -> None:
        # a shortened flag that works today is ambiguous tomorrow
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        # argparse's own prints the usage first; one line is the rule here
        print(f"error: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
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
    parser = _Parser(prog="python -m bi_audio_dataset", description="Build and check BiAudio datasets.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    synth = commands.add_parser("synth", help="render procedural 360-degree scenes and build clips of them")
    synth.add_argument("--clips", type=_positive, required=True, metavar="N", help="number of clips")
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

    folder = commands.add_parser(
        "build", help="build clips of a folder of 360-degree videos with AmbiX audio"
    )
    folder.add_argument(
        "folder", type=Path, help="NAME.mp4 with a 4-channel track, or NAME.flac / NAME.wav beside"
    )
    folder.add_argument("--licence", default="unknown", help="recorded in each row (default: unknown)")
    folder.add_argument("--provenance", default="", help="recorded in each row, beside the file's name")
    folder.add_argument("--clip-s", type=float, default=8.0, help="length of a clip in seconds (default: 8)")
    folder.add_argument("--sofa", metavar="FILE", help="HRIR set (default: spherical-head model)")
    _shared(folder)
    folder.set_defaults(run=_build)

    check = commands.add_parser("validate", help="check a dataset: columns, media, truth, splits")
    check.add_argument("folder", type=Path)
    check.add_argument("--quick", action="store_true", help="do not decode video and audio")
    check.set_defaults(run=_validate)
    return parser


def _shared(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seed", type=_not_negative, default=0)
    parser.add_argument("--workers", type=_positive, default=1, metavar="N", help="processes (default: 1)")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def _not_negative(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {value}")
    return value


def _synth(options: argparse.Namespace) -> int:
    from bi_audio_dataset.build import BuildConfig
    from bi_audio_dataset.sources.synthetic.source import SyntheticSource

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
    return _run(source, options, BuildConfig(seed=options.seed), settings)


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
    from bi_audio_dataset.build import BuildConfig
    from bi_audio_dataset.sources.folder import FolderSource

    if not options.clip_s > 0:
        raise UserError(f"--clip-s must be positive, got {options.clip_s:g}")
    source = FolderSource(options.folder, licence=options.licence, provenance=options.provenance)
    return _run(source, options, BuildConfig(seed=options.seed, clip_s=options.clip_s, sofa=options.sofa))


def _run(source, options: argparse.Namespace, config, settings: dict | None = None) -> int:
    from bi_audio_dataset.build import build

    result = build(source, options.output, config, workers=options.workers, settings=settings)
    if result.figures is None:
        print(f"{options.output}: already complete, nothing to do")
        return 0
    clips = ", ".join(f"{count} {split}" for split, count in sorted(result.figures.clips.items()))
    print(f"{options.output}: {clips} clips, {result.figures.seconds / 3600:.2f} h")
    if result.skipped:
        print(
            f"error: {len(result.skipped)} recordings skipped: {', '.join(result.skipped)}", file=sys.stderr
        )
        return 2
    return 0


def _validate(options: argparse.Namespace) -> int:
    from bi_audio_dataset.validate import validate

    report = validate(options.folder, media=not options.quick, progress=sys.stderr.isatty())
    for problem in report.problems:
        print(problem, file=sys.stderr)
    print(report.summary())
    return 2 if report.problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
