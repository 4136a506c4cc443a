"""A model as a folder, in the package or on the Hub: save, load, push.

    config.json               sizes of every part, sampling defaults, licence, provenance, training summary
    codec.safetensors         one file per part, so that any one of them can be replaced
    clip.safetensors
    synchformer.safetensors
    network.safetensors
    spatial.safetensors       where a Perception Encoder takes the place of CLIP's patch tokens
    README.md                 the model card

Weights may be stored in half precision; in memory they are float32. Only safetensors are read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bi_audio_dataset.schema import UserError
from visaudio import __version__, weight_files
from visaudio.codec.base import Codec
from visaudio.codec.kinds import CodecConfig, build_codec
from visaudio.config import from_dict, to_dict
from visaudio.encoders.clip import ClipEncoder, without_weights
from visaudio.encoders.perception import PerceptionEncoder
from visaudio.encoders.synchformer import SynchformerEncoder
from visaudio.model.network import DualBranchNetwork
from visaudio.model_card import model_card
from visaudio.presets import Preset
from visaudio.sampling import SamplingConfig

FORMAT_VERSION = 1
PARTS = ("codec", "clip", "synchformer", "network")  # of every model; see parts_of
DEFAULT_MODEL = "tiny"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_HALF_MAX = torch.finfo(torch.float16).max


@dataclass(frozen=True)
class ModelInfo:
    """What a model card says and a program may ask. `training`: free-form summary (data, steps, figures)."""

    licence: str = "apache-2.0"
    provenance: str = ""
    limits: str = ""
    training: dict[str, Any] = field(default_factory=dict)


@dataclass
class Components:
    """All parts of a model, in evaluation mode."""

    preset: Preset
    codec: Codec
    clip: ClipEncoder
    synchformer: SynchformerEncoder
    network: DualBranchNetwork
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    info: ModelInfo = field(default_factory=ModelInfo)
    spatial: PerceptionEncoder | None = None

    @property
    def device(self) -> torch.device:
        return self.network.latent_mean.device

    def to(self, device: torch.device | str) -> Components:
        """Moves every part, in place; returns itself."""
        for part in parts_of(self.preset):
            getattr(self, part).to(device)
        return self


def parts_of(preset: Preset) -> tuple[str, ...]:
    """Names of the parts that a model of this preset has, each a file of its folder."""
    return PARTS if preset.spatial is None else (*PARTS, "spatial")


def files_of(parts: Sequence[str]) -> list[str]:
    """Names of the files of a model folder with these parts."""
    return ["config.json", "README.md", *(f"{part}.safetensors" for part in parts)]


def build_components(preset: Preset) -> Components:
    """All parts of a preset; weights that its configs name are loaded, all others are random."""
    components = Components(
        preset=preset,
        codec=build_codec(preset.codec),
        clip=ClipEncoder(preset.clip),
        synchformer=SynchformerEncoder(preset.synchformer),
        network=DualBranchNetwork(preset.network),
        spatial=None if preset.spatial is None else PerceptionEncoder(preset.spatial),
    )
    for part in parts_of(preset):
        getattr(components, part).eval().requires_grad_(False)
    return components


# -------------------- writing


def save_pretrained(
    folder: str | Path, components: Components, dtype: torch.dtype | str = torch.float32
) -> Path:
    """Writes a model folder beside `folder`, then puts it in its place.

    dtype: of the weights on disk, float32 or float16; vectors (norms, biases, statistics) stay float32.
    Raises UserError if it cannot be written, ValueError if a weight does not fit half precision.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists() and not (folder / "config.json").is_file() and any(folder.iterdir()):
            raise UserError(f"{folder}: is not a model folder and not empty; it will not be replaced")
        temporary.mkdir()
        parts = parts_of(components.preset)
        for part in parts:
            state = getattr(components, part).state_dict()
            file = temporary / f"{part}.safetensors"
            save_file(_stored(state, dtype, part), file, {"format": "pt"})
            file.chmod(0o644)  # safetensors makes it 0600, which no other user of a shared folder could read
        sums = {file.name: _sha256(file) for file in sorted(temporary.iterdir())}
        config = {**_config(components), "sha256": sums}
        (temporary / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        (temporary / "README.md").write_text(model_card(components, parts))
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


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with open(file, "rb") as handle:
        while block := handle.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def check_whole(folder: Path, files: Mapping[str, Path] | None = None) -> None:
    """Raises UserError for a model folder that lacks a part, or one of which is not the file that its
    config.json was written with. files: part -> where it is read from, where that is elsewhere.
    """
    config = _read_config(folder)
    sums = config.get("sha256", {})  # models of earlier versions have none
    parts = parts_of(_preset(config, folder))
    for part in parts:
        own = folder / f"{part}.safetensors"
        file = (files or {}).get(part, own)
        if not file.is_file():
            raise UserError(f"{folder}: lacks {own.name}, so it is no whole model; it has {', '.join(parts)}")
        wanted = sums.get(own.name)
        if file == own and wanted is not None and _sha256(own) != wanted:
            raise UserError(
                f"{own}: is not the file that config.json was written with (its SHA-256 is another): "
                "damaged, or of another model? fetch or copy the folder again"
            )


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


def _config(components: Components) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "visaudio_version": __version__,
        "preset": to_dict(components.preset),
        "sampling": to_dict(components.sampling),
        "info": to_dict(components.info),
    }


