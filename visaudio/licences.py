"""Licences of weights: which one holds for what is made of several.

A licence is a lower-case name as the Hub writes it ("apache-2.0", "cc-by-nc-4.0"), or several joined by
" AND " where none of them covers the others. Not legal advice: a rule that forgets nobody's conditions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

AND = " AND "
UNKNOWN = "unknown"
#: Free to use with a notice; the later ones ask for more.
PERMISSIVE = ("cc0-1.0", "unlicense", "isc", "mit", "bsd-2-clause", "bsd-3-clause", "apache-2.0", "cc-by-4.0")
#: What a licence's conditions contain besides its own.
COVERS = {
    "cc-by-nc-sa-4.0": ("cc-by-nc-4.0", "cc-by-sa-4.0"),
    "cc-by-nc-nd-4.0": ("cc-by-nc-4.0", "cc-by-nd-4.0"),
}
#: Names that the Hub takes in a card besides these; any other goes there as "other" with its name.
_ON_CARDS = (
    *("cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nd-4.0", *COVERS, "gpl-3.0", "agpl-3.0", "lgpl-3.0", "mpl-2.0"),
    *("apple-amlr", "apple-ascl", "openrail", "openrail++", UNKNOWN),
)
#: Repositories whose card has not always said what their authors say: at least this.
AT_LEAST = {"hkchengrex/MMAudio": "cc-by-nc-4.0"}


def combined(licences: Iterable[str]) -> str:
    """The strictest of several licences; joined by AND where there is no one strictest.

    A permissive one goes without saying beside a stricter one (its notice still stands in the provenance).
    Whatever is not known here counts as stricter than all permissive ones; the empty word as unknown.
    """
    names = {
        name.strip().lower() or UNKNOWN
        for licence in licences
        for name in licence.replace(" and ", AND).split(AND)
    }
    strict = names - set(PERMISSIVE)
    if not strict:
        return max(names, key=PERMISSIVE.index, default=PERMISSIVE[0])
    covered = {inner for name in strict for inner in COVERS.get(name, ())}
    return AND.join(sorted(strict - covered))


def covers(licence: str, other: str) -> bool:
    """Whether all conditions of `other` are among those of `licence`."""
    return combined([licence, other]) == combined([licence])


def for_card(licence: str, link: str = "") -> dict[str, Any]:
    """The lines of a card's header for a licence; link: where to read one that the Hub has no name for."""
    licence = combined([licence])
    if licence in PERMISSIVE or licence in _ON_CARDS:
        return {"license": licence}
    named = {"license": "other", "license_name": licence.lower().replace(" ", "-")}
    return {**named, "license_link": link} if link else named


def of_card(header: dict[str, Any]) -> str:
    """The licence that a card's header (its YAML as a mapping) states, UNKNOWN if none."""
    stated = header.get("license")
    if stated == "other" and header.get("license_name"):
        return combined([str(header["license_name"]).replace("-and-", AND)])
    if isinstance(stated, list):
        return combined([str(one) for one in stated])
    return combined([str(stated or UNKNOWN)])
