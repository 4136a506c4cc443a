"""From the model's sound to a file's: 44.1 kHz, and one gain for both ears where the true peak is too high.

One gain, so that interaural level differences never change; and only downwards, so that what the model made
quiet stays quiet. The gain is known only at the end, so a long sound waits in a temporary file.

Legend: blocks are (2, n) float32, row 0 = left.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soxr

from bi_audio_dataset.schema import UserError

OUTPUT_RATE_HZ = 44100
PEAK_DBFS = -1.0  # true peak allowed
OVERSAMPLING = 4  # of the true-peak meter, as in ITU-R BS.1770
_BLOCK = 1 << 16


class PeakMeter:
    """True peak of a stream: the largest magnitude of the waveform between its samples too."""

    def __init__(self, sample_rate: int) -> None:
        self._resampler = soxr.ResampleStream(sample_rate, OVERSAMPLING * sample_rate, 2, dtype="float32")
        self.peak = 0.0

    def add(self, block: np.ndarray, last: bool = False) -> None:
        between = self._resampler.resample_chunk(np.ascontiguousarray(block.T, dtype=np.float32), last=last)
        for samples in (block, between):
            if samples.size:
                self.peak = max(self.peak, float(np.abs(samples).max()))


class FinishedSound:
    """Takes blocks at the model's rate; gives them back at OUTPUT_RATE_HZ, `num_samples` in all, levelled.

    Use as a context manager; `folder` holds the temporary file (it has no name, so nothing is left behind).
    """

    def __init__(self, model_rate: int, duration_s: float, folder: str | Path | None = None) -> None:
        self.num_samples = max(1, round(duration_s * OUTPUT_RATE_HZ))
        self._resampler = soxr.ResampleStream(model_rate, OUTPUT_RATE_HZ, 2, dtype="float32", quality="VHQ")
        self._meter = PeakMeter(OUTPUT_RATE_HZ)
        self._count = 0
        try:
            self._file = tempfile.TemporaryFile(dir=folder)
        except OSError as error:
            raise UserError(f"{folder}: cannot be written ({error.strerror or error})") from error

    def __enter__(self) -> FinishedSound:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, block: np.ndarray) -> None:
        """(2, n) float at the model's rate. Raises UserError for a full disk, or NaN and infinity."""
        if not np.isfinite(block).all():
            raise UserError("the model gave a sound that is not finite; are these weights damaged?")
        self._store(self._resampler.resample_chunk(np.ascontiguousarray(block.T, dtype=np.float32)).T)

    def close(self) -> None:
        """Call once, after the last block: pads with silence or cuts to num_samples."""
        self._store(self._resampler.resample_chunk(np.zeros((0, 2), dtype=np.float32), last=True).T)
        while self._count < self.num_samples:
            self._store(np.zeros((2, min(_BLOCK, self.num_samples - self._count)), dtype=np.float32))
        self._meter.add(np.zeros((2, 0), dtype=np.float32), last=True)

    def _store(self, block: np.ndarray) -> None:
        block = block[:, : self.num_samples - self._count]
        if not block.shape[1]:
            return
        self._meter.add(block)
        self._count += block.shape[1]
        try:
            self._file.write(np.ascontiguousarray(block.T, dtype="<f4").tobytes())
        except OSError as error:
            raise UserError(
                f"cannot write the temporary sound ({error.strerror or error}); free space or write elsewhere"
            ) from error

    @property
    def gain(self) -> float:
        """The one factor for both ears, at most 1."""
        allowed = 10 ** (PEAK_DBFS / 20)
        return min(1.0, allowed / self._meter.peak) if self._meter.peak > 0 else 1.0

    def blocks(self) -> Iterator[np.ndarray]:
        """The finished sound from its start, (2, n) float32; may be read more than once."""
        position, gain = 0, np.float32(self.gain)
        while position < self.num_samples:
            self._file.seek(position * 8)
            raw = self._file.read(8 * min(_BLOCK, self.num_samples - position))
            block = np.frombuffer(raw, dtype="<f4").reshape(-1, 2).T
            position += block.shape[1]
            yield block * gain

    def array(self) -> np.ndarray:
        """All of it, (2, num_samples) float32."""
        return np.concatenate(list(self.blocks()), axis=1)
