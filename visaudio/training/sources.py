"""The datasets of a mixed training: how a configuration names them, their features, and their clips as one.

Features of a source lie in a folder of its name below the features stage's, made with the same frozen parts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bi_audio_dataset.schema import MONO_EARS, UserError
from visaudio.data.feature_store import INDEX, FeatureDataset

if TYPE_CHECKING:
    from visaudio.training.batches import Samples

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class SourceConfig:
    """One of several datasets that are trained on together.

    path: a BiAudio folder or Hub repository. name: stands before its clips' ids; null is the path's last
    part. weight: its share of the samples, relative to the other sources' weights. mono: its sound holds no
    direction; both ears get the mean of its channels, and its clips count as without place (mixture.py).
    """

    path: str = ""
    name: str | None = None
    weight: float = 1.0
    mono: bool = False

    def __post_init__(self) -> None:
        if not self.path:
            raise UserError("each source of data needs a path: a BiAudio folder or Hub repository")
        if not _NAME.fullmatch(self.label):
            raise UserError(f"source name {self.label!r}: expected letters, digits, '.', '_' and '-'")
        if not 0 < self.weight < float("inf"):
            raise UserError(
                f"weight of source {self.label} is {self.weight:g}, expected above 0 (or leave it out)"
            )

    @property
    def label(self) -> str:
        return self.name or Path(self.path).name


def check_sources(sources: Sequence[SourceConfig]) -> None:
    """Raise UserError for a list that cannot be told apart, or is empty."""
    labels = [source.label for source in sources]
    if not labels:
        raise UserError("data is an empty list; name at least one source, or leave data out")
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise UserError(f"two sources of data are named {twice[0]!r}; give one of them another name")


def dataset_name(path: str) -> str:
    """What a model card says it was trained on: "BiAudio-Synth, 1200 clips, seed 0"; never where it lay."""
    try:
        record = json.loads((Path(path) / "build.json").read_text())
        source = record["source"]
        unit = "clips" if source["name"] == "BiAudio-Synth" else "recordings"
        return f"{source['name']}, {source['recordings']} {unit}, seed {record['config']['seed']}"
    except (OSError, ValueError, KeyError, TypeError):
        return Path(path).name


def describe(sources: Sequence[SourceConfig]) -> str:
    """For a model card: each dataset with its share of the samples."""
    total = sum(source.weight for source in sources)
    return "; ".join(
        f"{dataset_name(source.path)} ({'mono, ' * source.mono}{source.weight / total:.1%} of the samples)"
        for source in sources
    )


def check_rows(source: SourceConfig) -> None:
    """Raise UserError where a source's rows say that their sound is mono and the configuration does not."""
    from visaudio.data.dataset import open_dataset, without_media

    rows = without_media(open_dataset(source.path))
    if source.mono or "hrir_set" not in rows.column_names:
        return
    count = sum(ears == MONO_EARS for ears in rows["hrir_set"][:])
    if count:
        raise UserError(
            f"source {source.label}: {count} of its {len(rows)} rows say {MONO_EARS!r}, both ears equal; "
            "declare it mono: true"
        )


def extract_sources(
    sources: Sequence[SourceConfig], folder: Path, extract: Callable[[str, Path, bool], object]
) -> None:
    """extract(dataset, its features folder, mono) for each source, after a look at all of them."""
    for source in sources:
        check_rows(source)
    for source in sources:
        extract(source.path, folder / source.label, source.mono)


def open_sources(sources: Sequence[SourceConfig], folder: Path) -> tuple[Samples, Samples | None]:
    """The training clips of all sources as one set, and the held-out clips that validation looks at.

    Raises UserError for features of other parts or lengths than the first source's, and where what a
    source's sound is declared to be is not what its clips hold.
    """
    from visaudio.training.mixture import MixedSamples, Part, check_ears, held_out_of

    check_alike([folder / source.label for source in sources])

    def parts(split: str) -> list[Part]:
        return [
            Part(source.label, FeatureDataset(folder / source.label, split), source.weight, source.mono)
            for source in sources
        ]

    train = MixedSamples(parts("train"))
    for part in train.parts:
        check_ears(part)
    return train, held_out_of(parts("validation"))


def check_alike(folders: Sequence[Path]) -> None:
    """Raise UserError where the features in one folder were made by other parts or at other rates than those
    in the first."""
    first: dict | None = None
    for folder in folders:
        try:
            index = json.loads((folder / INDEX).read_text())
            said = {**index["key"], "shapes": index.get("shapes")}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"'{folder}' holds no complete features ({error}); run the stage features again"
            ) from error
        said = {name: value for name, value in said.items() if name not in ("ids", "mono")}
        if first is None:
            first = said
        for name in sorted({*first, *said}):
            if first.get(name) != said.get(name):
                what = {"weights": "encoders or codec", "sequence": "rates or lengths", "shapes": "sizes"}
                raise UserError(
                    f"the features in '{folder}' are of other {what.get(name, name)} than those in "
                    f"'{folders[0]}'; remove it and run the stage features again"
                )
