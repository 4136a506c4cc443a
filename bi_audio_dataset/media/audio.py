"""Audio files and audio tracks: (C, N) float32, sample 0 at presentation time 0, channels never remixed."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr

from bi_audio_dataset.media.files import check_input, open_input, reading, replacing
from bi_audio_dataset.media.probe import origin_of
from bi_audio_dataset.schema import UserError

# libsndfile reads these: integers come out exact and channels in file order (FFmpeg reorders some layouts).
_SNDFILE_SUFFIXES = {".wav", ".flac", ".aif", ".aiff", ".w64", ".rf64", ".caf", ".ogg"}
# A track's blocks follow each other to within rounding; beyond this a gap is real and stays silent.
_GAP_S = 0.05
# Samples in the largest block of the usual codecs (HE-AAC).
_MAX_BLOCK = 2048


def read_audio(
    path: str | os.PathLike, sample_rate: int | None = None, mono: bool = False
) -> tuple[np.ndarray, int]:
    """The first audio track of a file: ((C, N) float32 in [-1, 1], rate in Hz).

    All channels come in file order with no remix, so ambisonics stay exact (16 and 24 bit integers divide by
    full scale without loss). Sample 0 is presentation time 0: priming is dropped, a late start is padded.

    Args:
        sample_rate: resample to this rate (soxr, very high quality); None: as stored.
        mono: average the channels to (1, N).

    Raises:
        UserError: the file cannot be read or has no audio track.
    """
    path = check_input(path)
    audio_CN, rate = _read_sndfile(path) if path.suffix.lower() in _SNDFILE_SUFFIXES else (None, 0)
    if audio_CN is None:
        audio_CN, rate = _read_pyav(path)
    if mono:
        audio_CN = audio_CN.mean(axis=0, keepdims=True)
    if sample_rate is not None and sample_rate != rate:
        audio_CN = soxr.resample(audio_CN.T, rate, sample_rate, quality="VHQ").T
        rate = sample_rate
    return np.ascontiguousarray(audio_CN, dtype=np.float32), rate


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


def _read_sndfile(path: Path) -> tuple[np.ndarray | None, int]:
    try:
        audio_NC, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError:  # a codec that libsndfile lacks: PyAV is asked next
        return None, 0
    return audio_NC.T, rate


def _read_pyav(path: Path) -> tuple[np.ndarray, int]:
    with reading(path), open_input(path) as container:
        if not container.streams.audio:
            raise UserError(f"{path}: has no audio track")
        stream = container.streams.audio[0]
        rate, channels = stream.rate, stream.channels
        origin_s = origin_of(container)
        stated = _stated_samples(container, stream, origin_s)
        blocks: list[np.ndarray] = []
        position = 0
        for frame in container.decode(stream):
            block_CN = _to_float(frame)
            if frame.pts is not None:
                start = round(float((frame.pts * frame.time_base - origin_s) * rate))
                # Blocks join without seams; only at the head or at a real gap does the stated time decide.
                if not blocks or abs(start - position) > _GAP_S * rate:
                    silence = max(start - position, 0)
                    block_CN = block_CN[:, max(position - start, 0) :]
                    blocks.append(np.zeros((channels, silence), dtype=np.float32))
                    position += silence
            blocks.append(block_CN)
            position += block_CN.shape[1]
    if 0 < position - stated < 2 * _MAX_BLOCK:
        position = stated
    if not position:
        raise UserError(f"{path}: its audio track cannot be decoded")
    return np.concatenate(blocks, axis=1)[:, :position], rate


def _stated_samples(container, stream, origin_s) -> int:
    """Where an mp4 track says that it ends (FFmpeg leaves the padding of the last AAC block), else 0."""
    if not container.format.name.startswith("mov") or not stream.duration:
        return 0
    end = (stream.start_time or 0) + stream.duration
    return round(float(end * stream.time_base - origin_s) * stream.rate)


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
