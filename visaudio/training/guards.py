"""What stops a run: a loss that is not finite, or a signal."""

import signal
from collections.abc import Sequence
from types import FrameType

import torch
from torch import Tensor


class FiniteGuard:
    """Remembers the losses per sample since the last look, and names the samples if one is not finite.

    Looking at a number waits for an accelerator, so it looks every ``every`` optimizer steps, and always
    when forced (before a checkpoint: no checkpoint holds weights that a bad loss has touched).
    """

    def __init__(self, every: int = 1):
        self.every = every
        self._seen: list[tuple[int, Sequence[str], Tensor]] = []
        self._steps: set[int] = set()

    def add(self, step: int, ids: Sequence[str], losses: Tensor) -> None:
        self._seen.append((step, ids, losses))
        self._steps.add(step)

    def check(self, grad_norm: Tensor, force: bool = False) -> None:
        """Raise FloatingPointError where a loss, or the gradient, is not finite."""
        if not force and len(self._steps) < self.every:
            return
        bad = [
            (step, sample_id, float(loss))
            for step, ids, losses in self._seen
            if not torch.isfinite(losses).all()
            for sample_id, loss in zip(ids, losses.tolist(), strict=True)
            if not torch.isfinite(torch.tensor(loss))
        ]
        if bad:
            listed = ", ".join(
                f"{sample_id} (step {step}, loss {loss})" for step, sample_id, loss in bad[:16]
            )
            raise FloatingPointError(
                f"the loss is not finite for {listed}; look at these clips' features, "
                "or lower the learning rate"
            )
        if not torch.isfinite(torch.as_tensor(grad_norm)).all():
            ids = sorted({sample_id for _, names, _ in self._seen for sample_id in names})
            raise FloatingPointError(
                "the gradient is not finite though every loss is; "
                f"clips of these steps: {', '.join(ids[:32])}"
            )
        self._seen.clear()
        self._steps.clear()


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
