"""A learned mono-to-binaural head: from a mono sound and what is seen, the difference of the two ears.

In the manner of Mono2Binaural (Gao and Grauman, "2.5D Visual Sound", CVPR 2019): with m = (l + r) / 2 and
d = (l - r) / 2, a network looks at the spectrogram of m and at visual features and gives a complex mask M;
D = M X_m in the STFT domain, and the ears are m + d and m - d. Their mean is the mono sound, whatever is
learned. Differences: the features are this repository's frozen ones (Synchformer's tokens and the spatial
grid), frequency bins are channels of convolutions over time, small enough for minutes of one core, and

    M(m, seen) = (G(m, seen) - G(m, mirrored)) / 2,

so that mirrored frames swap the ears exactly, and what the picture does not say cannot lean to a side. It
takes the place of mirror augmentation, which would show the network nothing new.

Legend: B clips, V = 2 views (0 = as seen, 1 = mirrored), K STFT frames, F bins, Ts sync tokens of Ds
dimensions, Tc pictures of C grid cells of Dg dimensions, U slots of the sync track, W width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bi_audio_dataset.schema import UserError, reason_of
from visaudio import weight_files
from visaudio.config import from_dict, to_dict
from visaudio.model.timing import interpolate_at, sync_track_index
from visaudio.stored import write_whole

CONFIG, WEIGHTS = "spatialiser.json", "spatialiser.safetensors"
RANGE_DB = 80.0  # of the spectrogram below the clip's loudest frame


@dataclass(frozen=True)
class HeadConfig:
    """Sizes and clocks. The sound is judged and split at sample_rate; what lies above stays mono.

    sync_*: Synchformer's tokens in segments of sync_per_segment, a segment every sync_hop slots of which
    there are sync_slot_hz a second. clip_fps: of the grid. max_mask bounds |M|. encoders: digests of the
    frozen encoders whose features it was trained on.
    """

    sync_dim: int
    grid_dim: int
    grid_cells: int
    sync_per_segment: int
    sync_hop: int
    sync_slot_hz: float
    clip_fps: float
    sample_rate: int = 22050
    n_fft: int = 512
    hop: int = 256
    width: int = 128
    blocks: int = 2
    cell_width: int = 16
    max_mask: float = 3.0
    encoders: dict[str, str] = field(default_factory=dict)

    @property
    def bins(self) -> int:
        return self.n_fft // 2 + 1

    @property
    def frame_hz(self) -> float:
        return self.sample_rate / self.hop


@dataclass(frozen=True)
class Seen:
    """Features of B clips and of their mirror images: sync (B, 2, Ts, Ds), grid (B, 2, Tc, C, Dg)."""

    sync: Tensor
    grid: Tensor

    def mirrored(self) -> Seen:
        """What is seen when the frames are mirrored."""
        return Seen(self.sync.flip(1), self.grid.flip(1))

    @classmethod
    def stack(cls, several: Sequence[Seen]) -> Seen:
        return cls(*(torch.cat([getattr(one, name) for one in several]) for name in ("sync", "grid")))


class Block(nn.Module):
    """Residual: depthwise convolution over time, then a pointwise MLP."""

    def __init__(self, width: int, kernel: int = 7) -> None:
        super().__init__()
        self.over_time = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, K, W) -> the same."""
        h = self.over_time(x.transpose(1, 2)).transpose(1, 2)
        return x + self.narrow(functional.gelu(self.widen(self.norm(h))))


class SpatialiserHead(nn.Module):
    """Spectrogram of the mono sound and what is seen -> the complex mask of the ears' difference."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.hear = nn.Conv1d(config.bins, width, 3, padding=1)
        self.see_sync = nn.Linear(config.sync_dim, width)
        self.see_cell = nn.Linear(config.grid_dim, config.cell_width)
        self.see_grid = nn.Linear(config.grid_cells * config.cell_width, width)
        self.see = Block(width)
        self.scale_shift = nn.Linear(width, 2 * width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, 2 * config.bins)
        nn.init.zeros_(self.out.weight)  # it starts with equal ears
        nn.init.zeros_(self.out.bias)

    def forward(self, spectrum: Tensor, seen: Seen, start_s: Tensor | float = 0.0) -> Tensor:
        """spectrum (B, F, K) complex of m, from start_s (B,) of what is seen -> mask (B, F, K) complex."""
        heard = self._heard(spectrum)
        views = self._seen(seen, heard.shape[1], torch.as_tensor(start_s).expand(len(heard)))  # (B, V, K, W)
        scale, shift = self.scale_shift(views).chunk(2, dim=-1)
        x = (heard[:, None] * (1 + scale) + shift).flatten(0, 1)
        for block in self.blocks:
            x = block(x)
        given = self.out(self.norm(x)).unflatten(0, views.shape[:2])
        half = (given[:, 0] - given[:, 1]).transpose(1, 2) / 2  # (B, 2 F, K)
        real, imaginary = half.chunk(2, dim=1)
        # |M| bent to stay below max_mask; the small term keeps the slope at M = 0, where training starts
        size = torch.sqrt(real**2 + imaginary**2 + 1e-8) / self.config.max_mask
        bend = torch.tanh(size) / size
        return torch.complex(real * bend, imaginary * bend)

    def _heard(self, spectrum: Tensor) -> Tensor:
        """(B, F, K) complex -> (B, K, W): levels in dB below the loudest frame's mean, -1 .. ~1."""
        power = spectrum.abs() ** 2
        loudest = power.mean(dim=1).amax(dim=1).clamp_min(1e-12)[:, None, None]
        level = 10 * torch.log10(power / loudest + 10 ** (-RANGE_DB / 10))
        return self.hear(1 + 2 * level / RANGE_DB).transpose(1, 2)

    def _seen(self, seen: Seen, frames: int, start_s: Tensor) -> Tensor:
        """(B, V, K, W): both views at the times of the STFT's frames."""
        config = self.config
        segments = seen.sync.shape[2] // config.sync_per_segment
        order = sync_track_index(segments, config.sync_per_segment, config.sync_hop, device=seen.sync.device)
        sync = self.see_sync(seen.sync[:, :, order])  # (B, V, U, W)
        grid = self.see_grid(self.see_cell(seen.grid).flatten(3))  # (B, V, Tc, W)
        slots = (torch.arange(sync.shape[2], device=sync.device) + 0.5) / config.sync_slot_hz
        fused = [
            clip + interpolate_at(pictures, (slots * config.clip_fps).clamp(0, pictures.shape[1] - 1))
            for clip, pictures in zip(sync, grid, strict=True)
        ]
        track = self.see(torch.cat(fused)).unflatten(0, sync.shape[:2])
        times = start_s[:, None] + torch.arange(frames, device=sync.device) / config.frame_hz
        positions = (times * config.sync_slot_hz - 0.5).clamp(0, track.shape[2] - 1)
        return torch.stack([interpolate_at(v, p) for v, p in zip(track, positions, strict=True)])


