"""Every length, derived from seconds and rates in one place.

Legend: frames are codec latents (sample_rate / latent_hop a second), tokens are groups of
`frames_per_token` frames (what the network sees), segments are Synchformer's windows of
`segment_frames` video frames every `segment_stride`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from einops import rearrange
from torch import Tensor


@dataclass(frozen=True)
class SequenceConfig:
    """Rates and sizes; defaults are the paper's: DAC at 44.1 kHz, CLIP at 8 fps, Synchformer at 25 fps."""

    duration_s: float = 8.0
    sample_rate: int = 44100
    latent_hop: int = 512
    frames_per_token: int = 2
    clip_fps: float = 8.0
    sync_fps: float = 25.0
    segment_frames: int = 16
    segment_stride: int = 8
    tokens_per_segment: int = 8

    def __post_init__(self) -> None:
        for name in ("duration_s", "sample_rate", "latent_hop", "frames_per_token", "clip_fps", "sync_fps"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")

    def with_duration(self, duration_s: float) -> SequenceConfig:
        return replace(self, duration_s=float(duration_s))

    @property
    def num_samples(self) -> int:
        """Audio samples per ear, rounded to the nearest."""
        return round(self.duration_s * self.sample_rate)

    @property
    def num_tokens(self) -> int:
        """Whole tokens that cover all samples. 8 s: 345 at DAC's rates, 173 for the tiny preset."""
        return math.ceil(self.num_samples / (self.latent_hop * self.frames_per_token))

    @property
    def num_frames(self) -> int:
        """Codec frames, a multiple of frames_per_token."""
        return self.num_tokens * self.frames_per_token

    @property
    def tokens_per_second(self) -> float:
        return self.sample_rate / (self.latent_hop * self.frames_per_token)

    @property
    def num_clip_frames(self) -> int:
        return max(1, round(self.duration_s * self.clip_fps))

    @property
    def num_sync_frames(self) -> int:
        """Video frames that Synchformer needs: whole segments that cover the clip; its last frame is held."""
        return (self.num_segments - 1) * self.segment_stride + self.segment_frames

    @property
    def num_segments(self) -> int:
        """At least one, and as many as reach the clip's last frame."""
        beyond_first = round(self.duration_s * self.sync_fps) - self.segment_frames
        return math.ceil(max(0, beyond_first) / self.segment_stride) + 1

    @property
    def sync_slots_per_second(self) -> float:
        """Rate of Synchformer's tokens within a segment: 12.5 at 2 of 25 frames each."""
        return self.sync_fps * self.tokens_per_segment / self.segment_frames

    @property
    def sync_slots_per_stride(self) -> float:
        """Tokens from the start of a segment to that of the next."""
        return self.segment_stride * self.tokens_per_segment / self.segment_frames

    @property
    def num_sync_tokens(self) -> int:
        return self.num_segments * self.tokens_per_segment


def to_tokens(frames: Tensor, frames_per_token: int) -> Tensor:
    """(..., frames, D) -> (..., frames / g, g D): neighbours in time side by side, earlier one first."""
    if frames.shape[-2] % frames_per_token:
        raise ValueError(
            f"{frames.shape[-2]} frames do not fill whole tokens of {frames_per_token}; "
            "pad the audio to SequenceConfig.num_frames * latent_hop samples first"
        )
    return rearrange(frames, "... (n g) d -> ... n (g d)", g=frames_per_token)


def from_tokens(tokens: Tensor, frames_per_token: int) -> Tensor:
    """The inverse of to_tokens."""
    return rearrange(tokens, "... n (g d) -> ... (n g) d", g=frames_per_token)
