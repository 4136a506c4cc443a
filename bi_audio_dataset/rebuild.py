"""`python -m bi_audio_dataset rebuild RECORDINGS --recipe FILE --output DIR`: a recipe's clips, made again.

The build is the ordinary one (build.py), of a source that knows the recipe: a recording whose files are not
the recipe's goes into quarantine, as one does that is not there. What was rendered is held against the recipe
when the folder is finalized (recipe.plan). Killed anywhere, the same command goes on.

DIR/recipe.jsonl      the recipe, as finalize reads it
DIR/removals.jsonl    the removal list, with what --removals brought
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bi_audio_dataset import manifest, recipe, removals
from bi_audio_dataset.build import BuildResult, build, build_settings, claim
from bi_audio_dataset.build_config import BuildConfig
from bi_audio_dataset.clip import Unusable
from bi_audio_dataset.executors import Executor, choose
from bi_audio_dataset.migrations import STEPS
from bi_audio_dataset.recipe import RECIPE_FILE, Recipe
from bi_audio_dataset.remove import remove
from bi_audio_dataset.retry import already_complete
from bi_audio_dataset.review import decisions
from bi_audio_dataset.schema import SCHEMA_VERSION, UserError
from bi_audio_dataset.sound import input_digest
from bi_audio_dataset.sources.base import Recording, Source

#: Who asks for a rendering other than the first, in DIR/decisions.jsonl, and when.
REVIEWER, TIME = "recipe", "1970-01-01T00:00:00.000Z"


@dataclass(frozen=True)
class RecipeSource:
    """The recordings of a recipe, as `inner` fetches them; split, licence and all words are the recipe's."""

    inner: Source
    name: str
    recordings: Mapping[str, Mapping[str, Any]] = field(repr=False)
    recipe_sha256: str = ""
    removed: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def settings(self) -> dict[str, object]:
        return {"recipe_sha256": self.recipe_sha256}

    def recording_ids(self) -> list[str]:
        return list(self.recordings)

    def split(self, recording_id: str) -> str:
        return self.recordings[recording_id]["split"]

    def fetch(self, recording_id: str, workdir: Path) -> Recording:
        """Raises Unusable where the recording is on the removal list, is not there, or is another file."""
        row = self.recordings[recording_id]
        why = removals.reason_for(self.removed, recording_id, row.get("group", ""))
        if why is not None:
            raise Unusable({"removed": why}, {})
        where = f"; to be had: {row['get']}" if row.get("get") else ""
        try:
            found = self.inner.fetch(recording_id, workdir)
        except Unusable:
            raise
        except UserError as error:  # its cause tells the builder of a full disk
            raise UserError(f"{error}{where}") from error.__cause__
        wanted, digest = row["input"], input_digest(found)
        if digest != wanted:
            other = [name for name in sorted({*digest, *wanted}) if digest.get(name) != wanted.get(name)]
            words = ", ".join(
                f"its {name} has SHA-256 {digest.get(name, 'none')[:12]}, in the recipe "
                f"{wanted.get(name, 'none')[:12]}"
                for name in other
            )
            why = f"'{recording_id}' is another file than the recipe's: {words}{where}"
            raise Unusable({"recipe": why}, {})
        return replace(
            found,
            licence=row.get("licence", found.licence),
            provenance=row.get("provenance", found.provenance),
            stretches=tuple((float(start), float(end)) for start, end in row.get("stretches", ())),
            group=row.get("group", ""),
        )


