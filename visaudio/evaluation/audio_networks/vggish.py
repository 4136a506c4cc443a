"""VGGish (Hershey et al. 2017, arXiv 1609.09430) as torchvggish ported it, written from its facts.

Examples of 96 log-mel frames, one after the other; a VGG of six convolutions; three linear layers. The
embedding is the last layer without its ReLU, without PCA and without the 8 bits of AudioSet's release, as
audioldm_eval and av-benchmark take it.

Legend: B sounds, S samples, K examples, T frames, M mel bands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from visaudio import weight_files
from visaudio.evaluation.audio_networks.filters import htk_filters
from visaudio.evaluation.audio_networks.heard import NetworkOutput, padded

WINDOW, HOP, TRANSFORM = 400, 160, 512  # 25 and 10 ms at 16 kHz
LOW_HZ, HIGH_HZ = 125.0, 7500.0
LOG_OFFSET = 0.01


@dataclass(frozen=True)
class VggishConfig:
    """`vggish-10086976.pth`. channels: of the convolutions; hidden: of the layers before the embedding."""

    channels: tuple[int, ...] = (64, 128, 256, 256, 512, 512)
    hidden: int = 4096
    width: int = 128
    bands: int = 64
    frames: int = 96


HALVED_AFTER = (0, 1, 3, 5)  # convolutions that a maximum over 2 x 2 cells follows


class Vggish(nn.Module):
    """Parameter names are the published ones."""

    sample_rate = 16_000

    def __init__(self, config: VggishConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or VggishConfig()
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(zip((1, *config.channels[:-1]), config.channels, strict=True)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if i in HALVED_AFTER else []
        self.features = nn.Sequential(*layers)
        cells = (config.frames >> len(HALVED_AFTER)) * (config.bands >> len(HALVED_AFTER))
        self.embeddings = nn.Sequential(
            nn.Linear(cells * config.channels[-1], config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, config.width),
        )
        filters = htk_filters(TRANSFORM, self.sample_rate, config.bands, LOW_HZ, HIGH_HZ)
        self.register_buffer("filters", torch.from_numpy(filters), persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], source: str) -> Vggish:
        """Of a published checkpoint; UserError for another network's."""
        network = cls()
        weight_files.load_into(network, state, source, "VGGish")
        return network.eval()

    @property
    def shortest(self) -> int:
        """Samples of one example: 0.975 s."""
        return (self.config.frames - 1) * HOP + WINDOW

    def log_mel(self, audio: Tensor) -> Tensor:
        """(B, S) -> (B, T, M): natural log of magnitudes in mel bands; frames start at the first sample."""
        frames = audio.unfold(-1, WINDOW, HOP) * self.window
        return torch.log(torch.fft.rfft(frames, TRANSFORM).abs() @ self.filters + LOG_OFFSET)

    def forward(self, audio: Tensor) -> NetworkOutput:
        """(B, S) in [-1, 1] -> one embedding for each full 0.96 s, at least one; no classes."""
        mel = self.log_mel(padded(audio, self.shortest))
        count = mel.shape[1] // self.config.frames
        mel = mel[:, : count * self.config.frames]
        examples = rearrange(mel, "b (k t) m -> (b k) 1 t m", k=count)
        # the flat order of TensorFlow, whose weights these are: time, band, channel
        flat = rearrange(self.features(examples), "n c t m -> n (t m c)")
        return NetworkOutput(rearrange(self.embeddings(flat), "(b k) d -> b k d", k=count))
