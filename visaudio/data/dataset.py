"""Reading BiAudio: rows of a folder or Hub repository -> decoded clips, and decoded caches for pretraining.

Legend: C clips, T frames, H W pixels, S samples. Frames are uint8 RGB (T, H, W, 3); audio is float32 (2, S),
channel 0 = left. Frame i of a rate is the picture shown at i / fps seconds.

A cache is one memory-mapped array of one row per clip, so that an epoch does not decode the videos again:
8 s of 128 x 128 at 8 fps are 3.1 MB, of 112 x 112 at 25 fps 7.5 MB, of audio at 22.05 kHz 0.7 MB.
"""

from __future__ import annotations

import io
import json
import math
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bi_audio_dataset import media
from bi_audio_dataset.schema import (
    BENCHMARK_CLIPS,
    CONFIGS,
    INNER,
    SYNTH_NAME,
    TRUTH_RATE_HZ,
    UserError,
    check_readable,
    is_benchmark_id,
    reason_of,
)
from visaudio import hub_access

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

MEDIA_COLUMNS = ("video", "audio")


@dataclass(frozen=True)
class SourceTrack:
    """One sounding object in the camera frame, (T,) arrays at `Clip.truth_rate_hz` (schema.SourceView)."""

    class_name: str
    member: str
    caption: str
    azimuth_deg: np.ndarray = field(repr=False)
    elevation_deg: np.ndarray = field(repr=False)
    lateral_deg: np.ndarray = field(repr=False)
    distance_m: np.ndarray = field(repr=False)
    size_deg: np.ndarray = field(repr=False)
    visible: np.ndarray = field(repr=False)
    onset_s: np.ndarray = field(repr=False)
    envelope_db: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class Clip:
    """What a row says, and what was asked of its media (None where it was not asked for)."""

    id: str
    split: str
    caption: str
    duration_s: float
    hfov_deg: float
    width: int
    height: int
    hrir_symmetric: bool
    truth_rate_hz: float
    sources: tuple[SourceTrack, ...]
    frames: np.ndarray | None = field(default=None, repr=False)
    audio: np.ndarray | None = field(default=None, repr=False)

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(source.class_name for source in self.sources)


def open_dataset(
    location: str | Path,
    splits: Sequence[str] | None = None,
    config: str = "default",
    columns: Sequence[str] = ("id", "split", "truth", *MEDIA_COLUMNS),
) -> Dataset:
    """A BiAudio folder (Parquet with embedded bytes) or Hub repository as one table, media left as bytes.

    splits keeps only the rows whose `split` column is named; config is "default", or "synth" or "benchmark",
    the clips that a repository may hold beside its own. columns: those that must be there. Raises UserError
    if nothing can be read there.
    """
    import datasets
    from datasets import Audio, Video, concatenate_datasets, load_dataset

    check_location(location)
    if config not in ("default", *INNER):
        raise UserError(f"configuration '{config}' holds no clips: expected default, {' or '.join(INNER)}")
    quiet = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        if (files := local_files(Path(location), config)) is None:
            parts = _from_hub(str(location), config)
        else:
            parts = load_dataset("parquet", data_files=files)
    except UserError:
        raise
    except Exception as error:  # datasets raises a score of classes; the user needs the place and one reason
        raise UserError(f"cannot read the dataset at '{location}': {reason_of(error)}") from error
    finally:
        if quiet:
            datasets.enable_progress_bars()
    # sorted: the order of rows, and with it every seed's draw, must not depend on the order of the file names
    table = concatenate_datasets([parts[name] for name in sorted(parts)])
    check_columns(table.column_names, location, columns)
    table = table.cast_column("video", Video(decode=False)).cast_column("audio", Audio(decode=False))
    if splits is not None:
        wanted = set(splits)
        table = table.select([i for i, split in enumerate(table["split"]) if split in wanted])
    return table


