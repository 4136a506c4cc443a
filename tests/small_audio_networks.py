"""Small forms of the audio networks with weights by formula, for tests and for the script that asks the
public packages (reference_outputs.py)."""

import zlib
from dataclasses import replace

import numpy as np
import torch

CHANNELS = (4, 8, 8, 16, 16, 32)
HIDDEN, WIDTH = 32, 16  # VGGish
DEPTH, HEADS = 2, 4  # PaSST, of 32 dimensions
CLASSES = 10
FRONT_END = ("spectrogram_extractor.", "logmel_extractor.")  # not by formula: the front end is what it is


def by_formula(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Each tensor from its name alone: cosines, scaled by what goes into a unit; about 1 for norms."""
    made = {}
    for name, value in state.items():
        if name.startswith(FRONT_END) or not value.is_floating_point():
            made[name] = value
            continue
        wave = np.cos(0.7390851 * np.arange(value.numel()) + zlib.crc32(name.encode()) % 1000)
        norm = value.ndim == 1 and name.endswith(("weight", "running_var"))
        scale = 0.1 if value.ndim == 1 else (2 / (value.numel() / len(value))) ** 0.5
        made[name] = torch.tensor(norm + scale * wave, dtype=torch.float32).reshape(value.shape)
    return made


def sounds(seconds: float, rate: int) -> torch.Tensor:
    """(2, S): a chirp over something like noise, and silence."""
    index = np.arange(round(seconds * rate))
    t = index / rate
    chirp = 0.4 * np.sin(2 * np.pi * (100 * t + 900 * t**2))
    rough = 0.1 * np.modf(np.sin(index * 12.9898) * 4375.8545)[0]
    return torch.tensor(np.stack([chirp + rough, 0 * t]), dtype=torch.float32)


def embeddings(dims: int) -> np.ndarray:
    """(2, 60, D): two sets to be compared, or logits of two."""
    index = np.arange(2 * 60 * dims)
    noise = 4 * np.modf(np.sin(index * 12.9898) * 4375.8545)[0].reshape(2, 60, dims)
    return noise * np.array([1.0, 0.7])[:, None, None] + np.array([0.0, 0.5])[:, None, None]


def filled(network: torch.nn.Module) -> torch.nn.Module:
    network.load_state_dict(by_formula(network.state_dict()))
    return network.eval()


def cnn14(rate: int = 16_000) -> torch.nn.Module:
    from visaudio.evaluation.audio_networks.cnn14 import PUBLISHED, Cnn14

    config = {c.sample_rate: c for c in PUBLISHED.values()}[rate]
    return filled(Cnn14(replace(config, channels=CHANNELS, classes=CLASSES)))


def vggish() -> torch.nn.Module:
    from visaudio.evaluation.audio_networks.vggish import Vggish, VggishConfig

    return filled(Vggish(VggishConfig(channels=CHANNELS, hidden=HIDDEN, width=WIDTH)))


def passt(window_s: float = 10.0) -> torch.nn.Module:
    from visaudio.evaluation.audio_networks.passt import Passt, PasstConfig

    return filled(
        Passt(PasstConfig(width=CHANNELS[-1], depth=DEPTH, heads=HEADS, classes=CLASSES, window_s=window_s))
    )
