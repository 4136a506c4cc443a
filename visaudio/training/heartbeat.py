"""How the processes that wait for the first one notice that it failed, stopped, or is gone.

While the first process works alone (no collective to fail in), it writes a beat into the run's folder every
few seconds, and at its end how it ended. The others, on this machine or on others that see the folder,
compare what they read with what they read before: no clock has to agree with another, and what an earlier run
left there does not count. Where each machine has something to do before (fetch weights), the first process of
each further machine beats as well, for the very first to look at.
"""

import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from bi_audio_dataset.schema import UserError
from visaudio.training.progress import minutes

NAME = ".first_process"
EVERY_S = 5.0
GONE_S = 180.0  # without a beat
LOOK_S = 1.0
ENDED = ("failed", "stopped")
CHECKING, WORKING = "checking", "working"


def name_of(machine: int) -> str:
    """The beat's file of a machine's first process."""
    return NAME if machine == 0 else f"{NAME}_of_machine_{machine}"


class Heartbeat:
    """On the first process, as a context around its work. It says "failed" where that raises; say("stopped")
    where it ends before its end. state: what it begins with. machine: whose first process it is.
    """

    def __init__(self, folder: Path, state: str = WORKING, machine: int = 0):
        self._path = Path(folder) / name_of(machine)
        self._run = uuid.uuid4().hex
        self._count, self._state = 0, state
        self._over, self._writing = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> "Heartbeat":
        self._write()
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if kind is not None:
            self._state = "failed"
        elif self._state == WORKING:
            self._state = "done"
        self._write()

    def say(self, state: str) -> None:
        """At once, not with the next beat."""
        self._state = state
        self._write()

    def _beat(self) -> None:
        while not self._over.wait(EVERY_S):
            self._write()

    def _write(self) -> None:
        with self._writing:
            self._count += 1
            try:
                self._path.write_text(f"{self._run} {self._count} {self._state}\n")
            except OSError:  # a full disk is for the work itself to tell of
                pass


class FirstProcess:
    """On the other processes: waits for the first one's work. machine: for that of another machine."""

    def __init__(self, folder: Path, machine: int = 0):
        self._path = Path(folder) / name_of(machine)
        self._who = "the first process" + (f" of machine {machine}" if machine else "")
        self._left_over = self._read()
        self._last, self._since = self._left_over, time.monotonic()

    def wait_until(self, done: Callable[[], bool]) -> bool:
        """True once done(); False where the first process failed or stopped before that. Raises UserError
        where it has given no sign for GONE_S.
        """
        while not done():
            beat, now = self._read(), time.monotonic()
            if beat != self._last:
                self._last, self._since = beat, now
            if beat != self._left_over and beat.endswith(ENDED):
                return False
            if now - self._since > GONE_S:
                raise UserError(
                    f"{self._who} has given no sign in {self._path.parent} for {minutes(GONE_S)}: it "
                    "is gone, or this machine does not see the same folder (output must be shared)"
                )
            time.sleep(LOOK_S)
        return True

    def checked(self) -> bool:
        """Whether, in this run, it has what it looks for before its work."""
        beat = self._read()
        return beat != self._left_over and beat.endswith((WORKING, "done"))

    def _read(self) -> str:
        try:
            return self._path.read_text().strip()
        except OSError:
            return ""
