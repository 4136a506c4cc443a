"""The datasets of a mixed training: how a configuration names them, their features, and their clips as one.

Features of a source lie in a folder of its name below the features stage's, made with the same frozen parts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bi_audio_dataset.schema import MONO_EARS, UserError
from visaudio.data.feature_store import FeatureDataset

if TYPE_CHECKING:
    from visaudio.data.parts import Parts
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


def check_declared(source: SourceConfig, hrir_sets: Iterable[str]) -> None:
    """Raise UserError where a source's rows say that their sound is mono and the configuration does not."""
    said = list(hrir_sets)
    count = 0 if source.mono else said.count(MONO_EARS)
    if count:
        raise UserError(
            f"source {source.label}: {count} of its {len(said)} rows say {MONO_EARS!r}, both ears equal; "
            "declare it mono: true"
        )


def check_rows(source: SourceConfig) -> None:
    """`check_declared` of a folder's rows; of a Hub repository they are looked at when it has been read."""
    import pyarrow.parquet as pq

    from visaudio.data.dataset import local_files

    files = local_files(Path(source.path), "default") or []
    said = [
        name
        for file in files
        if "hrir_set" in pq.read_schema(file).names
        for name in pq.read_table(file, columns=["hrir_set"])[0].to_pylist()
    ]
    check_declared(source, said)


def extractions(sources: Sequence[SourceConfig], dataset: str, folder: Path) -> list[tuple[str, Path, bool]]:
    """(dataset, where its features go, mono) of each source, after a look at all of them; of the one
    dataset where there are none."""
    for source in sources:
        check_rows(source)
    return [(s.path, folder / s.label, s.mono) for s in sources] or [(dataset, folder, False)]


def open_features(
    sources: Sequence[SourceConfig], folder: Path, parts: Parts
) -> tuple[Samples, Samples | None]:
    """The training clips of all sources as one set, and the held-out clips that validation looks at; of the
    one dataset where there are none.

    Raises UserError for features that these parts did not make, at these rates, and where what a source's
    sound is declared to be is not what its clips hold.
    """
    from visaudio.training.feature_checks import check_weights

    if sources:
        return _open_sources(sources, folder, parts)
    train, held_out = (FeatureDataset(folder, split) for split in ("train", "validation"))
    check_weights(train, parts)
    return train, held_out


def _open_sources(
    sources: Sequence[SourceConfig], folder: Path, parts: Parts
) -> tuple[Samples, Samples | None]:
    from visaudio.training.feature_checks import check_weights
    from visaudio.training.mixture import MixedSamples, Part, check_ears, held_out_of

    def opened(split: str) -> list[Part]:
        return [
            Part(source.label, FeatureDataset(folder / source.label, split), source.weight, source.mono)
            for source in sources
        ]

    found = opened("train")
    for source, part in zip(sources, found, strict=True):
        check_weights(part.samples, parts)
        check_declared(source, part.samples.hrir_sets)
    train = MixedSamples(found)
    for part in found:
        check_ears(part)
    return train, held_out_of(opened("validation"))
