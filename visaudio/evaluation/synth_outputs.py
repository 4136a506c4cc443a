"""The sounds that the benchmark compares: made from the clips' MP4 files alone, stored, resumable.

    FOLDER/clips/ID.mp4, ID.flac        a row's media, as they are in the dataset
    FOLDER/conditions/ID[.flipped].pt   what the network is told: from the MP4, without prompt or lens
    FOLDER/sounds/SYSTEM/ID.flac, .json the sounds, and how each was made

One noise per clip, from its id and one seed, is used by every system; each sound is the first and only
sample of its clip. Worker processes of one thread each: small networks gain little from two threads.

Legend: B clips of a batch, N tokens of D dimensions, S samples.
"""

from __future__ import annotations

import io
import json
import signal
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bi_audio_dataset import media
from bi_audio_dataset.schema import UserError, reason_of
from visaudio.level import PEAK_DBFS
from visaudio.model.conditions import Conditions
from visaudio.sampling import encode_conditions, encode_frames, frame_requests, generate
from visaudio.stored import holds, read_object, write_whole
from visaudio.windows import read_windows, total_windows, window_sequence

if TYPE_CHECKING:
    from visaudio.hub import Components

SYSTEMS = {
    "model": "the model",
    "codec": "codec round trip of the truth",
    "shuffled": "model with another clip's conditions",
    "flipped": "model, frames mirrored",
    "noise_swapped": "model, ears' noise swapped",
}


@dataclass(frozen=True)
class Job:
    """Clips of one system, done in one batch. conditions_of: the clips whose pictures the network sees."""

    system: str
    ids: tuple[str, ...]
    conditions_of: tuple[str, ...]


@dataclass(frozen=True)
class Work:
    """What every worker knows. load: gives the model; seed: of the noise. prompts, hfov_deg: of clips for
    which the network is told words or the lens; by default it is told neither."""

    folder: Path
    load: Callable[[], Components]
    seed: int
    durations_s: Mapping[str, float]
    prompts: Mapping[str, str] = field(default_factory=dict)
    hfov_deg: Mapping[str, float] = field(default_factory=dict)


def plan_jobs(
    ids: Sequence[str], partners: Mapping[str, str], mirror_ids: Iterable[str], batch: int
) -> list[Job]:
    """Jobs of all systems. partners: of the clips to shuffle, the clip whose conditions each gets."""
    mirrored = [i for i in ids if i in set(mirror_ids)]
    jobs = []
    # conditions are made with the model's own sounds, before anything else wants them
    for system, chosen in (
        ("model", ids),
        ("codec", ids),
        ("shuffled", list(partners)),
        ("flipped", mirrored),
        ("noise_swapped", mirrored),
    ):
        for start in range(0, len(chosen), batch):
            group = tuple(chosen[start : start + batch])
            jobs.append(
                Job(system, group, tuple(partners[i] for i in group) if system == "shuffled" else group)
            )
    return jobs


def write_media(folder: Path, name: str, video: bytes | None, audio: bytes) -> None:
    """The row's two files, or its sound alone. UserError if the folder holds others of that name."""
    for suffix, data in ((".mp4", video), (".flac", audio)):
        path = folder / "clips" / f"{name}{suffix}"
        if data is None:
            continue
        if not path.is_file():
            write_whole(path, data)
        elif not holds(path, data):
            raise UserError(f"{path}: is of another dataset's clip {name}; give another output folder")


def sound_path(folder: Path, system: str, name: str) -> Path:
    """Where a system's sound of a clip is; `truth` is the dataset's own."""
    if system == "truth":
        return folder / "clips" / f"{name}.flac"
    return folder / "sounds" / system / f"{name}.flac"


