"""PANNs' Cnn14 (Kong et al. 2020, arXiv 1912.10211), written from its facts.

Log-mel frames, six blocks of two 3x3 convolutions that halve time and frequency (the sixth does not), the
mean over frequency, the sum of maximum and mean over time, and two linear layers. The front end (windowed
Fourier kernels and mel filters) is part of the checkpoint, under torchlibrosa's names, and is taken from
there: it is all that sets the shapes of the files for 16 and 32 kHz apart.

Legend: B sounds, S samples, T frames, M mel bands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visaudio import weight_files
from visaudio.evaluation.audio_networks.filters import slaney_filters
from visaudio.evaluation.audio_networks.heard import NetworkOutput, padded

POWER_FLOOR = 1e-10
HALVINGS = 5


@dataclass(frozen=True)
class Cnn14Config:
    """`Cnn14_16k_mAP=0.438.pth`, the variant that av-benchmark takes. channels: of the blocks."""

    sample_rate: int = 16_000
    window: int = 512
    hop: int = 160
    bands: int = 64
    low_hz: float = 50.0
    high_hz: float = 8000.0
    channels: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048)
    classes: int = 527


# by the height of the checkpoint's mel filters; the second is `Cnn14_mAP=0.431.pth`
PUBLISHED = {
    257: Cnn14Config(),
    513: Cnn14Config(sample_rate=32_000, window=1024, hop=320, high_hz=14_000.0),
}
MEL_KEY = "logmel_extractor.melW"


class FourierKernels(nn.Module):
    """The transform of Hann windows as two convolutions, as torchlibrosa keeps it."""

    def __init__(self, window: int, hop: int) -> None:
        super().__init__()
        bins = window // 2 + 1
        self.conv_real = nn.Conv1d(1, bins, window, hop, bias=False)
        self.conv_imag = nn.Conv1d(1, bins, window, hop, bias=False)
        time = np.arange(window)
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * time / window)
        kernels = np.exp(-2j * np.pi * np.outer(np.arange(bins), time) / window) * hann
        for conv, part in ((self.conv_real, kernels.real), (self.conv_imag, kernels.imag)):
            conv.weight.data = torch.tensor(part[:, None], dtype=torch.float32)


class Spectrogram(nn.Module):
    """(B, S) -> power (B, T, bins), frames centred, the edges mirrored."""

    def __init__(self, window: int, hop: int) -> None:
        super().__init__()
        self.half = window // 2
        self.stft = FourierKernels(window, hop)

    def forward(self, audio: Tensor) -> Tensor:
        audio = F.pad(audio[:, None], (self.half, self.half), mode="reflect")
        return (self.stft.conv_real(audio) ** 2 + self.stft.conv_imag(audio) ** 2).transpose(1, 2)


class LogMel(nn.Module):
    """Power (B, T, bins) -> dB (B, T, M)."""

    def __init__(self, config: Cnn14Config) -> None:
        super().__init__()
        filters = slaney_filters(
            config.window, config.sample_rate, config.bands, config.low_hz, config.high_hz
        )
        self.melW = nn.Parameter(torch.from_numpy(filters))

    def forward(self, power: Tensor) -> Tensor:
        return 10 * torch.log10((power @ self.melW).clamp_min(POWER_FLOOR))


class ConvBlock(nn.Module):
    """Two convolutions, then the mean over `pool` x `pool` cells."""

    def __init__(self, inputs: int, outputs: int, pool: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.avg_pool2d(x, self.pool) if self.pool > 1 else x


class Cnn14(nn.Module):
    """Parameter names are the published ones. Use in eval mode: there is no dropout here."""

    def __init__(self, config: Cnn14Config = PUBLISHED[257]) -> None:
        super().__init__()
        self.config = config
        self.spectrogram_extractor = Spectrogram(config.window, config.hop)
        self.logmel_extractor = LogMel(config)
        self.bn0 = nn.BatchNorm2d(config.bands)
        inputs = (1, *config.channels[:-1])
        for i, (before, after) in enumerate(zip(inputs, config.channels, strict=True)):
            setattr(self, f"conv_block{i + 1}", ConvBlock(before, after, 2 if i < HALVINGS else 1))
        self.fc1 = nn.Linear(config.channels[-1], config.channels[-1])
        self.fc_audioset = nn.Linear(config.channels[-1], config.classes)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], source: str) -> Cnn14:
        """Of a published checkpoint, 16 or 32 kHz; UserError for another network's."""
        mel = state.get(MEL_KEY)
        network = cls(PUBLISHED.get(len(mel) if mel is not None else 0, PUBLISHED[257]))
        weight_files.load_into(network, state, source, "PANNs' Cnn14")
        return network.eval()

    @property
    def sample_rate(self) -> int:
        return self.config.sample_rate

    @property
    def shortest(self) -> int:
        """Samples below which nothing is left after the halvings: 0.31 s."""
        return (2**HALVINGS - 1) * self.config.hop

    def forward(self, audio: Tensor) -> NetworkOutput:
        """(B, S) in [-1, 1] -> the hidden layer after its ReLU, one a sound, and logits."""
        x = self.logmel_extractor(self.spectrogram_extractor(padded(audio, self.shortest)))
        x = self.bn0(x.transpose(1, 2)[..., None])[..., 0].transpose(1, 2)[:, None]
        for i in range(len(self.config.channels)):
            x = getattr(self, f"conv_block{i + 1}")(x)
        x = x.mean(dim=3)
        x = F.relu(self.fc1(x.amax(dim=2) + x.mean(dim=2)))
        return NetworkOutput(x[:, None], self.fc_audioset(x))
