"""Which licences let others have a copy of a clip's bytes. Anything that is not named here does not.

A clip is an adaptation of its recording (cut, turned, rendered), so licences without derivatives (ND) are
out. Those for non-commercial use (NC) allow sharing: the row, and the card, carry the condition.
"""

from __future__ import annotations

import re

#: In words, for messages and documents.
REDISTRIBUTABLE = "CC0-1.0, CC-BY-*, CC-BY-SA-*, CC-BY-NC-*, CC-BY-NC-SA-*, PDDL-1.0, public domain"
#: 4.0, or SPDX's of a country: 3.0-DE. Not any two letters: "CC-BY-4.0 ND" is no country's.
_VERSION = r"(-\d\.\d(-(AT|AU|DE|FR|IGO|JP|NL|UK|US))?)?"
_KNOWN = re.compile(
    rf"CC0{_VERSION}|CC-BY(-NC)?(-SA)?{_VERSION}|PDDL-1\.0|CC-PDDC|CC-PDM-1\.0|PUBLIC-DOMAIN(-MARK)?"
)


def redistributable(licence: str) -> bool:
    """Whether rows of this licence may be published with their media. SPDX names, in any case, with spaces or
    dashes ("CC BY 4.0"); of "A AND B" both must be, of "A OR B" one."""
    text = licence.strip().upper()
    for word, judge in ((" AND ", all), (" OR ", any)):
        if word in text:
            return judge(redistributable(part) for part in text.split(word))
    return _KNOWN.fullmatch(re.sub(r"[\s_-]+", "-", text)) is not None
