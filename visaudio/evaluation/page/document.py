"""The page as a whole: one file that asks nothing of any other machine.

A content security policy allows the script and the style sheet that are in the page, by their checksums, and
media of the page's own place; whatever a caption might smuggle in could not run.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from visaudio.evaluation.page.text import escape, plain, tag

HERE = Path(__file__).parent


def page(title: str, lead: Sequence[str], sections: Sequence[str], data: str, made: Mapping[str, Any]) -> str:
    """The HTML text. lead: lines below the title; sections: HTML; data: the element of the script's data."""
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; script-src {_checksum(script)}; style-src {_checksum(style)}; "
        "img-src data: 'self' file:; media-src 'self' file:; base-uri 'none'; form-action 'none'"
    )
    head = [
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        tag("title", escape(title)),
        f"<style>{style}</style>",
    ]
    body = [
        tag("header", tag("h1", escape(title)), *(tag("p", escape(line)) for line in lead)),
        _contents(sections),
        tag("main", *sections, _settings(made)),
        data,
        f"<script>{script}</script>",
    ]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{"".join(head)}</head><body>{"".join(body)}</body></html>\n'
    )


def _checksum(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _contents(sections: Sequence[str]) -> str:
    names = {
        "systems": "Systems",
        "tests": "Paired tests",
        "problems": "Problems",
        "pictures": "Clips in pictures",
        "clips": "All clips",
    }
    whole = "".join(sections)
    links = [tag("a", escape(t), href=f"#{k}") for k, t in names.items() if f'<h2 id="{k}"' in whole]
    return tag("nav", *links, aria_label="sections")


def _settings(made: Mapping[str, Any]) -> str:
    """How the results came about, as they were stored."""
    if not made:
        return ""
    rows = [
        tag("tr", tag("th", escape(key), scope="row"), tag("td", escape(_line(value))))
        for key, value in made.items()
    ]
    return tag("details", tag("summary", "how this was made"), tag("table", *rows, class_="made"))


def _line(value: Any) -> str:
    return plain(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
