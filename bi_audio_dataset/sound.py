"""The sound of a recording a window at a time, where its windows begin, and what identifies its files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from bi_audio_dataset import media
from bi_audio_dataset.schema import AUDIO_RATE_HZ
from bi_audio_dataset.sources.base import Recording, read_sound

#: What an encoder may drop at the end: so much silence, so much of a still picture is forgiven.
SLACK_S = 0.1
#: Sound of a recording is read in blocks of this length where it is longer.
BLOCK_S = 60.0


class RecordingSound:
    """A recording's sound at AUDIO_RATE_HZ, a window at a time; one that is short is kept whole."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.duration_s = media.probe_audio(recording.audio_path).duration_s
        self._whole: np.ndarray | None = None
        if self.duration_s <= BLOCK_S:
            self._whole = read_sound(recording, AUDIO_RATE_HZ)
            self.duration_s = self._whole.shape[1] / AUDIO_RATE_HZ

    def read(self, start_s: float, num_samples: int) -> np.ndarray:
        """(C, num_samples) from start_s on; silence behind the end."""
        if self._whole is not None:
            audio = self._whole[:, round(start_s * AUDIO_RATE_HZ) :]
        else:
            audio = read_sound(self.recording, AUDIO_RATE_HZ, start_s, num_samples / AUDIO_RATE_HZ)
        audio = audio[:, :num_samples]
        return np.pad(audio, ((0, 0), (0, num_samples - audio.shape[1])))

    def power(self) -> np.ndarray:
        """Mean square (C,) of the whole recording."""
        if self._whole is not None:
            return np.mean(self._whole.astype(np.float64) ** 2, axis=1)
        starts_s = np.arange(0, self.duration_s, BLOCK_S)
        blocks = (read_sound(self.recording, AUDIO_RATE_HZ, float(start), BLOCK_S) for start in starts_s)
        sums = [(np.sum(block.astype(np.float64) ** 2, axis=1), block.shape[1]) for block in blocks]
        return sum(total for total, _ in sums) / max(1, sum(count for _, count in sums))


def window_starts(
    stretches: tuple[tuple[float, float], ...], duration_s: float, clip_s: float
) -> list[float]:
    """Where the windows of a recording begin: as many as fit, one after the other, into each stretch that
    may be used (all of it, where none is named). The last may lack SLACK_S."""
    starts_s: list[float] = []
    for start_s, end_s in stretches or ((0.0, duration_s),):
        count = int((min(end_s, duration_s) - start_s + SLACK_S) / clip_s + 1e-9)
        starts_s += [start_s + number * clip_s for number in range(max(0, count))]
    return starts_s


def input_digest(recording: Recording) -> dict[str, str]:
    """SHA-256 of the recording's files: what says that two recordings are the same file."""
    paths = {"video": Path(recording.video_path), "audio": Path(recording.audio_path)}
    if paths["audio"] == paths["video"]:
        del paths["audio"]
    return {name: file_digest(path) for name, path in paths.items()}


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
