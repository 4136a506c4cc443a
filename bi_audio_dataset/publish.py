"""`python -m bi_audio_dataset publish DIR --recipe FILE`: a dataset as a recipe (recipe.py), without media.

For recordings that may not be passed on: whoever has them rebuilds the same clips (rebuild.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bi_audio_dataset import libraries, manifest, removals
from bi_audio_dataset.finalize import read_record
from bi_audio_dataset.recipe import MUST, RECIPE_VERSION
from bi_audio_dataset.removals import Removals, reason_for
from bi_audio_dataset.schema import UserError
from bi_audio_dataset.texts import without_paths
from bi_audio_dataset.validate import find_shards, manifest_problems

#: Where the recordings of a corpus are to be had; {id}, {group} and {provenance} are the recording's.
PLACES = {
    "Sphere360": "https://www.youtube.com/watch?v={group}",
    "FAIR-Play": "https://github.com/facebookresearch/FAIR-Play: videos/{id}.mp4, binaural_audios/{id}.wav",
    "BiAudio-Synth": "nothing to fetch: this program renders it",
}
_RECORDING = ("split", "source_name", "licence", "provenance", "duration_s", "stretches", "group", "input")
_CLIP = (
    "recording_id", "split", "start_s", "duration_s", "caption", "draw", "hrir_set",
    "width", "height", "hfov_deg", "fps", "level_gain_db", "video", "audio", "camera",
)  # fmt: skip


def write(
    folder: Path, path: Path, get: str | None = None, more_removals: Sequence[Path] = ()
) -> dict[str, Any]:
    """Write the recipe of a finished dataset; returns its head line. UserError if the folder is none, or if
    manifest and shards do not hold the same clips."""
    folder, path = Path(folder), Path(path)
    record = read_record(folder)
    problems = manifest_problems(folder, _shard_of(find_shards(folder)))
    if problems:
        raise UserError(f"'{folder}' is not sound: {problems[0]}")
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"'{path}' cannot be written: expected a file in a folder that is there")
    removed = removals.load(folder, more_removals)
    manifest.write(path, lines(folder, record, removed, get))
    with open(path, encoding="utf-8") as handle:
        return json.loads(handle.readline())


def _shard_of(shards: Sequence[Path]) -> dict[str, str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return {
            name: shard.name
            for shard in shards
            for name in pq.read_table(shard, columns=["id"]).column("id").to_pylist()
        }
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"a shard cannot be read ({' '.join(str(error).split())[:200]}): validate it"
        ) from None


def lines(
    folder: Path, record: Mapping[str, Any], removed: Removals, get: str | None = None
) -> Iterator[str]:
    """The recipe of a finished dataset, from its manifest and `record`, its build.json.

    removed: clips that are left out (removals.py). get: where the recordings are to be had, with {id},
    {group} and {provenance} in it. UserError if the manifest, of an older version, holds too little.
    """
    path = Path(folder) / "manifest.jsonl"
    if not path.exists():
        raise UserError(f"'{folder}' holds no manifest.jsonl: build it again with this version")
    groups: dict[str, str] = {}
    kept: dict[str, str] = {}  # recording -> split of its clips
    clips, stages = 0, None
    for row in manifest.read(path, camera=False):
        if row["kind"] == "recording":
            groups[row["id"]] = row.get("group", "")
            stages = row.get("stages") or stages
        elif _published(row, removed, groups):
            kept[row["recording_id"]] = row["split"]
            clips += 1
    if not clips:
        raise UserError(f"'{folder}' publishes no clip: there is nothing to write a recipe of")
    if stages is None:
        raise UserError(f"'{folder}' does not say which version made it: build it again with this one")
    source = record["source"]
    known = ("name", "settings", "recordings")
    header = {
        "kind": "recipe",
        "recipe_version": RECIPE_VERSION,
        "schema_version": record["schema_version"],
        "stages": stages,
        "source": {name: source[name] for name in known},
        "config": record["config"],
        **{name: record[name] for name in libraries.KEYS if name in record},
        "recordings": len(kept),
        "clips": clips,
    }
    yield manifest.dumps(without_paths(header))
    template = get or PLACES.get(source["name"], "{provenance}")
    for row in manifest.read(path):
        if row["kind"] == "recording" and row["id"] in kept:
            yield manifest.dumps(_recording_row(row, kept[row["id"]], template))
        elif row["kind"] == "clip" and _published(row, removed, groups):
            _complete(row, folder)
            yield manifest.dumps(
                {"kind": "clip", "id": row["id"], **{name: row[name] for name in _CLIP if name in row}}
            )


def _published(row: Mapping[str, Any], removed: Removals, groups: Mapping[str, str]) -> bool:
    home = row["recording_id"]
    return row["decision"] == "accept" and reason_for(removed, row["id"], home, groups.get(home, "")) is None


def _recording_row(row: Mapping[str, Any], split: str, template: str) -> dict[str, Any]:
    if not row.get("input"):
        raise UserError(f"recording '{row['id']}' has no hash of its files: build it again with this version")
    chosen = {name: row[name] for name in _RECORDING if name in row} | {"split": split}
    chosen["provenance"] = without_paths(row.get("provenance", ""))
    get = template.replace("{id}", row["id"]).replace("{group}", row.get("group") or row["id"])
    return {
        "kind": "recording",
        "id": row["id"],
        "get": get.replace("{provenance}", chosen["provenance"]),
    } | chosen


def _complete(row: Mapping[str, Any], folder: Path) -> None:
    missing = [name for name in MUST["clip"] if name not in row]
    if missing:
        raise UserError(f"'{folder}': the manifest's line of '{row['id']}' lacks {', '.join(missing)}")


def main(argv: Sequence[str] | None = None) -> int:
    """python -m bi_audio_dataset publish DIR --recipe FILE. Raises UserError."""
    from bi_audio_dataset.arguments import Parser

    parser = Parser(
        prog="python -m bi_audio_dataset publish",
        description="Write what it takes to rebuild a dataset from its recordings: ids, times, camera paths, "
        "settings and hashes, without media. `push` uploads a dataset with its media.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="finished dataset")
    parser.add_argument("--recipe", type=Path, required=True, metavar="FILE", help="the .jsonl to write")
    parser.add_argument(
        "--get",
        metavar="WORDS",
        help="where the recordings are to be had, with {id}, {group} or {provenance} in it "
        "(default: known for Sphere360, FAIR-Play and BiAudio-Synth, else {provenance})",
    )
    parser.add_argument(
        "--removals", type=Path, action="append", default=[], metavar="FILE", help="beside DIR/removals.jsonl"
    )
    options = parser.parse_args(argv)
    header = write(options.folder, options.recipe, options.get, options.removals)
    print(f"{options.recipe}: {header['clips']} clips of {header['recordings']} recordings, without media")
    return 0
