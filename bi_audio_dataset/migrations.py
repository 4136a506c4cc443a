"""Rows of older schema versions, made rows of this one.

`STEPS` holds for each version n what makes a row of version n + 1 of one of n; a row goes through all that it
needs. Whoever raises schema.SCHEMA_VERSION registers the step from the version before:

    @step(2, "filters.rms_dbfs is of the louder ear")
    def _(row: Row, said: Row) -> Row:
        return row | {"filters": ...}

A step is a pure function of the row with its media ({"bytes", "path"}) and of what the manifest says of the
clip: of its row there, what MANIFEST_KEYS names, {} where there is none. It keeps id, recording_id and split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any

from bi_audio_dataset.schema import COLUMNS, SCHEMA_VERSION, ClipRecord, Direction, UserError

Row = dict[str, Any]
KEPT_COLUMNS = ("id", "recording_id", "split")
#: Of a clip's manifest row, what steps look at.
MANIFEST_KEYS = ("direction",)


@dataclass(frozen=True)
class Step:
    """What changes from one version to the next, in words and on a row."""

    words: str
    row: Callable[[Row, Row], Row]


#: Version n -> the step to n + 1. Version 1 is the first that was ever written.
STEPS: dict[int, Step] = {}


def step(version: int, words: str) -> Callable[[Callable[[Row, Row], Row]], Callable[[Row, Row], Row]]:
    """Register a row's step from `version` to the next. ValueError where there is one already."""

    def register(function: Callable[[Row, Row], Row]) -> Callable[[Row, Row], Row]:
        if version in STEPS:
            raise ValueError(f"the step from version {version} is registered twice")
        STEPS[version] = Step(words, function)
        return function

    return register


@step(1, "new column direction, of most energy; null where nobody measured it")
def _direction(row: Row, said: Row) -> Row:
    found = said.get("direction")
    return row | {"direction": {f.name: float(found[f.name]) for f in fields(Direction)} if found else None}


def check_upgradable(version: Any, what: str) -> None:
    """UserError, naming both versions and what to do, unless steps lead from this version to ours."""
    said = f"{what} has schema_version {version!r}, this program writes {SCHEMA_VERSION}"
    if not isinstance(version, int) or isinstance(version, bool):
        raise UserError(f"{said}: not rows of a BiAudio dataset, build it again")
    if version > SCHEMA_VERSION:
        raise UserError(f"{said}: install a newer visaudio, or use the program that wrote it")
    if any(number not in STEPS for number in range(version, SCHEMA_VERSION)):
        oldest = next((n for n in range(SCHEMA_VERSION, version, -1) if n - 1 not in STEPS), SCHEMA_VERSION)
        raise UserError(
            f"{said} and upgrades from {oldest} on: build it again, or let an older visaudio upgrade it first"
        )


def manifest_values(rows: Iterable[Row]) -> dict[str, Row]:
    """Clip id -> what MANIFEST_KEYS names of its manifest row."""
    clips = (row for row in rows if row.get("kind") == "clip")
    return {row["id"]: {key: row[key] for key in MANIFEST_KEYS if key in row} for row in clips}


def upgrade_row(row: Row, said: Row | None = None) -> Row:
    """The row in this program's version; a row that is so already comes back as it is. said: what the
    manifest says of the clip (`manifest_values`).

    UserError if no steps lead here, or what they make is no whole row.
    """
    found = row.get("schema_version")
    name = f"row '{row.get('id')}'"
    check_upgradable(found, name)
    kept = {column: row.get(column) for column in KEPT_COLUMNS}
    try:
        for version in range(found, SCHEMA_VERSION):
            row = STEPS[version].row(row, said or {}) | {"schema_version": version + 1}
        extra = sorted(row.keys() - set(COLUMNS))
        if extra:
            raise UserError(f"{name} has the unknown columns {extra}")
        ClipRecord.from_row(row)
    except (KeyError, TypeError, AttributeError, UserError) as error:
        words = " ".join(str(error).split())[:160]
        raise UserError(
            f"{name} of schema_version {found} makes no row of version {SCHEMA_VERSION} "
            f"({type(error).__name__}: {words}): validate the dataset with the program that wrote it"
        ) from error
    if kept != {column: row[column] for column in KEPT_COLUMNS}:
        raise ValueError(f"a step from version {found} changed one of {KEPT_COLUMNS} of {name}")
    return row
