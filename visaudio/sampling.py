"""generate(), the only sampler: validation, evaluation, the command line and the pipeline all call it.

    noise -> solve(guided(network)) -> tokens -> codec -> both ears' waveforms

Legend: B samples, 2 ears (0 = left), N tokens of D dimensions, F codec frames, S audio samples, T frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bi_audio_dataset import media
from bi_audio_dataset.schema import UserError
from visaudio.codec.base import Codec
from visaudio.encoders.frames import prepare_frames, to_signed
from visaudio.guidance import guided
from visaudio.model.conditions import MODALITIES, Conditions
from visaudio.model.network import DualBranchNetwork
from visaudio.sequence import SequenceConfig, from_tokens
from visaudio.solver import METHODS, solve, time_grid
from visaudio.windows import (
    FrameRequest,
    Window,
    hold_mask,
    read_windows,
    total_windows,
    window_sequence,
)

if TYPE_CHECKING:
    from visaudio.hub import Components

MIN_DURATION_S = 0.3  # shorter sounds are generated at this length, then cut
# Codec frames decoded on either side of a block and thrown away: more than the reach of the tiny decoder's
# convolutions (10 frames), so that a sound decoded in blocks is the sound decoded at once.
DECODE_CONTEXT = 16


@dataclass(frozen=True)
class SamplingConfig:
    """A model's own defaults, stored in its config.json.

    cfg_strength 1 is no guidance. overlap_s: shared by neighbouring windows of a long sound. shared_noise:
    both ears start from one noise (as weights made from a mono model need for equal ears). captions_only:
    the network has read captions of the dataset's form alone, so prompts are brought into it.
    """

    num_steps: int = 25
    cfg_strength: float = 4.5
    method: str = "euler"
    overlap_s: float = 2.0
    shared_noise: bool = False
    captions_only: bool = True

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}; got {self.method!r}")


# -------------------- what the network is told


@torch.inference_mode()
def encode_frames(
    components: Components,
    clip_frames: Tensor | np.ndarray,
    sync_frames: Tensor | np.ndarray,
    prompts: Sequence[str | None] | None = None,
    hfov_deg: float | Sequence[float] | None = None,
    spatial_frames: Tensor | np.ndarray | None = None,
) -> Conditions:
    """Conditions of B clips from their frames, at the rates of components.preset.sequence.

    clip_frames (B, T, 3, H, W) uint8 at clip_fps, sync_frames likewise at sync_fps, each square of its
    encoder's size; prompts (B,): None or "" is no text; hfov_deg: the lens' horizontal field of view, None if
    unknown; spatial_frames: as clip_frames, of a model with a spatial encoder. The same calls as in feature
    extraction for training.
    """
    device = components.device
    clip_frames = torch.as_tensor(clip_frames).to(device)
    sync_frames = torch.as_tensor(sync_frames).to(device)
    batch = clip_frames.shape[0]
    clip_features, spatial_features = components.clip.encode_images(clip_frames)
    if components.spatial is not None:
        spatial_features = components.spatial.encode_grid(torch.as_tensor(spatial_frames).to(device))
    text_features, has_text = encode_prompts(components, prompts or [None] * batch)
    hfov = torch.full((batch,), math.nan)
    if hfov_deg is not None:
        hfov = torch.as_tensor(hfov_deg, dtype=torch.float32).deg2rad().expand(batch).clone()
    present = torch.ones(batch, len(MODALITIES), dtype=torch.bool)
    present[:, MODALITIES.index("text")] = has_text
    return Conditions(
        clip_features=clip_features,
        sync_features=components.synchformer(to_signed(sync_frames)).float(),
        text_features=text_features,
        spatial_features=spatial_features,
        hfov_rad=hfov.to(device),
        present=present.to(device),
    )


@torch.inference_mode()
def encode_prompts(components: Components, prompts: Sequence[str | None]) -> tuple[Tensor, Tensor]:
    """(B,) prompts -> token features (B, L, Dt), and which of them say anything (B,) bool.

    A prompt that is not of the captions' form gets it (`as_caption`) where the network has read nothing else.
    """
    config = components.network.config
    has_text = torch.tensor([bool(p and p.strip()) for p in prompts])
    features = torch.zeros(len(prompts), config.text_tokens, config.text_dim, device=components.device)
    form = as_caption if components.sampling.captions_only else str.strip
    said = [form(p) for p in prompts if p and p.strip()]
    if said:
        features[has_text.to(features.device)] = components.clip.encode_text(said).float()
    return features, has_text


def as_caption(prompt: str) -> str:
    """What a user asks for in the words of the training captions (bi_audio_dataset/captions.py)."""
    text = " ".join(prompt.split())
    if text.lower().startswith("visible sound:"):
        return text
    return f"Visible sound: {text}, Invisible sound: none"


def frame_requests(
    components: Components, sequence: SequenceConfig, start_s: float
) -> tuple[FrameRequest, ...]:
    """What a window that starts at `start_s` needs of the video: CLIP's frames, Synchformer's, and those of
    the spatial encoder where there is one."""
    coarse = start_s + np.arange(sequence.num_clip_frames) / sequence.clip_fps
    fine = start_s + np.arange(sequence.num_sync_frames) / sequence.sync_fps
    encoders = [(coarse, components.clip), (fine, components.synchformer)]
    if components.spatial is not None:
        encoders.append((coarse, components.spatial))
    return tuple(FrameRequest(times, e.image_size, e.config.resize) for times, e in encoders)


def encode_conditions(
    components: Components,
    video: str | Path | np.ndarray,
    duration_s: float | None = None,
    prompt: str | None = None,
    hfov_deg: float | None = None,
    fps: float | None = None,
    overlap_s: float | None = None,
    mask_away_clip: bool = False,
) -> Iterator[Conditions]:
    """Conditions of each window of a video in turn (B = 1); a video of one window gives one.

    video: a file, or frames (T, H, W, 3) uint8 RGB with their `fps`. duration_s: from the start; None is the
    whole video; beyond its end the last frame is held. mask_away_clip: CLIP's pooled features are
    withheld, so that the prompt says what sounds; the spatial and sync features stay, for where and when,
    and may still hint at it.
    """
    sequence = components.preset.sequence
    length_s = max(sound_duration(video, duration_s, fps), MIN_DURATION_S)
    overlap_s = components.sampling.overlap_s if overlap_s is None else overlap_s
    windows = total_windows(sequence, length_s, overlap_s)
    lengths = window_sequence(sequence, windows, length_s)
    requests = [frame_requests(components, lengths, w.start / sequence.tokens_per_second) for w in windows]
    frames = (
        read_windows(video, requests)
        if not isinstance(video, np.ndarray)
        else _from_array(video, fps, requests)
    )
    for window in frames:
        clip_frames, sync_frames, *spatial = (pictures[None] for pictures in window)
        conditions = encode_frames(components, clip_frames, sync_frames, [prompt], hfov_deg, *spatial)
        if mask_away_clip:
            conditions = conditions.drop({"clip": torch.ones(1, dtype=torch.bool)})
        yield conditions


def sound_duration(
    video: str | Path | np.ndarray, duration_s: float | None = None, fps: float | None = None
) -> float:
    """Seconds of sound to make: `duration_s`, or the length of the video."""
    if isinstance(video, np.ndarray):
        if video.ndim != 4 or video.shape[-1] != 3 or video.dtype != np.uint8 or not len(video):
            raise UserError(f"expected frames (T, H, W, 3) uint8, got {video.shape} {video.dtype}")
        if fps is None or not fps > 0:
            raise UserError("frames need their rate: pass fps=")
    if duration_s is not None:
        if not (math.isfinite(duration_s) and duration_s > 0):
            raise UserError(f"duration must be a positive number of seconds, got {duration_s}")
        return float(duration_s)
    return len(video) / fps if isinstance(video, np.ndarray) else media.probe(video).duration_s


def _from_array(
    frames: np.ndarray, fps: float, requests: Iterable[tuple[FrameRequest, ...]]
) -> Iterator[tuple[Tensor, ...]]:
    for window in requests:
        yield tuple(
            prepare_frames(
                frames[np.clip(np.floor(r.times_s * fps + 1e-6).astype(int), 0, len(frames) - 1)],
                r.size,
                r.resize,
            )
            for r in window
        )


# -------------------- sampling


def generate(
    network: DualBranchNetwork,
    codec: Codec,
    conditions: Conditions | Iterable[Conditions],
    *,
    sequence: SequenceConfig,
    **options,
) -> Tensor:
    """Both ears' sound, (B, 2, S) float32 on the CPU. Arguments: see `generate_blocks`."""
    return torch.cat(list(generate_blocks(network, codec, conditions, sequence=sequence, **options)), dim=-1)


