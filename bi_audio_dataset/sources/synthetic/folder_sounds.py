"""Sounds from a folder (`--sounds DIR`), usable wherever a procedural sound is.

Every audio file is one member of a class that is named by the file name before its first underscore:
`tabla_na.flac` is a `tabla`. Files are mixed to mono, cut at their onset and resampled to 44.1 kHz. A file
that dies away is struck; one that goes on is looped as a hum. Of each class one file in five (at
least one of two or more), chosen by a hash of its name, is held out of training.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bi_audio_dataset.schema import UserError

FOLDER_SAMPLE_RATE = 44100
EXTENSIONS = (".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff")
STRIKE_LIMIT_S = 2.5
ONSET_DB, END_DB = -40.0, -60.0
LOOP_FADE_S = 0.05


@dataclass(frozen=True)
class FolderSound:
    """One file. `samples` (N,) float32 at 44.1 kHz, peak 1, its onset at sample 0; kind 'struck' or 'hum'."""

    class_name: str
    member: str
    caption: str
    kind: str
    held_out: bool
    decay_s: float
    rate: float
    min_gap_s: float
    seed: int
    samples: np.ndarray = field(repr=False, compare=False)

    def at_rate(self, sample_rate: int) -> np.ndarray:
        """The samples at another rate. (N,) float32."""
        return _resample(self.samples, FOLDER_SAMPLE_RATE, sample_rate)

    def looped(self, num_samples: int, sample_rate: int) -> np.ndarray:
        """The sound repeated, with cross-faded joints, to num_samples. (num_samples,) float32."""
        samples = self.at_rate(sample_rate)
        fade = min(int(LOOP_FADE_S * sample_rate), len(samples) // 4)
        ramp = np.linspace(0.0, 1.0, fade, dtype=np.float32)
        looped = samples
        while len(looped) < num_samples:
            joint = looped[-fade:] * np.sqrt(1.0 - ramp) + samples[:fade] * np.sqrt(ramp)
            looped = np.concatenate([looped[:-fade], joint, samples[fade:]])
        return looped[:num_samples].copy()


def load_folder_sounds(folder: str | Path) -> list[FolderSound]:
    """All sounds of a folder, sorted by name. UserError for a missing folder, a folder without audio, a file
    that cannot be read and a file that is silent."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"--sounds {folder}: no such folder; give a folder of audio files")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS)
    if not paths:
        raise UserError(
            f"--sounds {folder}: no audio file in it; expected names that end in {', '.join(EXTENSIONS)}"
        )
    held_out = _held_out(paths)
    return [_load(path, path in held_out) for path in paths]


def sample_folder_sound(
    sounds: list[FolderSound], class_name: str, rng: np.random.Generator, held_out: bool = False
) -> FolderSound:
    """One sound of a class, from the held-out or the training side; a class of one file has only one side.
    ValueError for an unknown class."""
    of_class = [sound for sound in sounds if sound.class_name == class_name]
    if not of_class:
        raise ValueError(f"no sound of class {class_name!r}; known: {sorted({s.class_name for s in sounds})}")
    side = [sound for sound in of_class if sound.held_out == held_out] or of_class
    return side[rng.integers(len(side))]


def _held_out(paths: list[Path]) -> set[Path]:
    """The files with the smallest hashes: a fifth of each class, rounded up, and none of a class of one."""
    classes: dict[str, list[Path]] = {}
    for path in sorted(paths, key=lambda path: hashlib.sha256(path.name.encode()).digest()):
        classes.setdefault(_class_name(path), []).append(path)
    return {path for files in classes.values() if len(files) > 1 for path in files[: -(-len(files) // 5)]}


def _class_name(path: Path) -> str:
    return path.stem.split("_")[0]


def _load(path: Path, held_out: bool) -> FolderSound:
    import soundfile

    try:
        samples, sample_rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise UserError(f"{path}: cannot be read as audio ({error}); repair or remove it") from error
    mono = samples.mean(axis=1)
    if not len(mono) or not np.isfinite(mono).all() or not np.abs(mono).max() > 1e-5:
        raise UserError(f"{path}: holds no sound; repair or remove it")
    mono = _trimmed(_resample(mono, sample_rate, FOLDER_SAMPLE_RATE))
    digest = hashlib.sha256(path.name.encode()).digest()
    struck = _dies_away(mono)
    if struck:
        mono = _cut(mono, STRIKE_LIMIT_S)
    length_s = len(mono) / FOLDER_SAMPLE_RATE
    return FolderSound(
        class_name=_class_name(path),
        member=path.stem,
        caption=f"the sound of {path.stem.replace('_', ' ')}",
        kind="struck" if struck else "hum",
        held_out=held_out,
        decay_s=length_s,
        rate=float(np.clip(0.7 / length_s, 0.4, 1.5)),
        min_gap_s=float(np.clip(0.6 * length_s, 0.25, 1.0)) if struck else 0.4,
        seed=int.from_bytes(digest[:4], "big"),
        samples=mono,
    )


def _resample(samples: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    if from_rate == to_rate:
        return samples
    import soxr

    return soxr.resample(samples, from_rate, to_rate).astype(np.float32)


def _trimmed(samples: np.ndarray) -> np.ndarray:
    """From the first sample within ONSET_DB of the peak to the last within END_DB, at peak 1."""
    level = np.abs(samples) / np.abs(samples).max()
    first = int(np.argmax(level > 10 ** (ONSET_DB / 20)))
    last = len(level) - int(np.argmax(level[::-1] > 10 ** (END_DB / 20)))
    return np.ascontiguousarray(samples[first:last] / np.abs(samples).max(), np.float32)


def _dies_away(samples: np.ndarray) -> bool:
    """Shorter than 0.35 s, or the last quarter at least 15 dB below the loudest."""
    if len(samples) < 0.35 * FOLDER_SAMPLE_RATE:
        return True
    quarters = [float(np.mean(part**2)) for part in np.array_split(samples, 4)]
    return quarters[-1] < 10**-1.5 * max(quarters)


def _cut(samples: np.ndarray, limit_s: float) -> np.ndarray:
    """At most limit_s long; what is cut ends in a fade of 0.2 s instead of a click."""
    limit, fade = int(limit_s * FOLDER_SAMPLE_RATE), int(0.2 * FOLDER_SAMPLE_RATE)
    if len(samples) <= limit:
        return samples
    cut = samples[:limit].copy()
    cut[-fade:] *= np.linspace(1.0, 0.0, fade, dtype=np.float32)
    return cut