def transform(config: HeadConfig, audio: Tensor) -> Tensor:
    """(..., S) at config.sample_rate -> STFT (..., F, K), frame k centred on sample k hop."""
    window = torch.hann_window(config.n_fft, device=audio.device)
    flat = audio.reshape(-1, audio.shape[-1])
    found = torch.stft(flat, config.n_fft, config.hop, window=window, return_complex=True)
    return found.unflatten(0, audio.shape[:-1])


def inverse(config: HeadConfig, spectrum: Tensor, samples: int) -> Tensor:
    """(B, F, K) -> (B, S): `transform` undone."""
    window = torch.hann_window(config.n_fft, device=spectrum.device)
    return torch.istft(spectrum, config.n_fft, config.hop, window=window, length=samples)


@torch.inference_mode()
def difference(
    head: SpatialiserHead, mono: np.ndarray, rate: int, windows: Sequence[tuple[float, Seen]]
) -> np.ndarray:
    """(S,) float32: half the difference left minus right of a mono sound (S,) at `rate`.

    windows: (start in seconds, what is seen from there on, B = 1), rising, as `sampling` cuts a long video.
    Where two windows overlap, the later one's difference is faded in.
    """
    import soxr

    config = head.config
    mono = np.asarray(mono, np.float32)
    at_head = mono if rate == config.sample_rate else soxr.resample(mono, rate, config.sample_rate)
    if len(at_head) < config.n_fft:
        at_head = np.pad(at_head, (0, config.n_fft - len(at_head)))
    found = np.zeros(len(at_head), np.float32)
    end = 0  # of what has been found
    for number, (start_s, seen) in enumerate(windows):
        begin = round(start_s * config.sample_rate)
        sound = at_head[begin:]
        if number + 1 < len(windows):  # as far as this window sees
            sound = sound[: round(seen.grid.shape[2] / config.clip_fps * config.sample_rate)]
        spectrum = transform(config, torch.from_numpy(np.ascontiguousarray(sound))[None])
        part = inverse(config, head(spectrum, seen) * spectrum, len(sound))[0].numpy()
        overlap = max(0, min(end - begin, len(part)))
        rise = (np.arange(overlap, dtype=np.float32) + 0.5) / max(1, overlap)
        part[:overlap] = rise * part[:overlap] + (1 - rise) * found[begin : begin + overlap]
        end = begin + len(part)
        found[begin:end] = part
    if rate != config.sample_rate:
        found = soxr.resample(found, config.sample_rate, rate)
    return np.pad(found[: len(mono)], (0, max(0, len(mono) - len(found))))


# -------------------- on the disk


def save(head: SpatialiserHead, folder: Path, notes: Mapping[str, object]) -> None:
    """spatialiser.safetensors and spatialiser.json (the config, and notes on the training) in `folder`."""
    import json

    from safetensors.torch import save as serialised

    write_whole(folder / WEIGHTS, serialised(head.state_dict()))
    text = json.dumps({"config": to_dict(head.config), "training": dict(notes)}, indent=1)
    write_whole(folder / CONFIG, (text + "\n").encode())


def load(folder: str | Path) -> SpatialiserHead:
    """UserError where the folder holds none, or one that does not fit its config."""
    import json

    folder = Path(folder)
    try:
        values = json.loads((folder / CONFIG).read_text())["config"]
    except FileNotFoundError:
        raise UserError(
            f"{folder}: holds no {CONFIG}; expected what baselines train-spatialiser wrote"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / CONFIG}: cannot be read ({reason_of(error, 120)})") from error
    head = SpatialiserHead(from_dict(HeadConfig, values, where=CONFIG))
    state = weight_files.read_state(folder / WEIGHTS, "a spatialiser head")
    weight_files.load_into(head, state, folder / WEIGHTS, "a spatialiser head")
    return head.eval()