def generate_blocks(
    network: DualBranchNetwork,
    codec: Codec,
    conditions: Conditions | Iterable[Conditions],
    *,
    sequence: SequenceConfig,
    duration_s: float | None = None,
    num_steps: int = 25,
    guidance_scale: float = 1.0,
    method: str = "euler",
    overlap_s: float = 2.0,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    noise: Tensor | None = None,
    shared_noise: bool = False,
    negative_text: Tensor | None = None,
    autocast_dtype: torch.dtype | None = None,
    progress: Callable[[float], None] | None = None,
) -> Iterator[Tensor]:
    """The sound in consecutive blocks (B, 2, n) float32 on the CPU, in memory that does not grow with it.

    conditions: of B samples; of each window in turn where the sound is longer than the training window.
    sequence: the training window. duration_s: of the sound; None is the training window's.
    guidance_scale: w of guidance.py. negative_text (L, Dt): text features to steer away from.
    generator: of the noise; one per sample makes each independent of the batch it is in. Noise is drawn on
    the CPU, so that a seed means the same on every device.
    noise (B, 2, N, D): given instead of drawn, N tokens of the whole sound.
    progress: called with the fraction done after every network evaluation.
    """
    if isinstance(conditions, Conditions):
        conditions = [conditions]
    real_s = sequence.duration_s if duration_s is None else duration_s
    length_s = max(real_s, MIN_DURATION_S)
    windows = total_windows(sequence, length_s, overlap_s)
    total = windows[-1].start + windows[-1].length
    lengths = window_sequence(sequence, windows, length_s)
    noise_source = _Noise(total, network.config.token_dim, generator, noise, shared_noise)
    decoder = _BlockDecoder(codec, sequence.frames_per_token, round(real_s * sequence.sample_rate))
    evaluations = _Counter(num_steps * len(windows), progress)

    before: Tensor | None = None  # the earlier window's latents where the next one overlaps it
    given = 0
    for number, (window, window_conditions) in enumerate(zip(windows, conditions, strict=False)):
        given += 1
        x_0 = noise_source.take(window, window_conditions.batch_size)
        velocity = _velocity(
            network, window_conditions, lengths, window.length, guidance_scale, negative_text
        )
        latents = _sample_window(
            velocity,
            x_0.to(network.latent_mean.device),
            before,
            time_grid(num_steps, network.latent_mean.device),
            method,
            autocast_dtype,
            evaluations,
        )
        last = number == len(windows) - 1
        kept = window.length if last else windows[number + 1].start - window.start
        yield from decoder.push(network.unnormalize(latents[:, :, :kept]), last)
        before = latents[:, :, kept:]
    if given < len(windows):
        raise ValueError(f"{length_s:g} s need conditions of {len(windows)} windows, got {given}")


