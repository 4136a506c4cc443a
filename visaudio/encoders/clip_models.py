"""open_clip's public models: what a name describes, and the file of its weights.

    ViT-H-14-378-quickgelu                        one that open_clip describes; weights: a tag, file or source
    hf-hub:apple/DFN5B-CLIP-ViT-H-14-384          a repository with open_clip_config.json and the weights
    hf-hub:owner/name@revision
    local-dir:FOLDER                              the same files in a folder

Only descriptions and classes are open_clip's. Its own loader goes on with random weights where a repository's
cannot be had, and stretches the positions of a model for other pictures; here both are errors.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from bi_audio_dataset.schema import UserError, reason_of
from visaudio import weight_files

HUB, FOLDER = "hf-hub:", "local-dir:"
DESCRIPTION = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
MEAN = (0.48145466, 0.4578275, 0.40821073)  # OpenAI's, where a model names none
STD = (0.26862954, 0.26130258, 0.27577711)
# repositories whose network open_clip describes as well, so that it can be built with no repository at hand
SAME_NETWORK = {"hf-hub:apple/DFN5B-CLIP-ViT-H-14-384": "ViT-H-14-378-quickgelu"}


@dataclass(frozen=True)
class ClipModel:
    """sizes: keywords of open_clip.CLIP. mean, std: of the pictures' channels in [0, 1]."""

    sizes: dict[str, Any]
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD


def describe(name: str, weights: str | None = None) -> ClipModel:
    """The network of a name. Raises UserError for one that is not known, or no CLIP with text of its own."""
    import open_clip

    if name.startswith((HUB, FOLDER)):
        file = _in_place(name, DESCRIPTION)
        try:
            found = json.loads(file.read_text())
            sizes, picture = found["model_cfg"], found.get("preprocess_cfg", {})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{file}: is no description of an open_clip model ({error!r})") from error
    else:
        sizes = open_clip.get_model_config(name)
        if sizes is None:
            raise UserError(f"open_clip knows no model {name!r}; see open_clip.list_models()")
        picture = open_clip.get_pretrained_cfg(name, weights) if weights else {}
    strange = {"custom_text", "multimodal_cfg"} & {key for key, value in sizes.items() if value}
    towers = {**sizes.get("vision_cfg", {}), **sizes.get("text_cfg", {})}
    if strange or {"timm_model_name", "hf_model_name"} & set(towers):
        raise UserError(
            f"{name} is none of open_clip's CLIP class with both towers of its own; choose another"
        )
    return ClipModel(sizes, tuple(picture.get("mean") or MEAN), tuple(picture.get("std") or STD))


def build(name: str, weights: str | None = None) -> tuple[nn.Module, ClipModel]:
    """The network with random weights."""
    import open_clip

    model = describe(name, weights)
    try:
        return open_clip.CLIP(**model.sizes), model
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        reason = reason_of(error)
        raise UserError(f"CLIP {name} cannot be built from its description: {reason}") from error


def make_tokenizer(name: str | None, model: ClipModel) -> Any:
    """What turns texts into ids: open_clip's byte pairs, or the tokenizer that the description names."""
    import open_clip

    text = model.sizes["text_cfg"]
    if name is not None and text.get("hf_tokenizer_name"):
        return open_clip.get_tokenizer(name.partition("@")[0])
    return open_clip.SimpleTokenizer(**text.get("tokenizer_kwargs", {}))


def find_weights(name: str, weights: str | None) -> Path | None:
    """The local file of a model's weights, fetched where it is not; None where it names none."""
    if weights is None:
        return _in_place(name, *WEIGHTS) if name.startswith((HUB, FOLDER)) else None
    if Path(weights).is_file() or ":" in weights:
        return weight_files.fetch(weights, "CLIP")
    import open_clip

    tags = [] if name.startswith((HUB, FOLDER)) else open_clip.list_pretrained_tags_by_model(name)
    if weights not in tags:
        raise UserError(
            f"no weights of CLIP at {weights}: expected a file, owner/name:path of a file on the Hub, "
            f"or one of open_clip's tags of {name} ({', '.join(tags) or 'it has none'})"
        )
    repository, _, file = open_clip.get_pretrained_cfg(name, weights)["hf_hub"].rpartition("/")
    if not repository:
        raise UserError(f"open_clip has {name} {weights!r} from no repository of the Hub: give its file")
    files = (file,) if file else WEIGHTS
    return weight_files.fetch_first([f"{repository}:{one}" for one in files], "CLIP")


def _in_place(name: str, *files: str) -> Path:
    """The first of these files that the repository or folder of a name has."""
    if name.startswith(HUB):
        return weight_files.fetch_first([f"{name.removeprefix(HUB)}:{file}" for file in files], "CLIP")
    folder = Path(name.removeprefix(FOLDER))
    for file in files:
        if (folder / file).is_file():
            return folder / file
    raise UserError(f"{folder}: holds no {' or '.join(files)}, so it is no open_clip model")
