"""The Frechet distance of two Gaussians, and sums over clips that a resample of the clips only reweights.

    d^2 = |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))     (Dowson and Landau 1982)

It is the squared distance, as FID (Heusel et al. 2017) and FAD (Kilgour et al. 2019) report it.

Legend: C clips, N embeddings, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def frechet_distance(mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray) -> float:
    """means (D,), covariances (D, D) symmetric, maybe singular -> the squared distance, at least 0.

    tr (S_a S_b)^(1/2) is the nuclear norm of S_a^(1/2) S_b^(1/2), whose roots come from `eigh`: no square
    root of a matrix that is not symmetric, no offset on the diagonal, no imaginary rest. Raises ValueError
    for other shapes and for values that are not finite.
    """
    mean_a, cov_a, mean_b, cov_b = (np.asarray(x, np.float64) for x in (mean_a, cov_a, mean_b, cov_b))
    size = mean_a.shape
    if len(size) != 1 or mean_b.shape != size or cov_a.shape != size * 2 or cov_b.shape != size * 2:
        raise ValueError(
            "expected means (D,) and covariances (D, D) of one D, got "
            f"{mean_a.shape}, {cov_a.shape}, {mean_b.shape}, {cov_b.shape}"
        )
    if not all(np.isfinite(x).all() for x in (mean_a, cov_a, mean_b, cov_b)):
        raise ValueError("expected finite means and covariances")
    root = np.linalg.svd(_root(cov_a) @ _root(cov_b), compute_uv=False).sum()
    distance = ((mean_a - mean_b) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * root
    return float(max(distance, 0.0))


def _root(covariance: np.ndarray) -> np.ndarray:
    """The symmetric square root; what rounding made negative counts as 0."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


@dataclass(frozen=True)
class GaussianSums:
    """Sums of embeddings, of one clip or of many: count (), total (D,), outer (D, D), about `origin` (D,).

    Sums of one origin add. An origin near the mean keeps the covariance exact where the mean is far larger
    than the spread; 0 will do for embeddings of their own scale.
    """

    count: float
    total: np.ndarray
    outer: np.ndarray
    origin: np.ndarray

    @classmethod
    def of(cls, embeddings: np.ndarray, origin: np.ndarray | None = None) -> GaussianSums:
        """embeddings (N, D), N may be 0."""
        embeddings = np.asarray(embeddings, np.float64)
        if embeddings.ndim != 2:
            raise ValueError(f"expected embeddings (N, D), got {embeddings.shape}")
        origin = np.zeros(embeddings.shape[1]) if origin is None else np.asarray(origin, np.float64)
        moved = embeddings - origin
        return cls(float(len(moved)), moved.sum(axis=0), moved.T @ moved, origin)

    def __add__(self, other: GaussianSums) -> GaussianSums:
        if not np.array_equal(self.origin, other.origin):
            raise ValueError("sums about different origins do not add")
        return GaussianSums(
            self.count + other.count, self.total + other.total, self.outer + other.outer, self.origin
        )

    def mean(self) -> np.ndarray:
        """(D,)"""
        return self.origin + self.total / self.count

    def covariance(self) -> np.ndarray:
        """(D, D) with n - 1, as numpy.cov; raises ValueError below two embeddings."""
        if self.count < 2:
            raise ValueError(f"a covariance needs two embeddings, got {self.count:g}")
        about = self.total / self.count
        return (self.outer - self.count * np.outer(about, about)) / (self.count - 1)


@dataclass(frozen=True)
class ClipSums:
    """The sums of C clips, stacked, so that a resample of the clips is a weighted sum: no second pass.

    count (C,), total (C, D), outer (C, D, D): 8 C D^2 bytes. For large D with few embeddings a clip, use
    `rows_gaussian` instead, which weights the embeddings themselves.
    """

    count: np.ndarray
    total: np.ndarray
    outer: np.ndarray
    origin: np.ndarray

    @classmethod
    def of(cls, clips: Sequence[np.ndarray], origin: np.ndarray | None = None) -> ClipSums:
        """clips: (N_c, D) of each."""
        each = [GaussianSums.of(clip, origin) for clip in clips]
        return cls(
            np.array([s.count for s in each]),
            np.stack([s.total for s in each]),
            np.stack([s.outer for s in each]),
            each[0].origin,
        )

    def draw(self, index: np.ndarray) -> GaussianSums:
        """Of the clips `index` (M,) names, maybe repeatedly."""
        weight = np.bincount(index, minlength=len(self.count)).astype(np.float64)
        return GaussianSums(
            float(weight @ self.count),
            weight @ self.total,
            np.tensordot(weight, self.outer, axes=1),
            self.origin,
        )


def rows_gaussian(embeddings: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """embeddings (N, D), weight (N,) counts -> mean (D,) and covariance (D, D) of each row taken so often.

    One product of D x N x D a resample, and no (N, D, D) in memory: for wide embeddings.
    """
    weight = np.asarray(weight, np.float64)
    if weight.sum() < 2:
        raise ValueError(f"a covariance needs two embeddings, got {weight.sum():g}")
    taken = weight > 0
    rows, weight = np.asarray(embeddings[taken], np.float64), weight[taken]
    mean = weight @ rows / weight.sum()
    centred = (rows - mean) * np.sqrt(weight)[:, None]
    return mean, centred.T @ centred / (weight.sum() - 1)
