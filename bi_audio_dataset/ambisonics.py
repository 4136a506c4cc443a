"""First-order ambisonics, AmbiX: channels W, Y, Z, X (ACN), SN3D gains (axes and angles: sphere.py).

A plane wave s from direction d = (x, y, z) is [1, y, z, x] s, so W is the pressure and (X, Y, Z) a
vector that turns like d itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation, Slerp

from .sphere import angles, direction, fibonacci_sphere

#: Where x, y and z stand among the channels (ACN: W, Y, Z, X).
XYZ_CHANNELS = (3, 1, 2)
#: Gain of the vector part in a beam W + g d.(X, Y, Z): max-rE, which spreads the least energy off the axis.
BEAM_GAIN = 3**0.5
#: Matrices are interpolated linearly over steps no larger than this; the gain error is 1 - cos(1.5 deg).
MAX_STEP_RAD = np.deg2rad(3.0)


def gains(azimuth_rad: ArrayLike, elevation_rad: ArrayLike) -> NDArray[np.float64]:
    """SN3D gains (4, ...) of plane waves: [1, sin az cos el, sin el, cos az cos el]."""
    d = direction(azimuth_rad, elevation_rad)
    return np.stack([np.ones(d.shape[:-1]), d[..., 1], d[..., 2], d[..., 0]])


def encode(signal: ArrayLike, azimuth_rad: ArrayLike, elevation_rad: ArrayLike) -> NDArray[np.float32]:
    """Field (4, N) of a plane wave carrying signal (N,) from a fixed direction, or one per sample (N,)."""
    signal = np.asarray(signal)
    channel_gains = gains(azimuth_rad, elevation_rad)
    if channel_gains.ndim == 1:
        channel_gains = channel_gains[:, None]
    return (channel_gains * signal).astype(np.float32)


def rotate(
    foa: ArrayLike,
    rotation: ArrayLike,
    frame_rate: float | None = None,
    sample_rate: float | None = None,
) -> NDArray[np.float32]:
    """The field (4, N) as heard in the frame of a camera turned by camera-to-world `rotation`.

    rotation: (3, 3), or a path (F, 3, 3) whose matrix k holds at time k / frame_rate; between frames
    the matrix moves smoothly from sample to sample, after the last frame it stays.
    """
    foa = check_foa(foa)
    rotation = np.asarray(rotation, dtype=np.float64)
    if rotation.ndim == 3 and len(rotation) == 1:
        rotation = rotation[0]
    vector = foa[list(XYZ_CHANNELS)]
    if rotation.ndim == 2:
        turned = rotation.T @ vector
    elif frame_rate is None or sample_rate is None:
        raise ValueError("a path of rotations needs frame_rate and sample_rate")
    else:
        turned = _turn_along(vector, rotation, frame_rate / sample_rate)
    out = np.empty(foa.shape, dtype=np.float32)
    out[0] = foa[0]
    out[list(XYZ_CHANNELS)] = turned
    return out


def _turn_along(
    vector: NDArray[np.floating], rotations: NDArray[np.float64], frames_per_sample: float
) -> NDArray[np.float64]:
    """R(n)^T v(n) for v (3, N): spherical interpolation to small steps, linear inside a step."""
    times = np.arange(len(rotations), dtype=np.float64)
    frames = Rotation.from_matrix(rotations)
    largest = (frames[:-1].inv() * frames[1:]).magnitude().max()
    pieces = int(np.ceil(largest / MAX_STEP_RAD))
    if pieces > 1:
        fine = np.linspace(0, times[-1], (len(rotations) - 1) * pieces + 1)
        rotations = Slerp(times, frames)(fine).as_matrix()
        times = fine
    position = np.arange(vector.shape[1]) * frames_per_sample
    turned = np.zeros(vector.shape)
    for row in range(3):
        for column in range(3):
            turned[column] += np.interp(position, times, rotations[:, row, column]) * vector[row]
    return turned


def covariance(foa: ArrayLike, block: int | None = None) -> NDArray[np.float64]:
    """Channel covariances (F, 4, 4), each the mean over `block` samples (the last may be shorter)."""
    foa = check_foa(foa).astype(np.float64)
    block = block or max(1, foa.shape[1])
    starts = range(0, foa.shape[1], block)
    return np.stack([(part := foa[:, s : s + block]) @ part.T / part.shape[1] for s in starts])


def energy_map(
    foa: ArrayLike, sample_rate: float, num_directions: int = 512, window_s: float = 0.1
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Spherical-harmonic beam energy over time: (directions (D, 3), energy (F, D)).

    Frame f is the mean over [f, f + 1) * window_s of the squared max-rE beam towards each direction of
    a Fibonacci grid, scaled so that a plane wave seen on its own axis has its own mean square.
    """
    directions = fibonacci_sphere(num_directions)
    blocks = covariance(foa, max(1, round(window_s * sample_rate)))
    return directions, np.einsum(
        "di,fij,dj->fd", _beams(directions), blocks, _beams(directions), optimize=True
    )


def max_energy_direction(foa: ArrayLike, sample_rate: float) -> tuple[float, float, float]:
    """(azimuth_rad, elevation_rad, confidence) of the direction whose beam has the most energy.

    Confidence in [0, 1] is 1 - diffuseness (DirAC): |E[W v]| over the mean energy; 1 for one plane
    wave, near 0 for a diffuse field, for opposite equal sources, and for silence.
    """
    matrix = covariance(foa)[0]
    order = list(XYZ_CHANNELS)
    spread, flow = matrix[np.ix_(order, order)], matrix[0, order]
    total = 0.5 * (matrix[0, 0] + np.trace(spread))
    if total <= 1e-20:
        return 0.0, 0.0, 0.0
    grid = fibonacci_sphere(512)
    beams = _beams(grid)
    best = grid[np.argmax(np.einsum("di,ij,dj->d", beams, matrix, beams))]
    for _ in range(100):
        # The beam energy is convex in d: stepping to its normalised gradient never lowers it.
        step = BEAM_GAIN * spread @ best + flow
        norm = np.linalg.norm(step)
        if norm < 1e-12 * total:
            break
        best = step / norm
    azimuth, elevation = angles(best)
    confidence = float(np.clip(np.linalg.norm(flow) / total, 0.0, 1.0))
    return float(azimuth), float(elevation), confidence


def _beams(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights (D, 4) of max-rE beams, unit gain on the axis."""
    weights = np.concatenate([np.ones((len(directions), 1)), BEAM_GAIN * directions[:, [1, 2, 0]]], axis=1)
    return weights / (1 + BEAM_GAIN)


def check_foa(foa: ArrayLike) -> NDArray[np.floating]:
    """The field as an array; ValueError unless it is (4, N)."""
    foa = np.asarray(foa)
    if foa.ndim != 2 or foa.shape[0] != 4:
        raise ValueError(f"expected first-order ambisonics of shape (4, samples), got {foa.shape}")
    return foa