# -------------------- reading


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

    overrides: part -> a .safetensors file for that part's sizes in this model, or another model's folder or
    name, from which the part comes with its sizes. cache_dir: of the Hub's files, in place of the usual one;
    local_files_only: ask nobody. Files are held against the checksums in config.json. Raises UserError with
    one line for all that can be wrong.
    """
    folder = find_model(name, revision, cache_dir, local_files_only)
    config = _read_config(folder)
    preset = _preset(config, folder)
    files = {part: folder / f"{part}.safetensors" for part in parts_of(preset)}
    for part, source in (overrides or {}).items():
        if part not in files:
            raise UserError(f"unknown part {part!r}; a model has {', '.join(files)}")
        if Path(source).is_file():
            files[part] = Path(source)
        else:
            other = find_model(source)
            preset = _with_part(preset, _preset(_read_config(other), other), part)
            files[part] = other / f"{part}.safetensors"
    check_whole(folder, files)
    components = build_components(preset)
    components.sampling = from_dict(SamplingConfig, config.get("sampling", {}), where="sampling")
    components.info = from_dict(ModelInfo, config.get("info", {}), where="info")
    for part, file in files.items():
        _load_part(getattr(components, part), file, part)
    return components.to(device)


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
    """The local folder of a model, fetched from the Hub where it is neither a folder nor packaged."""
    path = Path(name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError(f"{path}: holds no config.json, so it is not a model folder")
        return path
    if str(name) in packaged_models():
        return Path(str(resources.files("visaudio"))) / "weights" / str(name)
    if not _REPOSITORY.fullmatch(str(name)) or path.is_absolute():
        known = ", ".join(packaged_models()) or "none in this package: train.py makes one"
        raise UserError(
            f"no model {str(name)!r}: expected a folder, a packaged name ({known}) or a Hub owner/name"
        )
    return _download(str(name), revision, cache_dir, local_files_only)


def _download(
    repository: str, revision: str | None, cache_dir: str | Path | None, local_files_only: bool
) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        folder = Path(
            snapshot_download(
                repository,
                revision=revision,
                allow_patterns=files_of((*PARTS, "spatial")),
                cache_dir=cache_dir,
                local_files_only=local_files_only,
            )
        )
    except GatedRepoError as error:
        raise UserError(
            f"Hub repository {repository!r} is gated: accept its terms on its page, then log in "
            "(`hf auth login`, or HF_TOKEN)"
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"no folder and no Hub repository {repository!r} (or it is private: log in)"
        ) from error
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"no model {repository!r}: no such folder, not in the local cache, and the Hub cannot be reached"
        ) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        at = f" at revision {revision!r}" if revision else ""
        raise UserError(f"model {repository!r}{at} cannot be fetched from the Hub: {reason}") from error
    if not (folder / "config.json").is_file():
        raise UserError(f"Hub repository {repository!r} holds no config.json, so it is not a visaudio model")
    return folder


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / 'config.json'}: cannot be read ({error})") from error
    version = config.get("format_version") if isinstance(config, dict) else None
    if version != FORMAT_VERSION:
        raise UserError(
            f"{folder}: a model of format {version!r}, this program reads {FORMAT_VERSION}; "
            "use the version of visaudio that wrote it"
        )
    return config


def _preset(config: Mapping[str, Any], folder: Path) -> Preset:
    preset = from_dict(Preset, config.get("preset", {}), where=f"{folder.name}/config.json: preset")
    # the weights come from this folder, not from where training took them
    return replace(
        preset,
        clip=without_weights(preset.clip),
        synchformer=replace(preset.synchformer, weights=None),
        codec=_without_weights(preset.codec),
        spatial=None if preset.spatial is None else replace(preset.spatial, weights=None),
    )


def _without_weights(codec: CodecConfig) -> CodecConfig:
    named = {name: None for name in ("weights", "vocoder_weights") if hasattr(codec, name)}
    return replace(codec, **named)


def _with_part(preset: Preset, other: Preset, part: str) -> Preset:
    try:
        return replace(preset, **{part: getattr(other, part)})
    except ValueError as error:
        raise UserError(f"the {part} of {other.name!r} does not fit {preset.name!r}: {error}") from error


def _load_part(module: nn.Module, file: Path, part: str) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if file.suffix != ".safetensors":
        raise UserError(f"{file}: only .safetensors weights are read")
    try:
        state = load_file(file)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file}: cannot be read as safetensors ({error})") from error
    weight_files.load_into(module, state, file, f"this {part}")  # copies into float32


def push_to_hub(
    folder: str | Path,
    repository: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str = "",
) -> str:
    """Uploads a model folder; returns the commit's address. Raises UserError if it cannot be done.

    The licence in config.json, the strictest that the weights inherit, goes along in the card.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    folder = find_model(folder)
    check_whole(folder)
    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            revision=revision,
            commit_message=message or f"visaudio {__version__}",
            allow_patterns=files_of(parts_of(_preset(_read_config(folder), folder))),
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"cannot push to {repository!r}: {reason}") from error
    return str(commit.commit_url)


def main(arguments: Sequence[str] | None = None) -> int:
    """python -m visaudio.hub push DIR owner/name."""
    from visaudio.cli.hub import main as run

    return run(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
