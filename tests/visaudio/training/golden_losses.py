#!/usr/bin/env python
"""Fifty steps of the tiny preset's own training, whose losses golden_losses.json keeps.

    python tests/visaudio/training/golden_losses.py            runs it and says how far off the file's it is
    python tests/visaudio/training/golden_losses.py --write    puts this run's losses in the file's place

The network, the dropout and the shape of the schedule are the recipe's; the clips are fakes.py's. The
optimizer is AdamW at a tenth of the recipe's rate: Muon orthogonalises in bfloat16, so that at its full rate
two kinds of processor, which round differently, are 3 per cent apart after fifty steps; this run's stay
within 1e-6 (AVX-512 against ATEN_CPU_CAPABILITY=avx2). A change that is meant to
leave training alone must not move these losses. One that is meant to move them writes the file anew, and its
commit says why.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))  # for fakes.py
from fakes import EncodedClips

from visaudio.training.flow_stage import new_network
from visaudio.training.loop import FlowLoopConfig, train
from visaudio.training.losses import read_losses
from visaudio.training.recipe import load_train_config

FILE = Path(__file__).with_suffix(".json")
STEPS, CLIPS, BATCH, DURATION_S = 50, 6, 2, 1.0


def run(folder: Path) -> list[float]:
    """The losses of steps 1 to STEPS of a run in ``folder``."""
    config = load_train_config()
    samples = EncodedClips(config.model, DURATION_S, CLIPS)
    network = new_network(config.model.network, samples, None, config.seed)
    train(network, samples, loop_config(config.flow.loop), folder, config.seed)
    losses = read_losses(folder)
    return [losses[step] for step in range(1, STEPS + 1)]


def loop_config(recipe: FlowLoopConfig) -> FlowLoopConfig:
    """float32, no time budget, a warm-up that fits the length, and steps that do not magnify rounding."""
    return replace(
        recipe,
        steps=STEPS,
        max_minutes=0.0,
        batch_size=BATCH,
        precision="fp32",
        optimizer="adamw",
        validate_every=0,
        schedule=replace(recipe.schedule, peak=recipe.schedule.peak / 10, warmup_steps=10),
    )


def kept() -> list[float]:
    return json.loads(FILE.read_text())["losses"]


def furthest(ours: list[float], theirs: list[float]) -> float:
    """Largest relative difference."""
    return max(abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        losses = run(Path(folder))
    if FILE.is_file():
        print(f"largest relative difference from {FILE.name}: {furthest(losses, kept()):.2e}")
    if options.write:
        settings = {"steps": STEPS, "clips": CLIPS, "batch_size": BATCH, "duration_s": DURATION_S}
        FILE.write_text(json.dumps({**settings, "losses": losses}, indent=1) + "\n")
        print(f"wrote {FILE.name}: {losses[0]:.4f} at the first step, {losses[-1]:.4f} at the last")


if __name__ == "__main__":
    main()
