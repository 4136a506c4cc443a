"""A mono sound and a moving direction -> two ears, as the dataset's builder makes them of a plane wave.

The sound is encoded to first-order ambisonics from its direction at each moment and decoded by the builder's
own filters (bi_audio_dataset/binaural.py), so that a true direction through the dataset's own ears leaves
nothing to the renderer but the room. One gain for both ears is all that may be applied afterwards.

Legend: S samples, T steps of a path. Vectors (x, y, z): front, left, up (bi_audio_dataset/sphere.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from bi_audio_dataset import ambisonics, hrtf
from bi_audio_dataset.binaural import BinauralDecoder

FRONT = np.array([1.0, 0.0, 0.0])


@dataclass(frozen=True)
class Path:
    """Where a sound comes from: vectors (T, 3), step k at k / rate_hz seconds, held beyond both ends.

    A vector of length 1 is a direction; a shorter one is the mean of several directions, and sounds less
    directed: of length 0 it is the pressure alone, alike in both ears.
    """

    vectors: np.ndarray = field(repr=False)
    rate_hz: float

    def __post_init__(self) -> None:
        vectors = np.asarray(self.vectors)
        if vectors.ndim != 2 or vectors.shape[1] != 3 or not len(vectors) or not np.isfinite(vectors).all():
            raise ValueError(f"expected finite vectors (T, 3), T at least 1, got {vectors.shape}")

    def at(self, times_s: np.ndarray) -> np.ndarray:
        """(3, S) at times (S,): linear between the steps, so that nothing jumps."""
        position = np.asarray(times_s) * self.rate_hz
        steps = np.arange(len(self.vectors))
        return np.stack([np.interp(position, steps, axis) for axis in self.vectors.T])


@lru_cache(maxsize=4)
def decoder(sample_rate: int, sofa: str | None = None) -> BinauralDecoder:
    """The builder's decoder of a rate: of the spherical head, or of a SOFA file made left-right symmetric, as
    `bi_audio_dataset build` takes them. UserError for a file that holds no HRIRs."""
    hrirs = hrtf.spherical_head(sample_rate) if sofa is None else hrtf.load_sofa(sofa, sample_rate)
    return BinauralDecoder(hrirs if hrirs.symmetric else hrirs.symmetrised())


def spatialise(mono: np.ndarray, sample_rate: int, path: Path, sofa: str | None = None) -> np.ndarray:
    """Ears (2, S) float32 of a mono sound (S,) that comes from `path`."""
    mono = np.asarray(mono, np.float32)
    field_4S = np.empty((4, len(mono)), np.float32)
    field_4S[0] = mono
    field_4S[list(ambisonics.XYZ_CHANNELS)] = path.at(np.arange(len(mono)) / sample_rate) * mono
    return decoder(sample_rate, sofa).render(field_4S)