def _from_hub(repository: str, config: str) -> DatasetDict:
    """A repository's tables, from the cache of `datasets` where the Hub cannot be reached.

    UserError where neither has it: a mistyped folder of two parts looks like a repository too.
    """
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    offline = datasets.config.HF_HUB_OFFLINE
    why = "HF_HUB_OFFLINE is set" if offline else hub_access.knock(repository, "README.md", None, "dataset")
    try:
        # without a connection `datasets` would try for half a minute before it looks into its cache
        datasets.config.HF_HUB_OFFLINE = bool(why)
        with hub_access.retries_unsaid():
            return datasets.load_dataset(repository, None if config == "default" else config)
    except (ConnectionError, DatasetNotFoundError) as error:
        if isinstance(error, ConnectionError):
            answer = f"the Hub cannot be reached ({why or hub_access.redacted(str(error))})"
            otherwise = "a cache (HF_HOME) from a machine with a network serves too, with HF_HUB_OFFLINE=1"
            if offline:
                otherwise = "unset HF_HUB_OFFLINE, or give a cache (HF_HOME) that holds it"
        else:
            answer = f"the Hub says: {hub_access.redacted(str(error)).rstrip('.')}"
            otherwise = f"for a private or gated one {hub_access.LOG_IN}"
        raise UserError(
            f"no dataset at '{repository}': there is no such folder here, and {answer}; correct the path, or "
            f"if a dataset of the Hub is meant: {otherwise}"
        ) from error
    except Exception as error:  # datasets raises a score of classes; the user needs the place and one reason
        raise UserError(
            f"cannot read the dataset '{repository}' of the Hub (there is no such folder here): "
            f"{hub_access.redacted(reason_of(error))}"
        ) from error
    finally:
        datasets.config.HF_HUB_OFFLINE = offline


def local_files(folder: Path, config: str) -> list[str] | None:
    """A folder's Parquet files, whose rows say their split themselves; None for a Hub repository.

    `datasets` tells a folder apart from another by its last name and what its card says, so that of two sets
    in folders called `synth` the first would be read for both: files given one by one it knows by their
    whole paths and times.
    """
    if not folder.is_dir():
        return None
    own = sorted((folder / CONFIGS["default"]).glob("*.parquet"))
    files = own if config == "default" else sorted((folder / CONFIGS[config]).glob("*.parquet"))
    is_it = {"synth": _is_synth, "benchmark": _is_benchmark}.get(config)
    if not files and own and is_it is not None and is_it(own):
        files = own  # as in the card of a set that is BiAudio-Synth itself
    if not files and config == "default":  # files laid out otherwise; what a build has at work are none
        found = sorted(folder.rglob("*.parquet"))
        files = [p for p in found if not any(name[0] == "." for name in p.relative_to(folder).parts)]
    if not files:
        raise UserError(f"'{folder}' holds no '{config}' clips: expected {CONFIGS[config]}/*.parquet in it")
    return [str(path.resolve()) for path in files]


def _is_synth(files: Sequence[Path]) -> bool:
    import pyarrow.parquet as pq

    names = (set(pq.read_table(path, columns=["source_name"])[0].to_pylist()) for path in files)
    return set().union(*names) == {SYNTH_NAME}


def _is_benchmark(files: Sequence[Path]) -> bool:
    import pyarrow.parquet as pq

    ids = [name for path in files for name in pq.read_table(path, columns=["id"])[0].to_pylist()]
    return len(ids) == BENCHMARK_CLIPS and all(map(is_benchmark_id, ids))


def check_location(location: str | Path) -> None:
    """Raise UserError where there can be no dataset; a Hub repository is not asked for."""
    folder = Path(location)
    if not folder.is_dir() and not is_repository(location):
        raise UserError(f"no dataset at '{location}': expected a Parquet folder or a Hub 'owner/name'")
    if folder.is_dir() and not any(folder.rglob("*.parquet")):
        raise UserError(f"'{location}' holds no Parquet file: python -m bi_audio_dataset synth builds one")


