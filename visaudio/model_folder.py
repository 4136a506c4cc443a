"""A model as a folder: what is in it, how it is written, how it is read and checked.

    config.json               sizes of the parts, sampling defaults, licence, checksums, references
    codec.safetensors         one file per part (or shards, part_files.py), so that any one can be replaced
    clip.safetensors          ... but for published parts, which config.json may reference (references.py)
    synchformer.safetensors
    network.safetensors
    spatial.safetensors       where a Perception Encoder takes the place of CLIP's patch tokens
    README.md                 the model card

Weights may be stored in half precision; in memory they are float32. Only safetensors are read, but for
referenced files, which come as their owners wrote them and are read without running what stands in them.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bi_audio_dataset.schema import UserError, reason_of
from visaudio import __version__, hub_access, licences, part_files, references, weight_files
from visaudio.components import Components, ModelInfo, build_part, parts_of
from visaudio.config import from_dict, to_dict
from visaudio.model_card import model_card, read_results
from visaudio.presets import Preset
from visaudio.references import Reference
from visaudio.sampling import SamplingConfig

FORMAT_VERSION = 2
READS = (1, 2)  # version 1 knew neither shards nor references
CONFIG, CARD = "config.json", "README.md"
_HALF_MAX = torch.finfo(torch.float16).max


@dataclass(frozen=True)
class ModelFolder:
    """What config.json says. sums: file -> SHA-256; references: part -> where its published files are."""

    folder: Path
    preset: Preset
    sampling: SamplingConfig
    info: ModelInfo
    sums: dict[str, str] = field(default_factory=dict)
    references: dict[str, tuple[Reference, ...]] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)  # part -> how many

    @property
    def licence(self) -> str:
        """The strictest of what is stored and what is referenced."""
        return licences.combined(
            [self.info.licence, *(r.licence for found in self.references.values() for r in found)]
        )

    @property
    def stored(self) -> tuple[str, ...]:
        """The parts whose weights are in the folder."""
        return tuple(part for part in parts_of(self.preset) if part not in self.references)

    def files(self) -> tuple[str, ...]:
        """All that belongs to the model, by name; nothing else in the folder does."""
        weights = [name for part in self.stored for name in part_files.names(self.folder, part)]
        return (CONFIG, CARD, *weights)


# -------------------- writing


def save_pretrained(
    folder: str | Path,
    components: Components,
    dtype: torch.dtype | str = torch.float32,
    *,
    references: bool = True,
    max_shard_size: int | str = part_files.MAX_SHARD_SIZE,
) -> Path:
    """Writes a model folder beside `folder`, then puts it in its place.

    dtype: of the weights on disk, float32 or float16; vectors (norms, biases, statistics) stay float32.
    references: parts whose weights are still those that their config names in another repository are
    referenced, not copied; False stores every part. max_shard_size: larger parts become several files.
    The licence that is written covers those of published weights that are copied, too.
    Raises UserError if it cannot be written, ValueError if a weight does not fit half precision.
    """
    folder = Path(folder)
    dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    referenced = _references(components) if references else {}
    info = _with_licences(components, referenced)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists() and not (folder / CONFIG).is_file() and any(folder.iterdir()):
            raise UserError(f"{folder}: is not a model folder and not empty; it will not be replaced")
        temporary.mkdir()
        for part in components.parts:
            if part not in referenced:
                state = _stored(getattr(components, part).state_dict(), dtype, part)
                part_files.write(temporary, part, state, max_shard_size)
        sums = {file.name: weight_files.sha256(file) for file in sorted(temporary.iterdir())}
        write_about(
            ModelFolder(
                temporary,
                _preset_of(components, referenced),
                components.sampling,
                info,
                sums,
                referenced,
                {part: _count(getattr(components, part)) for part in components.parts},
            )
        )
        old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def write_about(model: ModelFolder) -> None:
    """Writes config.json and the card into the model's folder."""
    config = {
        "format_version": FORMAT_VERSION,
        "visaudio_version": __version__,
        "preset": to_dict(model.preset),
        "sampling": to_dict(model.sampling),
        "info": to_dict(model.info),
        "licence": model.licence,
        "parameters": model.parameters,
        "sha256": model.sums,
        "references": {part: [to_dict(one) for one in found] for part, found in model.references.items()},
    }
    for name, text in ((CONFIG, json.dumps(config, indent=2) + "\n"), (CARD, model_card(model))):
        beside = model.folder / f".{name}.partial"
        beside.write_text(text)
        os.replace(beside, model.folder / name)


def describe(
    folder: str | Path,
    results: Path | None = None,
    measured_on: str | None = None,
    datasets: Sequence[str] | None = None,
) -> Path:
    """Writes the card anew, with what is given; the rest stays as config.json says. Returns its path.

    results: what an evaluation of this very model wrote, measured_on its data (model_card.read_results).
    """
    folder = Path(folder)
    model = read_model(folder)
    check_whole(model)
    info = model.info
    if results is not None:
        info = replace(info, results=read_results(results, str(measured_on), folder))
    if datasets is not None:
        info = replace(info, datasets=tuple(datasets))
    try:
        write_about(replace(model, info=info))
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error})") from error
    return folder / CARD


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _references(components: Components) -> dict[str, tuple[Reference, ...]]:
    """Of the parts whose weights are still the published ones; a warning names those that cannot be."""
    found = {}
    for part in components.parts:
        config = getattr(components.preset, part)
        if not references.sources(config):
            continue
        try:
            made = components.references.get(part) or references.resolve(config, f"the weights of {part}")
            values = [one.fetch(f"the weights of {part}") for one in made]
            same = build_part(part, references.pinned(config, made, values))
        except UserError as error:
            warnings.warn(f"{part} is stored as a copy, not referenced: {error}", stacklevel=3)
            continue
        if references.same_weights(getattr(components, part), same):
            found[part] = made
    return found