def run_jobs(jobs: Sequence[Job], work: Work, workers: int, progress: Callable[[int], None]) -> None:
    """Makes what is missing. progress is told the number of clips done after each job.

    The model's own jobs are done first: they leave the conditions that the others read.
    """
    for systems in (("model", "codec"), ("shuffled", "flipped", "noise_swapped")):
        todo = []
        for job in jobs:
            if job.system in systems:
                missing = [
                    (name, other)
                    for name, other in zip(job.ids, job.conditions_of, strict=True)
                    if not _is_done(work.folder, job.system, name, other)
                ]
                progress(len(job.ids) - len(missing))
                if missing:
                    todo.append(Job(job.system, *map(tuple, zip(*missing, strict=True))))
        if not todo:
            continue
        if workers < 2:
            _start_worker(work, threads=None)
            for job in todo:
                progress(run_job(job))
            continue
        # spawn, not fork: the parent may hold torch's threads, which a fork would break
        pool = ProcessPoolExecutor(
            workers, mp_context=get_context("spawn"), initializer=_start_worker, initargs=(work, 1)
        )
        try:
            for done in as_completed([pool.submit(_run_in_worker, job) for job in todo]):
                progress(done.result())
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process ended before its time (out of memory?): what is finished stays, and the "
                "same command goes on; fewer --workers need less memory"
            ) from error
        finally:  # an interruption waits for the sounds under way, not for all
            pool.shutdown(wait=True, cancel_futures=True)


# -------------------- inside a worker

_state: dict[str, Any] = {}


def _start_worker(work: Work, threads: int | None) -> None:
    if threads:  # in a process of its own, which lets the main one end the work
        torch.set_num_threads(threads)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    _state.update(work=work, components=work.load())


def _run_in_worker(job: Job) -> int:
    try:
        return run_job(job)
    except UserError as error:
        raise UserError(str(error)) from None  # of subclasses not all travel between processes


def run_job(job: Job) -> int:
    """Makes and stores the job's sounds; returns their number."""
    work, components = _state["work"], _state["components"]
    sequence = components.preset.sequence
    if job.system == "codec":
        sounds = [codec_round_trip(components, work.folder / "clips" / f"{name}.flac") for name in job.ids]
    else:
        told = [
            conditions(
                components,
                work.folder,
                name,
                flipped=job.system == "flipped",
                prompt=work.prompts.get(name),
                hfov_deg=work.hfov_deg.get(name),
            )
            for name in job.conditions_of
        ]
        durations_s, swap = [work.durations_s[name] for name in job.ids], job.system == "noise_swapped"
        noise = [
            clip_noise(components, name, work.seed, duration_s, swap)
            for name, duration_s in zip(job.ids, durations_s, strict=True)
        ]
        sounds = sample(components, told, noise, durations_s)
    for name, other, sound in zip(job.ids, job.conditions_of, sounds, strict=True):
        notes = {
            "id": name,
            "system": job.system,
            "seed": work.seed,
            "conditions_of": other,
            "sampling": asdict(components.sampling),
        }
        store(sound_path(work.folder, job.system, name), sound, sequence.sample_rate, notes)
    return len(job.ids)


def conditions(
    components: Components,
    folder: Path,
    name: str,
    flipped: bool = False,
    prompt: str | None = None,
    hfov_deg: float | None = None,
) -> list[Conditions]:
    """Of each window of a clip, from its MP4 (without prompt and lens unless given; the mirrored frames have
    neither); read back where made before."""
    kinds = {".flipped": flipped, ".prompt": prompt is not None, ".lens": hfov_deg is not None}
    path = folder / "conditions" / f"{name}{''.join(kind for kind, is_so in kinds.items() if is_so)}.pt"
    video = folder / "clips" / f"{name}.mp4"
    if flipped:
        return kept_conditions(path, components, lambda: flipped_conditions(components, video))
    return kept_conditions(
        path, components, lambda: encode_conditions(components, video, prompt=prompt, hfov_deg=hfov_deg)
    )


def kept_conditions(
    path: Path, components: Components, make: Callable[[], Iterable[Conditions]]
) -> list[Conditions]:
    """What `make` gives, kept in a file; read back where it is there, to where the model is."""
    if path.is_file():
        return _read_conditions(path, components)
    made = list(make())
    buffer = io.BytesIO()
    torch.save([{k: getattr(c, k).cpu() for k in c.__dataclass_fields__} for c in made], buffer)
    write_whole(path, buffer.getvalue())
    return made


