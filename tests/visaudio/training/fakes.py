"""A tiny network and set of encoded clips of the right shapes, in memory."""

import math

import torch
from torch import Tensor, nn

from visaudio.model.conditions import Conditions
from visaudio.model.network import NetworkConfig


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
