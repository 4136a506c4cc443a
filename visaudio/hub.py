"""Models from folders, from the package and from the Hub: find, load, push.

What a model folder holds: model_folder.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bi_audio_dataset.schema import UserError
from visaudio import __version__, hub_access, licences, part_files, references, weight_files
from visaudio.components import OPTIONAL, PARTS, Components, ModelInfo, build_components, parts_of
from visaudio.model_folder import (
    CARD,
    CONFIG,
    ModelFolder,
    check_card,
    check_whole,
    read_model,
    save_pretrained,
)
from visaudio.presets import Preset
from visaudio.references import Reference

__all__ = (
    "PARTS",
    "Components",
    "ModelInfo",
    "build_components",
    "find_model",
    "load_pretrained",
    "packaged_models",
    "parts_of",
    "push_to_hub",
    "save_pretrained",
)

DEFAULT_MODEL = "tiny"


# -------------------- finding


def packaged_models() -> tuple[str, ...]:
    """Names of the models that ship inside the package."""
    root = Path(str(resources.files("visaudio"))) / "weights"
    return tuple(sorted(path.parent.name for path in root.glob("*/config.json")))


def find_model(
    name: str | Path,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """The local folder of a model, fetched from the Hub where it is neither a folder nor packaged.

    revision: a branch, tag or commit of a Hub repository; anything else has none.
    """
    folder = _local_model(name)
    if folder is None:
        return _download(str(name), revision, cache_dir, local_files_only)
    if revision is not None:
        raise UserError(
            f"{name}: is a folder or a packaged model; revision ({revision!r}) is for a Hub repository"
        )
    return folder


def _local_model(name: str | Path) -> Path | None:
    """A model's folder if there is one; None for what may be a Hub repository."""
    path = Path(name)
    if path.is_dir():
        if not (path / CONFIG).is_file():
            raise UserError(f"{path}: holds no {CONFIG}, so it is not a model folder")
        return path
    if str(name) in packaged_models():
        return Path(str(resources.files("visaudio"))) / "weights" / str(name)
    if not hub_access.REPOSITORY.fullmatch(str(name)) or path.is_absolute():
        known = ", ".join(packaged_models()) or "none in this package: train.py makes one"
        raise UserError(
            f"no model {str(name)!r}: expected a folder, a packaged name ({known}) or a Hub owner/name"
        )
    return None


def _download(
    repository: str, revision: str | None, cache_dir: str | Path | None, local_files_only: bool
) -> Path:
    """The snapshot of a model's files at one commit; what the repository holds besides is left there."""
    from huggingface_hub import snapshot_download

    at = f" at revision {revision!r}" if revision else ""
    more: dict[str, Any] = {"cache_dir": cache_dir, "local_files_only": local_files_only}
    with hub_access.asking(f"model {repository!r}{at} (no such folder, so looked for on the Hub)"):
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=[CONFIG, CARD], **more))
        if not (folder / CONFIG).is_file():
            raise UserError(f"Hub repository {repository!r} holds no {CONFIG}, so it is not a visaudio model")
        model = read_model(folder)
        # an index is among the checksums; models of version 1 have neither shards nor, always, checksums
        names = [
            name for part in model.stored for name in model.sums if part_files.is_one_of(name, part)
        ] or [f"{part}.safetensors" for part in model.stored]
        snapshot_download(repository, revision=folder.name, allow_patterns=names, **more)
    return folder


# -------------------- loading


