"""Audio files and audio tracks: (C, N) float32, sample 0 at presentation time 0, channels never remixed."""

import math
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr

from bi_audio_dataset.media.files import check_input, open_input, reading, replacing
from bi_audio_dataset.media.probe import origin_of, sound_to_decode
from bi_audio_dataset.schema import UserError
from bi_audio_dataset.unusable import Unusable

# libsndfile reads these: integers come out exact and channels in file order (FFmpeg reorders some layouts).
_SNDFILE_SUFFIXES = {".wav", ".flac", ".aif", ".aiff", ".w64", ".rf64", ".caf", ".ogg", ".amb"}
# A track's blocks follow each other to within rounding; beyond this a gap is real and stays silent.
_GAP_S = 0.05
# Samples in the largest block of the usual codecs (HE-AAC).
_MAX_BLOCK = 2048
# Read around a part, in whole s: decoders need blocks before (80 ms in Opus), the resampler on both sides.
_MARGIN_S = 1


def read_audio(
    path: str | os.PathLike,
    sample_rate: int | None = None,
    mono: bool = False,
    start_s: float = 0.0,
    duration_s: float | None = None,
) -> tuple[np.ndarray, int]:
    """The first audio track of a file, or a part of it: ((C, N) float32 in [-1, 1], rate in Hz).

    All channels come in file order with no remix, so ambisonics stay exact (16 and 24 bit integers divide by
    full scale without loss). Sample 0 is presentation time start_s: priming is dropped, a late start padded.

    Args:
        sample_rate: resample to this rate (soxr, very high quality); None: as stored.
        mono: average the channels to (1, N).
        start_s, duration_s: the part; only it and a second on either side are decoded and held. Where the
            track ends earlier there are fewer samples. Exact where the file's own times are (in Matroska and
            WebM, which count in ms, to a fraction of one).

    Raises:
        UserError: the file cannot be read, has no audio track, holds NaN or infinity, or changes its rate or
            channels on the way.
    """
    path = check_input(path)
    if not start_s >= 0 or (duration_s is not None and not duration_s > 0):
        raise ValueError(f"start_s {start_s} and duration_s {duration_s} must be at least 0 and positive")
    # whole seconds are whole samples at every rate, so a part lies on the grid of the whole
    first_s = max(0, math.floor(start_s) - _MARGIN_S)
    end_s = None if duration_s is None else math.ceil(start_s + duration_s) + _MARGIN_S
    audio_CN, rate = _read_sndfile(path, first_s, end_s) if _is_sndfile(path) else (None, 0)
    if audio_CN is None:
        audio_CN, rate = _read_pyav(path, first_s, end_s)
    if not np.isfinite(audio_CN).all():
        bad = int((~np.isfinite(audio_CN)).sum())
        why = f"{path}: holds NaN or infinity ({bad} samples), expected finite sound"
        raise Unusable({"not_finite": why}, {"not_finite.samples": bad})
    if mono:
        audio_CN = audio_CN.mean(axis=0, keepdims=True)
    if sample_rate is not None and sample_rate != rate:
        audio_CN = soxr.resample(audio_CN.T, rate, sample_rate, quality="VHQ").T
        rate = sample_rate
    begin = round((start_s - first_s) * rate)
    end = None if duration_s is None else begin + round(duration_s * rate)
    return np.ascontiguousarray(audio_CN[:, begin:end], dtype=np.float32), rate


def write_audio(
    path: str | os.PathLike,
    audio: np.ndarray | Iterable[np.ndarray],
    sample_rate: int,
    subtype: str = "PCM_16",
) -> int:
    """Writes a .flac or .wav beside `path`, then renames it. Returns the number of samples per channel.

    Args:
        audio: (C, N) float, or an iterable of such blocks; beyond +-1 it is clipped by integer subtypes.
        subtype: libsndfile's, e.g. "PCM_16", "PCM_24", "FLOAT" (wav only).

    Raises:
        UserError: the file cannot be written.
        ValueError: not finite, or not (C, N).
    """
    count = 0
    with replacing(path) as temporary:
        file = None
        try:
            for block_CN in audio_blocks(audio):
                if file is None:
                    file = soundfile.SoundFile(
                        temporary, "w", sample_rate, block_CN.shape[0], subtype=subtype
                    )
                file.write(np.ascontiguousarray(block_CN.T))
                count += block_CN.shape[1]
            if file is None:
                raise ValueError(f"{path}: no audio was given to write")
        except soundfile.LibsndfileError as error:
            raise OSError(str(error)) from error
        finally:
            if file is not None:
                file.close()
    return count


