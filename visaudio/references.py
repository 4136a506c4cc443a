"""Published weights that a model folder names instead of copying them: whose, which commit, which checksums.

A preset's codec and encoders are mostly other projects' networks, gigabytes that the Hub holds already. In
place of a copy, config.json then says for each file: repository, commit, path and SHA-256. Loading fetches
exactly that file (or takes it from the Hub's cache) and holds it against the checksum.

What names published weights in a part's config:

    weights: owner/name[@revision]:path      a file (weight_files.py); vocoder_weights too
    weights: a tag of open_clip              the file of open_clip's own table, such as DFN5B's
    model_name: hf-hub:owner/name            open_clip's config and weights in one repository
    weights: public                          of a Perception Encoder: timm's file
    weights: owner/name                      of DAC: a repository of transformers
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from bi_audio_dataset.schema import UserError
from visaudio import hub_access, licences, weight_files
from visaudio.codec.dac import DacCodecConfig
from visaudio.encoders import clip_models
from visaudio.encoders.clip import ClipConfig, without_weights

Kind = Literal["file", "folder", "open_clip"]
FIELDS = ("model_name", "weights", "vocoder_weights")


@dataclass(frozen=True)
class Reference:
    """Files of one repository at one commit, for one setting of a part's config.

    kind: what the setting is given in their place: the one file's path, their folder, or "local-dir:" and
    the folder. files: path in the repository -> SHA-256. licence: as its card says, "unknown" if it does not.
    """

    field: str
    repository: str
    revision: str
    files: dict[str, str]
    licence: str = licences.UNKNOWN
    kind: Kind = "file"

    def __post_init__(self) -> None:
        whole = all(
            len(digest) == 64 and set(digest) <= set("0123456789abcdef") for digest in self.files.values()
        )
        inside = all(not Path(path).is_absolute() and ".." not in Path(path).parts for path in self.files)
        if (
            self.field not in FIELDS
            or not hub_access.REPOSITORY.fullmatch(self.repository)
            or not hub_access.COMMIT.fullmatch(self.revision)
            or not (self.files and whole and inside)
            or (self.kind == "file" and len(self.files) != 1)
        ):
            raise ValueError(
                f"{self.repository}@{self.revision} {self.files} is no reference: expected owner/name, a "
                "commit of 40 digits, and paths with their SHA-256"
            )

    def __str__(self) -> str:
        return f"{self.repository}@{self.revision[:8]}:{', '.join(self.files)}"

    def fetch(self, what: str, cache_dir: str | Path | None = None, local_files_only: bool = False) -> str:
        """The setting's value: local paths of the very files. UserError where one is missing or another."""
        for path, digest in self.files.items():
            file = hub_access.fetch_file(
                self.repository,
                path,
                self.revision,
                what=f"{what}, {self}",
                cache_dir=cache_dir,
                local_files_only=local_files_only,
            )
            if weight_files.sha256(file) != digest:
                raise UserError(
                    f"{what}, {self}: is not the file that config.json references (its SHA-256 is another): "
                    f"damaged, or changed by its owner? remove {file.resolve()} to fetch it again"
                )
        root = file
        for _ in Path(path).parts:
            root = root.parent
        return self._value(root)

    def local(self, source: Path) -> str | None:
        """The setting's value where `source` (a file, or a folder of the files) is what is referenced."""
        if source.is_file() and len(self.files) == 1:
            ((path, digest),) = self.files.items()
            right = source.suffix == Path(path).suffix and weight_files.sha256(source) == digest
            return str(source) if right else None
        if not all((source / path).is_file() for path in self.files):
            return None
        right = all(weight_files.sha256(source / path) == digest for path, digest in self.files.items())
        return self._value(source) if right else None

    def _value(self, root: Path) -> str:
        if self.kind == "file":
            return str(root / next(iter(self.files)))
        return f"local-dir:{root}" if self.kind == "open_clip" else str(root)


# -------------------- which published weights a config names


@dataclass(frozen=True)
class Source:
    """What a setting names: of each of `wanted` the first that the repository holds."""

    field: str
    repository: str
    wanted: tuple[tuple[str, ...], ...]
    revision: str | None = None
    kind: Kind = "file"


def sources(config: Any) -> tuple[Source, ...]:
    """The published weights that a part's config names; empty where it names none, or a local file too."""
    found = _sources(config)
    return () if None in found else tuple(found)


def _sources(config: Any) -> list[Source | None]:
    """One for each setting that names weights; None for what is no file of the Hub."""
    found: list[Source | None] = []
    model_name = getattr(config, "model_name", None) or ""
    if model_name.startswith(clip_models.HUB):
        repository, _, revision = model_name.removeprefix(clip_models.HUB).partition("@")
        wanted = ((clip_models.DESCRIPTION,), *(() if config.weights else (clip_models.WEIGHTS,)))
        found.append(Source("model_name", repository, wanted, revision or None, kind="open_clip"))
    for name in FIELDS[1:]:
        value = getattr(config, "source" if name == "weights" and hasattr(config, "source") else name, None)
        if value is not None:
            found.append(None if Path(value).exists() else _source(config, name, value, model_name))
    return found


