"""Who runs the units of a build: this process, processes of this machine, or a Ray cluster.

All of them take the same units (unit.py) and yield (recording id, its manifest rows) as they finish, in any
order. Units are pure and write their part whole or not at all, so running one twice does no harm; hence the
answer to a process that dies is to run its unit again, and if that kills another one, quarantine.

What a unit raises is the machine's fault, not the recording's (a full disk, say), and stops the build; what
is wrong with a recording comes back as a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from bi_audio_dataset.processes import Local, Result
from bi_audio_dataset.ray_cluster import RayExecutor
from bi_audio_dataset.schema import UserError

if TYPE_CHECKING:
    from bi_audio_dataset.unit import Work

NAMES = ("local", "ray")


class Executor(Protocol):
    def run(self, work: Work, recording_ids: Sequence[str]) -> Iterator[Result]:
        """Each recording's rows, once each, in any order. Leaving the iterator stops the work."""
        ...


def choose(name: str = "local", workers: int | None = None, address: str | None = None) -> Executor:
    """The executor of a command line. UserError for what does not go together."""
    if name == "ray":
        return RayExecutor(address, workers)
    if name != "local":
        raise UserError(f"there is no executor '{name}': expected one of {', '.join(NAMES)}")
    if address is not None:
        raise UserError("--address is a Ray cluster's: add --executor ray or leave it out")
    return Local(1 if workers is None else workers)


@dataclass(frozen=True)
class Inline:
    """In this process, with its own thread settings; what kills a unit kills the build."""

    def run(self, work: Work, recording_ids: Sequence[str]) -> Iterator[Result]:
        task = work.task()
        for recording_id in recording_ids:
            yield recording_id, task(recording_id)