def _with_licences(components: Components, referenced: Mapping[str, Any]) -> ModelInfo:
    """The info with the licences of published weights that are stored as copies, changed or not."""
    copied = [part for part in components.parts if part not in referenced]
    stated = [one for part in copied for one in references.licences_of(getattr(components.preset, part))]
    info = components.info
    return replace(info, licence=licences.combined([info.licence, *stated])) if stated else info


def _preset_of(components: Components, referenced: Mapping[str, Any]) -> Preset:
    """With the names of published weights where they are referenced, without any where they are stored."""
    own = {
        part: references.stripped(getattr(components.preset, part))
        for part in components.parts
        if part not in referenced
    }
    return replace(components.preset, **own)


def _stored(state: Mapping[str, Tensor], dtype: torch.dtype, part: str) -> dict[str, Tensor]:
    stored = {}
    for name, value in state.items():
        value = value.detach().cpu().contiguous()
        if value.is_floating_point() and value.ndim > 1:
            if dtype == torch.float16 and value.numel() and not value.abs().max() < _HALF_MAX:
                raise ValueError(
                    f"{part}.{name} does not fit half precision (largest: {value.abs().max():g})"
                )
            value = value.to(dtype)
        stored[name] = value.clone()
    return stored


# -------------------- reading


def read_model(folder: Path) -> ModelFolder:
    """What config.json says. Raises UserError for one that is damaged, or of a format not read here."""
    config = _read_config(folder)
    where = f"{folder.name}/{CONFIG}"
    preset = from_dict(Preset, config.get("preset", {}), where=f"{where}: preset")
    try:
        referenced = {
            part: tuple(from_dict(Reference, one, where=f"{where}: references.{part}") for one in found)
            for part, found in dict(config.get("references", {})).items()
        }
        sums = {str(name): str(digest) for name, digest in dict(config.get("sha256", {})).items()}
        parameters = {str(part): int(count) for part, count in dict(config.get("parameters", {})).items()}
    except (TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{folder / CONFIG}: references or checksums are of another form ({error})"
        ) from error
    for part, found in referenced.items():
        if part not in parts_of(preset) or not found:
            raise UserError(
                f"{folder / CONFIG}: references {part!r}; a model has {', '.join(parts_of(preset))}"
            )
        for one in found:
            if not hasattr(getattr(preset, part), one.field):
                raise UserError(f"{folder / CONFIG}: references.{part}: its config has no {one.field}")
    # the weights of other parts come from this folder, not from where training took them
    own = {
        part: references.stripped(getattr(preset, part))
        for part in parts_of(preset)
        if part not in referenced
    }
    return ModelFolder(
        folder,
        replace(preset, **own),
        from_dict(SamplingConfig, config.get("sampling", {}), where="sampling"),
        from_dict(ModelInfo, config.get("info", {}), where="info"),
        sums,
        referenced,
        parameters,
    )


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / CONFIG}: cannot be read as JSON ({reason_of(error)})") from error
    version = config.get("format_version") if isinstance(config, dict) else None
    if version not in READS:
        raise UserError(
            f"{folder}: a model of format {version!r}, this program reads {' and '.join(map(str, READS))}; "
            "use the version of visaudio that wrote it"
        )
    return config


def check_whole(model: ModelFolder, parts: Sequence[str] | None = None) -> None:
    """Raises UserError where a stored part (of `parts`; None: all) is missing, or is not the file that
    config.json was written with.
    """
    for part in model.stored:
        if parts is not None and part not in parts:
            continue
        names = part_files.names(model.folder, part)
        for name in names:
            file = model.folder / name
            if not file.is_file():
                raise UserError(
                    f"{model.folder}: lacks {name}, so it is no whole model; a model has "
                    f"{', '.join(parts_of(model.preset))}"
                )
            wanted = model.sums.get(name)
            # models of version 1 may have no checksums at all; where there are some, each file has its own
            if model.sums and weight_files.sha256(file) != wanted:
                raise UserError(
                    f"{file}: is not the file that config.json was written with (its SHA-256 is another): "
                    "damaged, or of another model? fetch or copy the folder again"
                )
        # the index is read from the folder: it must not hide shards that config.json knows of
        known = {name for name in model.sums if part_files.is_one_of(name, part)}
        if lacking := sorted(known - set(names)):
            raise UserError(
                f"{model.folder}: lacks {lacking[0]}, so it is no whole model; fetch or copy the folder again"
            )


def check_card(model: ModelFolder) -> None:
    """Raises UserError where the card is missing, or its header asks for less than the weights' licence."""
    card = model.folder / CARD
    if not card.is_file():
        raise UserError(
            f"{model.folder}: lacks {CARD}; `python -m visaudio.hub card {model.folder}` writes it"
        )
    stated = licences.of_card(hub_access.header_of(card))
    if not licences.covers(stated, model.licence):
        raise UserError(
            f"{card}: says licence {stated}, but the weights inherit {model.licence}; "
            f"`python -m visaudio.hub card {model.folder}` writes it anew"
        )
