"""Where a run stands: its step, its length, its settings; saved in checkpoints and checked on resume."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn

from bi_audio_dataset.schema import UserError, reason_of
from visaudio.training.checkpoint import Checkpoint, list_checkpoints, load_checkpoint, save_checkpoint
from visaudio.training.ema import TrackedEma
from visaudio.training.optimizer import load_whole_state, unwrapped
from visaudio.training.processes import on_first, put_together

if TYPE_CHECKING:
    from visaudio.training.loop import FlowLoopConfig

# What may differ between a run and its continuation; a new steps or max_minutes sets a new length.
LENGTH_KEYS = ("steps", "max_minutes", "calibration_steps")
FREE_KEYS = (
    *LENGTH_KEYS,
    *("log_every", "validate_every", "checkpoint_minutes", "keep_checkpoints", "trackers"),
    *("loader_workers", "prefetch", "accumulation", "activation_checkpointing", "compile"),
)
SPARE_TIME = 0.05  # share of a time budget left for validation and checkpoints


class RunState:
    """step: optimizer steps done; total_steps: length of the run (provisional until a time budget is
    timed).
    """

    def __init__(self, config: "FlowLoopConfig", seed: int, ids: Sequence[str], folder: Path):
        self.config, self.seed, self.folder = config, seed, Path(folder)
        self.data = hashlib.blake2b("\n".join(ids).encode(), digest_size=8).hexdigest()
        self.step = 0
        self.total_steps = config.steps
        self.elapsed_s = 0.0
        self._settings = json.loads(json.dumps(asdict(config)))
        self._fixed = config.max_minutes <= 0
        self._began = time.monotonic()
        self._timing: tuple[int, float] | None = None
        self._first_step = 0
        self._optimizer_state: dict[str, Any] | None = None
        self._before: dict[str, Any] = {}

    @property
    def snapshot_every(self) -> int:
        return max(1, self.total_steps // max(1, self.config.ema.snapshots))

    def advance(self) -> None:
        self.step += 1

    def fix_length(self) -> bool:
        """With a time budget: time the calibration steps (without the first few, which warm up), then set the
        length for good. True at the step where it was set.
        """
        if self._fixed:
            return False
        done = self.step - self._first_step
        if self._timing is None:
            if done >= min(5, self.config.calibration_steps - 1):
                self._timing = (self.step, time.monotonic())
            return False
        if done < self.config.calibration_steps:
            return False
        seconds = (time.monotonic() - self._timing[1]) / (self.step - self._timing[0])
        left = 60 * self.config.max_minutes - self.elapsed_s - (time.monotonic() - self._began)
        fitting = self.step + max(1, int((1 - SPARE_TIME) * left / seconds))
        self.total_steps = broadcast_object_list([min(self.config.steps, fitting)])[0]
        self._fixed = True
        return True

    def resume(self, network: nn.Module, ema: TrackedEma) -> None:
        """Go on from the newest checkpoint, if there is one: weights and averages, whole, before they are
        shared out. Raises UserError where its settings are others.
        """
        found = list_checkpoints(self.folder)
        if not found:
            return
        checkpoint = load_checkpoint(found[-1])
        state = checkpoint.state
        self._refuse_other_run(found[-1], state)
        try:
            network.load_state_dict(checkpoint.network)
            ema.load_state_dict(checkpoint.ema)
        except RuntimeError as error:
            raise UserError(
                f"{found[-1]} holds another network ({reason_of(error)}); choose another "
                "output folder, or remove this one"
            ) from error
        self._optimizer_state = checkpoint.optimizer
        self.step = self._first_step = state["step"]
        self.elapsed_s = state["elapsed_s"]
        self._before = state.get("arithmetic", {})
        if all(state["config"].get(key) == self._settings[key] for key in LENGTH_KEYS):
            self.total_steps, self._fixed = state["total_steps"], state["length_fixed"]
        else:  # never shorter than what is done
            self.total_steps = max(self.step, self.total_steps)

    def resume_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """The rest of :meth:`resume`, once the optimizer is prepared for its processes."""
        if self._optimizer_state is not None:
            load_whole_state(optimizer, self._optimizer_state)
            self._optimizer_state = None

    def what_changes(self, accelerator: Accelerator) -> str:
        """One line where this run's sums are taken in another order than before its checkpoint; else ''."""
        now = self._arithmetic(accelerator)
        changed = [
            f"{name} {self._before[name]} -> {now[name]}"
            for name in now
            if name in self._before and self._before[name] != now[name]
        ]
        if not changed:
            return ""
        return (
            f"{', '.join(changed)}: every step sees the samples, noise, times and dropped conditions that it "
            "would have seen, but sums are taken in another order, so that the last bits differ"
        )

    def _arithmetic(self, accelerator: Accelerator) -> dict[str, Any]:
        """What decides the order of sums but not what is summed."""
        kind = "fsdp2" if accelerator.is_fsdp2 else "ddp" if accelerator.num_processes > 1 else "one"
        return {
            "processes": accelerator.num_processes,
            "weights": {"fsdp2": "shared out", "ddp": "whole", "one": "whole"}[kind],
            "accumulation": self.config.accumulation,
            "compile": self.config.compile,
            "device": accelerator.device.type,
            "threads": torch.get_num_threads() if accelerator.device.type == "cpu" else 0,
        }

    def save(
        self,
        accelerator: Accelerator,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        ema: TrackedEma,
    ) -> None:
        """Write a checkpoint of this moment. All processes call it, the first one writes; where it cannot,
        all end.
        """
        now = time.monotonic()
        self.elapsed_s, self._began = self.elapsed_s + now - self._began, now
        state = {
            "step": self.step,
            "total_steps": self.total_steps,
            "length_fixed": self._fixed,
            "elapsed_s": self.elapsed_s,
            "seed": self.seed,
            "data": self.data,
            "config": self._settings,
            "arithmetic": self._arithmetic(accelerator),
        }
        keep = accelerator.is_main_process
        parts = [put_together(part.state_dict(), keep) for part in (network, ema, unwrapped(optimizer))]
        checkpoint, kept = Checkpoint(*parts, state), self.config.keep_checkpoints
        on_first(accelerator, save_checkpoint, self.folder, checkpoint, kept)

    def _refuse_other_run(self, path: Path, state: dict[str, Any]) -> None:
        before = {"seed": state["seed"], "training clips": state["data"], **state["config"]}
        now = {"seed": self.seed, "training clips": self.data, **self._settings}
        changed = sorted(key for key in now if key not in FREE_KEYS and before.get(key) != now[key])
        if changed:
            raise UserError(
                f"{path} belongs to a run with other settings ({', '.join(changed)}); "
                "choose another output folder, or remove this one"
            )
