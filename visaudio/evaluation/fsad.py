"""A Frechet distance of interaural cues: how far two sets of binaural sounds are apart in space.

FSAD (Sun et al. 2024, "Both Ears Wide Open", arXiv 2410.10676) is the Frechet audio distance with StereoCRW,
a network trained to tell time delays, in place of VGGish. Ours needs no weights: an embedding is the cues
themselves, of each second of sound (Welch windows of 46 ms, Hann, half overlapped; P and X their mean power
and cross spectrum), in 8 bands b from 100 Hz to 10 kHz:

    ILD_b = log10(sum_b P_l / sum_b P_r)                                    in units of 10 dB, positive = left
    IPD_b = sum_b X / sum_b |X|                 its real and imaginary part, bands below 1.5 kHz
    IC_b  = sum_b |X| / sum_b (P_l P_r)^(1/2)   coherence, 0 to 1

24 numbers. They say where sound comes from and how wide it is, nothing of what sounds; a set of other
scenes has another distribution, so it compares sounds of the same clips. Silence lies at 0 in all of them.

Legend: F seconds, T windows, K bins, B bands, D = 24 dimensions, C clips.
"""

from __future__ import annotations

import numpy as np
import scipy.fft

from visaudio.evaluation import cues
from visaudio.evaluation.frechet import ClipSums, GaussianSums, frechet_distance
from visaudio.evaluation.measures import ClipSet, FigureSpec, Heard, Measure, Scene, Settings, Sound

RATE_HZ = 22050
SEGMENT_S = 1.0
WINDOW = 1024
BAND_EDGES_HZ = np.geomspace(100.0, 10000.0, 9)
PHASE_BELOW_HZ = 1500.0
ILD_UNIT_DB = 10.0
DIMENSIONS = 24
MIN_CLIPS = 4
MIN_EMBEDDINGS = 2 * DIMENSIONS


def embed(audio: np.ndarray, sample_rate: int = RATE_HZ) -> np.ndarray:
    """(2, S) -> (F, D) float64: each whole second, and the last one if at least half of it is there."""
    length = round(SEGMENT_S * sample_rate)
    count = max(1, int(audio.shape[1] / length + 0.5)) if audio.shape[1] >= WINDOW else 0
    parts = (audio[:, k * length : (k + 1) * length] for k in range(count))
    return np.array([_cues(part, sample_rate) for part in parts]).reshape(count, DIMENSIONS)


def _cues(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """(2, S) -> (D,)"""
    window = np.hanning(WINDOW)
    slices = np.lib.stride_tricks.sliding_window_view(audio, WINDOW, axis=1)[:, :: WINDOW // 2]
    left, right = scipy.fft.rfft(slices * window, axis=-1)  # (T, K) each
    scale = 1 / (WINDOW * (window**2).sum())  # the spectrum's sum is then the mean square, halved
    power = (np.abs(left) ** 2).mean(axis=0) * scale, (np.abs(right) ** 2).mean(axis=0) * scale
    cross = (right * np.conj(left)).mean(axis=0) * scale
    frequency = np.fft.rfftfreq(WINDOW, 1 / sample_rate)
    bands = (frequency[:, None] >= BAND_EDGES_HZ[:-1]) & (frequency[:, None] < BAND_EDGES_HZ[1:])
    weight = bands.astype(np.float64)
    # a floor for all bands together, as in cues.ild_db: silence is in the middle, and coherent with nothing
    floor = 10 ** (cues.SILENCE_DBFS / 10) / len(BAND_EDGES_HZ)
    p_left, p_right = power[0] @ weight + floor, power[1] @ weight + floor
    size = np.abs(cross) @ weight
    ild = 10 * np.log10(p_left / p_right) / ILD_UNIT_DB
    coherence = size / (np.sqrt(power[0] * power[1]) @ weight + floor)
    low = BAND_EDGES_HZ[1:] <= PHASE_BELOW_HZ
    phase = (cross @ weight / (size + floor))[low]
    return np.concatenate([ild, phase.real, phase.imag, coherence])


class Fsad(Measure):
    """hear: the sums of a clip's embeddings, `count` (), `total` (D,), `outer` (D, D)."""

    name = "fsad"
    figures = (
        FigureSpec("fsad", "interaural Frechet distance", "", "lower", 3, per_clip=False, recentred=True),
    )
    needs = frozenset({"reference"})
    keeps_heard = True

    def __init__(self, settings: Settings) -> None:
        self._sums: tuple[ClipSet, ClipSums, ClipSums] | None = None

    @property
    def key(self) -> str:
        return "fsad-1"

    def hear(self, sound: Sound, scene: Scene) -> dict[str, np.ndarray]:
        audio = sound.at(RATE_HZ)[:, : round(scene.duration_s * RATE_HZ)]
        sums = GaussianSums.of(embed(audio))
        return {"count": np.array(sums.count), "total": sums.total, "outer": sums.outer}

    def compare(self, generated: Heard, reference: Heard | None, scene: Scene) -> dict[str, float]:
        return {"fsad_seconds": float(generated["count"])}

    def summarise(self, clips: ClipSet, index: np.ndarray) -> dict[str, float]:
        """nan below MIN_CLIPS different clips or MIN_EMBEDDINGS: a Gaussian of so few says nothing."""
        ours, theirs = self._stacked(clips)
        drawn = ours.draw(index), theirs.draw(index)
        if len(clips.ids) < MIN_CLIPS or min(one.count for one in drawn) < MIN_EMBEDDINGS:
            return {"fsad": float("nan")}
        moments = [(one.mean(), one.covariance()) for one in drawn]
        return {"fsad": frechet_distance(*moments[0], *moments[1])}

    def remarks(self, clips: ClipSet) -> tuple[str, ...]:
        seconds = int(min(one.draw(np.arange(len(clips.ids))).count for one in self._stacked(clips)))
        if len(clips.ids) >= MIN_CLIPS and seconds >= MIN_EMBEDDINGS:
            return ()
        return (
            f"no figure: {len(clips.ids)} clips and {seconds} seconds, needs at least {MIN_CLIPS} clips and "
            f"{MIN_EMBEDDINGS} seconds of either side",
        )

    def _stacked(self, clips: ClipSet) -> tuple[ClipSums, ClipSums]:
        """Read once for all resamples of the same clips."""
        if self._sums is None or self._sums[0] is not clips:
            self._sums = (clips, _stack(clips.generated), _stack(clips.reference))
        return self._sums[1:]


def _stack(heard) -> ClipSums:
    """C clips; one without a reference counts nothing."""
    size = next((h["total"].shape[0] for h in heard if h is not None), 0)
    nothing = {"count": np.zeros(()), "total": np.zeros(size), "outer": np.zeros((size, size))}
    taken = [nothing if h is None else {name: h[name] for name in nothing} for h in heard]
    count, total, outer = (np.stack([one[name] for one in taken]) for name in nothing)
    return ClipSums(count, total, outer, np.zeros(size))


def make(settings: Settings) -> Fsad:
    return Fsad(settings)