def rebuild(
    recipe_path: Path,
    recordings: Path,
    output: Path,
    *,
    sofa: Path | None = None,
    denoiser: str | None = None,
    workers: int = 1,
    more_removals: Sequence[Path] = (),
    any_version: bool = False,
    source: Source | None = None,
    progress: bool = True,
    executor: Executor | None = None,
    parts: str | None = None,
    retry_quarantined: bool = False,
) -> BuildResult:
    """Build the clips of a recipe into `output` out of a folder of recordings, each named by its id.

    sofa: the HRIR file that the recipe names. denoiser: its name, where it is code of somebody's own.
    any_version: also where other versions of the stages made the recipe's clips, or other ones of the
    libraries have begun this folder. source: fetches the recordings, where the recipe's corpus is none of
    ours. executor, parts: as `build` takes them. retry_quarantined: of a finished folder, try those
    recordings again that could not be had. `problems` of the result say what differs.
    UserError before anything is made where recipe, HRIR file or version do not fit.
    """
    output = Path(output)
    asked = recipe.read(recipe_path)
    if not any_version:
        _check_stages(asked)
    config = config_of(asked, sofa, denoiser)
    removed = removals.load(output, more_removals)
    inner = source or inner_source(asked, recordings)
    made_of = RecipeSource(inner, asked.header["source"]["name"], asked.recordings, asked.sha256, removed)
    claim(output, build_settings(made_of, made_of.recording_ids(), config))
    removals.append(output, removed)
    _place(asked, output)
    result = build(
        made_of,
        output,
        config,
        workers=workers,
        progress=progress,
        executor=executor,
        parts=parts,
        retry_quarantined=retry_quarantined,
        any_version=any_version,
    )
    if result.already_complete and removed:
        remove(output)  # what was put on the list since
    return result


def config_of(asked: Recipe, sofa: Path | None, denoiser: str | None) -> BuildConfig:
    """The recipe's settings, less the filters that ask models: what they said stands in the recipe."""
    plain = dict(asked.header["config"])
    wanted = plain.pop("sofa", None)
    if (wanted is None) != (sofa is None):
        given = f"leave out --sofa {sofa}" if wanted is None else f"give --sofa FILE, its '{wanted['name']}'"
        what = "the spherical-head model" if wanted is None else "a measured HRIR set"
        raise UserError(f"the recipe's ears are {what}: {given}")
    if sofa is not None:
        found = hashlib.sha256(Path(sofa).read_bytes()).hexdigest()
        if found != wanted["sha256"]:
            raise UserError(
                f"'{sofa}' is not the recipe's '{wanted['name']}': SHA-256 {found[:12]}, expected "
                f"{wanted['sha256'][:12]}"
            )
    named = plain.get("denoiser")
    if named and ":" in named and denoiser != named:
        # a name of code in a file from elsewhere is not run unasked
        raise UserError(f"the recipe's sound goes through the code '{named}': allow it by --denoiser {named}")
    config = recipe.config_from(plain, BuildConfig)
    selection = config.selection.with_actions({"speech": "off", "av_match": "off"})
    return replace(config, sofa=None if sofa is None else str(sofa), selection=selection)


def inner_source(asked: Recipe, folder: Path) -> Source:
    """What fetches the recordings of the recipe's corpus from a folder. No split lists are needed."""
    from bi_audio_dataset.sources.fairplay import FairPlaySource
    from bi_audio_dataset.sources.folder import FolderSource
    from bi_audio_dataset.sources.perspective import PerspectiveSource
    from bi_audio_dataset.sources.synthetic.source import SyntheticSource

    name, settings = asked.header["source"]["name"], asked.header["source"].get("settings", {})
    if name in ("folder", "Sphere360"):
        chosen = {key: settings[key] for key in ("channels", "trust_picture") if key in settings}
        return FolderSource(Path(folder), **chosen)
    if name == "perspective":
        chosen = {key: settings[key] for key in ("sound", "hfov_deg") if key in settings}
        return PerspectiveSource(Path(folder), **chosen)
    if name == "FAIR-Play":
        return FairPlaySource(Path(folder), hfov_deg=settings.get("hfov_deg"))
    if name == "BiAudio-Synth":
        if any(settings.get(key, "procedural") != "procedural" for key in ("sounds", "sprites")):
            raise UserError(
                "the recipe's scenes hold sounds or sprites that are not in it: pass them as source"
            )
        clips = asked.header["source"]["recordings"]
        return SyntheticSource(clips, seed=settings["seed"], held_out=settings["held_out"])
    raise UserError(f"the recipe's source '{name}' is none of this program's: call rebuild(..., source=...)")