def _source(config: Any, name: str, value: str, model_name: str) -> Source | None:
    if on_hub := weight_files.ON_HUB.fullmatch(value):
        return Source(name, on_hub["repository"], ((on_hub["file"],),), on_hub["revision"])
    if isinstance(config, DacCodecConfig) and hub_access.REPOSITORY.fullmatch(value):
        return Source(name, value, (("config.json",), ("model.safetensors",)), kind="folder")
    tagged = _of_tag(model_name, value) if isinstance(config, ClipConfig) and model_name else None
    return Source(name, *tagged) if tagged else None


def _of_tag(model_name: str, tag: str) -> tuple[str, tuple[tuple[str, ...], ...]] | None:
    """Repository and file of an open_clip tag; None for a tag that is no file of the Hub."""
    import open_clip

    place = (open_clip.get_pretrained_cfg(model_name, tag) or {}).get("hf_hub", "")
    repository, _, file = place.rpartition("/")
    if not hub_access.REPOSITORY.fullmatch(repository):
        return None
    return repository, ((file,) if file else clip_models.WEIGHTS,)


def resolve(
    config: Any, what: str, cache_dir: str | Path | None = None, local_files_only: bool = False
) -> tuple[Reference, ...]:
    """References to all that a config names, at the commits that are current now (offline: in the cache)."""
    return tuple(_resolve(source, what, cache_dir, local_files_only) for source in sources(config))


def _resolve(source: Source, what: str, cache_dir: str | Path | None, local_files_only: bool) -> Reference:
    more = {
        "what": f"{what}, {source.repository}",
        "cache_dir": cache_dir,
        "local_files_only": local_files_only,
    }
    revision, files = source.revision, {}
    for alternatives in source.wanted:
        for path in alternatives:
            try:
                file = hub_access.fetch_file(source.repository, path, revision, **more)
            except UserError:
                if path == alternatives[-1]:
                    raise
                continue
            revision = hub_access.commit_of(file, path)  # the others are of the same commit
            files[path] = weight_files.sha256(file)
            break
    licence = _licence(source.repository, revision, more)
    return Reference(source.field, source.repository, revision, files, licence, source.kind)


def licences_of(
    config: Any, cache_dir: str | Path | None = None, local_files_only: bool = False
) -> tuple[str, ...]:
    """The licences of all published weights that a config names; "unknown" where no card says one."""
    more = {"what": "a licence", "cache_dir": cache_dir, "local_files_only": local_files_only}
    named = [source for source in _sources(config) if source is not None]
    return tuple(_licence(source.repository, source.revision, more) for source in named)


def _licence(repository: str, revision: str | None, more: dict[str, Any]) -> str:
    try:
        stated = licences.of_card(
            hub_access.header_of(hub_access.fetch_file(repository, "README.md", revision, **more))
        )
    except UserError:  # no card, or offline without it
        stated = licences.UNKNOWN
    at_least = licences.AT_LEAST.get(repository)
    if at_least is None:
        return stated
    return at_least if stated == licences.UNKNOWN else licences.combined([stated, at_least])


# -------------------- configs and weights


def stripped(config: Any) -> Any:
    """A part's config without the files that its weights came from: they stand in the model's own folder."""
    if isinstance(config, ClipConfig):
        return without_weights(config)
    return replace(config, **{name: None for name in FIELDS[1:] if hasattr(config, name)})


def pinned(config: Any, references: Sequence[Reference], values: Sequence[str]) -> Any:
    """A part's config with the local files in place of what the references name."""
    changes = {reference.field: value for reference, value in zip(references, values, strict=True)}
    return replace(config, **changes)


def same_weights(module: nn.Module, other: nn.Module) -> bool:
    """Whether two modules hold the same numbers, buffers that are not saved included."""
    ours, theirs = (dict([*m.named_parameters(), *m.named_buffers()]) for m in (module, other))
    return ours.keys() == theirs.keys() and all(
        value.dtype == theirs[name].dtype and torch.equal(value.cpu(), theirs[name].cpu())
        for name, value in ours.items()
    )


def check_published(references: Sequence[Reference]) -> None:
    """Raises UserError where a repository has not got a referenced file at that commit, or another one."""
    from huggingface_hub import HfApi

    for reference in references:
        with hub_access.asking(f"reference {reference}"):
            there = {
                entry.path: entry
                for entry in HfApi().get_paths_info(
                    reference.repository, list(reference.files), revision=reference.revision
                )
            }
        for path, digest in reference.files.items():
            large = getattr(there.get(path), "lfs", None)
            if path not in there or (large is not None and large.sha256 != digest):
                raise UserError(f"reference {reference}: the Hub has no such {path} at that commit")
