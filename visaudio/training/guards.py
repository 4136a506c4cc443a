"""What stops a run: a loss that is not finite, or a signal."""

import signal
from collections.abc import Sequence
from types import FrameType

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from visaudio.training.processes import any_process

MOST_NAMED = 16


class FiniteGuard:
    """Remembers the losses per sample since the last look, and names the samples if one is not finite.

    Looking at a number waits for an accelerator, and for the other processes, so it looks every ``every``
    optimizer steps, and always when forced (before a checkpoint: no checkpoint holds weights that a bad loss
    has touched). What is named belongs to the first bad step: after it every loss is bad.
    """

    def __init__(self, every: int = 1, accelerator: Accelerator | None = None):
        self.every = every
        self._accelerator = accelerator
        self._seen: list[tuple[int, Sequence[str], Tensor]] = []
        self._norms: dict[int, Tensor] = {}

    def add(self, step: int, ids: Sequence[str], losses: Tensor) -> None:
        self._seen.append((step, ids, losses))

    def check(self, grad_norm: Tensor, force: bool = False) -> None:
        """Take note of the newest step's gradient. Where it is time, raise FloatingPointError if a loss or a
        gradient is not finite; of several processes all end then, the first with the error.
        """
        if self._seen:
            self._norms[self._seen[-1][0]] = torch.as_tensor(grad_norm)
        if not self._norms or (not force and len(self._norms) < self.every):
            return
        step = self._first_bad_step()
        if self._any(step is not None):
            self._stop(step)
        self._seen.clear()
        self._norms.clear()

    def _first_bad_step(self) -> int | None:
        """The earliest step in which a loss of this process, or the gradient, is not finite."""
        totals: dict[int, Tensor] = {step: norm.float() for step, norm in self._norms.items()}
        for step, _, losses in self._seen:  # one sum for each step: not finite if any of its terms is not
            totals[step] = totals.get(step, losses.new_zeros(())) + (losses.float() * 0).sum()
        finite = torch.stack(list(totals.values())).isfinite().tolist()
        return min((step for step, fine in zip(totals, finite, strict=True) if not fine), default=None)

    def _stop(self, step: int | None) -> None:
        several = self._accelerator is not None and self._accelerator.num_processes > 1
        steps = gather_object([step]) if several else [step]
        first = min(one for one in steps if one is not None)
        bad, ids = [], []
        for seen, names, losses in self._seen:
            if seen == first:
                ids += names
                bad += [
                    f"{name} (step {first}, loss {loss})"
                    for name, loss in zip(names, losses.tolist(), strict=True)
                    if not torch.isfinite(torch.tensor(loss))
                ]
        if several:
            bad, ids = gather_object(bad), gather_object(ids)
            if not self._accelerator.is_main_process:
                raise SystemExit(2)
        if bad:
            raise FloatingPointError(
                f"the loss is not finite for {_listed(bad)}; look at these clips' features, or lower the "
                "learning rate; the last checkpoint is from before"
            )
        raise FloatingPointError(
            f"the gradient is not finite at step {first} though every loss is; clips of that step: "
            f"{_listed(sorted(ids))}"
        )

    def _any(self, flag: bool) -> bool:
        return flag if self._accelerator is None else any_process(self._accelerator, flag)


def _listed(items: Sequence[str]) -> str:
    more = f" and {len(items) - MOST_NAMED} more" if len(items) > MOST_NAMED else ""
    return ", ".join(items[:MOST_NAMED]) + more


class StopSignal:
    """Inside: SIGINT and SIGTERM set ``asked`` instead of ending the process; a second SIGINT interrupts
    at once.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopSignal":
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        except ValueError:  # not the main thread: signals are someone else's
            pass
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True
