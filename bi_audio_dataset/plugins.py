"""Filters that need a model: speech in the sound, agreement of picture and sound. Optional, loaded on first
use.

A plug-in is anything with the protocol below. Those here call models through `transformers` pipelines,
which this package does not import until a filter is switched on.
"""

from __future__ import annotations

import importlib
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bi_audio_dataset.filters import Finding, MatchFilter, SelectionConfig, SpeechFilter
from bi_audio_dataset.schema import UserError

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
    """The highest probability of a speech class of an audio classifier."""

    name = "speech"

    def __init__(self, config: SpeechFilter, classify: Any = None) -> None:
        self.config = config
        self._classify = classify or load_pipeline("audio-classification", config.model)

    def judge(self, frames: NDArray[np.uint8], audio: NDArray[np.float32], sample_rate: int) -> Finding:
        answers = self._classify({"raw": _mono(audio, sample_rate, 16000), "sampling_rate": 16000}, top_k=20)
        speech = max((a["score"] for a in answers if a["label"] in SPEECH_LABELS), default=0.0)
        return Finding(
            self.name,
            self.config.action,
            speech > self.config.max_probability,
            {"probability": speech},
            f"speech with probability {speech:.2f} (limit {self.config.max_probability:g})",
        )


class MatchPlugin:
    """How far what a picture model sees and what an audio model hears agree, over one list of labels:
    the cosine of the two vectors of probabilities, pictures averaged."""

    name = "av_match"
    pictures = 4

    def __init__(self, config: MatchFilter, see: Any = None, hear: Any = None) -> None:
        self.config = config
        self._see = see or load_pipeline("zero-shot-image-classification", config.image_model)
        self._hear = hear or load_pipeline("zero-shot-audio-classification", config.audio_model)

    def judge(self, frames: NDArray[np.uint8], audio: NDArray[np.float32], sample_rate: int) -> Finding:
        from PIL import Image

        pick = np.linspace(0, len(frames) - 1, self.pictures).round().astype(int)
        labels = list(MATCH_LABELS)
        seen = [self._see(Image.fromarray(frames[i]), candidate_labels=labels) for i in pick]
        heard = self._hear(_mono(audio, sample_rate, 48000), candidate_labels=labels)
        a, b = np.mean([_vector(answers) for answers in seen], axis=0), _vector(heard)
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


def load_pipeline(task: str, model: str) -> Any:
    """A transformers pipeline on the CPU. UserError where the library or the model cannot be had."""
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise UserError(
            f"the filter model '{model}' needs transformers ({error}): pip install transformers"
        ) from None
    try:
        return transformers.pipeline(task, model=model, device=-1)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"the filter model '{model}' cannot be loaded for {task}: {reason}") from None


def _mono(audio: NDArray[np.float32], sample_rate: int, wanted: int) -> NDArray[np.float32]:
    import soxr

    return soxr.resample(audio.mean(axis=0), sample_rate, wanted, quality="HQ").astype(np.float32)


def _vector(answers: list[dict[str, Any]]) -> NDArray[np.float64]:
    found = {answer["label"]: answer["score"] for answer in answers}
    return np.array([found.get(label, 0.0) for label in MATCH_LABELS])
