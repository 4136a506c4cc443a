"""A training run in a process of its own, for tests that kill it: the real network at micro size.

    python resume_run.py FOLDER --steps 40 --ids IDS_FOLDER [--die-at N]

Writes which clips each process saw at each step to IDS_FOLDER/<rank>.jsonl (appended, a line a round).
--die-at: SIGKILL to the process group at the N-th file operation of a checkpoint (each sync, rename and
removal): every moment at which a folder is half written or half removed has such an operation next to it.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]  # for fakes.py and micro.py

from fakes import EncodedClips
from micro import micro_preset

from visaudio.training import loop
from visaudio.training.batches import BatchStream, DropoutConfig
from visaudio.training.flow_stage import new_network
from visaudio.training.schedule import ScheduleConfig

STEP_S = 0.01  # each step waits so long: a kill after a random wait falls into any part of it


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--ids", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--accumulation", type=int, default=1)
    parser.add_argument("--optimizer", default="adamw")
    parser.add_argument("--save-every-s", type=float, default=0.1)
    parser.add_argument("--init-seed", type=int, default=0)
    parser.add_argument("--die-at", type=int, default=0)
    options = parser.parse_args()
    options.ids.mkdir(parents=True, exist_ok=True)
    loop.BatchStream = recording(options.ids)
    if options.die_at:
        die_at(options.die_at)
    preset = micro_preset()
    samples = EncodedClips(preset, 1.0, 7)  # no multiple of a batch: batches span epochs
    config = loop.FlowLoopConfig(
        steps=options.steps,
        batch_size=options.batch,
        accumulation=options.accumulation,
        optimizer=options.optimizer,
        precision="fp32",
        log_every=3,
        validate_every=0,
        checkpoint_minutes=options.save_every_s / 60,
        schedule=ScheduleConfig(peak=2e-3, warmup_steps=5, decay="cosine", decay_start=0.2),
        dropout=DropoutConfig(visual=0.1, clip=0.2, sync=0.1, spatial=0.2, text=0.5, hfov=0.5),
    )
    loop.train(new_network(preset.network, samples, None, options.init_seed), samples, config, options.folder)


def recording(folder: Path) -> type[BatchStream]:
    class Recording(BatchStream):
        def get(self, step, accumulation_round=0):
            batch = super().get(step, accumulation_round)
            line = {"step": step, "round": accumulation_round, "world": self.world, "ids": batch.ids}
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
                os.killpg(0, signal.SIGKILL)
            return operation(*arguments, **settings)

        return run

    for module, name in ((os, "fsync"), (os, "replace"), (os, "rename"), (shutil, "rmtree")):
        setattr(module, name, counted(getattr(module, name)))


if __name__ == "__main__":
    main()
