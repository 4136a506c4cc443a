"""The user's object: ViSAudioPipeline.from_pretrained(...)(video) -> binaural sound.

pipe = ViSAudioPipeline.from_pretrained("tiny")
pipe("clip.mp4", prompt="a small brass bell").save("clip.binaural.mp4")
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from bi_audio_dataset import media
from bi_audio_dataset.schema import UserError
from visaudio import hub, variants
from visaudio.level import OUTPUT_RATE_HZ, FinishedSound
from visaudio.sampling import encode_conditions, encode_prompts, generate_blocks, sound_duration

SOUND_SUFFIXES = (".flac", ".wav")


@dataclass(frozen=True)
class BinauralSound:
    """audio (2, S) float32, row 0 = left, at sample_rate Hz; source: the video file it is for, if any."""

    audio: np.ndarray = field(repr=False)
    sample_rate: int
    source: Path | None = None

    def save(self, path: str | Path) -> None:
        """Writes .flac or .wav; with a video's suffix, the source's picture with this sound."""
        path = Path(path)
        if path.suffix.lower() in SOUND_SUFFIXES:
            media.write_audio(path, self.audio, self.sample_rate, subtype="PCM_24")
        elif self.source is None:
            raise UserError(f"{path}: made from frames, not from a file; save as .flac or .wav")
        else:
            media.mux_binaural(self.source, self.audio, self.sample_rate, path)


class ViSAudioPipeline:
    """Video in, both ears' sound out. Holds the model's parts; see hub.py for where they come from."""

    def __init__(self, components: hub.Components, full_precision: bool = False) -> None:
        self.components = components
        self.full_precision = full_precision

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path = hub.DEFAULT_MODEL,
        *,
        revision: str | None = None,
        overrides: Mapping[str, str | Path] | None = None,
        device: torch.device | str | None = None,
        full_precision: bool = False,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> ViSAudioPipeline:
        """A folder, a packaged name, a variant (variants.py) or a Hub repository.

        overrides: part -> the file or model that it is to come from instead (hub.load_pretrained,
        variants.load_variant). device: None takes a GPU if there is one.

        cache_dir, local_files_only: of a Hub repository, as huggingface_hub takes them.
        full_precision: float32 on a GPU too, where bfloat16 is the default (a CPU always runs float32).
        """
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if str(name) in variants.VARIANTS:
            if revision is not None or cache_dir is not None or local_files_only:
                raise UserError(
                    f"{name} is put together from files of several repositories: revision, cache_dir and "
                    "local_files_only are not for it; give files by overrides, or set HF_HUB_CACHE and "
                    "HF_HUB_OFFLINE"
                )
            components = variants.load_variant(str(name), overrides, device)
        else:
            components = hub.load_pretrained(
                name,
                revision=revision,
                overrides=overrides,
                device=device,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
            )
        return cls(components, full_precision)

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | str = torch.float32) -> Path:
        return hub.save_pretrained(folder, self.components, dtype)

    def to(self, device: torch.device | str) -> ViSAudioPipeline:
        self.components.to(device)
        return self

    @property
    def sample_rate(self) -> int:
        """Rate at which the model makes sound, in Hz; results are resampled to OUTPUT_RATE_HZ."""
        return self.components.preset.sequence.sample_rate

    def __call__(
        self,
        video: str | Path | np.ndarray,
        prompt: str | None = None,
        negative_prompt: str | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        generator: torch.Generator | None = None,
        duration: float | None = None,
        hfov_deg: float | None = None,
        mask_away_clip: bool = False,
        fps: float | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> BinauralSound:
        """The sound of a video, at 44.1 kHz, true peak at most -1 dBFS.

        video: a file, or frames (T, H, W, 3) uint8 RGB at `fps`. duration: seconds from the start; None: all.
        num_inference_steps, guidance_scale: None takes the model's own. hfov_deg: the lens' horizontal field
        of view (None: unknown). mask_away_clip: withhold CLIP's picture features, so that the prompt says
        what sounds.
        """
        length_s = sound_duration(video, duration, fps)
        blocks = self.blocks(
            video,
            prompt=prompt,
            negative_prompt=negative_prompt,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            generator=generator,
            duration=length_s,
            hfov_deg=hfov_deg,
            mask_away_clip=mask_away_clip,
            fps=fps,
            progress=progress,
        )
        with FinishedSound(self.sample_rate, length_s) as sound:
            for block in blocks:
                sound.add(block)
            sound.close()
            source = None if isinstance(video, np.ndarray) else Path(video)
            return BinauralSound(sound.array(), OUTPUT_RATE_HZ, source)

    def blocks(
        self,
        video: str | Path | np.ndarray,
        prompt: str | None = None,
        negative_prompt: str | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        generator: torch.Generator | None = None,
        duration: float | None = None,
        hfov_deg: float | None = None,
        mask_away_clip: bool = False,
        fps: float | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Iterator[np.ndarray]:
        """As a call, but the raw sound in consecutive blocks (2, n) at `self.sample_rate`: for any length."""
        components, defaults = self.components, self.components.sampling
        steps = defaults.num_steps if num_inference_steps is None else num_inference_steps
        scale = defaults.cfg_strength if guidance_scale is None else guidance_scale
        _check(steps, scale, hfov_deg)
        length_s = sound_duration(video, duration, fps)
        negative_text = None
        if negative_prompt and negative_prompt.strip():
            negative_text = encode_prompts(components, [negative_prompt])[0][0]
        half = components.device.type == "cuda" and not self.full_precision
        blocks = generate_blocks(
            components.network,
            components.codec,
            encode_conditions(
                components,
                video,
                length_s,
                prompt=prompt,
                hfov_deg=hfov_deg,
                fps=fps,
                overlap_s=defaults.overlap_s,
                mask_away_clip=mask_away_clip,
            ),
            sequence=components.preset.sequence,
            duration_s=length_s,
            num_steps=steps,
            guidance_scale=scale,
            method=defaults.method,
            overlap_s=defaults.overlap_s,
            generator=generator,
            shared_noise=defaults.shared_noise,
            negative_text=negative_text,
            autocast_dtype=torch.bfloat16 if half else None,
            progress=progress,
        )
        for block in blocks:
            yield block[0].numpy()


def _check(steps: int, scale: float, hfov_deg: float | None) -> None:
    if steps < 1:
        raise UserError(f"num_steps must be at least 1, got {steps}")
    if not math.isfinite(scale):
        raise UserError(f"cfg_strength must be a finite number, got {scale}")
    if hfov_deg is not None and not 0 < hfov_deg < 180:
        raise UserError(f"hfov_deg must lie between 0 and 180 degrees, got {hfov_deg:g}")
