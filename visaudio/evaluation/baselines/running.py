"""Making a baseline for all clips of a split: what is missing, by several processes, resumable.

    OUTPUT/NAME/ID.flac, ID.json    a sound, and what it was made from
    OUTPUT/model/...                the model's own sounds, where --sounds gives none
    OUTPUT/.work/DIGEST/ID.pt       what the model of that digest is told of a clip

A sound is done when its .json says that it was made from the same things; where one was made from others
nothing is mixed: an error says what differs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bi_audio_dataset.schema import UserError
from visaudio.evaluation.baselines import NAMES, making, sources
from visaudio.evaluation.baselines.making import Work, sound_path
from visaudio.evaluation.synth_benchmark import derangement
from visaudio.evaluation.workers import one_thread_each
from visaudio.stored import read_object

FROM_MODEL = ("model", "shuffled", "codec")
Notes = dict[str, dict[str, Any]]  # clip -> what its sound is made from


@dataclass(frozen=True)
class Request:
    """What is asked for. sounds: the mono sounds' folder, None: the model's own. limit: the first so many
    clips by name. batch: clips sampled together; device: of the model. See the command line for the rest."""

    system: str
    dataset: str
    output: Path
    split: str = "test"
    config: str = "default"
    model: str = "tiny"
    sounds: Path | None = None
    spatialiser: Path | None = None
    sofa: str | None = None
    hfov_deg: float = 90.0
    seed: int = 0
    limit: int | None = None
    batch: int = 4
    workers: int = 1
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.system not in NAMES:
            raise UserError(f"there is no baseline '{self.system}', expected of {', '.join(NAMES)}")
        if self.system == "two-stage-learned" and self.spatialiser is None:
            raise UserError(
                "two-stage-learned needs --spatialiser DIR; python -m visaudio.evaluation.baselines "
                "train-spatialiser makes one"
            )
        if not 10 <= self.hfov_deg <= 170:
            raise UserError(f"--hfov_deg {self.hfov_deg:g}: expected 10 to 170 degrees")


MAX_FAILED = 20  # after so many the rest is not tried
Bar = Callable[[str, int], Any]  # (what, of how many) -> a context with update(number)


def run(request: Request, bar: Bar) -> Path:
    """Makes what is missing of a baseline; returns its folder. UserError for all that can be wrong."""
    rows = sources.rows_of(request.dataset, request.split, request.config)
    ids = sorted(rows.ids)[: request.limit]
    if len(set(ids)) < len(ids):
        raise UserError(f"the split {request.split} of '{request.dataset}' holds a clip id twice")
    work = Work(
        rows, request.output, request.model, request.output / ".work", request.seed,
        spatialiser=request.spatialiser, sofa=request.sofa, hfov_deg=request.hfov_deg, device=request.device,
    )  # fmt: skip
    if request.system in FROM_MODEL:
        return _from_model(request, work, ids, bar)
    if request.sounds is None:
        own = replace(request, system="model")
        folder = _from_model(own, work, ids, bar)
        work = replace(work, sounds={name: folder / f"{name}.flac" for name in ids})
    else:
        work = replace(work, sounds=sources.sounds_of(request.sounds, ids))
    if request.system == "two-stage-learned":
        from visaudio.evaluation.baselines import head

        head.load(request.spatialiser)  # before anything is started
    common = _made_with(request)
    notes = {name: {**common, "mono_sha256": _sha256(path)} for name, path in work.sounds.items()}
    return _make(request, work, notes, bar)


def _from_model(request: Request, work: Work, ids: Sequence[str], bar: Bar) -> Path:
    """The model's own sounds, shuffled ones, or the codec's round trips."""
    model = _model_of(request.model)
    work = replace(work, kept=work.kept / model["weights_sha256"])
    if request.system == "codec":
        return _make(request, work, {name: dict(model) for name in ids}, bar)
    partners = dict(zip(ids, ids, strict=True))
    if request.system == "shuffled":
        if len(ids) < 2:
            raise UserError("shuffled needs at least two clips: each gets the conditions of another")
        partners = {ids[k]: ids[other] for k, other in enumerate(derangement(len(ids), request.seed))}
        # partners lie anywhere in the dataset, whose rows are best read in order
        missing = [name for name in ids if not (work.kept / f"{name}.pt").is_file()]
        _run_all("conditions", {name: {} for name in missing}, replace(request, batch=1), work, bar)
    notes = {name: {**model, "seed": request.seed, "conditions_of": partners[name]} for name in ids}
    return _make(request, replace(work, partners=partners), notes, bar)


def _model_of(name: str) -> dict[str, Any]:
    from visaudio.hub import find_model
    from visaudio.model_card import weights_digest

    return {"model": name, "weights_sha256": weights_digest(find_model(name))}


def _made_with(request: Request) -> dict[str, Any]:
    """What every sound of a baseline on mono sounds is made with."""
    if request.system == "mono":
        return {}
    if request.system == "two-stage-learned":
        from visaudio.evaluation.baselines.head import WEIGHTS

        return {**_model_of(request.model), "spatialiser_sha256": _sha256(request.spatialiser / WEIGHTS)}
    hrirs = {"hrirs": "spherical_head" if request.sofa is None else _sha256(Path(request.sofa))}
    return {**hrirs, "hfov_deg": request.hfov_deg} if request.system == "two-stage-motion" else hrirs


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


# -------------------- what is missing, by several processes


def _make(request: Request, work: Work, notes: Notes, bar: Bar) -> Path:
    """The sounds that are not there yet. UserError where one is there that was made from something else."""
    todo = {n: note for n, note in notes.items() if not is_done(request.output, request.system, n, note)}
    _run_all(request.system, todo, request, work, bar, done=len(notes) - len(todo))
    return request.output / request.system


def is_done(output: Path, system: str, name: str, note: Mapping[str, Any]) -> bool:
    """Whether that sound is there. UserError if it was made from something else than `note` says."""
    path = sound_path(output, system, name).with_suffix(".json")
    there = read_object(path, "remove it: the same command makes that sound again")
    if there is None:
        return False
    for key, value in note.items():
        if there.get(key) != value:
            raise UserError(
                f"{path.parent} holds sounds made otherwise ({key} {there.get(key)!r}, now {value!r}, clip "
                f"{name}): give another --output, or remove the folder"
            )
    return path.with_suffix(".flac").is_file()


def _run_all(system: str, todo: Notes, request: Request, work: Work, bar: Bar, done: int = 0) -> None:
    names = list(todo)
    groups = [names[k : k + request.batch] for k in range(0, len(names), request.batch)]
    jobs = [(system, group, [todo[name] for name in group]) for group in groups]
    run_jobs(making.make, jobs, request.workers, bar(system, done + len(names)), done, (making.start, work))


def run_jobs(
    function: Callable[..., int],
    jobs: Sequence[tuple],
    workers: int,
    progress: Any,
    done: int = 0,
    start: tuple[Callable[[Any, int | None], None], Any] | None = None,
) -> None:
    """Calls function(*job), which gives the number it made, for each job, in `workers` processes.

    start: a function and what it is given first, with the number of threads to use, in every process.
    A UserError of a job lets the others go on, up to MAX_FAILED of them, so that one run names all bad files;
    then it is raised. A process that dies ends all.
    """
    failed: list[str] = []

    def count(call: Callable[[], int]) -> None:
        try:
            shown.update(call())
        except UserError as error:
            failed.append(str(error))
            if len(failed) >= MAX_FAILED:
                raise _all_of(failed) from None

    with progress as shown:
        shown.update(done)
        if workers < 2 or len(jobs) < 2:
            if start and jobs:
                start[0](start[1], None)
            for job in jobs:
                count(partial(function, *job))
            if failed:
                raise _all_of(failed)
            return
        prepare = {"initializer": start[0], "initargs": (start[1], 1)} if start else {}
        # spawn, not fork: the parent may hold torch's threads, which a fork would break
        pool = ProcessPoolExecutor(min(workers, len(jobs)), get_context("spawn"), **prepare)
        try:
            with one_thread_each():  # processes start as jobs are given
                futures = [pool.submit(function, *job) for job in jobs]
            for finished in as_completed(futures):
                count(finished.result)
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process died (out of memory?); what is finished stays, and the same command goes "
                "on: fewer --workers need less memory"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        if failed:
            raise _all_of(failed)


def _all_of(failed: Sequence[str]) -> UserError:
    """One line for all that failed: the first in full, of the others what they are about."""
    first, *others = sorted(failed)
    if not others:
        return UserError(first)
    shown = "; ".join(others[:5]) + (f"; and {len(others) - 5} more" if len(others) > 5 else "")
    many = f"{len(failed)} or more" if len(failed) >= MAX_FAILED else str(len(failed))
    return UserError(f"{many} failed, what is finished stays: {first}; {shown}")