def _velocity(
    network: DualBranchNetwork,
    conditions: Conditions,
    sequence: SequenceConfig,
    num_tokens: int,
    scale: float,
    negative_text: Tensor | None,
) -> Callable[[Tensor, Tensor], Tensor]:
    with torch.inference_mode():
        told = network.preprocess_conditions(conditions, num_tokens)
        untold = None
        if scale != 1.0:
            null = network.null_conditions(1, sequence)
            if negative_text is not None:
                null.text_features[:] = negative_text
                null.present[:, MODALITIES.index("text")] = True
            untold = network.preprocess_conditions(null, num_tokens).expand(conditions.batch_size)
    return guided(network.predict_velocity, told, untold, scale)


@torch.inference_mode()
def _sample_window(
    velocity: Callable[[Tensor, Tensor], Tensor],
    x_0: Tensor,
    before: Tensor | None,
    grid: Tensor,
    method: str,
    autocast_dtype: torch.dtype | None,
    counter: _Counter,
) -> Tensor:
    """Latents (B, 2, N, D) of one window; the first tokens are led to `before` (B, 2, overlap, D).

    On the straight path to known latents x_1 the velocity is x_1 - x_0, so holding a token there is the same
    as replacing it by t x_1 + (1 - t) x_0 at each step, for every solver.
    """
    hold, known = None, None
    if before is not None and before.shape[2]:
        hold = hold_mask(before.shape[2], x_0.shape[2]).to(x_0)
        known = torch.zeros_like(x_0)
        known[:, :, : before.shape[2]] = before - x_0[:, :, : before.shape[2]]

    def led(t: Tensor, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, dtype=autocast_dtype, enabled=autocast_dtype is not None):
            v = velocity(t, x).float()
        counter.add()
        return v if hold is None else hold * known + (1 - hold) * v

    return solve(led, x_0, grid, method)


