"""Work without a builder behind it, which dies on demand: what executors need of `unit.Work`, and no more.
Light, so that a worker process starts quickly."""

import ctypes
import errno
import os
import signal
import time
from dataclasses import dataclass, field


class Parts:
    """Which are all there; of those at "/nowhere", none."""

    def __init__(self, address: str = "/shared") -> None:
        self.address = address

    def exists(self, recording_id: str) -> bool:
        return self.address != "/nowhere"


@dataclass(frozen=True)
class FakeWork:
    """deeds: recording id -> what its first, second, ... try does; after that, and where nothing is said, it
    is made. Tries are counted in `folder`."""

    folder: str
    deeds: dict[str, tuple[str, ...]] = field(default_factory=dict)
    scratch: str | None = None
    parts: Parts = Parts()

    def task(self, alone: bool = False):
        deed = self._next("start")
        if deed:
            do(deed)
        return self.make

    def make(self, recording_id: str) -> list[dict]:
        deed = self._next(recording_id)
        if deed:
            do(deed)
        return [{"id": recording_id, "decision": "built", "by": os.getpid()}]

    def crashed(self, recording_id: str, why: str) -> list[dict]:
        return [{"id": recording_id, "decision": "quarantine", "reasons": {"crashed": why}}]

    def _next(self, name: str) -> str:
        number = self.tries(name)
        with open(os.path.join(self.folder, name), "a") as handle:
            handle.write(f"{os.getpid()}\n")
        deeds = self.deeds.get(name, ())
        return deeds[number] if number < len(deeds) else ""

    def tries(self, name: str) -> int:
        return len(self.processes(name))

    def processes(self, name: str) -> list[str]:
        """The process of each try."""
        try:
            with open(os.path.join(self.folder, name)) as handle:
                return handle.read().split()
        except FileNotFoundError:
            return []


class Odd(Exception):
    """Does not come out of a pickle as it went in."""

    def __init__(self, one, two):
        super().__init__(f"{one} {two}")


def do(deed: str) -> None:
    if deed == "exit":
        os._exit(9)
    if deed == "segfault":
        ctypes.string_at(0)
    if deed == "kill":  # what the kernel's memory killer does
        os.kill(os.getpid(), signal.SIGKILL)
    if deed == "memory":
        raise MemoryError
    if deed == "disk":
        raise OSError(errno.ENOSPC, "disk full")
    if deed == "value":
        raise ValueError("no such value")
    if deed == "odd":
        raise Odd("very", "odd")
    if deed == "wait":
        time.sleep(600)
