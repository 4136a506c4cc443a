"""The averaged weights of the best validation so far, by one of its figures.

Below the flow stage: best/model.safetensors, which carries its step and figures with it and is put in its
place by one rename, and best/figures.json, the same for people. A kill or a full disk leaves the former best
whole. A resumed run finds it again; where it validates a step a second time, equal figures change nothing.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bi_audio_dataset.schema import UserError
from visaudio.training.progress import say

WEIGHTS = "model.safetensors"
FIGURES = "figures.json"

# (network, step, writer) -> figures, as loop.train calls it
Validation = Callable[[nn.Module, int, Any], dict[str, float]]


@dataclass(frozen=True)
class Record:
    """Which validation the kept weights are of. figures: all of its own, `metric` among them."""

    step: int
    metric: str
    figures: dict[str, float]


class BestWeights:
    """The best so far in ``folder``. higher: whether more of ``metric`` is better."""

    def __init__(self, folder: Path, metric: str, higher: bool) -> None:
        self.folder, self.metric, self.higher = Path(folder), metric, higher
        self.record = read_record(self.folder)
        if self.record is not None and self.record.metric != metric:
            say(
                f"flow: the best weights so far, of step {self.record.step}, were chosen by "
                f"{self.record.metric}; from here on {metric} decides"
            )

    def offer(self, network: nn.Module, step: int, figures: Mapping[str, float]) -> bool:
        """Keep the weights if their figure is better than the best so far. A figure that is missing or not
        finite never is."""
        value = figures.get(self.metric, math.nan)
        best = math.nan if self.record is None else self.record.figures.get(self.metric, math.nan)
        if not math.isfinite(value):
            return False
        if math.isfinite(best) and not (value > best if self.higher else value < best):
            return False
        finite = {name: float(number) for name, number in figures.items() if math.isfinite(number)}
        self.record = Record(step, self.metric, finite)
        _save(self.folder, network.state_dict(), self.record)
        say(f"flow: best {self.metric} so far, {value:.4g}; its weights are in {self.folder}")
        return True


class KeepBest:
    """A validation that also offers the weights that it looked at; for ``loop.train``."""

    def __init__(self, validate: Validation, best: BestWeights) -> None:
        self.validate, self.best = validate, best

    def __call__(self, network: nn.Module, step: int, writer: Any) -> dict[str, float]:
        figures = self.validate(network, step, writer)
        self.best.offer(network, step, figures)
        return figures


def read_record(folder: Path) -> Record | None:
    """What is said of the weights in ``folder``; None where there are none."""
    path = Path(folder) / WEIGHTS
    return _open(path, lambda file: _record(file.metadata())) if path.is_file() else None


def load_best(folder: Path) -> tuple[dict[str, Tensor], Record]:
    """The kept weights and what is said of them. Raises UserError where there are none."""
    path = Path(folder) / WEIGHTS
    if not path.is_file():
        raise UserError(
            f"no best weights in {folder}: no validation of this run gave a figure to choose by; export with "
            "flow.export=average"
        )

    def read(file: Any) -> tuple[dict[str, Tensor], Record]:
        return {name: file.get_tensor(name) for name in file.keys()}, _record(file.metadata())

    return _open(path, read)


def _record(said: Mapping[str, str]) -> Record:
    return Record(int(said["step"]), said["metric"], json.loads(said["figures"]))


def _open(path: Path, read: Callable[[Any], Any]) -> Any:
    from safetensors import safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            return read(file)
    except Exception as error:  # safetensors, json and a dict without the key each raise their own kinds
        raise UserError(
            f"{path} cannot be read ({error}); remove the folder {path.parent} to go on without it"
        ) from error


def _save(folder: Path, weights: Mapping[str, Tensor], record: Record) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    said = {"step": str(record.step), "metric": record.metric, "figures": json.dumps(record.figures)}
    plain = {name: value.detach().cpu().clone().contiguous() for name, value in weights.items()}
    text = json.dumps(asdict(record), indent=1) + "\n"
    _put(folder / WEIGHTS, lambda path: save_file(plain, path, said))
    _put(folder / FIGURES, lambda path: path.write_text(text))


def _put(path: Path, write: Callable[[Path], Any]) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(beside)
        beside.chmod(0o644)
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
