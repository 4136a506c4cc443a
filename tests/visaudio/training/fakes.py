"""A tiny network and sets of encoded clips of the right shapes, in memory."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from visaudio.model.conditions import Conditions
from visaudio.model.network import NetworkConfig
from visaudio.presets import Preset
from visaudio.training.batches import stream


class FakeSamples:
    """Clips whose latents are a linear function of their sync features, so that training can succeed."""

    def __init__(self, count: int = 12, frames: int = 6, dim: int = 4):
        self.ids = [f"clip{index:03d}" for index in range(count)]
        self.rows = []
        for index in range(count):
            generator = torch.Generator().manual_seed(index)
            sync = torch.randn(frames, dim, generator=generator)
            self.rows.append(
                {
                    "latents": torch.stack([sync, -sync]),
                    "clip": torch.randn(3, 5, generator=generator),
                    "grid": torch.randn(3, 4, 5, generator=generator),
                    "sync": sync,
                    "text": torch.randn(2, 5, generator=generator),
                    "hfov_rad": math.radians(60 + index),
                    "id": self.ids[index],
                }
            )

    def __len__(self) -> int:
        return len(self.ids)

    def get(self, index: int, mirror: bool) -> dict:
        row = dict(self.rows[index])
        if mirror:
            row["sync"] = -row["sync"]
        return row


class MicroSamples(FakeSamples):
    """Random clips of the shapes that a `DualBranchNetwork` takes."""

    def __init__(self, config: NetworkConfig, count: int = 12, tokens: int = 6):
        self.ids = [f"clip{index:03d}" for index in range(count)]
        self.rows = []
        cells = config.spatial_rows * config.spatial_columns
        for index in range(count):
            generator = torch.Generator().manual_seed(index)
            shapes = {
                "latents": (2, tokens, config.token_dim),
                "clip": (3, config.clip_dim),
                "grid": (3, cells, config.spatial_dim),
                "sync": (2 * config.sync_tokens_per_segment, config.sync_dim),
                "text": (config.text_tokens, config.text_dim),
            }
            row = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
            self.rows.append({**row, "hfov_rad": math.radians(60 + index), "id": self.ids[index]})


class FakeNetwork(nn.Module):
    def __init__(self, dim: int = 4, width: int = 16):
        super().__init__()
        self.register_buffer("latent_mean", torch.full((dim,), 0.25))
        self.inner = nn.Linear(2 * dim + 1, width)
        self.outer = nn.Linear(width, dim)
        self.null_sync = nn.Parameter(torch.zeros(dim))

    def normalize(self, latents: Tensor) -> Tensor:
        return latents - self.latent_mean

    def unnormalize(self, latents: Tensor) -> Tensor:
        return latents + self.latent_mean

    def forward(self, latents: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        present = conditions.presence()[:, 1, None, None]
        sync = torch.where(present, conditions.sync_features, self.null_sync)
        sync = torch.stack([sync, -sync], dim=1)
        time = t[:, None, None, None].expand(*latents.shape[:3], 1)
        return self.outer(torch.tanh(self.inner(torch.cat([latents, sync, time], dim=-1))))


class EncodedClips:
    """What `FeatureDataset` gives for one length of clip, in memory: the shapes are the preset's, the numbers
    come from (seed, clip) by NumPy's Philox, equal on every machine. Sync and latents go together, so that a
    few steps can learn something. Latents are the network's tokens (2, N, D).
    """

    def __init__(self, preset: Preset, duration_s: float, count: int, seed: int = 0):
        c, sequence = preset.network, preset.sequence.with_duration(duration_s)
        self.ids = [f"clip{index:03d}" for index in range(count)]
        self.columns = c.spatial_columns
        frames, cells = sequence.num_clip_frames, c.spatial_rows * c.spatial_columns
        mixing = _normal(stream(seed, "mixing"), c.sync_dim, c.token_dim) / c.sync_dim**0.5
        self.rows = []
        for sample_id in self.ids:
            random = stream(seed, sample_id)
            sync = _normal(random, sequence.num_sync_tokens, c.sync_dim)
            heard = sync[torch.linspace(0, len(sync) - 1, sequence.num_tokens).round().long()] @ mixing
            self.rows.append(
                {
                    "latents": 0.8 * heard + 0.6 * _normal(random, 2, sequence.num_tokens, c.token_dim),
                    "clip": _normal(random, frames, c.clip_dim),
                    "grid": _normal(random, frames, cells, c.spatial_dim),
                    "sync": sync,
                    "text": _normal(random, c.text_tokens, c.text_dim),
                    "hfov_rad": math.radians(float(random.uniform(50, 110))),
                    "id": sample_id,
                }
            )

    def get(self, index: int, mirror: bool) -> dict:
        """Mirrored: the grid's columns change places, as those of a flipped picture would."""
        row = dict(self.rows[index])
        if mirror:
            grid = row["grid"]
            row["grid"] = grid.view(len(grid), -1, self.columns, grid.shape[-1]).flip(2).view_as(grid)
        return row


def _normal(random: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(random.standard_normal(shape, dtype=np.float32))
