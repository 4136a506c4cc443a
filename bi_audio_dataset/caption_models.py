"""The captioner's two models, through transformers: Qwen2.5-Omni watches and listens, an instruct model
condenses.

A plug-in: torch and transformers are imported only where a model is loaded. Names are local folders or Hub
ids; only classes that transformers itself ships are used, never code out of a model's repository.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from bi_audio_dataset.schema import UserError

AUDIO_RATE_HZ = 16000
OMNI_TYPES = ("qwen2_5_omni", "qwen2_5_omni_thinker")

LISTEN_PROMPT = (
    "Watch this clip and listen to it. Name every sound that you hear. For each one say what makes it, "
    "how it sounds, and whether its source is in the picture while it sounds or out of view. Leave out "
    "whatever "
    "is seen but silent. Do not mention the camera, the recording or the viewer."
)
CONDENSE_PROMPT = (
    "Below is a description of the sounds of a video clip. Rewrite it as one line that names first the "
    "sounds whose sources are in view and then those whose sources are not, each side a few short noun "
    "phrases in "
    "lower case joined by commas and 'and', at most 30 words a side, and the word none where a side has no "
    "sound. "
    "Examples of such lines:\n"
    "Visible sound: a man playing the violin and his foot tapping, Invisible sound: an applauding audience\n"
    "Visible sound: none, Invisible sound: birds singing\n"
    "Answer with the line alone.\n\nDescription: {description}"
)
STRICT_PROMPT = (
    CONDENSE_PROMPT
    + "\n\nAn earlier answer was refused because {reason}. Write exactly one line. It starts with "
    "'Visible sound: ', holds ', Invisible sound: ' once, and has no quotes, brackets, full stop, list or "
    "comment."
)


@dataclass(frozen=True)
class ModelConfig:
    """listener, condenser: a folder or a Hub id. device "auto": the first GPU if there is one. dtype: of the
    weights, "auto" as they are stored."""

    listener: str = "Qwen/Qwen2.5-Omni-7B"
    condenser: str = "Qwen/Qwen3-8B"
    device: str = "auto"
    dtype: str = "auto"
    max_description_tokens: int = 256
    max_caption_tokens: int = 128


@dataclass(frozen=True)
class ClipMedia:
    """frames (T, H, W, 3) uint8 RGB at fps, T even; audio (N,) float32 at AUDIO_RATE_HZ, both ears
    averaged.
    """

    frames: np.ndarray
    fps: float
    audio: np.ndarray


class OmniListener:
    """Describes the sounds of a clip in free words. Loads the weights when it is made."""

    def __init__(self, config: ModelConfig) -> None:
        self.name, self.config = config.listener, config
        self.device = _device(config.device)
        with _loading(self.name):
            from transformers import AutoConfig

            kind = AutoConfig.from_pretrained(self.name).model_type
            if kind not in OMNI_TYPES:
                raise UserError(f"'{self.name}' is a {kind} model, expected Qwen2.5-Omni")
            try:
                from transformers import Qwen2_5OmniProcessor, Qwen2_5OmniThinkerForConditionalGeneration
            except ImportError:
                raise UserError(
                    "this transformers has no Qwen2.5-Omni: pip install 'visaudio[caption]'"
                ) from None
            self.processor = Qwen2_5OmniProcessor.from_pretrained(self.name)
            self.model = _weights(
                Qwen2_5OmniThinkerForConditionalGeneration, self.name, config.dtype, self.device
            )

    def describe(self, clip: ClipMedia, seed: int, temperature: float) -> str:
        """UserError where the model fails, e.g. for want of memory."""
        with _running(self.name, self.device):
            return self._describe(clip, seed, temperature)

    def _describe(self, clip: ClipMedia, seed: int, temperature: float) -> str:
        content = [{"type": "video"}, {"type": "text", "text": LISTEN_PROMPT}]
        text = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        # picture and sound are interleaved in time, so that the model can tell whose sound it is; the keyword
        # for that was renamed in transformers 5
        together: dict[str, Any] = {"use_audio_in_video": True}
        if hasattr(type(self.processor), "load_audio_from_video"):
            together = {"load_audio_from_video": True, "audio_from_video_indices": [0]}
        inputs = self.processor(
            text=[text],
            videos=[clip.frames],
            audio=[clip.audio],
            return_tensors="pt",
            videos_kwargs={"fps": clip.fps, "do_sample_frames": False},
            audio_kwargs={"sampling_rate": AUDIO_RATE_HZ},
            **together,
        )
        tokens = _generate(
            self.model,
            inputs.to(self.device, self.model.dtype),
            self.config.max_description_tokens,
            seed,
            temperature,
            use_audio_in_video=True,
        )
        return self.processor.batch_decode(tokens, skip_special_tokens=True)[0].strip()


class InstructCondenser:
    """Turns a description into a caption's line. Any chat model of AutoModelForCausalLM."""

    def __init__(self, config: ModelConfig) -> None:
        self.name, self.config = config.condenser, config
        self.device = _device(config.device)
        with _loading(self.name):
            from transformers import AutoModelForCausalLM, AutoTokenizer

            self.tokenizer = AutoTokenizer.from_pretrained(self.name)
            if not getattr(self.tokenizer, "chat_template", None):
                raise UserError(f"'{self.name}' has no chat template: give an instruct model")
            self.model = _weights(AutoModelForCausalLM, self.name, config.dtype, self.device)

    def condense(self, description: str, refused: str | None, seed: int, temperature: float) -> str:
        """refused: why the answer before was none; None at the first try. UserError where the model fails."""
        prompt = CONDENSE_PROMPT if refused is None else STRICT_PROMPT
        message = prompt.format(description=description, reason=refused)
        inputs = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": message}],
            add_generation_prompt=True,
            enable_thinking=False,  # Qwen3's templates read it, others ignore it
            return_tensors="pt",
            return_dict=True,
        )
        limit = self.config.max_caption_tokens
        with _running(self.name, self.device):
            tokens = _generate(self.model, inputs.to(self.device), limit, seed, temperature)
        return self.tokenizer.batch_decode(tokens, skip_special_tokens=True)[0].strip()


