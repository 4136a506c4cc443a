"""Why a recording as a whole is put into quarantine: names, words and what was measured."""

from __future__ import annotations

from bi_audio_dataset.schema import UserError


class Unusable(UserError):
    """reasons: {filter or other name: words}; measures: {"name.measure": value}, what was found."""

    def __init__(self, reasons: dict[str, str], measures: dict[str, float] | None = None) -> None:
        super().__init__("; ".join(reasons.values()))
        self.reasons, self.measures = reasons, measures or {}

    def __reduce__(self):
        return Unusable, (self.reasons, self.measures)
