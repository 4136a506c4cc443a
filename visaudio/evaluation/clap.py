"""CLAP score: does a clip sound like its caption, and like its reference? By transformers' ClapModel.

Both are cosines of embeddings (Wu et al. 2023, arXiv 2211.06687): sound and text, as av-benchmark's
LAION-CLAP score, and sound and sound. The network hears 10 s at a time at 48 kHz; a longer sound is heard in
consecutive windows whose embeddings are averaged, where CLAP's own reader would take a random window.

Legend: E = 3 signals: mix, left, right; D dimensions of an embedding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bi_audio_dataset.schema import UserError, reason_of
from visaudio import hub_access, weight_files
from visaudio.evaluation.measures import (
    FigureSpec,
    Heard,
    Measure,
    Scene,
    Settings,
    Sound,
    Unavailable,
)

WEIGHTS = "laion/larger_clap_general"
BESIDE = ("preprocessor_config.json", "tokenizer_config.json", "tokenizer.json", "vocab.json", "merges.txt")
TENSORS = ("model.safetensors", "pytorch_model.bin")
OWN = "give a folder of transformers' that you have (--weights clap=FOLDER)"


class Clap(Measure):
    name = "clap"
    parallel = False
    figures = (
        FigureSpec("clap_text", "CLAP, caption", "", "higher"),
        FigureSpec("clap_text_ears", "CLAP, caption, mean of ears", "", "higher"),
        FigureSpec("clap_text_reference", "CLAP, caption, of the reference", "", ""),
        FigureSpec("clap_audio", "CLAP, reference", "", "higher"),
    )

    def __init__(self, folder: Path, fingerprint: str, device: str = "cpu") -> None:
        """folder: of transformers' files, checked (see `make`); fingerprint: of its weights."""
        self._key = f"clap-1-{fingerprint[:12]}"
        self.model, self.reader, self.tokenizer = _load(folder)
        self.model, self.device = self.model.to(device), device
        self._text = lru_cache(maxsize=4096)(self._embed_text)

    @property
    def key(self) -> str:
        return self._key

    @torch.no_grad()
    def hear(self, sound: Sound, scene: Scene) -> dict[str, np.ndarray]:
        """embedding (E, D) float32 of length 1."""
        rate = self.reader.sampling_rate
        ears = sound.at(rate)
        signals = [ears.mean(axis=0), *ears] if not np.array_equal(*ears) else [ears[0]]
        found = torch.stack([self._embed_audio(signal, rate) for signal in signals])
        return {"embedding": found.expand(3, -1).cpu().numpy().copy()}

    def compare(self, generated: Heard, reference: Heard | None, scene: Scene) -> dict[str, float]:
        ours = generated["embedding"].astype(np.float64)
        theirs = None if reference is None else reference["embedding"].astype(np.float64)
        row = {figure.name: float("nan") for figure in self.figures}
        if caption := scene.caption.strip():
            text = self._text(caption)
            row["clap_text"], row["clap_text_ears"] = float(ours[0] @ text), float((ours[1:] @ text).mean())
            if theirs is not None:
                row["clap_text_reference"] = float(theirs[0] @ text)
        if theirs is not None:
            row["clap_audio"] = float(ours[0] @ theirs[0])
        return row

    def _embed_audio(self, signal: np.ndarray, rate: int) -> Tensor:
        """(S,) -> (D,) of length 1, the mean over windows of the network's length."""
        windows = list(_windows(signal, self.reader.nb_max_samples))
        # one window at a time: the reader marks one of several as longer, at random
        inputs = [self.reader(w, sampling_rate=rate, return_tensors="pt") for w in windows]
        heard = torch.cat([item["input_features"] for item in inputs]).float().to(self.device)
        longer = torch.zeros(len(windows), 1, dtype=torch.bool, device=self.device)
        found = _pooled(self.model.get_audio_features(input_features=heard, is_longer=longer))
        return _unit(_unit(found).mean(0))

    @torch.no_grad()
    def _embed_text(self, caption: str) -> np.ndarray:
        """(D,) float64 of length 1."""
        ids = self.tokenizer(caption, truncation=True, return_tensors="pt")
        names = ("input_ids", "attention_mask")
        found = self.model.get_text_features(**{name: ids[name].to(self.device) for name in names})
        return _unit(_pooled(found))[0].double().cpu().numpy()


