"""The loss of every optimizer step, as plain lines in the run's folder: `losses.jsonl`.

    {"step": 12, "loss": 2.0312498807907104}

step counts from 1: the loss of the batch that made the weights of step 12. loss is the float32 mean over all
samples of the step (all accumulation rounds, all processes), written so that it reads back bit for bit. Two
runs can be compared line by line; a resumed run's file equals that of one that never stopped.
"""

import json
import os
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from bi_audio_dataset.schema import UserError

FILE_NAME = "losses.jsonl"


class LossRecord:
    """Collects on the device and writes at `flush`, so that no step waits for an accelerator.

    Lines after step ``step`` are dropped at the start: the steps are done again. All processes must call
    `flush` together; the first one writes.
    """

    def __init__(self, folder: Path, accelerator: Accelerator, step: int = 0):
        self.path, self._accelerator = Path(folder) / FILE_NAME, accelerator
        self._rounds: dict[int, list[Tensor]] = {}
        if accelerator.is_main_process:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _keep_until(self.path, step)

    def add(self, step: int, losses: Tensor) -> None:
        """losses (B,): this process's share of one round of the step that is ``step`` when done."""
        self._rounds.setdefault(step, []).append(losses.detach().float().mean())

    def flush(self) -> None:
        """Write what was collected. Call where a checkpoint is to be saved, before it is."""
        if not self._rounds:
            return
        steps = list(self._rounds)
        means = torch.stack([torch.stack(rounds).mean() for rounds in self._rounds.values()])
        self._rounds.clear()
        means = self._accelerator.reduce(means, reduction="mean").tolist()
        if self._accelerator.is_main_process:
            lines = [_line(step, loss) for step, loss in zip(steps, means, strict=True)]
            with self.path.open("a") as file:
                file.write("".join(lines))
                file.flush()
                os.fsync(file.fileno())  # a checkpoint that outlives a power cut has its losses beside it


def read_losses(folder: Path) -> dict[int, float]:
    """Step -> loss of the run in ``folder``. Raises UserError where nothing was recorded."""
    path = Path(folder) / FILE_NAME
    if not path.is_file():
        raise UserError(f"{path} is not there: expected the folder of a training run")
    return {line["step"]: line["loss"] for line in _whole_lines(path)}


def _line(step: int, loss: float) -> str:
    return json.dumps({"step": step, "loss": loss}) + "\n"


def _keep_until(path: Path, step: int) -> None:
    """Drop later lines, and the one that a kill cut short; at once or not at all."""
    if not path.is_file():
        return
    kept = [_line(line["step"], line["loss"]) for line in _whole_lines(path) if line["step"] <= step]
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text("".join(kept))
    os.replace(temporary, path)


def _whole_lines(path: Path) -> list[dict[str, float]]:
    """All lines but a last one without its end. Raises UserError for a file of something else."""
    found = []
    for number, text in enumerate(path.read_text().splitlines(keepends=True), 1):
        if not text.endswith("\n"):
            break
        try:
            line = json.loads(text)
            found.append({"step": int(line["step"]), "loss": float(line["loss"])})
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}, line {number}: expected a step and its loss, got {text.strip()[:80]!r}; "
                "move that file away to go on without the losses before"
            ) from error
    return found
