"""A training run in a process of its own, for tests that kill it: the real network at micro size.

    python resume_run.py FOLDER --steps 40 --seen SEEN_FOLDER [--hold-at STEP] [--die-at N]

Writes which clips each process saw at each step to SEEN_FOLDER/<rank>.jsonl, a line a round, and its process
id to SEEN_FOLDER/<rank>.pid.
--hold-at: waits there for ever, so that a run that is to be killed does not end before.
--die-at: SIGKILL to itself at the N-th file operation of a checkpoint (each sync, rename and removal): every
moment at which a folder is half written or half removed has such an operation next to it.
"""

import argparse
import json
import os
import shutil
import signal
import time
from pathlib import Path

from fakes import EncodedClips
from micro import micro_preset

from visaudio.training import loop
from visaudio.training.batches import BatchStream, DropoutConfig
from visaudio.training.flow_stage import new_network
from visaudio.training.schedule import ScheduleConfig

STEP_S = 0.01  # each round waits so long, as if it had more to do: fewer checkpoints have to be written


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--seen", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--accumulation", type=int, default=1)
    parser.add_argument("--save-every-s", type=float, default=0.03)
    parser.add_argument("--init-seed", type=int, default=0)
    parser.add_argument("--hold-at", type=int, default=-1)
    parser.add_argument("--die-at", type=int, default=0)
    options = parser.parse_args()
    options.seen.mkdir(parents=True, exist_ok=True)
    loop.BatchStream = recording(options.seen, options.hold_at)
    if options.die_at:
        die_at(options.die_at)
    preset = micro_preset()
    samples = EncodedClips(preset, 1.0, 7)  # no multiple of a batch: batches span epochs
    config = loop.FlowLoopConfig(
        steps=options.steps,
        batch_size=options.batch,
        accumulation=options.accumulation,
        precision="fp32",
        log_every=3,
        validate_every=0,
        checkpoint_minutes=options.save_every_s / 60,
        schedule=ScheduleConfig(peak=2e-3, warmup_steps=5, decay="cosine", decay_start=0.2),
        dropout=DropoutConfig(visual=0.1, clip=0.2, sync=0.1, spatial=0.2, text=0.5, hfov=0.5),
    )
    loop.train(new_network(preset.network, samples, None, options.init_seed), samples, config, options.folder)


def recording(folder: Path, hold_at: int) -> type[BatchStream]:
    class Recording(BatchStream):
        def __init__(self, *arguments, **settings):
            super().__init__(*arguments, **settings)
            (folder / f"{self.rank}.pid").write_text(str(os.getpid()))

        def get(self, step, accumulation_round=0):
            while step == hold_at:
                time.sleep(1)
            batch = super().get(step, accumulation_round)
            where = {"pid": os.getpid(), "world": self.world, "step": step, "round": accumulation_round}
            line = {**where, "ids": batch.ids}
            with (folder / f"{self.rank}.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            time.sleep(STEP_S)
            return batch

    return Recording


def die_at(number: int) -> None:
    """See the head of the file. Only operations on a checkpoint's files count."""
    left = number

    def counted(operation):
        def run(*arguments, **settings):
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return operation(*arguments, **settings)

        return run

    for module, name in ((os, "fsync"), (os, "replace"), (os, "rename"), (shutil, "rmtree")):
        setattr(module, name, counted(getattr(module, name)))


if __name__ == "__main__":
    main()
