"""A sound file as the suite reads it: whole, finite, of one or two channels, of a level and a
sampling rate that can be measured; else refused with a reason.

A file that ends before it says it does is refused, not scored for its remainder: WAV by its data chunk, FLAC
by its decoder, Ogg by its last page, MP3 (with a Xing header) and MP4 by their stated length. Of other kinds
it is not seen: Matroska (WebM), for one, states the length of picture and sound together.
"""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from bi_audio_dataset import media
from bi_audio_dataset.schema import UserError
from visaudio.evaluation.measures import Sound

SILENT_DBFS = -60.0
SHORTEST_S = 0.1
# Of full scale. From about 4e6 on interaural.py's products of two energies overflow float32, and the IACC
# falls to 0. 16 bit integers that were stored as floats stay far below.
LARGEST_PEAK = 1e6
# Below it the frames and bands of cues and pictures hold no sample, and an ITD of 1 ms is within one.
LOWEST_RATE_HZ = 1000
# An MP3's or MP4's stated length may count padding that decoders drop; two blocks of AAC at 22 kHz: 0.19 s.
STATED_TOLERANCE_S = 0.25
MP4_SUFFIXES = (".mp4", ".m4a", ".m4v", ".mov", ".3gp")


class Refused(Exception):
    """kind: of `problems.KINDS`; detail: one line."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind, self.detail = kind, detail


@dataclass(frozen=True)
class Facts:
    """Of a sound that can be scored. silent: no sample beyond SILENT_DBFS."""

    samples: int
    rate: int
    channels: int
    silent: bool

    @property
    def seconds(self) -> float:
        return self.samples / self.rate


class SoundFile:
    """A file that is decoded at most once, and only if asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._cut: dict[int, Sound] = {}

    @cached_property
    def digest(self) -> str:
        """Of the file's bytes. Refused if they cannot be read."""
        digest = hashlib.blake2b(digest_size=16)
        try:
            with self.path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise Refused("unreadable", f"{self.path.name}: {error.strerror or error}") from error
        return digest.hexdigest()

    @cached_property
    def sound(self) -> Sound:
        """The whole sound. Raises Refused."""
        return read_sound(self.path)

    @cached_property
    def facts(self) -> Facts:
        audio = self.sound.audio
        silent = _peak(audio) < 10 ** (SILENT_DBFS / 20)
        return Facts(audio.shape[1], self.sound.sample_rate, self.sound.channels, silent)

    def cut(self, duration_s: float) -> Sound:
        """The first duration_s; measures that ask for one rate share its samples."""
        length = round(duration_s * self.sound.sample_rate)
        if length not in self._cut:
            audio = np.ascontiguousarray(self.sound.audio[:, :length])
            self._cut[length] = Sound(audio, self.sound.sample_rate, self.sound.channels)
        return self._cut[length]


def read_sound(path: Path) -> Sound:
    """Raises Refused."""
    try:
        audio, rate = media.read_audio(path)
    except UserError as error:
        kind = "empty" if path.is_file() and not path.stat().st_size else "unreadable"
        kind = "not_finite" if "not_finite" in getattr(error, "reasons", ()) else kind
        raise Refused(kind, _without_folder(error, path)) from error
    channels, samples = audio.shape
    if channels > 2:
        raise Refused("channels", f"{path.name}: {channels} channels")
    if not samples:
        raise Refused("empty", f"{path.name}: no samples")
    if fault := fault_of(audio, rate):
        raise Refused(fault[0], f"{path.name}: {fault[1]}")
    check_whole(path, samples / rate)
    if channels == 1:
        audio = np.repeat(audio, 2, axis=0)
    return Sound(audio, rate, channels)


def read_whole(path: Path) -> tuple[np.ndarray, int]:
    """(C, S) float32 and its rate. UserError if it cannot be read, is empty, ends before it says it does, or
    cannot be measured: what the evaluation refuses is not to pass for sound in another file."""
    audio, rate = media.read_audio(path)
    if not audio.shape[1]:
        raise UserError(f"{path}: holds no samples")
    if fault := fault_of(audio, rate):
        raise UserError(f"{path}: {fault[1]}")
    try:
        check_whole(path, audio.shape[1] / rate)
    except Refused as refused:
        raise UserError(f"{path}: is cut short or damaged ({refused})") from refused
    return audio, rate


