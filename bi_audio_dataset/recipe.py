"""A dataset without its media: what it takes to make the same clips again out of the recordings.

A recipe is a file of JSON lines, after a head line sorted as the manifest is:

{"kind": "recipe", "recipe_version", "schema_version", "stages", "source", "config", "recordings", "clips"}
{"kind": "recording", "id", "split", "input": SHA-256 of its files, "get": where to have it, "licence", ...}
{"kind": "clip", "id", "recording_id", "start_s", "draw", "caption", "hfov_deg", "video" and "audio": size and
 SHA-256 of the rendered files, ..., "camera": the whole path}

publish.py writes it, of published clips alone, without media and without paths of this machine; rebuild.py
makes the clips. A folder that is made from a recipe holds it as DIR/recipe.jsonl: `finalize` takes from it
(`plan`) which clips are published, in which split and with which caption, and holds what was rendered against
its hashes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bi_audio_dataset import libraries, manifest
from bi_audio_dataset.removals import Removals, reason_for
from bi_audio_dataset.schema import SCHEMA_VERSION, SPLITS, UserError
from bi_audio_dataset.selection import Entry, Fate, Plan

RECIPE_FILE = "recipe.jsonl"
RECIPE_VERSION = 1
#: What the manifest rounds camera angles to, and half of it again, in degrees.
CAMERA_TOLERANCE_DEG = 1.5e-3
#: What a recipe cannot do without, by kind of row.
MUST = {"recording": ("id", "split", "input"), "clip": ("id", "recording_id", "split", "video", "audio")}


@dataclass(frozen=True)
class Recipe:
    """A recipe as read. recordings: their rows by id; clips: id -> offset of its line in the file."""

    path: Path
    header: dict[str, Any]
    recordings: dict[str, dict[str, Any]]
    clips: dict[str, int]
    #: clip id -> number of its rendering, where that is not the first
    renders: dict[str, int] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


def read(path: Path) -> Recipe:
    """UserError if it is no whole recipe, or one of a later version than this program knows."""
    path = Path(path)
    header: dict[str, Any] = {}
    recordings: dict[str, dict[str, Any]] = {}
    clips: dict[str, int] = {}
    renders: dict[str, int] = {}
    if not path.is_file():
        raise UserError(f"'{path}' does not exist, expected a recipe")
    for offset, row in manifest.rows_at(path):
        if not header:
            header = _header(row, path)
            continue
        kind = row.get("kind")
        missing = [name for name in MUST.get(kind, ("kind",)) if not row.get(name)]
        if missing:
            raise UserError(f"'{path}': the line of '{row.get('id')}' lacks {', '.join(missing)}")
        # ids become names of files
        if row["id"] != Path(row["id"]).name or row["id"].startswith("."):
            raise UserError(f"'{path}': '{row['id']}' is no name of a {kind}")
        if row["split"] not in SPLITS:
            raise UserError(f"'{path}': '{row['id']}' has the split '{row['split']}', expected {SPLITS}")
        if kind == "recording":
            recordings[row["id"]] = row
        elif row["recording_id"] not in recordings:
            raise UserError(
                f"'{path}': clip '{row['id']}' stands before its recording '{row['recording_id']}'"
            )
        else:
            clips[row["id"]] = offset
            if (row.get("draw") or {}).get("render"):
                renders[row["id"]] = row["draw"]["render"]
    if not header:
        raise UserError(f"'{path}' is empty, expected a recipe")
    for name, found in (("recordings", recordings), ("clips", clips)):
        if len(found) != header[name]:
            raise UserError(
                f"'{path}' holds {len(found)} of its {header[name]} {name}: cut off or edited? fetch it "
                "again, and leave clips out by a removal list"
            )
    return Recipe(path, header, recordings, clips, renders)


def _header(row: dict[str, Any], path: Path) -> dict[str, Any]:
    missing = [name for name in ("stages", "source", "config", "recordings", "clips") if name not in row]
    if row.get("kind") != "recipe" or missing:
        raise UserError(f"'{path}' is no recipe: its first line is not what `publish --recipe` writes")
    for name, known in (("recipe_version", RECIPE_VERSION), ("schema_version", SCHEMA_VERSION)):
        if not isinstance(row.get(name), int) or row[name] > known:
            raise UserError(
                f"'{path}' has {name} {row.get(name)}, this program reads {known}: take a later one"
            )
    return row


def config_from(plain: Mapping[str, Any], kind: type) -> Any:
    """A config dataclass from the plain values that build.json holds of it; what is not there is the default.

    UserError for a setting that this version does not know.
    """
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(plain) - set(hints))
    if unknown:
        raise UserError(
            f"setting '{unknown[0]}' of the recipe is not known here: take the version that wrote it"
        )
    values = {}
    for name, value in plain.items():
        if dataclasses.is_dataclass(hints[name]) and isinstance(value, Mapping):
            value = config_from(value, hints[name])
        values[name] = tuple(value) if isinstance(value, list) else value
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise UserError(f"the recipe's settings cannot be used: {error}") from None


# -------------------- check


def plan(entries: Mapping[str, Entry], recipe: Recipe, journal: Path, removed: Removals) -> Plan:
    """What becomes of the clips that were rebuilt: those of the recipe are published in its splits with its
    captions; where one was cut or turned otherwise it is left out; other bytes are marked, counted and told.
    """
    result = Plan({}, [])
    others: dict[str, str] = {}
    bytes_differ: dict[str, list[str]] = {}
    with open(journal, "rb") as made, open(recipe.path, "rb") as asked:
        for entry in entries.values():
            for clip in entry.clips if entry.built else ():
                wanted = _row_at(asked, recipe.clips[clip.id]) if clip.id in recipe.clips else None
                fate = Fate("accept" if clip.accepted else "reject", clip.split)
                result.fates[clip.id] = fate
                why = reason_for(removed, clip.id, entry.id, entry.group)
                if why is not None:
                    _reject(fate, "removed", why)
                elif wanted is None:
                    _reject(fate, "recipe", "not in the recipe")
                elif clip.accepted:
                    fate.split, fate.caption = wanted["split"], wanted.get("caption")
                    found = _row_at(made, clip.offset)
                    other = differences(found, wanted)
                    if other:
                        others[clip.id] = "; ".join(other)
                        _reject(fate, "recipe", others[clip.id])
                        continue
                    names = [n for n in ("video", "audio") if found[n]["sha256"] != wanted[n]["sha256"]]
                    if names:
                        bytes_differ[clip.id] = names
                        fate.marks["recipe"] = f"{' and '.join(names)}: other bytes than the recipe's"
    result.problems += _told(entries, recipe, removed, result.fates, others, bytes_differ)
    return result


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """What makes a clip another one than the recipe's: where it was cut, its lens, path or ears."""
    words = []
    for name in ("start_s", "duration_s", "width", "height", "fps", "hfov_deg"):
        if name in wanted and abs(found[name] - wanted[name]) > 1e-3:
            words.append(f"{name} is {found[name]:g}, in the recipe {wanted[name]:g}")
    if wanted.get("hrir_set", found["hrir_set"]) != found["hrir_set"]:
        words.append(f"ears are '{found['hrir_set']}', in the recipe '{wanted['hrir_set']}'")
    for name in ("yaw_deg", "pitch_deg", "roll_deg") if "camera" in wanted else ():
        ours, theirs = found["camera"][name], wanted["camera"][name]
        if len(ours) != len(theirs):
            words.append(f"the camera's {name} has {len(ours)} entries, in the recipe {len(theirs)}")
            continue
        apart = max((abs(a - b) for a, b in zip(ours, theirs, strict=True)), default=0.0)
        if apart > CAMERA_TOLERANCE_DEG:
            words.append(f"the camera's {name} differs by up to {apart:.3g}")
    return words


