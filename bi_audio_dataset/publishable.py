"""Which files of a dataset folder are published, and whether they may be.

The card and the plots that it shows, build.json, manifest.jsonl and the Parquet files of each configuration
(schema.CONFIGS). What people wrote (decisions, captions, removal list) and what a build has left stay here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bi_audio_dataset import removals
from bi_audio_dataset.licences import REDISTRIBUTABLE, redistributable
from bi_audio_dataset.remove import read_ids, removed_of
from bi_audio_dataset.schema import CONFIGS, INNER, SPLITS, UserError
from bi_audio_dataset.validate import find_shards, validate

ABOUT = ("README.md", "build.json", "manifest.jsonl")
INNER_ABOUT = tuple(f"{name}/{file}" for name in INNER for file in ABOUT[1:])


def check(folder: Path, more_removals: Sequence[Path] = (), progress: bool = False) -> None:
    """UserError unless everything that a push would publish is sound and may be published."""
    for name in ABOUT:
        if not (folder / name).is_file():
            raise UserError(f"'{folder}' holds no {name}: expected a finished dataset")
    roots = [folder, *(folder / name for name in INNER if (folder / CONFIGS[name]).is_dir())]
    for root in roots:
        _check_removals(root, removals.load(folder, more_removals) | removals.load(root))
        report = validate(root, media=False, progress=progress)
        if report.problems:
            raise UserError(
                f"'{root}' does not pass `validate --quick` ({len(report.problems)} problems): "
                f"{report.problems[0]}"
            )
        check_licences(root)
    _check_features(folder)


def check_licences(folder: Path) -> None:
    """UserError naming the licences, and how many clips have them, under which media may not be passed on."""
    import pyarrow.parquet as pq

    counted: Counter[str] = Counter()
    first: dict[str, str] = {}
    for shard in find_shards(folder):
        for row in pq.read_table(shard, columns=["id", "licence"]).to_pylist():
            if not redistributable(row["licence"] or ""):
                counted[row["licence"]] += 1
                first.setdefault(row["licence"], row["id"])
    if counted:
        words = ", ".join(f"{n} of '{name}', e.g. {first[name]}" for name, n in sorted(counted.items()))
        raise UserError(
            f"{sum(counted.values())} clips may not be passed on with their media ({words}; may be: "
            f"{REDISTRIBUTABLE}): `publish {folder} --recipe FILE` writes what others need to rebuild them, "
            f"`remove` takes them out"
        )


def _check_removals(folder: Path, listed: removals.Removals) -> None:
    groups = removals.groups_of(folder / "manifest.jsonl")
    gone = sorted(removed_of(read_ids(find_shards(folder)), listed, groups))
    if gone:
        few = ", ".join(gone[:3]) + (", ..." if len(gone) > 3 else "")
        raise UserError(
            f"'{folder}' holds {len(gone)} clips that are on the removal list ({few}): take them out by "
            f"`remove {folder}`, with the same --removals"
        )


def _check_features(folder: Path) -> None:
    """What was computed of clips that have left since must not stay behind."""
    import pyarrow.parquet as pq

    clips: set[str] | None = None
    for path in sorted((folder / CONFIGS["features"]).glob("*.parquet")):
        if "id" not in pq.read_schema(path).names:
            raise UserError(f"'{path}' has no column id: what clips it is about cannot be told")
        clips = {clip.id for clip, _ in read_ids(find_shards(folder))} if clips is None else clips
        foreign = sorted(set(pq.read_table(path, columns=["id"]).column("id").to_pylist()) - clips)
        if foreign:
            raise UserError(
                f"'{path}' holds {len(foreign)} clips that are not in the dataset, e.g. {foreign[0]}: "
                "extract the features again"
            )


def published_files(folder: Path) -> dict[str, Path]:
    """Path in the repository -> file. Of assets/ only what the card shows."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    found = {name: folder / name for name in ABOUT}
    for path in sorted((folder / "assets").glob("*")):
        name = f"assets/{path.name}"
        if path.is_file() and name in card:
            found[name] = path
    for place in CONFIGS.values():
        for path in sorted((folder / place).glob("*.parquet")):
            if path.name.partition("-")[0] in SPLITS:
                found[f"{place}/{path.name}"] = path
    for name in INNER_ABOUT:
        if (folder / name).is_file():
            found[name] = folder / name
    return found