def load_pretrained(
    name: str | Path = DEFAULT_MODEL,
    *,
    revision: str | None = None,
    overrides: Mapping[str, str | Path] | None = None,
    device: torch.device | str = "cpu",
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Components:
    """A model from a folder, a packaged name ("tiny") or a Hub repository ("owner/name", at `revision`).

    overrides: part -> where it comes from instead: a .safetensors file for that part's sizes in this model;
    another model's folder or name, then with its sizes; or, of a part that this model references, the very
    file that is referenced. cache_dir: of the Hub's files, in place of the usual one; local_files_only: ask
    nobody. Files are held against the checksums in config.json. Raises UserError with one line for all that
    can be wrong.
    """
    more: dict[str, Any] = {"cache_dir": cache_dir, "local_files_only": local_files_only}
    model = read_model(find_model(name, revision, **more))
    origins = {part: _Origin(part, model) for part in parts_of(model.preset)}
    preset, info = model.preset, model.info
    for part, source in (overrides or {}).items():
        if part not in origins:
            raise UserError(f"unknown part {part!r}; a model has {', '.join(origins)}")
        origins[part] = origin = _override(part, source, model, more)
        if origin.model is not model:
            preset = _with_part(preset, origin.model.preset, part)
            info = replace(info, licence=licences.combined([info.licence, origin.model.info.licence]))
    check_whole(
        model, [part for part, origin in origins.items() if origin.is_stored and origin.model is model]
    )
    configs = {part: origin.config(getattr(preset, part), more) for part, origin in origins.items()}
    components = build_components(replace(preset, **configs))
    own = {part: configs[part] for part, origin in origins.items() if not origin.references}
    preset = replace(preset, **own)  # names published weights only where they are what was loaded
    components.preset, components.sampling, components.info = preset, model.sampling, info
    for part, origin in origins.items():
        if origin.references:
            components.references[part] = origin.references
        else:
            state, where = origin.state()
            weight_files.load_into(getattr(components, part), state, where, f"this {part}")  # into float32
    return components.to(device)


class _Origin:
    """Where one part's weights come from: stored or referenced by `model`, or in `file` instead.

    local: field of a reference -> a local file or folder that has been found to be what it references.
    """

    def __init__(
        self, part: str, model: ModelFolder, file: Path | None = None, local: Mapping[str, str] | None = None
    ) -> None:
        self.part, self.model, self.file = part, model, file
        self.local = dict(local or {})
        self.references: tuple[Reference, ...] = () if file else model.references.get(part, ())

    @property
    def is_stored(self) -> bool:
        return self.file is None and not self.references

    def config(self, config: Any, more: Mapping[str, Any]) -> Any:
        """The part's config to build it by: with local files where it is referenced, else with none."""
        if not self.references:
            return references.stripped(config)
        values = [
            self.local.get(one.field) or one.fetch(f"the weights of {self.part}", **more)
            for one in self.references
        ]
        return references.pinned(config, self.references, values)

    def state(self) -> tuple[dict[str, Tensor], Path]:
        """Tensors by name, and the file for messages."""
        if self.file is not None:
            return part_files.read_file(self.file), self.file
        folder = self.model.folder
        return part_files.read(folder, self.part), folder / part_files.names(folder, self.part)[0]


def _override(part: str, source: str | Path, model: ModelFolder, more: Mapping[str, Any]) -> _Origin:
    path = Path(source)
    referenced = model.references.get(part, ())
    local = {}
    if path.exists():
        local = {one.field: value for one in referenced if (value := one.local(path)) is not None}
    if local:
        return _Origin(part, model, local=local)
    if path.is_file():
        if referenced and path.suffix != ".safetensors":
            raise UserError(
                f"{path}: is not what {model.folder.name} references as {part} "
                f"({', '.join(map(str, referenced))}: its SHA-256 is another); give that file, or a "
                ".safetensors of this program"
            )
        return _Origin(part, model, path)
    other = read_model(find_model(source, **more))
    if part not in parts_of(other.preset):
        raise UserError(f"{source}: has no {part}")
    check_whole(other, [part])
    return _Origin(part, other)


def _with_part(preset: Preset, other: Preset, part: str) -> Preset:
    try:
        return replace(preset, **{part: getattr(other, part)})
    except ValueError as error:
        raise UserError(f"the {part} of {other.name!r} does not fit {preset.name!r}: {error}") from error


# -------------------- pushing


def push_to_hub(
    folder: str | Path,
    repository: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str = "",
) -> str:
    """Uploads a model folder as one commit; returns its address. Raises UserError if it cannot be done.

    The repository and the branch `revision` are made where they are not there; weights of an earlier push
    that are no longer part of the model go. Refused are folders that lack a part, whose files are not those
    of their checksums, whose references the Hub has not got, whose card asks for less than the strictest
    licence inherited, or which hold the token.
    """
    if not hub_access.REPOSITORY.fullmatch(repository):
        raise UserError(f"repository is {repository!r}, expected OWNER/NAME")
    found = _local_model(folder)
    if found is None:
        raise UserError(f"no model folder {str(folder)!r}: only what lies here can be pushed")
    model = read_model(found)
    check_whole(model)
    check_card(model)
    _check_no_token(model)
    for part in model.references:
        references.check_published(model.references[part])
    with hub_access.asking(f"cannot push to {repository!r}", writing=True):
        return _commit(model, repository, private, revision, message)


def _check_no_token(model: ModelFolder) -> None:
    from huggingface_hub import get_token

    token = get_token()
    for name in (CONFIG, CARD):
        if token and token in (model.folder / name).read_text():
            raise UserError(f"{model.folder / name}: holds your access token; take it out, and revoke it")


def _commit(model: ModelFolder, repository: str, private: bool, revision: str | None, message: str) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    from visaudio.model_card import for_repository

    api = HfApi()
    api.create_repo(repository, private=private, exist_ok=True)
    if revision is not None:
        api.create_branch(repository, branch=revision, exist_ok=True)
    head = api.repo_info(repository, revision=revision).sha
    ours = model.files()
    card = for_repository((model.folder / CARD).read_text(), repository, revision).encode()
    operations: list[Any] = [
        CommitOperationAdd(name, card if name == CARD else str(model.folder / name)) for name in ours
    ]
    for name in api.list_repo_files(repository, revision=head):
        if name not in ours and any(part_files.is_one_of(name, part) for part in (*PARTS, *OPTIONAL)):
            operations.append(CommitOperationDelete(name))
    commit = api.create_commit(
        repository,
        operations=operations,
        commit_message=message or f"visaudio {__version__}",
        revision=revision,
        parent_commit=head,
    )
    return str(commit.commit_url)


def main(arguments: Sequence[str] | None = None) -> int:
    """python -m visaudio.hub push DIR owner/name."""
    from visaudio.cli.hub import main as run

    return run(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
