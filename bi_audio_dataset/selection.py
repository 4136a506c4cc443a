"""What is published of the clips that were built: filters, people, removals, duplicates and splits add up.

`index_rows` reads a journal or manifest; `decide` is a pure function of what was read, and needs no media.

What decides, in this order: the filters' own verdict; the removal list; reviewers; the same file twice; the
same picture and sound twice (the clip with the lower id stays). Then recordings that are near-duplicates of
each other, share files or belong to one event go to one split (splits.split_of_group).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bi_audio_dataset import duplicates, manifest
from bi_audio_dataset.duplicates import DuplicateFilter
from bi_audio_dataset.removals import Removals, reason_for
from bi_audio_dataset.review.decisions import Verdict
from bi_audio_dataset.schema import UserError
from bi_audio_dataset.splits import split_of_group


@dataclass(slots=True)
class Clip:
    """A clip's row as far as decisions need it. offset: of its line in the file; reasons: names of the
    filters that left it out."""

    id: str
    offset: int
    accepted: bool
    split: str
    render: int
    prints: dict[str, str]
    reasons: tuple[str, ...] = ()


@dataclass(slots=True)
class Entry:
    """A recording's row and those of its clips. files: what its input is, '' where that is unknown; current:
    made by this program's versions of all stages; unit: what its part is made of (unit.unit_key), '' if that
    is not known; at: when it was done, seconds since 1970, 0 if that is not known."""

    id: str
    offset: int
    built: bool
    reasons: dict[str, str]
    files: str
    group: str
    seconds: float
    current: bool = True
    unit: str = ""
    at: float = 0.0
    clips: list[Clip] = field(default_factory=list)


@dataclass(slots=True)
class Fate:
    """What becomes of a clip. reasons and marks are added to those of its row."""

    decision: str
    split: str
    reasons: dict[str, str] = field(default_factory=dict)
    marks: dict[str, str] = field(default_factory=dict)
    caption: str | None = None


@dataclass
class Plan:
    """fates: by clip id; problems: one line each, of what the user should look at; notes: of what came of
    what reviewers asked for, where nothing is left to do; waiting: clips that are still to be judged."""

    fates: dict[str, Fate]
    problems: list[str]
    notes: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    duplicate_pairs: int = 0
    split_groups: int = 0


def index_rows(path: Path) -> dict[str, Entry]:
    """Recording id -> its last rows in the file, sorted by id. A recording's clips follow its own row.

    UserError for a line that is no row; a torn last line is passed over.
    """
    entries: dict[str, Entry] = {}
    for offset, row in manifest.rows_at(path):
        try:
            if row["kind"] == "recording":
                entries[row["id"]] = entry_of(row, offset)
            else:
                entries[row["recording_id"]].clips.append(clip_of(row, offset))
        except (KeyError, TypeError) as error:
            raise UserError(f"'{path}' holds a row that lacks {error}: build the dataset again") from None
    return {key: entries[key] for key in sorted(entries)}


def entry_of(row: dict[str, Any], offset: int) -> Entry:
    files = json.dumps([row["input"], row.get("stretches", [])], sort_keys=True) if row.get("input") else ""
    return Entry(
        id=row["id"],
        offset=offset,
        built=row["decision"] == "built",
        reasons=row["reasons"],
        files=files,
        group=row.get("group", ""),
        seconds=float(row.get("seconds", 0.0)),
        current=row.get("stages", manifest.STAGE_VERSIONS) == manifest.STAGE_VERSIONS,
        unit=row.get("unit", ""),
        at=float(row.get("at", 0.0)),
    )


def clip_of(row: dict[str, Any], offset: int) -> Clip:
    return Clip(
        id=row["id"],
        offset=offset,
        accepted=row["decision"] == "accept",
        split=row["split"],
        render=row.get("draw", {}).get("render", 0),
        prints=row.get("fingerprint") or {},
        reasons=tuple(row["reasons"]),
    )


def decide(
    entries: Mapping[str, Entry],
    config: DuplicateFilter,
    verdicts: Mapping[str, Verdict] | None = None,
    captions: Mapping[str, str] | None = None,
    removed: Removals | None = None,
) -> Plan:
    """The fate of each clip. verdicts: of reviewers, by clip id; captions: that replace a clip's own;
    removed: clips, recordings or groups that may not be published, with the reason.

    UserError where two recordings have clips of one id."""
    verdicts, captions, removed = verdicts or {}, captions or {}, removed or {}
    built = [entry for entry in entries.values() if entry.built]
    _check_clip_ids(built)
    fates = {
        clip.id: Fate("accept" if clip.accepted else "reject", clip.split)
        for entry in built
        for clip in entry.clips
    }
    plan = Plan(fates, [])
    for entry in built:
        for clip in entry.clips:
            fate = fates[clip.id]
            fate.caption = captions.get(clip.id)
            why = reason_for(removed, clip.id, entry.id, entry.group)
            if why is not None:
                _reject(fate, "removed", why)
            _review(fate, clip, verdicts.get(clip.id), plan)
    for what, ids in (("decision", verdicts), ("caption", captions)):
        unknown = sorted(set(ids) - set(fates))
        if unknown:
            few = ", ".join(unknown[:3]) + (" ..." if len(unknown) > 3 else "")
            plan.problems.append(f"{len(unknown)} {what}s are about clips that are not here: {few}")
    edges = [_by_group(built)]
    if config.action != "off":
        edges += [_same_files(built, fates, config), _same_content(built, plan, config)]
    _assign_splits(built, fates, np.concatenate(edges), plan)
    return plan


def _check_clip_ids(built: list[Entry]) -> None:
    homes: dict[str, str] = {}
    for entry in built:
        for clip in entry.clips:
            if clip.id in homes:
                raise UserError(
                    f"two clips have the id '{clip.id}', of recordings '{homes[clip.id]}' and '{entry.id}': "
                    "rename the files of one of them and build into a new folder"
                )
            homes[clip.id] = entry.id


def _reject(fate: Fate, name: str, why: str) -> None:
    fate.decision = "reject"
    fate.reasons[name] = why


def _review(fate: Fate, clip: Clip, verdict: Verdict | None, plan: Plan) -> None:
    if verdict is None:
        return
    who, problems = " and ".join(verdict.reviewers), plan.problems
    if verdict.disagreement:
        problems.append(f"reviewers differ about '{clip.id}' ({who}): it is left out")
    if verdict.decision == "rerender" or verdict.render > clip.render:
        asked = f"{who} asked for another camera path"
        if clip.render >= verdict.render and not clip.accepted:
            asked += f", which {' and '.join(clip.reasons)} left out"
            plan.notes.append(f"'{clip.id}': {asked}")
        elif clip.render >= verdict.render:
            plan.waiting.append(clip.id)
            problems.append(f"'{clip.id}' was rendered again: review it")
        else:
            plan.waiting.append(clip.id)
            problems.append(f"'{clip.id}' waits for another camera path: run the build again, then review it")
        _reject(fate, "review", asked)
    elif verdict.render < clip.render:
        fate.marks["review"] = "not judged since it was rendered again"
    elif verdict.decision == "reject":
        _reject(fate, "review", "reviewers differ" if verdict.disagreement else f"rejected by {who}")
    else:
        fate.marks["review"] = f"accepted by {who}"
        fate.caption = verdict.caption or fate.caption
        if not clip.accepted:
            problems.append(f"'{clip.id}' was accepted by {who}, but a filter left it out: it has no media")


def _by_group(built: list[Entry]) -> np.ndarray:
    """Edges (P, 2) between recordings (by their place in the list) of one event."""
    return _chain({i: entry.group for i, entry in enumerate(built) if entry.group})


def _chain(names: Mapping[int, str]) -> np.ndarray:
    """Edges from each index to the first that has the same name."""
    first: dict[str, int] = {}
    pairs = [(first.setdefault(name, i), i) for i, name in names.items()]
    return np.array([pair for pair in pairs if pair[0] != pair[1]], np.int64).reshape(-1, 2)


def _same_files(built: list[Entry], fates: dict[str, Fate], config: DuplicateFilter) -> np.ndarray:
    edges = _chain({i: entry.files for i, entry in enumerate(built) if entry.files})
    for first, second in edges:
        for clip in built[second].clips:
            _double(fates[clip.id], f"the same file as '{built[first].id}'", config)
    return edges


def _same_content(built: list[Entry], plan: Plan, config: DuplicateFilter) -> np.ndarray:
    fates = plan.fates
    clips = [
        (clip, i)
        for i, entry in enumerate(built)
        for clip in entry.clips
        if fates[clip.id].decision == "accept"
    ]
    if not clips:
        return np.zeros((0, 2), np.int64)
    prints = duplicates.Fingerprints.parse([clip.prints for clip, _ in clips])
    homes = np.array([i for _, i in clips], np.int64)
    found = duplicates.find_matches(prints, homes, config)
    both = found.pairs[found.same_picture & found.same_audio]
    plan.duplicate_pairs = len(both)
    dropped: set[int] = set()
    for first, second in both[np.lexsort((both[:, 0], both[:, 1]))]:
        if first in dropped or second in dropped:
            continue
        dropped.add(int(second))
        _double(fates[clips[second][0].id], f"picture and sound of '{clips[first][0].id}'", config)
    return homes[found.pairs] if config.keep_together else np.zeros((0, 2), np.int64)


def _double(fate: Fate, why: str, config: DuplicateFilter) -> None:
    if config.action == "reject":
        _reject(fate, "duplicate", why)
    else:
        fate.marks["duplicate"] = why


def _assign_splits(built: list[Entry], fates: dict[str, Fate], edges: np.ndarray, plan: Plan) -> None:
    """Each group of recordings to one split. Recordings of which nothing stays have no say."""
    group_of = duplicates.groups(len(built), edges)
    members: dict[int, list[int]] = {}
    for i in np.unique(edges):
        members.setdefault(int(group_of[i]), []).append(int(i))
    for together in members.values():
        kept = [i for i in together if any(fates[c.id].decision == "accept" for c in built[i].clips)]
        if len(kept) < 2:
            continue
        plan.split_groups += 1
        split = split_of_group(clip.split for i in kept for clip in built[i].clips)
        for i in kept:
            for clip in built[i].clips:
                if clip.split != split:
                    other = built[kept[0] if i != kept[0] else kept[1]].id
                    fates[clip.id].split = split
                    fates[clip.id].marks["split"] = f"moved from {clip.split}: belongs with '{other}'"
