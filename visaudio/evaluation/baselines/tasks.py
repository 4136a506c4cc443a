"""Commands of a benchmark that take hours: each makes a folder, several run at once, and what is finished is
kept and never taken for something else."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bi_audio_dataset.schema import UserError
from visaudio.stored import read_object, write_whole, writing


@dataclass(frozen=True)
class Task:
    """A command that makes a folder; finished where `done` is there. Its output goes to `log`, beside which
    `made_from` is kept: an unfinished or finished task of that folder that was made from anything else is
    another one. links: made in the folder before, link -> folder."""

    name: str
    command: tuple[str, ...]
    done: Path
    log: Path
    made_from: Mapping[str, Any]
    links: Mapping[Path, Path] = field(default_factory=dict)

    def begin(self) -> None:
        """The folder, its links and the record. UserError where it was made from something else, or cannot
        be written."""
        folder, record = self.log.parent, self.log.with_name("made_from.json")
        now = json.loads(json.dumps(self.made_from))
        there = read_object(record, "remove the folder")
        if there is None and self.done.is_file():
            there = {}
        if there is not None and there != now:
            key = next(k for k in (*now, *there) if there.get(k) != now.get(k))
            raise UserError(
                f"{folder} was made otherwise ({key}: {there.get(key)}, now {now.get(key)}): give another "
                "--output, or remove the folder"
            )
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for link, target in self.links.items():
                if not link.exists():
                    link.symlink_to(target, target_is_directory=True)
        write_whole(record, (json.dumps(now, indent=1) + "\n").encode())


def do(tasks: Sequence[Task], processes: int) -> None:
    """Runs what is not finished, `processes` at once. UserError where one was made from something else, and
    with the log's last line where one fails."""
    for task in tasks:
        task.begin()
    todo = [task for task in tasks if not task.done.is_file()]
    if not todo:
        return
    bar = tqdm(total=len(tasks), initial=len(tasks) - len(todo), desc=todo[0].name, unit="training")
    with bar, ThreadPoolExecutor(processes) as pool:
        running = {pool.submit(call, task): task for task in todo}
        try:
            for finished in as_completed(running):
                finished.result()
                bar.set_description(running[finished].name)
                bar.update()
        except BaseException:
            for other in running:
                other.cancel()
            raise


def call(task: Task) -> None:
    """Runs the task's command, from the folder that one is in. UserError where it fails."""
    with open(task.log, "a", encoding="utf-8") as log:
        log.write(f"$ {shlex.join(task.command)}\n")
        log.flush()
        environment = os.environ | _devices()
        code = subprocess.call(task.command, stdout=log, stderr=subprocess.STDOUT, env=environment)
    if code or not task.done.is_file():
        last = task.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1]
        raise UserError(f"{task.name} ended with {code}; the last line of {task.log}: {last[:300]}")


def _devices() -> dict[str, str]:
    """Environment of a training: several processes need to be told that there are only CPUs."""
    import torch

    return {} if torch.cuda.is_available() else {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
