"""Command line of the review: python -m bi_audio_dataset review DIR."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from pathlib import Path

from bi_audio_dataset.arguments import Parser
from bi_audio_dataset.review import decisions, page
from bi_audio_dataset.review.session import ReviewSession
from bi_audio_dataset.schema import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Open the page, or do one of the other things and end. Raises UserError."""
    options = _parser().parse_args(argv)
    folder: Path = options.folder
    if not folder.is_dir():
        raise UserError(f"'{folder}' is not a folder")
    file = options.decisions or folder / decisions.DECISIONS_FILE
    if options.merge:
        added = decisions.merge(file, options.merge)
        verdicts = decisions.resolve(decisions.read(file))
        disputed = sorted(clip_id for clip_id, verdict in verdicts.items() if verdict.disagreement)
        print(f"{file}: {added} decisions added, {len(verdicts)} clips decided")
        if disputed:
            few = ", ".join(disputed[:10]) + (" ..." if len(disputed) > 10 else "")
            print(f"reviewers differ on {len(disputed)}: {few}")
        return 0
    session = ReviewSession(folder, options.reviewer or _user(), file)
    try:
        if options.queue is not None:
            print(f"{folder}: {session.progress()}")
            infos, failures = session.clips.index(), session.failures()
            for clip_id in session.queue()[: options.queue]:
                why = f"no caption: {failures[clip_id]}" if clip_id in failures else ""
                print(f"{clip_id}\t{infos[clip_id].confidence:.2f}\t{why}".rstrip())
            return 0
        page.launch(session, options.host, options.port, not options.no_browser)
    finally:
        session.close()
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="python -m bi_audio_dataset review",
        description="Judge clips one by one on a local page. Decisions are appended to DIR/decisions.jsonl.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="dataset folder, finished or being built")
    parser.add_argument("--reviewer", metavar="NAME", help="written into each decision (default: your login)")
    parser.add_argument(
        "--decisions", type=Path, metavar="FILE", help="another file than DIR/decisions.jsonl"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to serve on (default: this machine alone)"
    )
    parser.add_argument("--port", type=int, help="default: the first free one from 7860")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--merge", type=Path, nargs="+", metavar="FILE", help="take other reviewers' decisions; no page"
    )
    instead.add_argument(
        "--queue",
        type=int,
        nargs="?",
        const=20,
        metavar="N",
        help="print progress and the N most doubtful clips (id, confidence; default 20); no page",
    )
    return parser


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        raise UserError("your login name is not known here: give --reviewer NAME") from None