def _read_conditions(path: Path, components: Components) -> list[Conditions]:
    try:
        stored = torch.load(path, weights_only=True, map_location=components.device)
        return [Conditions(**window) for window in stored]
    except Exception as error:  # torch.load raises whatever the damaged file makes it raise
        reason = reason_of(error, 120)
        raise UserError(
            f"{path}: cannot be read as what a model is told of a clip ({reason}); remove it: the same "
            "command makes it again"
        ) from error


def flipped_conditions(components: Components, video: Path) -> Iterable[Conditions]:
    """`encode_conditions` of the same video seen in a mirror: left and right of every frame change places."""
    sequence = components.preset.sequence
    length_s = media.probe(video).duration_s
    windows = total_windows(sequence, length_s, components.sampling.overlap_s)
    lengths = window_sequence(sequence, windows, length_s)
    requests = [frame_requests(components, lengths, w.start / sequence.tokens_per_second) for w in windows]
    for window in read_windows(video, requests):
        clip_frames, sync_frames, *spatial = (pictures[None].flip(-1) for pictures in window)
        yield encode_frames(components, clip_frames, sync_frames, None, None, *spatial)


def clip_noise(components: Components, name: str, seed: int, duration_s: float, swap: bool = False) -> Tensor:
    """(2, N, D) the clip's noise: from its id and the seed. swap: the ears' noises change places."""
    windows = total_windows(components.preset.sequence, duration_s, components.sampling.overlap_s)
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
    ears = 1 if components.sampling.shared_noise else 2
    total = windows[-1].start + windows[-1].length
    noise = torch.randn(ears, total, components.network.config.token_dim, generator=generator)
    return (noise.flip(0) if swap else noise).expand(2, -1, -1)


def sample(
    components: Components,
    told: Sequence[Sequence[Conditions]],
    noise: Sequence[Tensor],
    durations_s: Sequence[float],
) -> list[np.ndarray]:
    """Sounds (2, S) of B clips at the model's defaults; in one batch where their lengths agree."""
    if len(set(durations_s)) > 1:
        return [
            sample(components, [t], [n], [d])[0] for t, n, d in zip(told, noise, durations_s, strict=True)
        ]
    defaults = components.sampling
    audio = generate(
        components.network,
        components.codec,
        [Conditions.concat(window) for window in zip(*told, strict=True)],
        sequence=components.preset.sequence,
        duration_s=durations_s[0],
        num_steps=defaults.num_steps,
        guidance_scale=defaults.cfg_strength,
        method=defaults.method,
        overlap_s=defaults.overlap_s,
        noise=torch.stack(list(noise)),
    )
    return list(audio.numpy())


@torch.inference_mode()
def codec_round_trip(components: Components, path: Path) -> np.ndarray:
    """A sound file through the codec, each ear by itself: (2, S) at the codec's rate."""
    audio, _ = media.read_audio(path, components.codec.sample_rate)
    audio = torch.from_numpy(np.ascontiguousarray(audio))[None].to(components.device)
    latents = components.codec.encode_binaural(audio)
    return components.codec.decode_binaural(latents, audio.shape[-1])[0].float().cpu().numpy()


def store(path: Path, sound: np.ndarray, rate: int, notes: Mapping[str, Any]) -> None:
    """A 16 bit FLAC of (C, S) under one gain for all channels, as in the pipeline; then the notes (.json
    beside it), which mark it done."""
    import soundfile

    sound = np.nan_to_num(sound)  # a broken sound counts as silence, hence as wrong
    gain = min(1.0, 10 ** (PEAK_DBFS / 20) / max(float(np.abs(sound).max(initial=0)), 1e-9))
    buffer = io.BytesIO()
    soundfile.write(buffer, (sound * gain).T, rate, format="FLAC", subtype="PCM_16")
    write_whole(path, buffer.getvalue())
    write_whole(path.with_suffix(".json"), json.dumps({**notes, "gain": gain}, indent=1).encode())


def _is_done(folder: Path, system: str, name: str, other: str) -> bool:
    path = sound_path(folder, system, name).with_suffix(".json")
    notes = read_object(path, "remove it: the same command makes that sound again")
    return notes is not None and notes.get("conditions_of") == other
