"""From which direction a clip sounds as a whole, moment by moment, by its ground truth.

One mono sound can have one direction. With several sources it is the mean of their directions weighted by
what each gives to the sound, energy over distance squared: the way the active intensity of the field points.
It is not made a unit vector again, so that equal sources on both sides come out in the middle and nothing
jumps where one takes over. Sources off screen count like all others, from wherever they are; a source keeps
its direction while it is silent.

Envelopes are relative to each source's own loudest moment (bi_audio_dataset/schema.py): how loud one source
is beside another is known by distance alone.

Legend: K sources, T truth frames.
"""

from __future__ import annotations

import numpy as np

from bi_audio_dataset.schema import UserError
from bi_audio_dataset.sphere import direction
from visaudio.data.dataset import Clip
from visaudio.evaluation.baselines.spatialise import Path

SMOOTH_S = 0.2  # Hann window over the energies, so that a strike does not throw the direction about
NEAREST_M = 0.5


def true_path(clip: Clip) -> Path:
    """UserError where the clip has no ground truth."""
    if not clip.sources:
        raise UserError(f"clip {clip.id} has no ground truth, which two-stage-truth takes its direction from")
    frames = min(len(source.envelope_db) for source in clip.sources)
    energy = np.stack([10 ** (s.envelope_db[:frames] / 10.0) for s in clip.sources])
    distance = np.stack([np.maximum(s.distance_m[:frames], NEAREST_M) for s in clip.sources])
    weight = smooth(energy, clip.truth_rate_hz * SMOOTH_S) / distance**2  # (K, T), never zero: a floor in dB
    azimuth, elevation = (
        np.radians(np.stack([getattr(s, name)[:frames] for s in clip.sources]))
        for name in ("azimuth_deg", "elevation_deg")
    )
    vectors = (weight[..., None] * direction(azimuth, elevation)).sum(axis=0) / weight.sum(axis=0)[:, None]
    return Path(vectors, clip.truth_rate_hz)


def smooth(values: np.ndarray, steps: float) -> np.ndarray:
    """(..., T) under a Hann window `steps` wide between its zeros, sums kept; the ends are held."""
    half = max(0, int(np.ceil(steps / 2)) - 1)
    window = np.hanning(2 * half + 3)[1:-1]
    window /= window.sum()
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(half, half)], mode="edge")
    rows = padded.reshape(-1, padded.shape[-1])
    return np.stack([np.convolve(row, window, "valid") for row in rows]).reshape(values.shape)
