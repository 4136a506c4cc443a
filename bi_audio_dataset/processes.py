"""Units in processes of this machine, any of which may die (executors.py says what units are to an
executor)."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from typing import TYPE_CHECKING, Any

from bi_audio_dataset.schema import UserError

if TYPE_CHECKING:  # what is run is the work's own affair: this file needs only `task` and `crashed` of it
    from bi_audio_dataset.unit import Work

Rows = list[dict[str, Any]]
Result = tuple[str, Rows]

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
#: One thread a worker, set before numpy loads: the number changes the last bits of linear algebra.
ONE_THREAD = {name: "1" for name in THREAD_VARIABLES}
#: How often a worker may die in a row before it has started at all.
STARTS = 3
#: Exit code of a worker that ran out of memory by Python's own account.
NO_MEMORY = 77


@dataclass(frozen=True)
class Local:
    """Processes of this machine, each with one thread. One that dies hard (a fault in a decoder, the kernel's
    memory killer) is replaced; its recording is tried once more in the fresh one, then goes into
    quarantine."""

    workers: int = 1

    def run(self, work: Work, recording_ids: Sequence[str]) -> Iterator[Result]:
        queue, died, failed_starts = deque(recording_ids), {}, 0
        workers = {_Worker(work) for _ in range(min(max(1, self.workers), len(queue)))}
        try:
            while workers:
                for worker in [w for w in workers if w.idle]:
                    if worker.reserved is not None or queue:
                        worker.give(worker.reserved or queue.popleft())
                    else:
                        worker.close()
                        workers.remove(worker)
                for worker in _heard(workers):
                    kind, unit, value = worker.receive()
                    if kind == "started":
                        failed_starts = 0
                    elif kind == "raised":
                        raise value
                    elif kind == "made":
                        yield unit, value
                    else:
                        workers.remove(worker)
                        again = worker.reserved
                        if not worker.started:
                            failed_starts += 1
                            if failed_starts == STARTS:
                                raise UserError(
                                    f"worker processes die before they have started ({value}): what they "
                                    "said stands above; fewer workers need less memory"
                                )
                        elif unit in died:
                            yield unit, work.crashed(unit, _twice(died.pop(unit), value))
                        elif unit is not None:
                            died[unit], again = value, unit
                        if again is not None or len(workers) < len(queue):
                            workers.add(_Worker(work, again))
        finally:
            for worker in workers:
                worker.kill()


def _twice(first: str, second: str) -> str:
    whys = first if first == second else f"{first}, then {second}"
    return f"the worker process died twice on this recording ({whys})"


def _heard(workers: set[_Worker]) -> list[_Worker]:
    """Those that have something to say, or have died; waits until there is one."""
    by_pipe = {worker.pipe: worker for worker in workers}
    return [by_pipe[pipe] for pipe in connection.wait(list(by_pipe))] if by_pipe else []


class _Worker:
    """A process that makes one unit at a time. A pipe of its own for each: the death of one disturbs no
    other, and which recording it was is known."""

    def __init__(self, work: Work, reserved: str | None = None) -> None:
        """reserved: the recording that it is to be given first."""
        # spawn: no forked threads or decoder state; and the thread settings are read before numpy loads
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work), name="bi_audio_dataset worker")
        with _environment(ONE_THREAD):
            self.process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        self.started, self.unit, self.reserved = False, None, reserved

    @property
    def idle(self) -> bool:
        return self.started and self.unit is None

    def give(self, recording_id: str) -> None:
        self.unit, self.reserved = recording_id, None
        with contextlib.suppress(OSError):  # it has died: `receive` will say so
            self.pipe.send(recording_id)

    def receive(self) -> tuple[str, str | None, Any]:
        """(what happened, recording id, value): "started"; "made" and the rows; "raised" and what was raised;
        "died" and why."""
        try:
            kind, value = self.pipe.recv()
        except (EOFError, OSError):
            return "died", self.unit, self._why_dead()
        self.started = True
        unit, self.unit = self.unit, None
        return kind, unit, pickle.loads(value) if kind == "raised" else value

    def _why_dead(self) -> str:
        self.process.join(10)
        code = self.process.exitcode
        self.kill()
        if code is None:
            return "it closed its pipe"
        if code == NO_MEMORY:
            return "out of memory"
        if code >= 0:
            return f"exit code {code}"
        with contextlib.suppress(ValueError):
            name = signal.Signals(-code).name
            return f"{name}: out of memory?" if name == "SIGKILL" else name
        return f"signal {-code}"

    def close(self) -> None:
        """Let it end by itself."""
        self.pipe.close()
        self.process.join(10)
        self.kill()

    def kill(self) -> None:
        self.pipe.close()
        if self.process.is_alive():
            self.process.kill()
        self.process.join()


def _serve(pipe: connection.Connection, work: Work) -> None:
    """A worker's whole life."""
    start_process()
    try:
        task = work.task(alone=True)
        pipe.send(("started", None))
        while True:
            try:
                recording_id = pipe.recv()
            except (EOFError, OSError):
                return
            pipe.send(("made", task(recording_id)))
    except MemoryError:
        os._exit(NO_MEMORY)  # like the kernel's killer: a fresh process, then quarantine
    except Exception as error:
        with contextlib.suppress(OSError):  # nobody listens any more
            pipe.send(("raised", _pickled(error)))


def _pickled(error: Exception) -> bytes:
    try:
        data = pickle.dumps(error)
        pickle.loads(data)
        return data
    except Exception:
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"))


def start_process() -> None:
    """What holds in every worker process of a machine."""
    # Ctrl-C reaches the whole group; parts appear whole, so a worker may stop anywhere
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    parent = multiprocessing.parent_process()
    if parent is not None:
        # a killed parent must not leave workers at their unit for ever
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
