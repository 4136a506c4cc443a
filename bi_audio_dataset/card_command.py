"""python -m bi_audio_dataset card DIR: a finished dataset's card made anew, from what lies in its folder.

After features were extracted into DIR/features, or BiAudio-Synth was built into DIR/synth, so that the card
names them; after matplotlib was installed. What was written into README.md by hand goes.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bi_audio_dataset import card, manifest
from bi_audio_dataset.figures import Figures
from bi_audio_dataset.finalize import read_record, tally_of
from bi_audio_dataset.schema import UserError, check_version
from bi_audio_dataset.shards import figures_of, read_rows
from bi_audio_dataset.workplace import WORK

STAGE = "card"


def compose(
    folder: Path, beside: Path, data: Path | None = None, record: dict[str, Any] | None = None
) -> Figures:
    """Write the card of a dataset folder into `beside`. data, record: its shards and build.json, where they
    are not yet those of the folder."""
    shards = sorted((data or folder / "data").glob("*.parquet"))
    if not shards:
        raise UserError(f"'{folder}' holds no data/*.parquet: expected a finished dataset")
    if record is None and (folder / "build.json").exists():
        record = read_record(folder, whole=False)
    figures = figures_of(shards)
    decided = folder / "manifest.jsonl"
    tally = tally_of(manifest.read(decided, camera=False)) if decided.exists() else None
    card.write(
        beside,
        card.title_of(record, figures),
        figures,
        record,
        tally.lines() if tally is not None and tally.worth_telling else (),
        card.find_configs(folder, figures, data),
    )
    return figures


def remake(folder: Path) -> Figures:
    """README.md and assets/ of a finished dataset, by renames. UserError if it is none, or of another
    schema version."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"'{folder}' is not a folder")
    for shard in sorted((folder / "data").glob("*.parquet")):
        for row in read_rows(shard, ["id", "schema_version"]):
            check_version(row["schema_version"], f"'{folder}'")
    work = folder / WORK
    left = work.exists()
    shutil.rmtree(work / STAGE, ignore_errors=True)
    try:
        figures = compose(folder, work / STAGE)
        card.install(work / STAGE, folder)
    finally:
        shutil.rmtree(work / STAGE if left else work, ignore_errors=True)
    return figures


def main(argv: Sequence[str] | None = None) -> int:
    from bi_audio_dataset.arguments import Parser

    parser = Parser(
        prog="python -m bi_audio_dataset card",
        description="Write the card (README.md, assets/) of a finished dataset anew, from what lies in its "
        "folder: clips, features/, synth/.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR")
    options = parser.parse_args(argv)
    figures = remake(options.folder)
    names = ", ".join(config.name for config in card.find_configs(options.folder, figures))
    print(f"{options.folder}: card of {sum(figures.clips.values())} clips; configurations: {names}")
    return 0
