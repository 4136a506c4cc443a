"""python -m visaudio.hub: a model folder's card, and the folder to the Hugging Face Hub."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from bi_audio_dataset.schema import UserError
from visaudio.cli.common import Parser, guard


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    return guard(lambda: options.run(options))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m visaudio.hub",
        description="Models on the Hugging Face Hub. Who is asking: `hf auth login`, or HF_TOKEN.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)

    push = commands.add_parser("push", help="upload a model folder: weights, config.json and card")
    push.add_argument("folder", type=Path, metavar="DIR", help="as train.py writes it: runs/tiny/model")
    push.add_argument("repository", metavar="OWNER/NAME")
    push.add_argument("--private", action="store_true", help="if the repository is new, only you see it")
    push.add_argument("--revision", metavar="BRANCH", help="branch to commit to (default: main)")
    push.add_argument("--message", default="", metavar="WORDS", help="of the commit")
    push.set_defaults(run=_push)

    card = commands.add_parser("card", help="write a model folder's card anew, with results")
    card.add_argument("folder", type=Path, metavar="DIR")
    card.add_argument(
        "--results",
        type=Path,
        metavar="JSON",
        help="report.json of benchmarks/synth_quality.py, or names and numbers",
    )
    card.add_argument("--measured-on", metavar="WORDS", help="what the results were measured on")
    card.add_argument(
        "--dataset",
        action="append",
        metavar="OWNER/NAME",
        help="a Hub dataset that it was trained on; may be repeated",
    )
    card.set_defaults(run=_card)
    return parser


def _push(options: argparse.Namespace) -> int:
    from visaudio import hub

    url = hub.push_to_hub(
        options.folder,
        options.repository,
        private=options.private,
        revision=options.revision,
        message=options.message,
    )
    print(url)
    return 0


def _card(options: argparse.Namespace) -> int:
    from visaudio.model_folder import describe

    if (options.results is None) != (options.measured_on is None):
        raise UserError("--results and --measured-on belong together: figures say nothing without their data")
    print(describe(options.folder, options.results, options.measured_on, options.dataset))
    return 0
