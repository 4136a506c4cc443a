"""Head-related impulse responses: a spherical head that needs no data, and any SOFA file.

Axes, angles and the order of the ears: sphere.py (index 0 = left ear).
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.spatial import cKDTree

from .schema import UserError
from .sphere import direction, fibonacci_sphere

SPEED_OF_SOUND = 343.0  # m/s
HEAD_RADIUS_M = 0.0875
#: Where the spherical head's delay passes from the low-frequency law to the high-frequency one.
LOW_DELAY_HZ = 1500.0
#: Mirroring the left-right axis.
MIRROR = np.array([1.0, -1.0, 1.0])
#: Ears count as mirror images if the mean squared difference is below this share of the energy.
SYMMETRY_TOLERANCE = 1e-4


@dataclass(frozen=True)
class HrirSet:
    """HRIRs (M, 2, L) float32 from unit vectors `directions` (M, 3), ear 0 = left, with absolute delays.

    symmetric: the set's mirror image (y -> -y, ears swapped) is the set itself.
    """

    name: str
    directions: NDArray[np.float64]
    hrirs: NDArray[np.float32]
    sample_rate: int
    symmetric: bool

    def __post_init__(self) -> None:
        count = len(self.directions)
        if self.directions.shape != (count, 3) or self.hrirs.shape[:2] != (count, 2) or self.hrirs.ndim != 3:
            raise ValueError(
                "expected directions (M, 3) and hrirs (M, 2, L), "
                f"got {self.directions.shape} and {self.hrirs.shape}"
            )

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self.directions)

    def nearest_index(self, directions: NDArray[np.floating]) -> NDArray[np.intp]:
        """Index (...) of the measured direction nearest to each unit vector (..., 3)."""
        return np.asarray(self._tree.query(directions)[1])

    def nearest(self, azimuth_rad: float, elevation_rad: float = 0.0) -> NDArray[np.float32]:
        """The HRIR (2, L) measured nearest to a direction."""
        return self.hrirs[self.nearest_index(direction(azimuth_rad, elevation_rad))]

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """Share of the sphere (M,) nearest to each direction; sums to one. A gap goes to its rim."""
        points = fibonacci_sphere(10_000)
        nearest = self.nearest_index(np.concatenate([points, points * MIRROR]))
        counts = np.bincount(nearest, minlength=len(self.directions))
        return counts / counts.sum()

    @cached_property
    def centre_delay_samples(self) -> int:
        """Samples a sound takes to the head's centre: the ears' onset for sources near the median plane."""
        frontal = np.abs(self.directions[:, 1]) < np.sin(np.deg2rad(10.0))
        if not frontal.any():
            frontal = np.abs(self.directions[:, 1]) <= np.abs(self.directions[:, 1]).min() + 1e-6
        return int(np.median(onsets(self.hrirs[frontal])))

    def symmetrised(self) -> HrirSet:
        """A left-right symmetric set: the right ear of d becomes the left ear of d's mirror image.

        Mirror images that were not measured are added, so the directions close under the mirror. Where
        one is missing its nearest neighbour answers, an error of at most the grid's spacing.
        """
        if self.symmetric:
            return self
        mirrored = self.directions * MIRROR
        gap = self._tree.query(mirrored)[0]
        added = mirrored[gap > 1e-3]
        directions = np.concatenate([self.directions, added])
        left = self.nearest_index(directions)
        right = self.nearest_index(directions * MIRROR)
        hrirs = np.stack([self.hrirs[left, 0], self.hrirs[right, 0]], axis=1)
        return replace(self, name=f"{self.name}+mirror", directions=directions, hrirs=hrirs, symmetric=True)


def onsets(hrirs: NDArray[np.floating]) -> NDArray[np.intp]:
    """First sample (...) at which |hrirs (..., L)| reaches half of its own peak."""
    size = np.abs(hrirs)
    return np.argmax(size >= 0.5 * size.max(axis=-1, keepdims=True), axis=-1)


def spherical_head(
    sample_rate: int,
    radius_m: float = HEAD_RADIUS_M,
    elevation_step_deg: float = 10.0,
    horizon_count: int = 48,
    length: int = 128,
) -> HrirSet:
    """A rigid sphere with ears at +-90 degrees; every ear depends on the lateral angle alone.

    Delay after Woodworth, relative to the head's centre: -(a/c) cos t on the near side, (a/c)(t - pi/2) in
    the shadow, t the angle between source and ear. Head shadow: the one-pole, one-zero filter of
    Brown and Duda, "A structural model for binaural sound synthesis" (IEEE TSAP 1998), eqs. 3-6, by
    the bilinear transform. Below the pole that filter delays too, and the sum overshoots: an ITD of 0.88 ms
    at 90 degrees, where a rigid sphere has 3 (a/c) sin(lateral angle) = 0.77 ms (Kuhn, JASA 1977). An
    all-pass below LOW_DELAY_HZ takes the difference out, so the ITD is Kuhn's low down and
    Woodworth's (0.66 ms at 90 degrees) high up.
    Grid: rings every elevation_step_deg, horizon_count directions on the horizon and fewer towards the
    poles; the defaults give 546. No pinna: front and back, up and down sound alike.
    """
    directions = _ring_grid(elevation_step_deg, horizon_count)
    # Cosine between source and ear: the ears are on the y axis. Equal cosines give equal responses, so
    # the mirror swaps the ears to the bit.
    cosine = np.stack([directions[:, 1], -directions[:, 1]], axis=1)
    unique, index = np.unique(cosine, return_inverse=True)
    responses = np.stack([_sphere_response(c, sample_rate, radius_m, length) for c in unique])
    hrirs = responses[index.reshape(cosine.shape)].astype(np.float32)
    return HrirSet("spherical_head", directions, hrirs, int(sample_rate), symmetric=True)


def _ring_grid(elevation_step_deg: float, horizon_count: int) -> NDArray[np.float64]:
    rings = []
    for elevation_deg in np.arange(-90.0, 90.0 + 1e-6, elevation_step_deg):
        elevation = np.deg2rad(elevation_deg)
        count = max(1, 4 * round(horizon_count * np.cos(elevation) / 4))
        rings.append(direction(2 * np.pi * np.arange(count) / count, np.full(count, elevation)))
    # Rounding closes the grid under the mirror to the bit (sin of pi is not quite zero).
    return np.round(np.concatenate(rings), 12) + 0.0


def _sphere_response(cosine: float, sample_rate: float, radius_m: float, length: int) -> NDArray[np.float64]:
    """Impulse response (length,) at an ear; the head's centre lies at length / 4 samples."""
    theta = np.arccos(np.clip(cosine, -1.0, 1.0))
    crossing_s = radius_m / SPEED_OF_SOUND
    delay_s = -crossing_s * cosine if theta < np.pi / 2 else crossing_s * (theta - np.pi / 2)
    position = np.arange(length) - (length // 4 + delay_s * sample_rate)
    # Kaiser-windowed sinc: a fractional delay, flat within 0.1 dB to 0.9 of the Nyquist frequency.
    half = 24.0
    window = np.i0(6.0 * np.sqrt(np.clip(1 - (position / half) ** 2, 0, None))) / np.i0(6.0)
    impulse = np.sinc(position) * np.where(np.abs(position) < half, window, 0.0)
    # H(s) = (1 + alpha s / (2 w0)) / (1 + s / (2 w0)), w0 = c / a; alpha falls from 2 to 0.1 at 150 degrees.
    alpha_min, theta_min = 0.1, np.deg2rad(150.0)
    alpha = (1 + alpha_min / 2) + (1 - alpha_min / 2) * np.cos(np.pi * theta / theta_min)
    k = sample_rate * crossing_s
    shadowed = lfilter([1 + alpha * k, 1 - alpha * k], [1 + k, 1 - k], impulse)
    excess_s = delay_s + 0.5 * (1 - alpha) * crossing_s + 1.5 * crossing_s * cosine
    frequency_hz = np.fft.rfftfreq(8 * length, 1 / sample_rate)
    phase = 2 * np.pi * frequency_hz * excess_s / (1 + (frequency_hz / LOW_DELAY_HZ) ** 4)
    return np.fft.irfft(np.fft.rfft(shadowed, 8 * length) * np.exp(1j * phase))[:length]


def load_sofa(path: str | Path, sample_rate: int) -> HrirSet:
    """HRIRs of a SOFA file (any convention with FIR data and two receivers), resampled to sample_rate.

    Source positions may be spherical (degrees, azimuth counter-clockwise) or cartesian. Receiver 0 is the
    left ear by convention; public files disagree about ReceiverPosition (CIPIC, LISTEN and KU100 put
    receiver 0 at negative y and still store the left ear first), so the sound decides: the ear that
    is louder for sources on the left is the left ear. Raises UserError naming what is wrong.
    """
    path = Path(path)
    sofa = _read_sofa(path)
    ir = np.asarray(getattr(sofa, "Data_IR", np.empty(0)), dtype=np.float64)
    if ir.ndim != 3 or ir.shape[1] != 2:
        raise UserError(
            f"{path}: Data.IR has shape {ir.shape}, expected (measurements, 2 receivers, samples): "
            "give a SOFA file of HRIRs (convention SimpleFreeFieldHRIR)"
        )
    rate = float(np.ravel(sofa.Data_SamplingRate)[0])
    directions = _source_directions(sofa, path)
    if len(directions) != len(ir):
        raise UserError(f"{path}: {len(directions)} source positions for {len(ir)} impulse responses")
    if not np.isfinite(ir).all() or not np.isfinite(directions).all() or not ir.any():
        raise UserError(f"{path}: impulse responses or positions are not finite, or all silent")
    ir = _apply_delays(ir, np.asarray(getattr(sofa, "Data_Delay", 0.0), dtype=np.float64))
    if rate != sample_rate:
        ir = _resample(ir, rate, sample_rate)
    energy = np.sum(ir**2, axis=-1)
    if np.sum(directions[:, 1] * (energy[:, 0] - energy[:, 1]) / (energy.sum(axis=1) + 1e-30)) < 0:
        ir = ir[:, ::-1]
    result = HrirSet(path.stem, directions, ir.astype(np.float32), int(sample_rate), symmetric=False)
    return replace(result, symmetric=_is_symmetric(result))


def _read_sofa(path: Path):
    import sofar  # netCDF4 is slow to import, and most runs need no file

    if not path.is_file():
        raise UserError(f"{path}: no such SOFA file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old files ask to be upgraded; their data are the same
            return sofar.read_sofa(str(path), verify=False, verbose=False)
    except Exception as error:  # sofar raises whatever netCDF4 meets in a broken file
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{path}: not a readable SOFA file ({reason})") from error


def _source_directions(sofa, path: Path) -> NDArray[np.float64]:
    position = np.atleast_2d(np.asarray(getattr(sofa, "SourcePosition", np.empty((0, 0))), dtype=np.float64))
    if position.shape[1] != 3:
        raise UserError(f"{path}: SourcePosition has shape {position.shape}, expected (measurements, 3)")
    kind = str(getattr(sofa, "SourcePosition_Type", "spherical"))
    if kind == "cartesian":
        norms = np.linalg.norm(position, axis=1, keepdims=True)
        if not (norms > 0).all():
            raise UserError(f"{path}: a source position lies in the head's centre")
        return position / norms
    if kind != "spherical":
        raise UserError(f"{path}: source positions are {kind!r}, expected 'spherical' or 'cartesian'")
    radians = "rad" in str(getattr(sofa, "SourcePosition_Units", "degree")).split(",")[0]
    azimuth, elevation = (position[:, :2] if radians else np.deg2rad(position[:, :2])).T
    return direction(azimuth, elevation)


def _apply_delays(ir: NDArray[np.float64], delay: NDArray[np.float64]) -> NDArray[np.float64]:
    """Data.Delay, (1 or M, 2) in samples, put into the responses; a delay common to all is left out."""
    delay = np.broadcast_to(delay, ir.shape[:2]) if delay.size else np.zeros(ir.shape[:2])
    delay = delay - delay.min()
    if not delay.any():
        return ir
    padded = np.pad(ir, ((0, 0), (0, 0), (0, int(np.ceil(delay.max())) + 16)))
    frequency = np.fft.rfftfreq(padded.shape[-1])
    return np.fft.irfft(
        np.fft.rfft(padded) * np.exp(-2j * np.pi * frequency * delay[..., None]), padded.shape[-1]
    )


def _resample(ir: NDArray[np.float64], rate: float, sample_rate: int) -> NDArray[np.float64]:
    """Responses at another rate, scaled so that the filter's gain stays."""
    import soxr

    # All responses in one stream are far faster than thousands of channels. Each gets zeros on both sides
    # for the resampler's ringing, and a length that is a whole number of samples at both rates.
    divisor = math.gcd(round(rate), sample_rate)
    step, margin = round(rate) // divisor, 64
    length = step * math.ceil((ir.shape[-1] + 2 * margin) / step)
    padded = np.pad(ir, ((0, 0), (0, 0), (margin, length - ir.shape[-1] - margin)))
    out = soxr.resample(padded.ravel(), round(rate), sample_rate, quality="VHQ")
    out = out.reshape(*ir.shape[:2], length // step * (sample_rate // divisor))
    kept = math.ceil((ir.shape[-1] + 2 * margin) * sample_rate / rate)
    return out[..., :kept] * (rate / sample_rate)


def _is_symmetric(hrir_set: HrirSet) -> bool:
    distance, mirror = hrir_set._tree.query(hrir_set.directions * MIRROR)
    if distance.max() > 1e-3:
        return False
    difference = hrir_set.hrirs - hrir_set.hrirs[mirror][:, ::-1]
    return bool(np.sum(difference**2) < SYMMETRY_TOLERANCE * np.sum(hrir_set.hrirs**2))