def _told(
    entries: Mapping[str, Entry],
    recipe: Recipe,
    removed: Removals,
    fates: Mapping[str, Fate],
    others: Mapping[str, str],
    bytes_differ: Mapping[str, list[str]],
) -> list[str]:
    lost = {}
    for clip_id, offset in recipe.clips.items():
        if clip_id in fates and not (fates[clip_id].decision == "reject" and not fates[clip_id].reasons):
            continue  # made, and told of elsewhere
        lost[clip_id] = offset
    words = []
    if lost:
        counted: dict[str, list[str]] = {}
        with open(recipe.path, "rb") as asked:
            for clip_id, offset in lost.items():
                home = _row_at(asked, offset)["recording_id"]
                if reason_for(removed, clip_id, home, recipe.recordings[home].get("group", "")) is not None:
                    continue
                entry = entries.get(home)
                why = "; ".join(entry.reasons.values()) if entry and not entry.built else ""
                counted.setdefault(why or "left out by a filter, or not built", []).append(clip_id)
        for why, ids in counted.items():
            words.append(f"{_count(ids)} of the recipe not rebuilt: {why}")
    for why in sorted(set(others.values())):
        ids = [clip_id for clip_id, found in others.items() if found == why]
        words.append(f"{_count(ids)} made otherwise than in the recipe, and left out: {why}")
    if bytes_differ:
        video, audio = (sum(name in names for names in bytes_differ.values()) for name in ("video", "audio"))
        versions = "; ".join(libraries.differences(recipe.header)[:3])
        words.append(
            f"{_count([*bytes_differ])} of other bytes than the recipe's ({video} videos, {audio} sounds), "
            f"marked in the manifest: {versions or 'another kind of machine, or versions of libraries'}"
        )
    return words


def _count(ids: list[str]) -> str:
    shown = ", ".join(sorted(ids)[:3]) + (", ..." if len(ids) > 3 else "")
    return f"{len(ids)} clip{'s' if len(ids) > 1 else ''} ({shown})"


def _reject(fate: Fate, name: str, why: str) -> None:
    fate.decision = "reject"
    fate.reasons[name] = why


def _row_at(handle: typing.BinaryIO, offset: int) -> dict[str, Any]:
    handle.seek(offset)
    return json.loads(handle.readline())
