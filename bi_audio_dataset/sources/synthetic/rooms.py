"""Rooms of BiAudio-Synth: a moving mono source becomes a first-order ambisonic field at the listener.

Three parts are summed. The direct path follows the source sample by sample. Early reflections are the image
sources up to order 2 of a shoebox (pyroomacoustics; Allen and Berkley 1979), each encoded from its direction
with its delay and damping; they are computed at keyframes of the path and cross-faded. The late tail is
diffuse noise that decays by the room's rt60, with the level of diffuse-field theory, starting after the last
early reflection. Reflections and tail together stay MIN_DIRECT_TO_REVERBERANT_DB below the direct sound, so
that the two ears' differences survive.

Left out on purpose: the delay of the direct path, so that sound stays with the picture (reflections keep
their delay relative to it), and with it the Doppler shift; air absorption; echoes above order 2 one by one.

Axes, angles: sphere.py. Channels: ambisonics.py. Positions are metres relative to the listener.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft

SPEED_OF_SOUND_M_S = 343.0
NEAREST_M = 0.3  # 1 / r grows no further
REFERENCE_M = 1.0  # gain 1
MIN_DIRECT_TO_REVERBERANT_DB = 11.0
FREE_FIELD_PROBABILITY = 0.35
MAX_ABSORPTION = 0.9
IMAGE_ORDER = 2
KEYFRAME_S = 0.75
KEYFRAME_MOVE_M = 0.1  # a source that stays within this of its start has one keyframe
WALL_MARGIN_M = 0.2


@dataclass(frozen=True)
class RoomSpec:
    """kind 'none' (free field: the other figures are 0) or 'shoebox'. dimensions_m: length along x, width
    along y, height; listener_m: the listener from the corner (0, 0, 0); absorption: energy share that a wall
    takes."""

    kind: str
    name: str
    dimensions_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    listener_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    absorption: float = 0.0
    rt60_s: float = 0.0

    @property
    def critical_distance_m(self) -> float:
        """Where direct and reverberant energy are equal, 0.057 sqrt(V / rt60)."""
        return 0.057 * float(np.sqrt(np.prod(self.dimensions_m) / self.rt60_s))


FREE_FIELD = RoomSpec("none", "free field")


def sample_room(rng: np.random.Generator) -> RoomSpec:
    """Free field in 35 %, else a shoebox of 3-12 m with rt60 0.15-0.6 s (raised where walls that take
    MAX_ABSORPTION would still leave more, by Sabine's formula)."""
    if rng.uniform() < FREE_FIELD_PROBABILITY:
        return FREE_FIELD
    length, width, height = rng.uniform(3.0, 12.0), rng.uniform(3.0, 12.0), rng.uniform(2.4, 4.0)
    surface = 2.0 * (length * width + length * height + width * height)
    sabine_s = 0.161 * length * width * height / surface  # rt60 of full absorption
    rt60_s = max(rng.uniform(0.15, 0.6), sabine_s / MAX_ABSORPTION)
    size = "small" if length * width < 25 else "large" if length * width > 70 else "medium"
    return RoomSpec(
        kind="shoebox",
        name=f"{size} room {length:.1f} x {width:.1f} x {height:.1f} m, rt60 {rt60_s:.2f} s",
        dimensions_m=(float(length), float(width), float(height)),
        listener_m=(
            float(length * rng.uniform(0.35, 0.65)),
            float(width * rng.uniform(0.35, 0.65)),
            float(rng.uniform(1.2, 1.6)),
        ),
        absorption=float(sabine_s / rt60_s),
        rt60_s=float(rt60_s),
    )


def render_foa(
    mono: np.ndarray,
    positions_m: np.ndarray,
    rate_hz: float,
    room: RoomSpec,
    sample_rate: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """mono (N,) from positions_m (T, 3) or (3,), position i holding at time i / rate_hz (linear between, the
    last one kept) -> AmbiX (4, N) float32. rng draws the diffuse tail only. ValueError for bad shapes."""
    mono = np.asarray(mono, np.float32)
    positions_m = np.atleast_2d(np.asarray(positions_m, np.float64))
    if mono.ndim != 1 or positions_m.ndim != 2 or positions_m.shape[1] != 3 or not len(positions_m):
        raise ValueError(f"expected mono (N,) and positions (T, 3), got {mono.shape} and {positions_m.shape}")
    field = _direct(mono, positions_m, rate_hz, sample_rate)
    if room.kind == "none" or not len(mono):
        return field
    times_s, keys_m = _keyframes(positions_m, rate_hz, len(mono) / sample_rate)
    echoes = [_reflections(key, room) for key in keys_m]
    tail_start_s = max(delays.max() for delays, _, _ in echoes)
    tail_energy = np.exp(-13.8155 * tail_start_s / room.rt60_s) / room.critical_distance_m**2
    direct_energy = np.array([_distance_gain(np.linalg.norm(key)) ** 2 for key in keys_m])
    early_energy = np.array([(gains**2).sum() for _, gains, _ in echoes])
    most = direct_energy * 10 ** (-MIN_DIRECT_TO_REVERBERANT_DB / 10)
    scales = np.sqrt(np.minimum(1.0, most / (early_energy + tail_energy)))
    for index, (delays, gains, directions) in enumerate(echoes):
        _add_reflections(field, mono, times_s, index, scales[index] * gains, delays, directions, sample_rate)
    level = np.interp(np.arange(len(mono)) / sample_rate, times_s, scales) * np.sqrt(tail_energy)
    _add_tail(field, mono * level.astype(np.float32), tail_start_s, room.rt60_s, sample_rate, rng)
    return field


def _distance_gain(distance_m):
    return REFERENCE_M / np.maximum(distance_m, NEAREST_M)


def _foa_gains(directions: np.ndarray) -> np.ndarray:
    """(..., 3) unit vectors -> (4, ...) SN3D gains, W Y Z X."""
    return np.stack([np.ones(directions.shape[:-1]), *np.moveaxis(directions[..., [1, 2, 0]], -1, 0)])


def _direct(mono: np.ndarray, positions_m: np.ndarray, rate_hz: float, sample_rate: int) -> np.ndarray:
    if len(positions_m) == 1 or not np.ptp(positions_m, axis=0).any():
        distance = np.linalg.norm(positions_m[0])
        gains = _foa_gains(positions_m[0] / max(distance, 1e-9)) * _distance_gain(distance)
        return gains[:, None].astype(np.float32) * mono
    seconds, knots = np.arange(len(mono)) / sample_rate, np.arange(len(positions_m)) / rate_hz
    path = np.stack([np.interp(seconds, knots, axis) for axis in positions_m.T]).astype(np.float32)
    distance = np.sqrt(np.einsum("an,an->n", path, path))
    loud = mono * _distance_gain(distance)
    x, y, z = path * (loud / np.maximum(distance, 1e-6))
    return np.stack([loud, y, z, x])


def _keyframes(positions_m: np.ndarray, rate_hz: float, duration_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Times (K,) and positions (K, 3) at which reflections are computed."""
    if np.linalg.norm(positions_m - positions_m[0], axis=1).max() <= KEYFRAME_MOVE_M:
        return np.zeros(1), positions_m[:1]
    times = np.linspace(0.0, duration_s, max(2, int(round(duration_s / KEYFRAME_S)) + 1))
    knots = np.arange(len(positions_m)) / rate_hz
    return times, np.stack([np.interp(times, knots, axis) for axis in positions_m.T], axis=1)


def _reflections(source_m: np.ndarray, room: RoomSpec) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Delays after the direct sound (I,) in seconds, gains (I,), directions (I, 3) of the image sources.

    A source outside the walls (a scene need not fit its room) is drawn in along its line of sight.
    """
    import pyroomacoustics

    listener, size = np.array(room.listener_m), np.array(room.dimensions_m)
    wall = np.where(source_m > 0, size - WALL_MARGIN_M - listener, listener - WALL_MARGIN_M)
    shrink = min(1.0, float(np.min(wall / np.maximum(np.abs(source_m), 1e-9))))
    inside = source_m * shrink
    shoebox = pyroomacoustics.ShoeBox(
        size, fs=16000, materials=pyroomacoustics.Material(room.absorption), max_order=IMAGE_ORDER
    )
    shoebox.add_source(listener + inside)
    shoebox.add_microphone(listener)
    shoebox.image_source_model()
    source = shoebox.sources[0]
    reflected = source.orders > 0
    # Image positions only: pyroomacoustics' own angles count colatitude from the zenith.
    offsets = source.images[:, reflected].T - listener
    distances = np.linalg.norm(offsets, axis=1)
    direct_m = np.linalg.norm(inside)
    gains = np.abs(source.damping[0, reflected]) / distances * shrink
    delays = np.maximum(distances - direct_m, 0.0) / SPEED_OF_SOUND_M_S
    return delays, gains, offsets / distances[:, None]


def _add_reflections(field, mono, times_s, index, gains, delays, directions, sample_rate: int) -> None:
    """Add the echoes of keyframe `index`, whose weight falls linearly to 0 at its neighbours."""
    num_samples = len(mono)
    if len(times_s) == 1:
        start, segment = 0, mono
    else:
        before, after = times_s[max(index - 1, 0)], times_s[min(index + 1, len(times_s) - 1)]
        start, stop = int(before * sample_rate), min(num_samples, int(after * sample_rate) + 1)
        seconds = np.arange(start, stop) / sample_rate
        weights = np.interp(seconds, times_s, np.arange(len(times_s)) == index)
        segment = mono[start:stop] * weights.astype(np.float32)
    channel_gains = (_foa_gains(directions) * gains).astype(np.float32)  # (4, I)
    for echo, delay in enumerate(np.round(delays * sample_rate).astype(int)):
        first = start + delay
        length = min(len(segment), num_samples - first)
        if length > 0:
            for channel in range(4):
                field[channel, first : first + length] += channel_gains[channel, echo] * segment[:length]


def _add_tail(field, mono, start_s: float, rt60_s: float, sample_rate: int, rng: np.random.Generator) -> None:
    """Convolve with diffuse noise of unit energy in W that begins start_s after the sound. In a diffuse field
    the SN3D vector channels carry a third of W's energy each, uncorrelated."""
    length, offset = max(1, int(rt60_s * sample_rate)), int(start_s * sample_rate)
    envelope = np.exp(-6.9078 * np.arange(length) / (rt60_s * sample_rate))
    tail = (rng.standard_normal((4, length)) * envelope / np.sqrt((envelope**2).sum())).astype(np.float32)
    tail[1:] *= np.float32(3**-0.5)
    size = fft.next_fast_len(len(mono) + length, real=True)
    spectrum = fft.rfft(mono, size)
    for channel in range(4):
        wet = fft.irfft(spectrum * fft.rfft(tail[channel], size), size)
        field[channel, offset:] += wet[: max(0, len(mono) - offset)]
