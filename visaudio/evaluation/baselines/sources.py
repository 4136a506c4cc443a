"""Where a baseline's material comes from: the clips of a dataset, and a folder of sounds, one per clip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bi_audio_dataset.schema import UserError
from visaudio.data.dataset import check_location, local_files, open_dataset
from visaudio.data.rows import NEEDED, ParquetRows, TableRows, open_rows
from visaudio.evaluation.pairs import find_sounds
from visaudio.evaluation.problems import Problems
from visaudio.evaluation.reading import read_whole


def rows_of(location: str | Path, split: str, config: str = "default") -> ParquetRows | TableRows:
    """The rows of a split of a BiAudio folder, in place, or a Hub repository. UserError if there are none."""
    if config == "default":
        return open_rows(location, [split])
    check_location(location)
    files = local_files(Path(location), config)
    rows = (
        TableRows(open_dataset(location, [split], config, columns=NEEDED))
        if files is None
        else ParquetRows(files, [split])
    )
    if not len(rows):
        raise UserError(f"the '{config}' clips of '{location}' have no rows in split {split}")
    return rows


def sounds_of(folder: str | Path, ids: Sequence[str], flag: str = "--sounds") -> dict[str, Path]:
    """The sound file of each clip, as the evaluation finds them (pairs.py). UserError if one has none; flag:
    how the folder was given."""
    found = find_sounds(Path(folder), Problems()).sounds
    missing = [name for name in ids if name not in found]
    if missing:
        raise UserError(
            f"{flag} {folder}: {len(missing)} of {len(ids)} clips have no sound there, the first is "
            f"'{missing[0]}'; files are matched by their names without suffix"
        )
    return {name: found[name] for name in ids}


def read_mono(path: Path) -> tuple[np.ndarray, int]:
    """(S,) float32, the mean of the file's channels, and its rate. UserError if it cannot be read."""
    audio, rate = read_whole(path)
    if audio.shape[0] > 2:
        raise UserError(
            f"{path}: has {audio.shape[0]} channels, expected 1 or 2: baselines import makes ears of more"
        )
    return audio.mean(axis=0), rate
