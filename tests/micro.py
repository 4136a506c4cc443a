"""A whole model too small to sound like anything: every part is real, a window is 1 s, weights are random."""

from pathlib import Path

import numpy as np
import torch

from bi_audio_dataset import media
from visaudio import hub
from visaudio.codec.spectral import SpectralCodecConfig
from visaudio.encoders.clip import ClipConfig
from visaudio.encoders.synchformer import SynchformerConfig
from visaudio.model.network import NetworkConfig
from visaudio.presets import Preset, compose
from visaudio.sampling import SamplingConfig

FPS = 25


def micro_preset() -> Preset:
    """Tokens of 64 ms at 4 kHz, 16 in a window."""
    return compose(
        "micro",
        codec=SpectralCodecConfig(
            sample_rate=4000,
            n_fft=128,
            hop=64,
            latent_dim=6,
            encoder_width=8,
            encoder_blocks=1,
            decoder_width=8,
            decoder_blocks=1,
        ),
        clip=ClipConfig(
            image_size=32,
            width=16,
            layers=1,
            head_width=8,
            embed_dim=12,
            text_width=8,
            text_layers=1,
            context_length=8,
            vocab_size=64,
            grid_rows=1,
            grid_columns=2,
        ),
        synchformer=SynchformerConfig(image_size=32, width=16, depth=1, heads=2),
        network=NetworkConfig(
            hidden_dim=16,
            num_heads=2,
            joint_blocks=1,
            branch_blocks=1,
            mlp_multiple_of=16,
            spatial_width=8,
            spatial_queries=2,
            time_frequencies=16,
        ),
        duration_s=1.0,
    )


def micro_components(seed: int = 0, **settings) -> hub.Components:
    """Random weights, those that start at zero too, so that every condition reaches the sound."""
    torch.manual_seed(seed)
    components = hub.build_components(micro_preset())
    with torch.no_grad():
        for parameter in components.network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    defaults = {"num_steps": 2, "cfg_strength": 2.0, "overlap_s": 0.25}
    components.sampling = SamplingConfig(**{**defaults, **settings})
    return components


def weights_of(components: hub.Components) -> dict[str, torch.Tensor]:
    """All tensors of a model by "part.name"."""
    return {f"{p}.{k}": v for p in components.parts for k, v in getattr(components, p).state_dict().items()}


def moving_square(num_frames: int, width: int = 64, height: int = 48) -> np.ndarray:
    """(T, H, W, 3) uint8: a bright square that goes from left to right over noise."""
    frames = np.random.default_rng(0).integers(0, 90, (num_frames, height, width, 3), dtype=np.uint8)
    for index, frame in enumerate(frames):
        left = round((width - 12) * index / max(1, num_frames - 1))
        frame[16:28, left : left + 12] = (250, 220, 40)
    return frames


def write_clip(path: Path, duration_s: float = 0.6, **size: int) -> Path:
    media.write_video(path, moving_square(max(1, round(duration_s * FPS)), **size), FPS)
    return path