def check_columns(names: Sequence[str], where: str | Path, needed: Sequence[str]) -> None:
    """Raise UserError, naming them, where columns are missing."""
    missing = [name for name in needed if name not in names]
    if missing:
        raise UserError(
            f"'{where}' lacks the columns {', '.join(missing)} of a BiAudio dataset (expected at least "
            f"{', '.join(needed)}): python -m bi_audio_dataset builds one, and its upgrade command brings an "
            "older one up to date"
        )


def without_media(table: Dataset) -> Dataset:
    """The same rows without their video and audio bytes: cheap to walk for captions and truth."""
    return table.remove_columns([name for name in MEDIA_COLUMNS if name in table.column_names])


def read_clip(
    row: dict[str, Any],
    times_s: np.ndarray | None = None,
    size: tuple[int, int] | None = None,
    sample_rate: int | None = None,
) -> Clip:
    """Decode one row.

    times_s (T,): the frames shown at these seconds, squashed to size (width, height) or left at their own;
    None decodes no video. sample_rate: audio resampled to it; None decodes no audio.
    Raises UserError if the row is of a schema version that is unknown.
    """
    check_readable(row.get("schema_version"), f"row '{row.get('id')}'")
    truth = row.get("truth") or {}  # of a real recording nobody knows it
    return Clip(
        id=row["id"],
        split=row["split"],
        caption=row["caption"],
        duration_s=float(row["duration_s"]),
        hfov_deg=math.nan if row["hfov_deg"] is None else float(row["hfov_deg"]),
        width=int(row["width"]),
        height=int(row["height"]),
        hrir_symmetric=bool(row["hrir_symmetric"]),
        truth_rate_hz=float(truth.get("rate_hz") or TRUTH_RATE_HZ),
        sources=tuple(_track(source) for source in truth.get("sources") or ()),
        frames=None if times_s is None else _decode_frames(row["video"]["bytes"], times_s, size),
        audio=None if sample_rate is None else _decode_audio(row["audio"]["bytes"], sample_rate),
    )


def fit_samples(audio: np.ndarray, num_samples: int) -> np.ndarray:
    """Cut or zero-pad (2, S) to (2, num_samples)."""
    audio = audio[:, :num_samples]
    return np.pad(audio, ((0, 0), (0, num_samples - audio.shape[1])))


# -------------------- caches


@dataclass(frozen=True)
class FrameCache:
    """Frames of every clip: num_frames pictures at fps, squashed to size x size pixels."""

    fps: float
    size: int
    num_frames: int
    resize: str = "squash"

    @property
    def name(self) -> str:
        return f"frames_{self.resize}_{self.size}px_{self.fps:g}fps_{self.num_frames}"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.num_frames, 3, self.size, self.size)

    dtype = np.uint8

    def read(self, row: dict[str, Any]) -> np.ndarray:
        """(num_frames, 3, size, size) uint8, resized as encoders/frames.py does it at inference."""
        from visaudio.encoders.frames import prepare_frames  # torch: seconds that readers of rows are spared

        frames = read_clip(row, times_s=np.arange(self.num_frames) / self.fps).frames
        return prepare_frames(frames, self.size, self.resize).numpy()


@dataclass(frozen=True)
class AudioCache:
    """Audio of every clip as 16 bit integers, full scale 32767, at sample_rate."""

    sample_rate: int
    num_samples: int

    @property
    def name(self) -> str:
        return f"audio_{self.sample_rate}hz_{self.num_samples}"

    @property
    def shape(self) -> tuple[int, ...]:
        return (2, self.num_samples)

    dtype = np.int16

    def read(self, row: dict[str, Any]) -> np.ndarray:
        """(2, num_samples) int16."""
        audio = fit_samples(read_clip(row, sample_rate=self.sample_rate).audio, self.num_samples)
        return np.round(np.clip(audio, -1, 1) * 32767).astype(np.int16)


