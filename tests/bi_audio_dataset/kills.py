"""`python kills.py FOLDER`: build 20 recordings undisturbed into FOLDER/whole, and into FOLDER/killed with
kill -9 at random moments; says on stdout, as JSON, how often and where. A process of its own, as it forks
builds: it has imported all that they need, and started no thread."""

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

RECORDINGS, RANDOM_KILLS = 20, 10


def start(folder: Path, slow_shard: int = 0) -> int:
    """A build in a child; its process id. slow_shard: it stops for ever in the middle of writing this one of
    its shards, and says so by the file FOLDER.slow."""
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
        source = FakeSource(tuple(float(7 * i - 70) for i in range(RECORDINGS)))
        build(source, folder, tiny_config(rows_per_shard=8), workers=0, progress=False)
        os._exit(0)
    finally:
        os._exit(1)


def ended(child: int) -> int | None:
    """Its exit code; None while it runs."""
    process, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if process else None


def parts(folder: Path) -> int:
    return len(list((folder / ".work/parts").glob("*.parquet")))


def kill_when(child: int, reached) -> bool:
    """Whether it could be killed, before its end, once `reached` was true."""
    while not reached():
        if ended(child) is not None:
            return False
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def main(home: Path) -> dict:
    rng = np.random.default_rng(0)
    began_s = time.monotonic()
    code = os.waitstatus_to_exitcode(os.waitpid(start(home / "whole"), 0)[1])
    unit_s = (time.monotonic() - began_s) / RECORDINGS
    found, folder = {"whole": code, "random": 0, "in_shard": 0, "parts": []}, home / "killed"
    for _ in range(RANDOM_KILLS):
        before, child = parts(folder), start(folder)
        more, rest_s = int(rng.integers(2)), rng.uniform(0, 1.5 * unit_s)
        at = []

        def reached(wanted=before + more, rest_s=rest_s, at=at) -> bool:
            if not at and parts(folder) >= wanted:
                at.append(time.monotonic() + rest_s)
            return bool(at) and time.monotonic() >= at[0]

        found["random"] += kill_when(child, reached)
        found["parts"].append(parts(folder))
    for shard in (1, 3):
        slow = folder.with_suffix(".slow")
        slow.unlink(missing_ok=True)
        found["in_shard"] += kill_when(start(folder, shard), slow.exists)
    found["killed"] = os.waitstatus_to_exitcode(os.waitpid(start(folder), 0)[1])
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
