"""python -m visaudio.hub push DIR owner/name: a model folder to the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from visaudio.cli.common import Parser, guard


def main(arguments: Sequence[str] | None = None) -> int:
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
    options = parser.parse_args(arguments)

    def run() -> int:
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

    return guard(run)
