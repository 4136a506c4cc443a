"""python -m visaudio.evaluation.listen: a listening test on this machine, and what its answers come to."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from bi_audio_dataset.schema import UserError
from visaudio.cli.common import Parser, guard, positive_int, seed_number

EPILOG = """\
Folders as for python -m visaudio.evaluation: a file is of the clip it is named after. The page's address,
with a token in it, is printed; it answers on this machine alone. Each listener gets the same plan again and
goes on where they were. Answers are lines of JSON, appended one by one.
"""
ASKED = {"both": ("rating", "pair"), "ratings": ("rating",), "pairs": ("pair",)}


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    return guard(lambda: _summary(options) if options.summary else _listen(options))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m visaudio.evaluation.listen",
        description="Let people compare and rate generated binaural sounds, blind.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--systems", nargs="+", default=[], metavar="NAME=DIR", help="folders of sounds, one per system")
    add("--videos", type=Path, metavar="DIR", help="the clips' videos (default: the systems' own, if any)")
    add("--output", type=Path, metavar="FILE.jsonl", help="file that answers are appended to")
    add("--trials", type=positive_int, default=40, metavar="N", help="of each listener (default: 40)")
    add("--ask", choices=tuple(ASKED), default="both", help="what to ask for (default: half each)")
    add("--listener", metavar="ID", help="the only listener; without it, people give a name on the page")
    add("--seed", type=seed_number, default=0, metavar="N", help="of the plans (default: 0)")
    add("--port", type=_port, default=0, metavar="N", help="to answer on (default: a free one)")
    summary = parser.add_argument_group("afterwards")
    summary.add_argument(
        "--summary", type=Path, nargs="+", metavar="FILE.jsonl", help="print what answers come to; no page"
    )
    summary.add_argument("--json", type=Path, metavar="FILE", help="with --summary: the same numbers as JSON")
    return parser


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value < 65536:
        raise argparse.ArgumentTypeError(f"expected 0 to 65535, got {text}")
    return value


def _listen(options: argparse.Namespace) -> int:
    from visaudio.evaluation.listen import make_test
    from visaudio.evaluation.listening.server import ListeningServer
    from visaudio.evaluation.listening.session import Session

    if not options.systems or options.output is None or options.json is not None:
        raise UserError("give --systems and --output for a test, or --summary (and --json) for its answers")
    test = make_test(
        options.systems,
        options.output,
        options.videos,
        options.trials,
        options.seed,
        ASKED[options.ask],
        options.listener,
        say=lambda text: print(text, file=sys.stderr),
        progress=True,
    )
    try:
        server = ListeningServer(Session(test), options.port)
    except OSError as error:
        why = error.strerror or error
        raise UserError(f"port {options.port} cannot be had ({why}); try --port 0") from error
    with server:
        print(f"{len(test.clips)} clips, {len(test.systems)} systems, {test.trials} trials for each listener")
        print(f"open {server.url} (stop with Ctrl-C)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print(f"\nanswers are in {test.output}")
    return 0


def _summary(options: argparse.Namespace) -> int:
    from visaudio.evaluation.listening import answers, summary
    from visaudio.stored import write_whole

    if options.systems or options.output:
        raise UserError("--summary stands without --systems and --output")
    if options.json is not None and any(_same(options.json, path) for path in options.summary):
        raise UserError(f"--json {options.json}: is a file of answers, which would be lost; give another")
    rows = []
    for path in options.summary:
        if not path.is_file():
            raise UserError(f"{path}: no such file, expected the answers of a listening test")
        rows += answers.read(path)
    found = summary.summarise(rows, options.seed)
    print(summary.table(found))
    if options.json is not None:
        write_whole(options.json, (json.dumps(found.to_json(), indent=1) + "\n").encode())
    return 0


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)