def audio_blocks(audio: np.ndarray | Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Blocks (C, n) float32 of an array (C, N) or of an iterable of such arrays, checked."""
    for block in [audio] if isinstance(audio, np.ndarray) else audio:
        block_CN = np.asarray(block, dtype=np.float32)
        if block_CN.ndim != 2:
            raise ValueError(f"audio has shape {block_CN.shape}, expected (channels, samples)")
        if not np.isfinite(block_CN).all():
            raise ValueError("audio holds NaN or infinity, expected finite samples")
        for start in range(0, block_CN.shape[1], 1 << 16):
            yield block_CN[:, start : start + (1 << 16)]


def _is_sndfile(path: Path) -> bool:
    return path.suffix.lower() in _SNDFILE_SUFFIXES


def _read_sndfile(path: Path, first_s: int, end_s: int | None) -> tuple[np.ndarray | None, int]:
    """Samples of [first_s, end_s), or None for a codec that libsndfile lacks or orders in its own way."""
    try:
        with soundfile.SoundFile(path) as file:
            if file.subtype == "OPUS":
                return None, 0
            begin = min(first_s * file.samplerate, file.frames)
            if begin:
                file.seek(begin)
            frames = -1 if end_s is None else max(min(end_s * file.samplerate, file.frames) - begin, 0)
            return file.read(frames, dtype="float32", always_2d=True).T, file.samplerate
    except soundfile.LibsndfileError:  # PyAV is asked next
        return None, 0


def _read_pyav(path: Path, first_s: int, end_s: int | None) -> tuple[np.ndarray, int]:
    """Samples of [first_s, end_s)."""
    with reading(path), open_input(path) as container:
        stream = sound_to_decode(container, path)
        origin_s = origin_of(container)
        stated_s = _stated_end(container, stream, origin_s)
        if first_s:
            # by the default stream, as containers index the picture; the decoder needs a second to settle
            container.seek(int((origin_s + first_s - _MARGIN_S) * av.time_base), backward=True)
        track = _Track(path, first_s)
        for frame in container.decode(stream):
            track.add(frame, origin_s)
            if track.is_late:  # the seek went past its goal
                break
            if end_s is not None and track.end >= end_s * track.rate:
                break
    if track.is_late:
        audio_CN, rate = _read_pyav(path, 0, end_s)
        return audio_CN[:, first_s * rate :], rate
    if not track.blocks:
        raise UserError(f"{path}: its audio track cannot be decoded")
    audio_CN, start = track.joined()
    stated = round(stated_s * track.rate)
    if 0 < start + audio_CN.shape[1] - stated < 2 * _MAX_BLOCK:
        audio_CN = audio_CN[:, : max(stated - start, 0)]
    last = None if end_s is None else end_s * track.rate - start
    return audio_CN[:, first_s * track.rate - start : last], track.rate


class _Track:
    """Decoded blocks, placed on the time line. start and end are samples from presentation time 0."""

    def __init__(self, path: Path, first_s: int) -> None:
        self.path, self.first_s = path, first_s
        self.blocks: list[np.ndarray] = []
        self.start = self.end = 0
        self.rate = self.channels = 0
        self._offsets: list[int] = []

    @property
    def is_late(self) -> bool:
        return bool(self.first_s) and self.start > self.first_s * self.rate

    def add(self, frame: av.AudioFrame, origin_s: Fraction) -> None:
        block_CN = _to_float(frame)
        if not self.blocks:
            self.rate, self.channels = frame.sample_rate, len(block_CN)
        elif (frame.sample_rate, len(block_CN)) != (self.rate, self.channels):
            raise UserError(
                f"{self.path}: its sound changes from {self.channels} channels at {self.rate} Hz to "
                f"{len(block_CN)} at {frame.sample_rate} Hz; encode it anew"
            )
        if frame.pts is not None:
            stated = round(float((frame.pts * frame.time_base - origin_s) * self.rate))
            # Blocks join without seams; only at the head or at a real gap does the stated time decide.
            if not self.blocks and self.first_s:
                self.start = self.end = stated
            elif not self.blocks or abs(stated - self.end) > _GAP_S * self.rate:
                silence = max(stated - self.end, 0)
                block_CN = block_CN[:, max(self.end - stated, 0) :]
                self.blocks.append(np.zeros((self.channels, silence), dtype=np.float32))
                self.end += silence
            else:
                self._offsets.append(stated - self.end)
        self.blocks.append(block_CN)
        self.end += block_CN.shape[1]

    def joined(self) -> tuple[np.ndarray, int]:
        """((C, N), number of its first sample), after a seek by the mean of the stated times."""
        start = self.start
        if self.first_s and self._offsets:
            start += round(float(np.mean(self._offsets)))
        return np.concatenate(self.blocks, axis=1), start


def _stated_end(container, stream, origin_s: Fraction) -> Fraction:
    """When an mp4 track says that it ends (FFmpeg leaves the padding of the last AAC block), else 0. In s."""
    if not container.format.name.startswith("mov") or not stream.duration:
        return Fraction(0)
    return ((stream.start_time or 0) + stream.duration) * stream.time_base - origin_s


def _to_float(frame: av.AudioFrame) -> np.ndarray:
    """(C, n) float32 in [-1, 1] of any sample format, without a resampler (which might remix channels)."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128.0) / 128.0
    if np.issubdtype(samples.dtype, np.integer):
        return (samples / float(-np.iinfo(samples.dtype).min)).astype(np.float32)
    return samples.astype(np.float32)
