"""Principal components of a codec's hidden frames: an exact fit over any number of them, there and back.

The matrix has orthonormal columns, so that decoding is its transpose, and what is lost is the variance
outside of the kept dimensions.

Legend: B batch, F frames, H hidden dimensions, D kept dimensions, n frames seen.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bi_audio_dataset.schema import UserError


class StreamingCovariance:
    """Mean and covariance of frames that come in batches, in float64.

    Batches are merged by their own means and scatters (Chan, Golub and LeVeque 1979): a large mean does not
    eat up the digits of a small variance, as it does in a sum of squares.
    """

    def __init__(self, dims: int) -> None:
        self.count = 0
        self.mean = torch.zeros(dims, dtype=torch.float64)
        self.scatter = torch.zeros(dims, dims, dtype=torch.float64)

    def add(self, frames: Tensor) -> None:
        """frames (n, H)."""
        frames = frames.detach().double().cpu()
        if not len(frames):
            return
        mean = frames.mean(dim=0)
        apart, total = mean - self.mean, self.count + len(frames)
        self.scatter += (frames - mean).T @ (frames - mean)
        self.scatter += torch.outer(apart, apart) * (self.count * len(frames) / total)
        self.mean += apart * (len(frames) / total)
        self.count = total

    def covariance(self) -> Tensor:
        """(H, H), divided by n."""
        return self.scatter / max(1, self.count)


class Pca(nn.Module):
    """(…, H) <-> (…, D); buffers `mean` (H,), `basis` (H, D), `kept` () are part of the codec's state dict.

    kept: share of the variance in the D dimensions; 0 marks one that was not fitted, which refuses to work.
    """

    def __init__(self, hidden_dim: int, dims: int) -> None:
        super().__init__()
        if not 1 <= dims <= hidden_dim:
            raise UserError(
                f"pca_dims is {dims}, expected 1 to {hidden_dim}, the width of the encoder's output"
            )
        self.register_buffer("mean", torch.zeros(hidden_dim))
        self.register_buffer("basis", torch.zeros(hidden_dim, dims))
        self.register_buffer("kept", torch.zeros(()))

    def fit(self, covariance: StreamingCovariance) -> None:
        """Take over the directions of most variance, largest first; each one's largest entry is positive."""
        dims = self.basis.shape[1]
        if covariance.count <= dims:
            raise UserError(
                f"{covariance.count} frames are too few for a PCA of {dims} dimensions: give more audio"
            )
        values, vectors = torch.linalg.eigh(covariance.covariance())
        values, basis = values.flip(0).clamp_min(0), vectors.flip(1)[:, :dims]
        largest = basis.gather(0, basis.abs().argmax(dim=0, keepdim=True))
        with torch.no_grad():
            self.mean.copy_(covariance.mean)
            self.basis.copy_(basis * largest.sign())
            self.kept.copy_(values[:dims].sum() / values.sum().clamp_min(1e-30))

    def encode(self, hidden: Tensor) -> Tensor:
        self._check()
        return (hidden - self.mean) @ self.basis

    def decode(self, latents: Tensor) -> Tensor:
        self._check()
        return latents @ self.basis.T + self.mean

    def _check(self) -> None:
        if not self.kept > 0:
            raise UserError(
                "the codec's PCA was not fitted: train.py --stages codec fits it on the data "
                "and stores it with the codec"
            )
