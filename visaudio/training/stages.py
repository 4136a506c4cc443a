"""The stages of a training in order: data, codec, clip, synchformer, features, flow, export.

Each stage has a folder below the run's, with ``stage.json`` in it: what it was begun with, and whether it
is finished. A finished stage is skipped; one that was begun with other settings is refused, not
overwritten. Settings include those of the stages that it builds on.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bi_audio_dataset.schema import UserError
from visaudio.training.heartbeat import CHECKING, WORKING, FirstProcess, Heartbeat
from visaudio.training.progress import minutes, say

RANK = int(os.environ.get("RANK", "0"))  # set by torchrun and accelerate launch

# Settings that change how long or how talkative a stage is, not what it makes.
FREE_KEYS = {
    "max_minutes",
    "calibration_steps",
    "checkpoint_minutes",
    "validate_minutes",
    "validate_every",
    "keep_checkpoints",
    "log_every",
    "workers",
    "validation",
    "accumulation",  # batch_size is what counts
    "activation_checkpointing",
    "compile",
    "loader_workers",
    "prefetch",
    "trackers",
}


@dataclass(frozen=True)
class Stage:
    """run(folder) does the work, or goes on with it, and returns False where it was stopped before its end.

    settings: plain values that decide the result. estimate_min: minutes on two CPU cores. after: stages
    it needs. always: run even when finished (a stage that finds out itself whether there is more to do).
    parallel: every process runs it; of the others only the first does, and the rest wait.
    """

    name: str
    title: str
    run: Callable[[Path], bool]
    settings: Mapping[str, Any]
    estimate_min: float
    after: tuple[str, ...] = ()
    always: bool = False
    parallel: bool = False


class Plan:
    """Stages of one run folder."""

    def __init__(self, folder: Path, stages: Iterable[Stage]):
        self.folder = Path(folder)
        self.stages = {stage.name: stage for stage in stages}

    def select(self, names: Iterable[str] | None) -> list[Stage]:
        """The named stages in their order; all of them for None. Raises UserError for a name there is not."""
        if names is None:
            return list(self.stages.values())
        wanted = list(names)
        for name in wanted:
            if name not in self.stages:
                raise UserError(f"unknown stage {name!r}; the stages are {', '.join(self.stages)}")
        return [stage for stage in self.stages.values() if stage.name in wanted]

    def fingerprint(self, name: str) -> str:
        """Digest of a stage's settings and of those of all stages that it builds on."""
        stage = self.stages[name]
        content = [_without_free(stage.settings), [self.fingerprint(other) for other in stage.after]]
        return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=8).hexdigest()

    def finished(self, name: str) -> bool:
        return bool(self._read(name).get("finished"))

    def check(self, chosen: Iterable[Stage], adopt: bool = False) -> None:
        """Raise UserError, before any work, where a stage was begun with other settings or lacks one it
        needs. With ``adopt``, other settings are only said: what is there is taken as it is.
        """
        chosen = list(chosen)
        names = {stage.name for stage in chosen}
        for stage in chosen:
            for other in stage.after:
                if other not in names and not self.finished(other):
                    raise UserError(
                        f"stage {stage.name} needs stage {other}, which is not finished in {self.folder}"
                    )
        needed = names.union(*(stage.after for stage in chosen)) if chosen else names
        for name in (name for name in self.stages if name in needed):
            found = self._read(name).get("fingerprint")
            if found is not None and found != self.fingerprint(name):
                what = f"{self.folder / name} was made with other settings{self._changed(name)}"
                if not adopt:
                    raise UserError(
                        f"{what}; remove that folder, choose another output=FOLDER, or take it with --adopt"
                    )
                say(f"{what}; it is taken as it is")

    def show(self, chosen: Iterable[Stage]) -> None:
        """The stages with what each is expected to take."""
        total = 0.0
        for stage in chosen:
            done = self.finished(stage.name)
            total += 0 if done else stage.estimate_min
            state = "done" if done else f"about {minutes(60 * stage.estimate_min)}"
            say(f"  {stage.name:<12} {state:<14} {stage.title}")
        say(f"  in all about {minutes(60 * total)} on two CPU cores; Ctrl-C stops, the same command goes on")

    def execute(self, chosen: Iterable[Stage], check: Callable[[], None] | None = None) -> bool:
        """Run what is not finished. False where a stage was stopped before its end.

        check: done before, by the first process of each machine, while the others wait however long it
        takes; where it raises on one, all end.
        """
        if RANK > 0:
            return self._follow(chosen, check)
        self.folder.mkdir(parents=True, exist_ok=True)
        machines = int(os.environ.get("GROUP_WORLD_SIZE", "1")) if check else 1  # torchrun's
        others = [FirstProcess(self.folder, machine) for machine in range(1, machines)]
        with Heartbeat(self.folder, CHECKING if check else WORKING) as heart:
            if check:
                check()
            for machine, other in enumerate(others, 1):
                if not other.wait_until(other.checked):
                    raise UserError(f"machine {machine} of {machines} has failed; what it printed says why")
            if check:
                heart.say(WORKING)
            finished = self._lead(chosen)
            heart.say("done" if finished else "stopped")
        return finished

    def _lead(self, chosen: Iterable[Stage]) -> bool:
        todo = [stage for stage in chosen if stage.always or not self.finished(stage.name)]
        began, total = time.monotonic(), sum(stage.estimate_min for stage in todo)
        for number, stage in enumerate(todo, 1):
            left = sum(other.estimate_min for other in todo[number - 1 :])
            share = 100 * (1 - left / total) if total else 100
            say(
                f"[{number}/{len(todo)}] {stage.name}: {stage.title}; files in {self.folder / stage.name}; "
                f"{share:.0f} % of the run done after {minutes(time.monotonic() - began)}, "
                f"about {minutes(60 * left)} left"
            )
            if not self._run(stage):
                return False
        return True

    def _follow(self, chosen: Iterable[Stage], check: Callable[[], None] | None = None) -> bool:
        """What a process other than the first does: join the parallel stages, wait for the rest. It ends
        where the first one fails or stops.
        """
        first = FirstProcess(self.folder)
        if check is None or int(os.environ.get("LOCAL_RANK", "0")) > 0:
            return self._join(chosen, first)
        self.folder.mkdir(parents=True, exist_ok=True)
        with Heartbeat(self.folder, CHECKING, int(os.environ.get("GROUP_RANK", RANK))) as heart:
            check()
            heart.say(WORKING)
            return self._join(chosen, first)

    def _join(self, chosen: Iterable[Stage], first: FirstProcess) -> bool:
        for stage in chosen:
            if stage.parallel and (stage.always or not self.finished(stage.name)):
                done = partial(self.finished, stage.name)
                if not first.wait_until(lambda done=done: first.checked() or done()):
                    return False
                if not stage.run(self.folder / stage.name):
                    return False
            if not stage.always and not first.wait_until(partial(self.finished, stage.name)):
                return False
        return True

    def _run(self, stage: Stage) -> bool:
        folder = self.folder / stage.name
        folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        spent = self._read(stage.name).get("minutes", 0.0)
        self._write(stage, False, spent)
        finished = False
        try:
            finished = stage.run(folder)
        finally:  # an interrupted stage has taken its time too
            self._write(stage, finished, spent + (time.monotonic() - began) / 60)
        return finished

    def _read(self, name: str) -> dict[str, Any]:
        path = self.folder / name / "stage.json"
        try:
            return json.loads(path.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error}); remove the folder {path.parent}") from error

    def _write(self, stage: Stage, finished: bool, spent_min: float) -> None:
        path = self.folder / stage.name / "stage.json"
        record = {
            "fingerprint": self.fingerprint(stage.name),
            "finished": finished,
            "minutes": round(spent_min, 2),
            "settings": _plain(stage.settings),
        }
        beside = path.with_suffix(".tmp")
        beside.write_text(json.dumps(record, indent=1) + "\n")
        os.replace(beside, path)

    def _changed(self, name: str) -> str:
        before = _flat(_without_free(self._read(name).get("settings", {})))
        now = _flat(_without_free(self.stages[name].settings))
        keys = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
        if not keys:
            return " of an earlier stage"
        return " (" + ", ".join(f"{key}: {before.get(key)!r}, now {now.get(key)!r}" for key in keys[:4]) + ")"


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _without_free(value: Any) -> Any:
    value = _plain(value)
    if isinstance(value, dict):
        return {key: _without_free(item) for key, item in value.items() if key not in FREE_KEYS}
    return value


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    out: dict[str, Any] = {}
    for key, item in value.items():
        out.update(_flat(item, f"{name}.{key}" if name else key))
    return out