def version_words(asked: Recipe) -> list[str]:
    """What the rows will have that those of the recipe's own version had not; empty for a recipe of this."""
    theirs = asked.header["schema_version"]
    new = "; ".join(STEPS[n].words for n in range(theirs, SCHEMA_VERSION) if n in STEPS)
    if theirs == SCHEMA_VERSION:
        return []
    return [f"the recipe is of schema_version {theirs}, the rows are written in {SCHEMA_VERSION}: {new}"]


def _check_stages(asked: Recipe) -> None:
    theirs, ours = asked.header["stages"], manifest.STAGE_VERSIONS
    words = [
        f"{name} {theirs.get(name)} (here {ours.get(name)})"
        for name in sorted({*theirs, *ours})
        if theirs.get(name) != ours.get(name)
    ]
    if words:
        raise UserError(
            f"the recipe's clips were made by other versions of the builder: {', '.join(words)}: take the "
            "version that wrote it, or --any-version and expect other clips"
        )


def _place(asked: Recipe, output: Path) -> None:
    """The recipe into the folder, and what it asks of the build beside settings: which rendering."""
    path = output / RECIPE_FILE
    if not path.exists():
        beside = path.with_name(path.name + ".tmp")
        shutil.copyfile(asked.path, beside)
        os.replace(beside, path)
    known = decisions.resolve(decisions.read(output / decisions.DECISIONS_FILE))
    for clip_id, render in asked.renders.items():
        if clip_id not in known:
            row = decisions.Decision(TIME, REVIEWER, clip_id, "accept", render=render)
            decisions.append(output / decisions.DECISIONS_FILE, row)


def main(argv: Sequence[str] | None = None) -> int:
    """python -m bi_audio_dataset rebuild RECORDINGS --recipe FILE --output DIR. Exit 2 where anything is not
    as the recipe says; raises UserError."""
    options = _options(argv)
    executor = choose(options.executor, options.workers, options.address)
    if options.executor == "ray":  # each worker has a working directory of its own
        options.recordings = options.recordings.absolute()
        options.sofa = options.sofa and options.sofa.absolute()
    for line in version_words(recipe.read(options.recipe)):
        print(line)
    result = rebuild(
        options.recipe,
        options.recordings,
        options.output,
        sofa=options.sofa,
        denoiser=options.denoiser,
        executor=executor,
        parts=options.parts,
        more_removals=options.removals,
        any_version=options.any_version,
        retry_quarantined=options.retry,
    )
    if result.already_complete:
        print(already_complete(options.output, len(result.skipped), options.retry))
        return 2 if result.skipped else 0
    for problem in result.problems:
        print(problem, file=sys.stderr)
    clips = ", ".join(f"{count} {split}" for split, count in sorted(result.figures.clips.items()))
    print(f"{options.output}: {clips} clips, {result.figures.seconds / 3600:.2f} h")
    return 2 if result.problems else 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    from bi_audio_dataset.arguments import Parser, add_running

    parser = Parser(
        prog="python -m bi_audio_dataset rebuild",
        description="Make the clips of a recipe again out of its recordings, and check them by their hashes.",
    )
    parser.add_argument(
        "recordings", type=Path, metavar="RECORDINGS", help="folder of files named by their ids"
    )
    parser.add_argument(
        "--recipe", type=Path, required=True, metavar="FILE", help="what `publish` has written"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--sofa", type=Path, metavar="FILE", help="the HRIR set that the recipe names")
    parser.add_argument("--denoiser", metavar="NAME", help="allow the recipe's own denoiser")
    add_running(parser)
    parser.add_argument(
        "--removals", type=Path, action="append", default=[], metavar="FILE", help="beside DIR/removals.jsonl"
    )
    parser.add_argument(
        "--any-version",
        action="store_true",
        help="though other versions of the builder made the recipe, or of the libraries began DIR",
    )
    parser.add_argument(
        "--retry", action="store_true", help="of a finished folder: try again what could not be had"
    )
    return parser.parse_args(argv)