def _generate(model, inputs, max_new_tokens: int, seed: int, temperature: float, **more):
    """The new tokens (1, N). Temperature 0 is greedy; the seed decides all else, other users of torch
    unharmed.
    """
    import torch

    sampling = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    if temperature > 0:
        sampling = {"do_sample": True, "temperature": temperature, "top_p": 0.9, "top_k": 50}
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.inference_mode(), torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        tokens = model.generate(**inputs, max_new_tokens=max_new_tokens, **sampling, **more)
    return tokens[:, inputs["input_ids"].shape[1] :]


def _weights(model_class, name: str, dtype: str, device: str):
    """The model, ready to generate; UserError if a weight of it is not in the checkpoint."""
    model, info = model_class.from_pretrained(name, dtype=dtype, output_loading_info=True)
    missing = sorted(info["missing_keys"])
    if missing:
        raise UserError(f"'{name}' lacks {len(missing)} weights of {model_class.__name__}, e.g. {missing[0]}")
    return model.to(device).eval()


def _device(wanted: str) -> str:
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"--device {wanted}: this machine has no CUDA GPU that torch can use")
    try:
        return str(torch.device(wanted))
    except RuntimeError:
        raise UserError(f"--device {wanted}: expected auto, cpu, cuda or cuda:N") from None


@contextlib.contextmanager
def _loading(name: str):
    """transformers' reasons, many lines long, as one."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of a damaged file each loader has an error class of its own
        raise UserError(
            f"model '{name}' cannot be loaded ({_reason(error)}): give a folder or a Hub id"
        ) from error


@contextlib.contextmanager
def _running(name: str, device: str):
    """torch's reasons, CUDA's among them, as one line."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        if "out of memory" in str(error).lower() or "can't allocate" in str(error):
            raise UserError(f"model '{name}' needs more memory than {device} has free") from error
        raise UserError(f"model '{name}' failed on {device}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