def build_cache(
    table: Dataset, cache: FrameCache | AudioCache, folder: Path, workers: int = 2, progress: bool = True
) -> np.memmap:
    """The decoded array (C, *cache.shape), made in `folder` on the first call and reopened on later ones.

    Interrupted work goes on where it stopped; a folder made from other rows is made anew.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, done_path, key_path = (folder / f"{cache.name}{end}" for end in (".npy", ".done.npy", ".json"))
    key = json.dumps({"cache": asdict(cache), "ids": table["id"][:]})
    shape = (len(table), *cache.shape)
    if not (path.is_file() and done_path.is_file() and key_path.is_file() and key_path.read_text() == key):
        for old in (path, done_path, key_path):
            old.unlink(missing_ok=True)
        np.lib.format.open_memmap(path, mode="w+", dtype=cache.dtype, shape=shape).flush()
        np.save(done_path, np.zeros(len(table), dtype=bool))
        key_path.write_text(key)
    done = np.load(done_path, mmap_mode="r+")
    todo = np.flatnonzero(~done)
    if len(todo):
        _fill(table, cache, path, done, todo, workers, progress)
    return np.load(path, mmap_mode="r")


def _fill(table, cache, path: Path, done: np.ndarray, todo: np.ndarray, workers: int, progress: bool) -> None:
    from tqdm import tqdm

    chunks = [todo[i : i + 16].tolist() for i in range(0, len(todo), 16)]
    bar = tqdm(
        total=len(todo), desc=f"decode {cache.name}", unit="clip", disable=not progress, smoothing=0.05
    )
    with bar:
        if workers < 2 or len(chunks) < 2:
            for chunk in chunks:
                _fill_chunk(table, cache, path, chunk)
                done[chunk] = True
                bar.update(len(chunk))
            return
        # spawn, not fork: the parent may hold torch's OpenMP threads, which a fork would break
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            jobs = {pool.submit(_fill_chunk, table, cache, path, chunk): chunk for chunk in chunks}
            for job in as_completed(jobs):
                job.result()
                done[jobs[job]] = True
                bar.update(len(jobs[job]))


def _fill_chunk(table, cache, path: Path, indices: list[int]) -> None:
    if parent_process() is not None:
        import torch

        torch.set_num_threads(1)  # one worker per core already
    array = np.load(path, mmap_mode="r+")
    for index in indices:
        array[index] = cache.read(table[index])
    array.flush()


# -------------------- decoding


def _decode_frames(video: bytes, times_s: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    # media reads paths: it keeps a time line per file, and a demuxer wants to seek
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        file.write(video)
        file.flush()
        return media.read_frames(file.name, times_s, size=size, num_threads=1)


def _decode_audio(audio: bytes, sample_rate: int) -> np.ndarray:
    import soundfile
    import soxr

    samples, rate = soundfile.read(io.BytesIO(audio), dtype="float32", always_2d=True)
    if samples.shape[1] != 2:
        raise UserError(f"a row's audio has {samples.shape[1]} channels, expected 2")
    if rate != sample_rate:
        samples = soxr.resample(samples, rate, sample_rate, quality="HQ")
    return np.ascontiguousarray(samples.T, dtype=np.float32)


def _track(source: dict[str, Any]) -> SourceTrack:
    arrays = {
        k: np.asarray(v, dtype=np.float32) for k, v in source.items() if isinstance(v, (list, np.ndarray))
    }
    arrays["visible"] = np.asarray(source["visible"], dtype=bool)
    return SourceTrack(
        class_name=source["class_name"], member=source["member"], caption=source["caption"], **arrays
    )


def is_repository(location: str | Path) -> bool:
    """Whether it means a Hub repository: "owner/name", no dotted path, and nothing of that name is here."""
    return hub_access.on_hub(str(location)) and not str(location).startswith(".")