class _Noise:
    """x_0 of each window, as one sequence over the whole sound: tokens that windows share have one noise."""

    def __init__(
        self,
        total: int,
        dim: int,
        generator: torch.Generator | Sequence[torch.Generator] | None,
        given: Tensor | None,
        shared: bool,
    ) -> None:
        if given is not None and (given.ndim != 4 or given.shape[1:] != (2, total, dim)):
            raise ValueError(f"expected noise of shape (B, 2, {total}, {dim}), got {tuple(given.shape)}")
        self.dim, self.given, self.shared = dim, given, shared
        self.generators = generator
        self.start, self.held = 0, None  # tokens start .. start + held.shape[2]

    def take(self, window: Window, batch: int) -> Tensor:
        if self.given is not None:
            return self.given[:, :, window.start : window.start + window.length].float()
        if self.held is None:
            self.held = torch.empty(batch, 2, 0, self.dim)
        missing = window.start + window.length - (self.start + self.held.shape[2])
        drawn = self._draw(batch, missing)
        self.held = torch.cat([self.held, drawn], dim=2)[:, :, window.start - self.start :]
        self.start = window.start
        return self.held

    def _draw(self, batch: int, tokens: int) -> Tensor:
        ears = 1 if self.shared else 2
        if self.generators is None or isinstance(self.generators, torch.Generator):
            noise = torch.randn(batch, ears, tokens, self.dim, generator=self.generators)
        else:
            if len(self.generators) != batch:
                raise ValueError(
                    f"expected one generator for each of {batch} samples, got {len(self.generators)}"
                )
            noise = torch.stack([torch.randn(ears, tokens, self.dim, generator=g) for g in self.generators])
        return noise.expand(batch, 2, tokens, self.dim)


class _BlockDecoder:
    """Tokens as they become final -> audio, equal to decoding all at once (up to DECODE_CONTEXT)."""

    def __init__(self, codec: Codec, frames_per_token: int, num_samples: int) -> None:
        self.codec, self.frames_per_token, self.left = codec, frames_per_token, num_samples
        self.pending: Tensor | None = None  # frames: context that was decoded before, then new ones
        self.context = 0

    def push(self, tokens: Tensor, last: bool) -> Iterator[Tensor]:
        frames = from_tokens(tokens, self.frames_per_token).to(self.codec.device)
        if self.pending is not None:
            frames = torch.cat([self.pending, frames], dim=2)
        ready = frames.shape[2] - (0 if last else DECODE_CONTEXT)
        if ready > self.context:
            with torch.inference_mode():
                audio = self.codec.decode_binaural(frames).float().cpu()
            hop = self.codec.latent_hop
            block = audio[..., self.context * hop : ready * hop][..., : self.left]
            self.left -= block.shape[-1]
            if block.shape[-1]:
                yield block
            keep_from = max(ready - DECODE_CONTEXT, 0)
            self.pending, self.context = frames[:, :, keep_from:], ready - keep_from
        else:
            self.pending = frames


class _Counter:
    """Tells `progress` how much is done, in evaluations of the network."""

    def __init__(self, total: int, progress: Callable[[float], None] | None) -> None:
        self.total, self.progress, self.count = total, progress, 0

    def add(self) -> None:
        self.count += 1
        if self.progress is not None:
            self.progress(min(self.count / self.total, 1.0))
