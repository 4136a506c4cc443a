"""The conditional spacetime module: where things are in the picture -> a per-ear, per-token condition.

Legend: B samples, T video frames, R x C grid cells, S this module's width, N latent tokens, Q queries.

Which direction a column means depends on the lens: a column centre x in (-1, 1) lies at azimuth
-atan(x tan(hfov / 2)), positive = left. Each ear sees azimuths counted towards itself, so that the
mirror image of a scene is to the right ear what the scene is to the left.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from visaudio.model.layers import GatedMLP
from visaudio.model.timing import interpolate_at, token_positions

ASSUMED_HFOV_RAD = math.radians(90.0)  # where the lens is unknown
AZIMUTH_MULTIPLES = (1.0, 2.0, 4.0, 8.0)


def column_azimuth_rad(columns: int, hfov_rad: Tensor) -> Tensor:
    """Azimuth of each column's centre, (B, C), falling from left to right; nan hfov counts as 90 degrees."""
    hfov = torch.where(hfov_rad.isnan(), torch.full_like(hfov_rad, ASSUMED_HFOV_RAD), hfov_rad).float()
    centres = (torch.arange(columns, device=hfov.device) + 0.5) / columns * 2 - 1
    return -torch.atan(centres * torch.tan(hfov / 2)[:, None])


def interpolate_in_time(x: Tensor, length: int, frames_per_token: float | None = None) -> Tensor:
    """(B, T, S) -> (B, N, S) at the tokens' centres, linear, ends held.

    Video frame i shows its first instant, while a latent token spans its whole hop. frames_per_token: video
    frames that pass in a latent token; None takes both streams to end together, T / N.
    """
    frames = x.shape[1]
    ratio = frames / length if frames_per_token is None else frames_per_token
    return interpolate_at(x, token_positions(length, ratio, 0.0, frames - 1, device=x.device))


class SpacetimeModule(nn.Module):
    """Grid features + ear position embeddings + azimuths -> (B, 2, N, width), zero at first."""

    def __init__(
        self,
        spatial_dim: int,
        rows: int,
        columns: int,
        width: int,
        inner: int,
        num_queries: int = 4,
        multiple_of: int = 256,
    ) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns
        self.feature_norm = nn.LayerNorm(spatial_dim)
        self.feature_proj = nn.Linear(spatial_dim, inner)
        self.azimuth_proj = nn.Linear(2 * len(AZIMUTH_MULTIPLES), inner, bias=False)
        self.unknown_lens = nn.Parameter(torch.zeros(inner))
        left = torch.randn(rows, columns, inner) * 0.02
        # E^l and E^r begin as each other's mirror image, which is what physics says of them
        self.ear_embedding = nn.Parameter(torch.stack([left, left.flip(1)]).flatten(1, 2))  # (2, R C, S)
        self.cell_in = nn.Linear(inner, 2 * inner)
        self.cell_out = nn.Linear(2 * inner, inner)
        self.query = nn.Parameter((torch.randn(1, num_queries, inner) / math.sqrt(inner)).repeat(2, 1, 1))
        self.value = nn.Linear(inner, inner)
        self.pooled_proj = nn.Linear(num_queries * inner, width)
        self.time_mlp = GatedMLP(width, 2.0, multiple_of, kernel_size=3)
        self.out = nn.Linear(width, width)

    def zero_output(self) -> None:
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def _positions(self, hfov_rad: Tensor) -> Tensor:
        """What each ear knows of each cell beside its content: (B, 2, R C, S)."""
        towards_left = column_azimuth_rad(self.columns, hfov_rad)
        azimuth = torch.stack([towards_left, -towards_left], dim=1)  # (B, 2, C), towards the own ear
        angles = torch.stack([multiple * azimuth for multiple in AZIMUTH_MULTIPLES], dim=-1)
        fourier = self.azimuth_proj(torch.cat([angles.sin(), angles.cos()], dim=-1))  # (B, 2, C, S)
        fourier = fourier + hfov_rad.isnan()[:, None, None, None] * self.unknown_lens
        return fourier.repeat(1, 1, self.rows, 1) + self.ear_embedding

    def forward(
        self, spatial_features: Tensor, hfov_rad: Tensor, length: int, frames_per_token: float | None = None
    ) -> Tensor:
        """spatial_features (B, T, R C, spatial_dim), hfov_rad (B,) -> (B, 2, length, width).

        frames_per_token: as in interpolate_in_time.
        """
        batch, frames, cells, _ = spatial_features.shape
        if cells != self.rows * self.columns:
            raise ValueError(f"spatial_features: expected {self.rows} x {self.columns} cells, got {cells}")
        content = self.feature_proj(self.feature_norm(spatial_features))
        positions = self._positions(hfov_rad).to(content.dtype)
        h = content[:, None] + positions[:, :, None]  # (B, 2, T, R C, S)
        h = h + self.cell_out(F.gelu(self.cell_in(F.layer_norm(h, h.shape[-1:]))))
        normed = F.layer_norm(h, h.shape[-1:])

        # each ear's queries look for what matters to it among the cells of a frame
        query = self.query.to(normed.dtype)
        scores = normed @ rearrange(query, "e q s -> e 1 s q")  # (B, 2, T, R C, Q)
        weights = rearrange(scores.softmax(dim=-2), "b e t c q -> b e t q c").to(normed.dtype)
        pooled = rearrange(weights @ self.value(normed), "b e t q s -> (b e) t (q s)")
        in_time = interpolate_in_time(self.pooled_proj(pooled), length, frames_per_token)
        in_time = in_time + self.time_mlp(F.layer_norm(in_time, in_time.shape[-1:]))
        return rearrange(self.out(in_time), "(b e) n d -> b e n d", e=2)
