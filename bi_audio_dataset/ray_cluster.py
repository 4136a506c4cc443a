"""Units on a Ray cluster (executors.py says what units are to an executor)."""

from __future__ import annotations

import importlib
import os
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bi_audio_dataset.processes import NO_MEMORY, ONE_THREAD, Result, Rows
from bi_audio_dataset.schema import UserError

if TYPE_CHECKING:
    from bi_audio_dataset.unit import Task, Work


@dataclass(frozen=True)
class RayExecutor:
    """Tasks of a Ray cluster, one CPU each. Ray places them, and runs those again that a node or a process
    took with it when it died (its max_retries); what dies each time goes into quarantine.

    address: as `ray.init` takes it ("auto", "ray://head:10001", "10.0.0.1:6379"); None is RAY_ADDRESS or a
    Ray of this machine alone. workers: units that may run or wait at a time; None is twice the cluster's
    CPUs, as it grows or shrinks. Every node needs this package, and the source's files, the SOFA file and the
    parts' address at the same place.
    """

    address: str | None = None
    workers: int | None = None
    retries: int = 3

    def run(self, work: Work, recording_ids: Sequence[str]) -> Iterator[Result]:
        ray = _ray()
        work = replace(work, scratch=None)  # each node has its own
        ours = not ray.is_initialized()
        if ours:
            self._connect(ray)
        pending: dict[Any, str] = {}
        try:
            shared, token, queue = ray.put(work), uuid.uuid4().hex, deque(recording_ids)
            unit = ray.remote(
                num_cpus=1,
                max_retries=self.retries,
                scheduling_strategy="SPREAD",
                runtime_env={"env_vars": ONE_THREAD},
            )(_unit_on_ray)
            while queue or pending:
                while queue and len(pending) < self._most(ray):
                    recording_id = queue.popleft()
                    pending[unit.remote(shared, token, recording_id)] = recording_id
                (done,), _ = ray.wait(list(pending), num_returns=1)
                recording_id = pending.pop(done)
                yield recording_id, self._rows(ray, work, recording_id, done)
        finally:
            for reference in pending:
                ray.cancel(reference)
            if ours:
                ray.shutdown()

    def _connect(self, ray: Any) -> None:
        try:
            # a Ray client (ray://) takes no options
            far = self.address is not None and self.address.startswith("ray://")
            ray.init(address=self.address, **({} if far else {"log_to_driver": False}))
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            why = " ".join(str(error).split())[:200]
            where = self.address or "this machine"
            raise UserError(f"no Ray at '{where}' ({why}): check --address") from None

    def _most(self, ray: Any) -> int:
        return self.workers or max(2, 2 * int(ray.cluster_resources().get("CPU", 1)))

    def _rows(self, ray: Any, work: Work, recording_id: str, done: Any) -> Rows:
        errors = ray.exceptions
        try:
            rows = ray.get(done)
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError) as error:
            why = f"{type(error).__name__} on each of {self.retries + 1} tries"
            return work.crashed(recording_id, why)
        except errors.RayTaskError as error:  # the unit raised: that stops the build
            if isinstance(error.cause, (UserError, OSError)):
                raise error.cause from None
            why = f"{type(error.cause).__name__}: {' '.join(str(error.cause).split())[:300]}"
            raise UserError(
                f"a Ray worker failed on '{recording_id}' ({why}): is the same version of this package "
                "installed on every node?"
            ) from error
        except errors.RayError as error:
            why = " ".join(str(error).split())[:300]
            raise UserError(f"Ray could not run '{recording_id}' ({why}): see Ray's logs") from None
        if rows[0]["decision"] == "built" and not work.parts.exists(recording_id):
            raise UserError(
                f"the part of '{recording_id}' is not at '{work.parts.address}' as this machine sees it: "
                "give --parts a place that all nodes share (s3://BUCKET/parts, or a mounted folder)"
            )
        return rows


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise UserError("--executor ray needs Ray: pip install 'visaudio[ray]'") from None


_held: tuple[str, Task] | None = None


def _unit_on_ray(work: Work, token: str, recording_id: str) -> Rows:
    """A Ray task. A process keeps the Task of the build (token) that it last worked for."""
    global _held
    try:
        if _held is None or _held[0] != token:
            _held = token, work.task(alone=True)
        return _held[1](recording_id)
    except MemoryError:
        os._exit(NO_MEMORY)  # as if the kernel had: Ray's retries, in a fresh process
