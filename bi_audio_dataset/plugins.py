"""Filters that need a model: speech in the sound, agreement of picture and sound. Optional, loaded on first
use.

A plug-in is anything with the protocol below. Those here call models through `transformers` pipelines,
which this package does not import until a filter is switched on. They hear the two ears averaged, in parts of
at most PART_S: longer sound these models cut, some of them (CLAP) at a random place.
"""

from __future__ import annotations

import importlib
import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bi_audio_dataset.filters import Finding, MatchFilter, SelectionConfig, SpeechFilter
from bi_audio_dataset.schema import UserError

#: What the models were trained on, and no more of it at once.
PART_S = 10.0
#: More classes than any classifier has: the pipelines then give all.
_ALL = 100_000
#: AudioSet's names of speech, as audio classifiers trained on it give them.
SPEECH_LABELS = frozenset(
    {
        "Speech",
        "Male speech, man speaking",
        "Female speech, woman speaking",
        "Child speech, kid speaking",
        "Conversation",
        "Narration, monologue",
    }
)
#: What picture and sound are both asked for.
MATCH_LABELS = (
    "a dog", "a bird", "a crowd of people", "a person talking", "music being played", "a car", "a train",
    "an aeroplane", "water flowing", "waves of the sea", "rain", "wind in trees", "a machine", "fireworks",
    "a bell", "traffic in a street", "footsteps", "silence",
)  # fmt: skip


class ClipFilter(Protocol):
    """One per worker process. `name` is the field of SelectionConfig that it belongs to."""

    name: str

    def judge(self, frames: NDArray[np.uint8], audio: NDArray[np.float32], sample_rate: int) -> Finding:
        """frames (T, H, W, 3) of the finished view, audio (2, N) of the finished ears."""
        ...


class SpeechPlugin:
    """The highest probability of a speech class of an audio classifier, in any part of the clip.

    Classes are not exclusive (AudioSet's are not), so each has a probability of its own.
    """

    name = "speech"

    def __init__(self, config: SpeechFilter, classify: Any = None) -> None:
        self.config = config
        self._classify = classify or load_pipeline("audio-classification", config.model, config.device)
        if classify is None and not SPEECH_LABELS & set(self._classify.model.config.id2label.values()):
            raise UserError(
                f"the filter model '{config.model}' has none of AudioSet's classes of speech: give one that "
                "was trained on AudioSet"
            )

    def judge(self, frames: NDArray[np.uint8], audio: NDArray[np.float32], sample_rate: int) -> Finding:
        rate = _rate_of(self._classify, 16000)
        speech = 0.0
        for part in parts(audio, sample_rate, rate):
            sound = {"raw": part, "sampling_rate": rate}
            answers = _ask(self._classify, sound, top_k=_ALL, function_to_apply="sigmoid")
            speech = max([speech, *(a["score"] for a in answers if a["label"] in SPEECH_LABELS)])
        return Finding(
            self.name,
            self.config.action,
            speech > self.config.max_probability,
            {"probability": speech},
            f"speech with probability {speech:.2f} (limit {self.config.max_probability:g})",
        )


class MatchPlugin:
    """How far what a picture model sees and what an audio model hears agree, over one list of labels:
    the cosine of the two vectors of probabilities, pictures and parts of the sound averaged."""

    name = "av_match"
    pictures = 4

    def __init__(self, config: MatchFilter, see: Any = None, hear: Any = None) -> None:
        self.config = config
        self._see = see or load_pipeline("zero-shot-image-classification", config.image_model, config.device)
        self._hear = hear or load_pipeline(
            "zero-shot-audio-classification", config.audio_model, config.device
        )

    def judge(self, frames: NDArray[np.uint8], audio: NDArray[np.float32], sample_rate: int) -> Finding:
        from PIL import Image

        pick = np.linspace(0, len(frames) - 1, self.pictures).round().astype(int)
        labels = list(MATCH_LABELS)
        seen = [_ask(self._see, Image.fromarray(frames[i]), candidate_labels=labels) for i in pick]
        sounds = parts(audio, sample_rate, _rate_of(self._hear, 48000))
        heard = [_ask(self._hear, part, candidate_labels=labels) for part in sounds]
        a, b = (np.mean([_vector(answers) for answers in each], axis=0) for each in (seen, heard))
        score = float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12))
        return Finding(
            self.name,
            self.config.action,
            score < self.config.min_score,
            {"score": score},
            f"picture and sound agree by {score:.2f} (at least {self.config.min_score:g})",
        )


def load_plugins(config: SelectionConfig) -> list[ClipFilter]:
    """The plug-ins whose filter is not off, with their models."""
    plugins: list[ClipFilter] = []
    if config.speech.action != "off":
        plugins.append(SpeechPlugin(config.speech))
    if config.av_match.action != "off":
        plugins.append(MatchPlugin(config.av_match))
    return plugins


def load_pipeline(task: str, model: str, device: str = "cpu") -> Any:
    """A transformers pipeline. UserError where the library, the model or the device cannot be had."""
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise UserError(
            f"the filter model '{model}' needs transformers ({error}): pip install transformers"
        ) from None
    try:
        return transformers.pipeline(task, model=model, device=device)
    except Exception as error:  # of a damaged file each loader has an error class of its own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"the filter model '{model}' cannot be loaded for {task} on {device}: {reason}"
        ) from error


def parts(audio: NDArray[np.float32], sample_rate: int, wanted: int) -> list[NDArray[np.float32]]:
    """Ears (2, N) averaged, at the rate wanted, in as few equal parts as are no longer than PART_S."""
    import soxr

    mono = soxr.resample(audio.mean(axis=0), sample_rate, wanted, quality="HQ").astype(np.float32)
    return np.array_split(mono, max(1, math.ceil(len(mono) / (PART_S * wanted))))


def _ask(pipeline: Any, what: Any, **how: Any) -> list[dict[str, Any]]:
    """MemoryError where a GPU is full: no fault of the recording, which is to be made again."""
    try:
        return pipeline(what, **how)
    except RuntimeError as error:
        if "out of memory" in str(error).lower():
            raise MemoryError(f"a filter's model: {' '.join(str(error).split())[:200]}") from error
        raise


def _rate_of(pipeline: Any, usual: int) -> int:
    """The sample rate that a pipeline's model expects, in Hz."""
    return getattr(getattr(pipeline, "feature_extractor", None), "sampling_rate", usual)


def _vector(answers: list[dict[str, Any]]) -> NDArray[np.float64]:
    found = {answer["label"]: answer["score"] for answer in answers}
    return np.array([found.get(label, 0.0) for label in MATCH_LABELS])
