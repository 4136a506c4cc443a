"""Where the time of a training step goes, seen from outside: the real loop runs, its parts are timed by name.

`watch` puts a clock and a profiler's mark around the functions that the loop calls (PARTS); the loop itself
knows nothing of it. Host waits are counted twice: by the profiler in a real run, and, for a GPU that is not
there, by following the network on fake tensors (`waits_of_forward`).
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from visaudio.model.network import NetworkConfig
from visaudio.sequence import SequenceConfig
from visaudio.training.cost import example_batch, fresh_tables, network_on, step_loss
from visaudio.training.kept_memory import autocast, flash_attention

LOOP = "visaudio.training.loop"
STEP_DONE = ("visaudio.training.run_state", "RunState.advance")
LOADER_THREAD = "loader thread"
# what the loop calls -> the part of the step that it is counted as; none of them calls another
PARTS: tuple[tuple[str, str, str], ...] = (
    ("visaudio.training.batches", "BatchStream.get", "waiting for the loader"),
    ("visaudio.training.batches", "Batch.to", "to the device"),
    (LOOP, "batch_losses", "forward"),
    ("accelerate", "Accelerator.backward", "backward"),
    ("accelerate", "Accelerator.clip_grad_norm_", "clipping"),
    ("accelerate.optimizer", "AcceleratedOptimizer.step", "optimizer"),
    ("accelerate.optimizer", "AcceleratedOptimizer.zero_grad", "optimizer"),
    ("visaudio.training.ema", "TrackedEma.update", "averages"),
    ("visaudio.training.guards", "FiniteGuard.add", "guard against NaN"),
    ("visaudio.training.guards", "FiniteGuard.check", "guard against NaN"),
    ("visaudio.training.trackers", "Trackers.log", "logging"),
    ("visaudio.training.progress", "Progress.report", "logging"),
    ("visaudio.training.progress", "Progress.advance", "logging"),
)
OTHER = "the loop's own lines"
MARK = "part: "
# operations that make the host wait for a number, or for a size; and CUDA's own words for waiting
WAITS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::_unique2")
CUDA_WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


class Clock:
    """Seconds by part over the counted steps. The first `skip` steps are not counted: they warm up."""

    def __init__(self, skip: int) -> None:
        self.skip, self.done = skip, 0
        self.seconds: Counter[str] = Counter()
        self.loader_cpu_s = 0.0
        self._began: float | None = time.perf_counter() if skip == 0 else None
        self._ended = 0.0

    def add(self, part: str, seconds: float) -> None:
        if self._began is not None:
            self.seconds[part] += seconds

    def step_done(self) -> None:
        self.done += 1
        self._ended = time.perf_counter()
        if self.done == self.skip:
            self._began = self._ended

    @property
    def steps(self) -> int:
        return self.done - self.skip

    @property
    def seconds_per_step(self) -> float:
        return (self._ended - self._began) / self.steps

    def shares(self) -> dict[str, float]:
        """Part -> share of the step; what no part accounts for is OTHER. They add up to 1."""
        whole = self.seconds_per_step * self.steps
        found = {part: self.seconds[part] / whole for part in dict.fromkeys(p for _, _, p in PARTS)}
        return {**found, OTHER: 1.0 - sum(found.values())}


@contextlib.contextmanager
def watch(skip: int = 0) -> Iterator[Clock]:
    """Inside, the parts of every training loop are timed. AttributeError where one is not there any more."""
    clock = Clock(skip)
    with contextlib.ExitStack() as undo:
        for module, path, part in PARTS:
            undo.enter_context(replaced(module, path, functools.partial(_timed, clock, part)))
        undo.enter_context(replaced(*STEP_DONE, functools.partial(_then, clock.step_done)))
        make = functools.partial(_thread_timed, clock)
        undo.enter_context(replaced("visaudio.training.batches", "BatchStream.make", make))
        yield clock


@contextlib.contextmanager
def replaced(module: str, path: str, wrap: Callable[[Callable], Callable]) -> Iterator[None]:
    """Inside, the function at `path` of `module` is wrap(function)."""
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    original = getattr(owner, name)
    setattr(owner, name, wrap(original))
    try:
        yield
    finally:
        setattr(owner, name, original)


def _timed(clock: Clock, part: str, function: Callable) -> Callable:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        with record_function(MARK + part):
            result = function(*args, **kwargs)
        clock.add(part, time.perf_counter() - began)
        return result

    return call


def _then(action: Callable[[], None], function: Callable) -> Callable:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        action()
        return result

    return call


def _thread_timed(clock: Clock, function: Callable) -> Callable:
    """The loader's own work, in CPU time of the thread that does it."""
    lock = threading.Lock()

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        began = time.thread_time()
        with record_function(MARK + LOADER_THREAD):
            result = function(*args, **kwargs)
        with lock:
            if clock._began is not None:
                clock.loader_cpu_s += time.thread_time() - began
        return result

    return call


# --- host waits ---


def waits_by_part(seen: profile, steps: int) -> dict[str, float]:
    """'part: operation' -> how often a step, in a profiled run of `steps` steps under `watch`."""
    found: Counter[str] = Counter()
    for event in seen.events():
        if event.name in (*WAITS, *CUDA_WAITS):
            found[f"{_part_of(event)}: {event.name.removeprefix('aten::')}"] += 1
    return {name: count / steps for name, count in found.most_common()}


def _part_of(event: Any) -> str:
    while event is not None:
        if event.name.startswith(MARK):
            return event.name.removeprefix(MARK)
        event = event.cpu_parent
    return OTHER


class Wait(NamedTuple):
    """An operation after which the host waits for the device, and the shape of what it moves or asks."""

    operation: str
    shape: tuple[int, ...]


class HostWaits(TorchDispatchMode):
    """Collects what would make the host wait for an accelerator: copies between it and the host's pageable
    memory, numbers and sizes that depend on values.
    """

    ASKING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "is_nonzero", "equal")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Wait] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.split(".")[0]
        tensors = [a for a in tree_leaves((args, kwargs)) if isinstance(a, Tensor)]
        if name in self.ASKING and any(t.device.type != "cpu" for t in tensors):
            self.found.append(Wait(name, tuple(tensors[0].shape)))
        result = func(*args, **(kwargs or {}))
        if name in ("_to_copy", "copy_"):
            kinds = {t.device.type for t in (*tensors, *tree_leaves(result)) if isinstance(t, Tensor)}
            if len(kinds) > 1 and not (kwargs or {}).get("non_blocking", False):
                self.found.append(Wait(name, tuple(tensors[-1].shape)))
        return result


def waits_of_forward(config: NetworkConfig, sequence: SequenceConfig, batch: int = 2) -> list[Wait]:
    """Of the second forward pass and loss on a GPU that need not be there; the first makes the tables."""
    with FakeTensorMode(), fresh_tables(), flash_attention(True):
        network = network_on("cuda", config)
        data, t, conditions = example_batch(config, sequence, batch, "cuda")
        for _ in range(2):
            with HostWaits() as waits, autocast("cuda", True):
                step_loss(network, data, t, conditions)
        return waits.found