def _without_folder(error: Exception, path: Path) -> str:
    return " ".join(str(error).replace(str(path), path.name).split())


# -------------------- what no measure can hear


def fault_of(audio: np.ndarray, rate: int) -> tuple[str, str] | None:
    """(kind of problem, why) if a sound (C, S), S > 0, at a rate in Hz cannot be measured, else None."""
    if rate < LOWEST_RATE_HZ:
        least = f"expected at least {LOWEST_RATE_HZ} Hz"
        return "low_rate", f"sampling rate {rate} Hz, {least}: make it anew, or mend its header"
    peak = _peak(audio)
    if peak > LARGEST_PEAK:
        most = f"expected at most {LARGEST_PEAK:g}"
        return "too_large", f"peak {peak:.3g} of full scale, {most}: divide it by the scale it was made with"
    return None


def _peak(audio: np.ndarray) -> float:
    """The largest magnitude, without a copy of the sound."""
    return max(float(audio.max()), -float(audio.min()))


# -------------------- cut short


def check_whole(path: Path, decoded_s: float) -> None:
    """Raises Refused if the file states more than it holds."""
    suffix = path.suffix.lower()
    if suffix == ".wav":
        if missing := _wav_bytes_missing(path):
            raise Refused("truncated", f"{path.name}: {missing} bytes short of what its header says")
    elif suffix in (".ogg", ".oga", ".opus"):
        if not _ogg_has_end(path):
            raise Refused("truncated", f"{path.name}: its last page is missing")
    elif suffix in MP4_SUFFIXES or (suffix == ".mp3" and _mp3_counts_frames(path)):
        stated_s = _stated_s(path)
        if stated_s > decoded_s + STATED_TOLERANCE_S:
            raise Refused("truncated", f"{path.name}: {decoded_s:.2f} s of the {stated_s:.2f} s it states")


def _wav_bytes_missing(path: Path) -> int:
    """How far the data chunk reaches beyond the file; 0 where its size is open, as a stream's is."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(4) != b"RIFF":
            return 0
        file.seek(12)
        while len(head := file.read(8)) == 8:
            name, length = struct.unpack("<4sI", head)
            if name == b"data":
                is_open = length in (0, 0xFFFFFFFF, 0x7FFFFFFF) or length >= 0xFFFFFF00
                return 0 if is_open else max(file.tell() + length - size, 0)
            file.seek(length + length % 2, os.SEEK_CUR)
    return 0


def _ogg_has_end(path: Path) -> bool:
    """Whether the last page is whole and says that it is the last (RFC 3533: header type 4)."""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - (1 << 17), 0))
        tail = file.read()
    start = tail.rfind(b"OggS")
    page = tail[start:]
    if start < 0 or len(page) < 27:
        return False
    segments = page[26]
    body = sum(page[27 : 27 + segments])
    return bool(page[5] & 4) and len(page) >= 27 + segments + body


def _mp3_counts_frames(path: Path) -> bool:
    """Whether its first frame is a Xing or Info header; without one FFmpeg guesses from the bit rate."""
    with path.open("rb") as file:
        tag = file.read(10)
        skip = 0
        if tag[:3] == b"ID3" and len(tag) == 10:
            skip = 10 + sum(byte << 7 * (3 - place) for place, byte in enumerate(tag[6:10]))
        file.seek(skip)
        head = file.read(512)
    return b"Xing" in head or b"Info" in head


def _stated_s(path: Path) -> float:
    """How long the sound is by the file's own words; 0 where it does not say it."""
    import av

    try:
        with av.open(str(path.absolute())) as container:
            stream = container.streams.audio[0]
            return float(stream.duration * stream.time_base) if stream.duration else 0.0
    except (av.error.FFmpegError, OSError, IndexError) as error:
        raise Refused("unreadable", f"{path.name}: {error}") from error
