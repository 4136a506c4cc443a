"""First-order ambisonics -> two ears, by static 4 -> 2 filters fitted to an HRIR set.

Why not virtual loudspeakers: convolving the feeds of a loudspeaker cube with their HRIRs sums delayed
copies at each ear, and the result depends on the layout: it combs above some 700 Hz and loses level and
colour. Here the filters are fitted in the spherical-harmonic domain to all measured directions, each
weighted by its share of the sphere:

- below CROSSOVER_HZ least squares on the complex response, which keeps the interaural phase, so ITD. First
  order shrinks that phase as frequency grows (by a fifth at 400 Hz and 90 degrees), so below SHAPED_HZ the
  fit is asked for a little more than it will reach (see _shape);
- above it magnitude least squares (MagLS; Schoerkhuber, Zaunschirm and Hoeldrich, "Binaural rendering of
  Ambisonic signals via magnitude least squares", DAGA 2018): the ear hears no phase there, so the
  phase is free to follow from bin to bin, and the magnitude, so ILD and colour, is fitted;
- between SHAPED_HZ and DIFFUSE_HZ the diffuse-field covariance constraint (Zaunschirm, Schoerkhuber and
  Hoeldrich, JASA 2018): a 2x2 matrix per bin gives a diffuse field the interaural coherence that the HRIR
  set gives it; elsewhere its level alone.

What first order cannot do: with left ear W + b Y and right ear W - b Y the diffuse coherence is
(1 - b^2/3) / (1 + b^2/3), and the ILD is largest at the lateral angle asin(1/b). No coherence, as real
ears have above 2 kHz, would need b = sqrt(3), which puts the largest ILD at 35 degrees and half of it at
90. So above DIFFUSE_HZ the ILD goes first and the coherence of a diffuse field stays too high (by about
0.3, spherical head). Measured in tests: ITD within 60 us at 100-400 Hz, the diffuse field's coherence within
0.1 up to 2 kHz, that of two sources within 0.1 at 100-400 Hz.

The head turns by turning the field before the filters (ambisonics.rotate). For a symmetric HRIR set the
right ear's filters are the left's with Y negated, to the bit: negating Y swaps the ears exactly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.fft import irfft, next_fast_len, rfft
from scipy.signal import oaconvolve
from scipy.special import lambertw

from .ambisonics import check_foa, rotate
from .hrtf import HrirSet

CROSSOVER_HZ = 1500.0
#: Least squares fade to MagLS over this many octaves about the crossover.
CROSSOVER_OCTAVES = 1.0
#: Below this the interaural phase is shaped; the shaping fades out over the next octave.
SHAPED_HZ = 400.0
#: Up to here the diffuse field's coherence is matched; it fades out over the octave about it.
DIFFUSE_HZ = 2500.0
#: Extra weight of lateral directions where cues are fitted: 1 + LATERAL_EMPHASIS y^4. Without it the ILD at
#: 90 degrees comes out below that at 45.
LATERAL_EMPHASIS = 8.0
#: The search of _shape: candidates, and the price of lost coherence.
WIDENINGS = np.linspace(0.0, 0.3, 16)
COHERENCE_COST = 1.0
MIRROR_Y = np.array([1.0, -1.0, 1.0, 1.0])
#: Covariance of the channels (W, Y, Z, X) in a diffuse field of unit pressure (SN3D).
DIFFUSE_COVARIANCE = np.array([1.0, 1 / 3, 1 / 3, 1 / 3])


class BinauralDecoder:
    """Filters (2, 4, filter_length) float64 for one HRIR set: ears x (W, Y, Z, X).

    The set's travel time to the head's centre is removed: a sound in the median plane reaches both ears
    at its own time (the near ear hears a lateral sound up to 0.4 ms before it).
    """

    def __init__(
        self, hrir_set: HrirSet, filter_length: int = 1024, crossover_hz: float = CROSSOVER_HZ
    ) -> None:
        self.hrir_set = hrir_set
        self.sample_rate = hrir_set.sample_rate
        self.latency_samples = filter_length // 2
        self.filters = _design(hrir_set, filter_length, crossover_hz)
        self._block = _best_block(filter_length)
        self._response = rfft(self.filters, self._block)

    def render(self, foa: ArrayLike) -> NDArray[np.float32]:
        """Ears (2, N) of a field (4, N) at the set's sample rate; same length, no added delay."""
        foa = check_foa(foa)
        samples = foa.shape[1]
        if samples == 0:
            return np.zeros((2, 0), dtype=np.float32)
        # Overlap-add; the field is transformed once for both ears.
        tail = self.filters.shape[-1] - 1
        step = self._block - tail
        count = -(-(samples + self.latency_samples) // step)
        padded = np.zeros((4, count * step), np.result_type(foa, np.float32))
        padded[:, :samples] = foa
        spectrum = rfft(padded.reshape(4, count, step), self._block)
        ears = np.empty((2, samples), dtype=np.float32)
        for ear, response in zip(ears, self._response, strict=True):
            blocks = irfft(sum(spectrum[c] * response[c] for c in range(4)), self._block)
            blocks[1:, :tail] += blocks[:-1, step:]
            ear[:] = blocks[:, :step].reshape(-1)[self.latency_samples :][:samples]
        return ears


def render_binaural(
    foa: ArrayLike,
    decoder: BinauralDecoder,
    camera_rotations: ArrayLike,
    frame_rate: float,
    sample_rate: float,
) -> NDArray[np.float32]:
    """Ears (2, N) of a head that follows the camera: rotations (F, 3, 3), frame k at k / frame_rate."""
    if round(sample_rate) != decoder.sample_rate:
        raise ValueError(
            f"the decoder is made for {decoder.sample_rate} Hz, the field is at {sample_rate} Hz: "
            "load the HRIR set at the field's rate"
        )
    return decoder.render(rotate(foa, camera_rotations, frame_rate, sample_rate))


def render_direct(signal: ArrayLike, hrir: ArrayLike, centre_delay_samples: int) -> NDArray[np.float32]:
    """Ears (2, N) of a mono signal (N,) through one HRIR (2, L), less the delay to the head's centre.

    The reference that a decoder is measured against; the builder itself does not call it.
    """
    signal, hrir = np.asarray(signal, dtype=np.float64), np.asarray(hrir, dtype=np.float64)
    full = oaconvolve(np.broadcast_to(signal, (2, len(signal))), hrir, axes=-1)
    return full[:, centre_delay_samples : centre_delay_samples + len(signal)].astype(np.float32)


def _best_block(filter_length: int) -> int:
    """FFT length of least work per sample when a long signal is convolved with filter_length taps.

    Work N log2(2 N) / (N - K), K = filter_length - 1, is least at N = K ln(2 e N): Lambert's W solves that.
    """
    tail = max(1, filter_length - 1)
    return next_fast_len(int(np.ceil(-tail * lambertw(-1 / (2 * np.e * tail), k=-1).real)))


def _design(hrir_set: HrirSet, filter_length: int, crossover_hz: float) -> NDArray[np.float64]:
    fft_length = next_fast_len(2 * max(filter_length, hrir_set.hrirs.shape[-1]), real=True)
    response = rfft(hrir_set.hrirs.astype(np.float64), fft_length).transpose(2, 1, 0)  # (bins, ears, M)
    frequency_hz = np.arange(len(response)) * hrir_set.sample_rate / fft_length
    travel_s = hrir_set.centre_delay_samples / hrir_set.sample_rate
    response = response * np.exp(2j * np.pi * frequency_hz * travel_s)[:, None, None]
    d = hrir_set.directions
    harmonics = np.stack([np.ones(len(d)), d[:, 1], d[:, 2], d[:, 0]])  # (4, M)
    inverse = _right_inverse(harmonics, hrir_set.weights)
    lateral_inverse = _right_inverse(harmonics, _lateral_weights(hrir_set))
    wanted = (response * hrir_set.weights) @ response.conj().transpose(0, 2, 1)  # diffuse covariances

    shaped = 1 - _ramp(frequency_hz, SHAPED_HZ * 2**0.5, 1.0)
    low = shaped > 0
    target = response.copy()
    target[low] = _shape(response[low], frequency_hz[low], shaped[low], hrir_set, inverse, wanted[low])
    decoder = target @ inverse
    free = _ramp(frequency_hz, crossover_hz, CROSSOVER_OCTAVES)
    for k in np.flatnonzero(free):
        previous = decoder[k - 1] @ harmonics
        magnitude = (np.abs(response[k]) * np.exp(1j * np.angle(previous))) @ lateral_inverse
        decoder[k] += free[k] * (magnitude - decoder[k])
    diffuse = (1 - shaped) * (1 - _ramp(frequency_hz, DIFFUSE_HZ, 1.0))
    for k in range(len(decoder)):
        level = _level(decoder[k], wanted[k]) * decoder[k]
        decoder[k] = level + diffuse[k] * (_match_covariance(decoder[k], wanted[k]) - level)
    decoder[[0, -1]] = decoder[[0, -1]].real

    latency = filter_length // 2
    filters = np.roll(irfft(decoder, fft_length, axis=0), latency, axis=0)[:filter_length]
    filters = np.ascontiguousarray(filters.transpose(1, 2, 0)) * _fade(filter_length)
    if hrir_set.symmetric:
        left = 0.5 * (filters[0] + MIRROR_Y[:, None] * filters[1])
        filters = np.stack([left, MIRROR_Y[:, None] * left])
    return filters


def _right_inverse(harmonics: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """(M, 4) matrix P: D = target P is the weighted least-squares fit of D harmonics (4, M) to target."""
    weighted = harmonics * weights
    return weighted.T @ np.linalg.inv(weighted @ harmonics.T)


def _lateral_weights(hrir_set: HrirSet) -> NDArray[np.float64]:
    return hrir_set.weights * (1 + LATERAL_EMPHASIS * hrir_set.directions[:, 1] ** 4)


def _shape(
    response: NDArray[np.complex128],
    frequency_hz: NDArray[np.float64],
    strength: NDArray[np.float64],
    hrir_set: HrirSet,
    inverse: NDArray[np.float64],
    wanted: NDArray[np.complex128],
) -> NDArray[np.complex128]:
    """Targets (bins, 2, M) whose least-squares fit has nearer interaural phases than the responses' own.

    The interaural phase is widened by a share that grows with the frequency squared, as the shrinkage
    does; one number for the whole band, found by search. The cost is the squared interaural phase error,
    lateral directions first, plus the squared diffuse-field coherence error (widening lowers coherence).
    """
    d = hrir_set.directions
    # Unwrapped about the phase of a typical head: unambiguous to beyond 1 kHz.
    typical = 2 * np.pi * frequency_hz[:, None] * 0.75e-3 * d[:, 1]
    interaural = np.angle(response[:, 0] * response[:, 1].conj())
    interaural += 2 * np.pi * np.round((typical - interaural) / (2 * np.pi))
    size = np.abs(response)
    common = np.exp(1j * (np.angle(response[:, 0]) - 0.5 * interaural))[:, None]
    ears = np.array([0.5, -0.5])[:, None]

    def shape(bins, widening: float) -> NDArray[np.complex128]:
        share = strength[bins, None, None] * widening * (frequency_hz[bins, None, None] / 400.0) ** 2
        return size[bins] * common[bins] * np.exp(1j * (1 + share) * interaural[bins, None] * ears)

    harmonics = np.stack([np.ones(len(d)), d[:, 1], d[:, 2], d[:, 0]])
    weights = _lateral_weights(hrir_set)
    bins = np.flatnonzero((frequency_hz >= 80.0) & (frequency_hz <= SHAPED_HZ))
    bins = bins[:: max(1, len(bins) // 12)]
    coherence = _coherence(wanted[bins])

    def cost(widening: float) -> float:
        decoder = shape(bins, widening) @ inverse
        heard = decoder @ harmonics
        phase = np.angle(heard[:, 0] * heard[:, 1].conj() * np.exp(-1j * interaural[bins]))
        scaled = decoder * np.sqrt(DIFFUSE_COVARIANCE)
        error = _coherence(scaled @ scaled.conj().transpose(0, 2, 1)) - coherence
        return float(np.sum(weights * phase**2) + COHERENCE_COST * np.sum(np.abs(error) ** 2))

    return shape(np.arange(len(response)), min(WIDENINGS, key=cost))


def _coherence(covariance: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Complex interaural coherence (...) of covariances (..., 2, 2)."""
    power = (covariance[..., 0, 0] * covariance[..., 1, 1]).real
    return covariance[..., 0, 1] / np.sqrt(np.maximum(power, 1e-30))


def _level(decoder: NDArray[np.complex128], wanted: NDArray[np.complex128]) -> float:
    """Gain that gives the decoder (2, 4) the diffuse-field power of `wanted` (2, 2)."""
    actual = np.sum(np.abs(decoder) ** 2 * DIFFUSE_COVARIANCE)
    return float(np.sqrt(np.trace(wanted).real / max(actual, 1e-30)))


def _ramp(frequency_hz: NDArray[np.float64], centre_hz: float, octaves: float) -> NDArray[np.float64]:
    """From 0 to 1 (bins,), linear in octaves about centre_hz."""
    distance = np.log2(np.maximum(frequency_hz, 1e-3) / centre_hz)
    return np.clip(0.5 + distance / octaves, 0.0, 1.0)


def _match_covariance(
    decoder: NDArray[np.complex128], wanted: NDArray[np.complex128]
) -> NDArray[np.complex128]:
    """The decoder (2, 4) with its ears mixed as little as gives the diffuse covariance `wanted` (2, 2)."""
    scaled = decoder * np.sqrt(DIFFUSE_COVARIANCE)
    actual = scaled @ scaled.conj().T
    root_actual, root_wanted = _root(actual), _root(wanted)
    u, _, vh = np.linalg.svd(root_actual @ root_wanted)
    return root_wanted @ (u @ vh).conj().T @ np.linalg.pinv(root_actual, rcond=1e-6, hermitian=True) @ decoder


def _root(matrix: NDArray[np.complex128]) -> NDArray[np.complex128]:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.conj().T


def _fade(length: int) -> NDArray[np.float64]:
    """Window (length,): flat, with raised-cosine ends of an eighth each."""
    edge = max(1, length // 8)
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(edge) + 0.5) / edge)
    return np.concatenate([ramp, np.ones(length - 2 * edge), ramp[::-1]])
