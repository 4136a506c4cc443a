"""Clips through the measures: worker processes for those that need no accelerator, this process for others.

What was heard is in the cache as soon as a clip is done, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context

from bi_audio_dataset.schema import UserError
from visaudio.evaluation.pairs import ClipFiles
from visaudio.evaluation.scoring import ClipScore, Suite, score_in_worker, start_worker

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def usual_workers() -> int:
    """One for each core that this process may use, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, 8))


def score_in_pool(
    clips: Sequence[ClipFiles], suite: Suite, workers: int, done: Callable[[ClipScore], None]
) -> None:
    """Scores in processes of one thread each; `done` is told in this one, in any order.

    Few clips are under way at a time, however many there are. UserError if a process dies.
    """
    waiting: Iterator[ClipFiles] = iter(clips)
    with _one_thread_each():
        # spawn, not fork: the parent may hold torch's threads, which a fork would break
        pool = ProcessPoolExecutor(
            workers, mp_context=get_context("spawn"), initializer=start_worker, initargs=(suite,)
        )
        try:
            running = set()
            while True:
                for clip in waiting:
                    running.add(pool.submit(score_in_worker, clip))
                    if len(running) >= 4 * workers:
                        break
                if not running:
                    break
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for job in finished:
                    done(job.result())
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process ended before its time (out of memory?): what is done is kept; run the "
                "same command again, with fewer --workers"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Numerical libraries read these when a process starts: workers are as many as there are cores."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
