"""What measures heard, on disk: FOLDER/KEY/ab/ab...npz, one file per sound and measure.

The name of an entry says what it was made from (the file's bytes, how much of it was compared), KEY how (the
measure's definition, settings and weights): nothing has to be thrown away by hand. Arrays are stored without
pickle, written beside and then renamed; an entry that cannot be read is removed and made again.
"""

from __future__ import annotations

import contextlib
import os
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bi_audio_dataset.schema import UserError, reason_of
from visaudio.evaluation.measures import Heard

NAME = re.compile(r"[\w.+=-]+")
HELD_BYTES = 256 << 20


class Cache:
    """Entries of numeric arrays by (key, entry)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: str, entry: str) -> Path:
        for name in (key, entry):
            if not NAME.fullmatch(name) or name.startswith("."):
                raise ValueError(f"'{name}' is not fit for a file name")
        return self.folder / key / entry[:2] / f"{entry}.npz"

    def load(self, key: str, entry: str) -> dict[str, np.ndarray] | None:
        """None if there is none; a damaged one is removed."""
        path = self.path(key, entry)
        try:
            with np.load(path, allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile) as damage:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:  # a file where a folder should be, or a folder in its place
                reason = reason_of(damage, 120)
                raise UserError(f"{path}: can neither be read nor removed ({reason})") from error
            return None

    def store(self, key: str, entry: str, arrays: Heard) -> None:
        """UserError if it cannot be written."""
        path = self.path(key, entry)
        wrong = [name for name, array in arrays.items() if np.asarray(array).dtype.kind not in "biufc"]
        if wrong:
            raise ValueError(f"{key}: {', '.join(wrong)} hold no numbers")
        partial = path.with_name(f".{entry}.{os.getpid()}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                np.savez(file, **arrays)
            partial.replace(path)
        except OSError as error:
            raise UserError(f"{path.parent}: cannot be written ({error.strerror or error})") from error
        finally:
            with contextlib.suppress(OSError):
                partial.unlink()


class HeardFiles(Sequence):
    """What was heard of many sounds, read when asked for; at most HELD_BYTES of it are kept.

    entries: None where there is nothing (a clip without reference).
    """

    def __init__(self, cache: Cache, key: str, entries: Sequence[str | None]) -> None:
        self.cache, self.key, self.entries = cache, key, tuple(entries)
        self._held: OrderedDict[str, Mapping[str, np.ndarray]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int | slice):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        entry = self.entries[index]
        if entry is None:
            return None
        if entry in self._held:
            self._held.move_to_end(entry)
            return self._held[entry]
        heard = self.cache.load(self.key, entry)
        if heard is None:
            path = self.cache.path(self.key, entry)
            raise UserError(f"{path}: was taken away or damaged during the evaluation; run it again")
        self._held[entry] = heard
        self._bytes += _size(heard)
        while self._bytes > HELD_BYTES and len(self._held) > 1:
            self._bytes -= _size(self._held.popitem(last=False)[1])
        return heard


def _size(heard: Heard) -> int:
    return sum(array.nbytes for array in heard.values())
