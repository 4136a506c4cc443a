"""The human half: `python -m bi_audio_dataset review DIR` opens a page on which clips are judged one by one.

decisions.py  the append-only file of decisions, what follows from it, merging of two reviewers' files
evidence.py   what the build keeps of a recording for the page: a panorama and the sound field over time
drawing.py    the pictures: energy over the panorama with the camera's view on it, level difference over time
session.py    queue, progress and what is shown of a clip; knows nothing of the page
handlers.py   what a key or a button does
front.py      what runs in the browser
page.py       the page (Gradio, extra `review`)
"""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """python -m bi_audio_dataset review DIR; raises UserError."""
    from bi_audio_dataset.review.command import main

    return main(argv)