def _windows(signal: np.ndarray, length: int) -> Iterator[np.ndarray]:
    """Consecutive pieces of `length`; the last one ends with the signal."""
    for start in range(0, max(1, len(signal) - length + 1), length):
        yield signal[start : start + length]
    if len(signal) > length and len(signal) % length:
        yield signal[-length:]


def _pooled(found: Any) -> Tensor:
    """transformers before 5 gave the embedding itself."""
    return found if isinstance(found, Tensor) else found.pooler_output


def _unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x.float(), dim=-1)


# -------------------- weights


def make(settings: Settings) -> Clap:
    """Weights: "clap", a folder or a repository of transformers' CLAP.

    Unavailable where the default cannot be had, UserError where what was given is something else.
    """
    given = settings.weights.get("clap")
    if given is None:
        try:
            folder = _fetch(WEIGHTS)
        except UserError as error:
            raise Unavailable(f"no CLAP: {error}; or {OWN}") from error
    else:
        folder = _fetch(given) if hub_access.on_hub(given) else Path(given)
    if not folder.is_dir():
        raise UserError(f"no CLAP at {folder}: expected a folder with config.json and model.safetensors")
    try:
        tensors = next(folder / name for name in TENSORS if (folder / name).is_file())
        config = (folder / "config.json").read_bytes()
    except (StopIteration, OSError):
        raise UserError(f"{folder}: holds no config.json with {' or '.join(TENSORS)}: {OWN}") from None
    fingerprint = hashlib.sha256(config + weight_files.sha256(tensors).encode()).hexdigest()
    return Clap(folder, fingerprint, settings.device)


def _fetch(repository: str) -> Path:
    """The folder of a Hub repository's files, all of one commit."""
    first = hub_access.fetch_file(repository, "config.json", what=f"CLAP's config.json of {repository}")
    commit = hub_access.commit_of(first, "config.json")

    for file in BESIDE:
        hub_access.fetch_file(repository, file, commit, what=f"CLAP's {file} of {repository}")
    weight_files.fetch_first([f"{repository}@{commit}:{file}" for file in TENSORS], "CLAP")
    return first.parent


def _load(folder: Path) -> tuple[torch.nn.Module, Any, Any]:
    """Model in evaluation mode, reader of sounds, tokenizer. UserError if they cannot be loaded whole."""
    from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

    try:
        kind = json.loads((folder / "config.json").read_text()).get("model_type")
        if kind != "clap":
            raise UserError(f"{folder}: is a model of type {kind!r}, expected 'clap'")
        safe = (folder / TENSORS[0]).is_file()
        how = {"use_safetensors": safe, "weights_only": True, "local_files_only": True}
        model, loading = ClapModel.from_pretrained(folder, **how, output_loading_info=True)
        reader = ClapFeatureExtractor.from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except UserError:
        raise
    except Exception as error:  # transformers and safetensors raise whatever a damaged file makes them raise
        reason = reason_of(error, 160)
        raise UserError(f"cannot load a CLAP from {folder} ({reason}): {OWN}") from error
    # transformers would go on with random weights in their place; tables of indices it makes anew
    state = model.state_dict()
    missing = sorted(
        k for k in map(str, loading["missing_keys"]) if k in state and state[k].is_floating_point()
    )
    if missing:
        raise UserError(
            f"{folder}: not the weights of a CLAP: missing {missing[:2]} ({len(missing)} in all): {OWN}"
        )
    return model.float().eval().requires_grad_(False), reader, tokenizer
