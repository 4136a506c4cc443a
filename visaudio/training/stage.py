"""The small loop under the pretraining stages (codec, CLIP tower, Synchformer).

A stage is a module that holds everything that trains (heads that are dropped afterwards included) and
a function (step) -> (loss, scalars) that draws its own batch from (seed, step). The loop adds the
optimiser, a cosine learning rate, bf16 where the hardware has it, a progress bar with an estimate,
TensorBoard, checkpoints, resume.

The learning rate is a pure function of progress = max(step / steps, minutes / max_minutes): with
max_minutes = 0 a run is a function of (seed, steps) alone; a time budget makes it end on time anywhere.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from bi_audio_dataset.schema import UserError
from visaudio.precision import PRECISIONS, use_bf16
from visaudio.training.guards import StopSignal
from visaudio.training.optimizer import check_optimizer, make_optimizer

LossFunction = Callable[[int], tuple[Tensor, dict[str, Tensor]]]


@dataclass(frozen=True)
class LoopConfig:
    """Budget and optimiser of one stage: it ends at `steps` or after max_minutes (0: no time limit)."""

    steps: int = 10000
    max_minutes: float = 0.0
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-5
    warmup_steps: int = 200
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    optimizer: str = "muon"
    precision: str = "auto"
    seed: int = 0
    checkpoint_minutes: float = 3.0
    validate_minutes: float = 5.0
    log_every: int = 20

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UserError(f"precision is '{self.precision}', expected one of {', '.join(PRECISIONS)}")
        check_optimizer(self.optimizer)
        if self.steps < 1:
            raise UserError(f"steps is {self.steps}, expected at least 1")
        if not 0 < self.learning_rate < math.inf:
            raise UserError(f"learning_rate is {self.learning_rate}, expected a positive number")
        if self.seed < 0:
            raise UserError(f"seed is {self.seed}, expected at least 0")


def step_rng(seed: int, step: int, stream: int = 0) -> np.random.Generator:
    """The generator of one step: a resumed run draws what a straight run would have drawn."""
    return np.random.default_rng([seed, stream, step])


def learning_rate(config: LoopConfig, step: int, progress: float) -> float:
    """Linear warm-up over warmup_steps times a cosine down to final_learning_rate at progress 1."""
    low, high = config.final_learning_rate, config.learning_rate
    cosine = low + 0.5 * (high - low) * (1 + math.cos(math.pi * min(1.0, progress)))
    return cosine * min(1.0, (step + 1) / max(1, config.warmup_steps))


def run_stage(
    name: str,
    config: LoopConfig,
    module: nn.Module,
    loss_function: LossFunction,
    folder: Path,
    validate: Callable[[], dict[str, float]] | None = None,
    progress: bool = True,
) -> dict[str, float]:
    """Train `module` in place; returns the last validation's figures (empty without `validate`).

    Files under `folder`: checkpoint.pt while it runs (removed at the end), TensorBoard events, done.json. The
    module's weights are the caller's to save. A stage whose checkpoint.pt exists goes on from it. SIGINT and
    SIGTERM save checkpoint.pt after the step in hand, then raise KeyboardInterrupt.
    """
    folder.mkdir(parents=True, exist_ok=True)
    device = next(module.parameters()).device
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = make_optimizer(
        module, config.optimizer, config.learning_rate, config.betas, config.weight_decay
    )
    state = _resume(folder, module, optimizer)
    step, elapsed = state["step"], state["elapsed_s"]
    log = _Log(name, config, folder, step, progress)
    saved = validated = started = time.monotonic()
    base_elapsed, figures = elapsed, state["figures"]

    bf16 = use_bf16(config.precision)
    module.train()
    with StopSignal() as stop:
        while (fraction := _progress(config, step, elapsed)) < 1:
            # the CPU's flash attention is slow backwards in bf16: plain products take 0.6 of a step's time
            attention = sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()
            torch.manual_seed(config.seed * 1_000_003 + step)  # dropout and the like
            rate = learning_rate(config, step, fraction)
            for group in optimizer.param_groups:
                group["lr"] = rate
            with attention:
                with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                    loss, scalars = loss_function(step)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm)
            if torch.isfinite(norm):  # one bad batch must not end an hour's work
                optimizer.step()
            step += 1
            now = time.monotonic()
            elapsed = base_elapsed + now - started
            log.step(step, elapsed, loss, rate, norm, scalars, figures)
            if validate is not None and now - validated > 60 * config.validate_minutes:
                figures = _validate(validate, module, log, step)
                validated = time.monotonic()
            if now - saved > 60 * config.checkpoint_minutes:
                _save(folder, module, optimizer, step, elapsed, figures)
                saved = time.monotonic()
            if stop.asked:
                _save(folder, module, optimizer, step, elapsed, figures)
                log.close()
                raise KeyboardInterrupt

    if validate is not None:
        figures = _validate(validate, module, log, step)
    module.eval()
    _save(folder, module, optimizer, step, elapsed, figures)
    log.close()
    return figures


def finish(folder: Path, figures: dict[str, float], config: object) -> None:
    """Mark the stage as done, after its weights are saved: done.json in, checkpoint.pt out."""
    settings = asdict(config) if is_dataclass(config) else {}
    text = json.dumps({"figures": figures, "config": settings}, indent=1, default=str)
    (folder / "done.json").write_text(text + "\n")
    (folder / "checkpoint.pt").unlink(missing_ok=True)


def finished(folder: Path) -> dict[str, float] | None:
    """The figures of a finished stage, or None."""
    path = folder / "done.json"
    return json.loads(path.read_text())["figures"] if path.is_file() else None


def _progress(config: LoopConfig, step: int, elapsed_s: float) -> float:
    timed = elapsed_s / (60 * config.max_minutes) if config.max_minutes > 0 else 0.0
    return max(step / config.steps, timed)


def _validate(validate, module: nn.Module, log: _Log, step: int) -> dict[str, float]:
    module.eval()
    with torch.no_grad():
        figures = validate()
    module.train()
    log.figures(step, figures)
    return figures


def _save(folder: Path, module: nn.Module, optimizer, step: int, elapsed_s: float, figures: dict) -> None:
    state = {
        "module": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "elapsed_s": elapsed_s,
        "figures": figures,
    }
    torch.save(state, folder / "checkpoint.tmp")
    (folder / "checkpoint.tmp").replace(folder / "checkpoint.pt")


def _resume(folder: Path, module: nn.Module, optimizer) -> dict:
    path = folder / "checkpoint.pt"
    if not path.is_file():
        return {"step": 0, "elapsed_s": 0.0, "figures": {}}
    state = torch.load(path, map_location="cpu", weights_only=True)
    try:
        module.load_state_dict(state["module"])
    except RuntimeError as error:
        raise UserError(
            f"{path} was written by another configuration: remove it, or choose another output"
        ) from error
    optimizer.load_state_dict(state["optimizer"])
    return state


class _Log:
    """Progress bar and TensorBoard; reads losses from the device only every log_every steps."""

    def __init__(self, name: str, config: LoopConfig, folder: Path, step: int, progress: bool) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from tqdm import tqdm

        self.name, self.config = name, config
        self.writer = SummaryWriter(str(folder))
        self.total_s = 60 * config.max_minutes if config.max_minutes > 0 else math.inf
        self.bar = tqdm(
            total=config.steps, initial=step, desc=name, unit="step", disable=not progress, mininterval=2
        )

    def step(self, step, elapsed_s, loss, rate, norm, scalars, figures) -> None:
        self.bar.update(1)
        if step % self.config.log_every and step != 1:
            return
        values = {"loss": loss, "grad_norm": norm, **scalars}
        values = {key: float(torch.as_tensor(value).detach()) for key, value in values.items()}
        for key, value in values.items():
            self.writer.add_scalar(f"{self.name}/{key}", value, step)
        self.writer.add_scalar(f"{self.name}/learning_rate", rate, step)
        per_step = elapsed_s / max(1, step)
        left_s = min(per_step * (self.config.steps - step), self.total_s - elapsed_s)
        note = {"loss": f"{values['loss']:.4f}", "left": f"{max(0.0, left_s) / 60:.1f}min"}
        self.bar.set_postfix({**note, **{key: f"{value:.3f}" for key, value in list(figures.items())[:3]}})

    def figures(self, step: int, figures: dict[str, float]) -> None:
        for key, value in figures.items():
            self.writer.add_scalar(f"{self.name}/validation/{key}", value, step)
        text = ", ".join(f"{key} {value:.4g}" for key, value in figures.items())
        self.bar.write(f"{self.name} step {step}: {text}")

    def close(self) -> None:
        self.bar.close()
        self.writer.close()
