"""`python kills.py FOLDER`: build 20 recordings undisturbed into FOLDER/whole, and into FOLDER/killed with
kills at random moments; says on stdout, as JSON, how often and where. A process of its own, as it forks
builds: it has imported all that they need, and started no thread.

The moments are drawn in seconds of the build's own work (CPU time), so how busy the machine is does not
matter: the parent watches the child's clock and sends kill -9 when it stands there. The builds run in one
process (executors.Inline); workers that die: test_executors.py."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import cv2  # noqa: F401
import numpy as np
import pyarrow.parquet
import soundfile  # noqa: F401
from fake_source import FakeSource, tiny_config

from bi_audio_dataset import clip  # noqa: F401
from bi_audio_dataset.build import build
from bi_audio_dataset.executors import Inline

RECORDINGS, RANDOM_KILLS = 20, 10


class Clocked(Inline):
    """Notes the seconds of work after each recording."""

    def __init__(self, notes: Path) -> None:
        object.__setattr__(self, "notes", notes)

    def run(self, work, recording_ids):
        for result in super().run(work, recording_ids):
            with open(self.notes, "a") as handle:
                handle.write(f"{time.process_time()}\n")
            yield result


def work_of(child: int) -> float:
    """Seconds of CPU time of another process: its clock has a number made of its id (clock_getcpuclockid)."""
    return time.clock_gettime((~child << 3) | 2)


def notes_of(folder: Path) -> Path:
    return folder.with_suffix(".clock")


def start(folder: Path, slow_shard: int = 0) -> int:
    """A build in a child; its process id. slow_shard: it stops for ever in the middle of writing this one of
    its shards, and says so by the file FOLDER.slow."""
    notes_of(folder).unlink(missing_ok=True)
    child = os.fork()
    if child:
        return child
    try:
        if slow_shard:
            write, left = pyarrow.parquet.write_table, [slow_shard]

            def slow(table, path, **options):
                write(table, path, **options)
                left[0] -= Path(path).parent.name == "data"
                if left[0] == 0:
                    os.truncate(path, os.path.getsize(path) // 2)
                    folder.with_suffix(".slow").touch()
                    time.sleep(3600)

            pyarrow.parquet.write_table = slow
        clock = Clocked(notes_of(folder))
        source = FakeSource(tuple(float(7 * i - 70) for i in range(RECORDINGS)))
        build(source, folder, tiny_config(rows_per_shard=8), executor=clock, progress=False)
        os._exit(0)
    finally:
        os._exit(1)


def end_of(child: int) -> int:
    """Its exit code; of one that a signal has ended, minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_after(folder: Path, after: int, seconds: float) -> bool:
    """Whether a build was killed once it had made `after` recordings and worked so many seconds on."""
    child = start(folder)
    while not os.waitpid(child, os.WNOHANG)[0]:
        noted = notes_of(folder).read_text().split("\n")[:-1] if notes_of(folder).exists() else []
        begun_s = float(noted[after - 1]) if 0 < after <= len(noted) else 0.0
        if len(noted) >= after and work_of(child) >= begun_s + seconds:
            os.kill(child, signal.SIGKILL)
            return end_of(child) == -signal.SIGKILL
        time.sleep(0.001)
    return False


def kill_in_shard(folder: Path, shard: int) -> bool:
    """Whether a build was killed in the middle of writing a shard."""
    slow = folder.with_suffix(".slow")
    slow.unlink(missing_ok=True)
    child = start(folder, slow_shard=shard)
    while not slow.exists():
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    return end_of(child) == -signal.SIGKILL


def parts(folder: Path) -> int:
    return len(list((folder / ".work/parts").glob("*.parquet")))


def main(home: Path) -> dict:
    found = {"whole": end_of(start(home / "whole")), "random": 0, "parts": []}
    clock = [float(line) for line in notes_of(home / "whole").read_text().split()]
    unit_s = (clock[-1] - clock[0]) / (RECORDINGS - 1)
    rng, folder = np.random.default_rng(0), home / "killed"
    for number in range(RANDOM_KILLS):
        # now and then early, else in one of the next two units
        after = 0 if number % 4 == 3 else int(rng.integers(1, 3))
        moment_s = max(0.01, rng.uniform() * unit_s)
        found["random"] += kill_after(folder, after, moment_s)
        found["parts"].append(parts(folder))
    found["in_shard"] = sum(kill_in_shard(folder, shard) for shard in (1, 3))
    found["killed"] = end_of(start(folder))
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
