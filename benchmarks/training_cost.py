#!/usr/bin/env python
"""What training each preset costs: parameters, memory, operations, and the hours that follow from them.

    python benchmarks/training_cost.py                      counted, and checked on this CPU where it fits
    python benchmarks/training_cost.py --measure            also training and sampling steps, timed on the GPU
    python benchmarks/training_cost.py --mfu 0.4            another assumption for the hours

Nothing of the counted part needs the hardware it is about: see visaudio/training/cost.py. The hours are a
forecast: operations over the data sheet's peak times the share of it that is assumed to be reached (--mfu).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bi_audio_dataset.schema import UserError
from visaudio import tables
from visaudio.model.network import NetworkConfig
from visaudio.presets import PRESETS, get_preset
from visaudio.sequence import SequenceConfig
from visaudio.training import cost, cost_report, kept_memory, measured

HERE = Path(__file__).resolve().parent
NAME = "training_cost"
BATCHES = (1, 8, 16)
GB = 1e9


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    try:
        if options.child:
            print(json.dumps(cpu_peak(options.child, int(options.child_batch))))
            return 0
        run(options, list(sys.argv[1:] if arguments is None else arguments))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--presets", nargs="+", default=list(PRESETS), help=f"of {', '.join(PRESETS)} (default: all)")
    add("--mfu", type=float, default=0.35, help="share of the peak that is assumed (default: 0.35)")
    add("--steps", type=int, default=cost.Recipe.steps, help="of the recipe (default: MMAudio's 300,000)")
    add("--batch-size", type=int, default=cost.Recipe.batch_size, help="of the recipe (default: 512)")
    add("--check-gb", type=float, default=5.0, help="check on the CPU what needs less memory (default: 5)")
    add("--measure", action="store_true", help="time training and sampling on the GPU that is here")
    add("--measure-batch", type=int, nargs="+", default=[1, 8, 16, 32], help="clips a step when measuring")
    add("--measure-steps", type=int, default=10, help="timed steps (default: 10)")
    add("--output", type=Path, help="a JSON file for the figures")
    add("--write-to", type=Path, help="a Markdown file whose marked part the tables replace")
    add("--child", help=argparse.SUPPRESS)  # one measurement in a process of its own
    add("--child-batch", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if not 0 < options.mfu <= 1:
        parser.error(f"--mfu is {options.mfu}, expected above 0 and at most 1")
    if options.steps < 1 or options.batch_size < 1 or options.measure_steps < 1:
        parser.error("--steps, --batch-size and --measure-steps must be at least 1")
    return options


def run(options: argparse.Namespace, arguments: list[str]) -> None:
    if options.measure and not torch.cuda.is_available():
        raise UserError("--measure: torch sees no CUDA device here; run it on a machine with a GPU")
    tables.check_part(options.write_to, NAME)
    commit = tables.commit(HERE)  # of the code that runs: by the end the checkout may be another
    recipe = cost.Recipe(options.steps, options.batch_size)
    presets = {name: get_preset(name) for name in options.presets}
    figures: dict[str, Any] = {"mfu": options.mfu, "recipe": asdict(recipe), "presets": {}, "checks": []}
    for name, preset in presets.items():
        figures["presets"][name] = counted(preset.network, preset.sequence)
        say(f"{name}: counted")
    for name in presets:
        figures["checks"] += checks(name, figures["presets"][name], options.check_gb)
    if options.measure:
        figures["measured"] = [
            row
            for name, preset in presets.items()
            for row in measure(name, preset.network, preset.sequence, "cuda", options)
        ]
        figures["device"] = torch.cuda.get_device_name()
    command = tables.shown_command("benchmarks/training_cost.py", arguments)
    text = f"`{command}` at commit `{commit}`, torch {torch.__version__}.\n\n"
    text += cost_report.markdown(figures, BATCHES)
    if options.output:
        options.output.write_text(json.dumps(figures, indent=1) + "\n")
    tables.publish(text, None, options.write_to, NAME)


def counted(config: NetworkConfig, sequence: SequenceConfig) -> dict[str, Any]:
    """Everything about one preset that follows from its shapes; bytes and operations."""
    network = cost.network_on("meta", config)
    parameters = cost.count_parameters(network)
    found: dict[str, Any] = {
        "tokens": sequence.num_tokens,
        "parameters": asdict(parameters) | {"trunk_per_ear": parameters.trunk_per_ear},
        "adamw": cost.state_bytes(network, "adamw"),
        "muon": cost.state_bytes(network, "muon"),
    }
    for key, checkpointed in (("plain", False), ("checkpointed", True)):
        flops = cost.count_flops(config, sequence, checkpointed)
        # exactly linear in the batch: a fixed part (weights in 16 bits) and one of each sample
        one, eight = (kept_memory.kept_bytes(config, sequence, b, "cuda", checkpointed).kept for b in (1, 8))
        each = (eight - one) / 7
        found[key] = asdict(flops) | {
            "kept": {str(b): round(one + (b - 1) * each) for b in BATCHES},
            "kept_each": each,
            "kept_fixed": one - each,
        }
    return found


# --- computed against measured, on this CPU ---


def checks(name: str, figures: dict[str, Any], most_gb: float) -> list[dict[str, Any]]:
    """Peak memory of a real step in a process of its own beside what is computed for the same step."""
    found = []
    preset = get_preset(name)
    for batch in BATCHES:
        weights = figures["adamw"]["weights"]
        if (weights + figures["plain"]["kept"][str(batch)] + weights) / GB > most_gb:
            continue
        computed = kept_memory.kept_bytes(preset.network, preset.sequence, batch, "cpu").peak + weights
        command = [sys.executable, str(HERE / "training_cost.py"), "--child", name, "--child-batch", batch]
        # glibc would keep freed blocks of up to 32 MB, between which new ones do not fit
        kept_small = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"}
        child = subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, env=kept_small
        )
        if child.returncode:
            raise UserError(f"{name}, batch {batch}: {(child.stderr.strip() or 'killed')[-300:]}")
        real = json.loads(child.stdout)
        found.append({"preset": name, "batch": batch, "computed": computed, **real})
        say(
            f"{name}, batch {batch}: computed {computed / GB:.2f} GB, measured {real['measured'] / GB:.2f} GB"
        )
    return found


def cpu_peak(name: str, batch: int) -> dict[str, float]:
    """Weights, forward and backward pass on this CPU in bf16: growth of the process's peak memory, in bytes.

    `seconds` are those of the second of two steps.
    """
    preset = get_preset(name)
    return real_step_peak(preset.network, preset.sequence, batch)


def real_step_peak(config: NetworkConfig, sequence: SequenceConfig, batch: int) -> dict[str, float]:
    torch.set_num_threads(1)
    real_steps(config, sequence.with_duration(1.0), 1, 1)  # libraries and their buffers are there before
    before = resident_bytes("VmRSS")
    seconds = real_steps(config, sequence, batch, 2)
    return {"measured": resident_bytes("VmHWM") - before, "seconds": seconds}


def real_steps(config: NetworkConfig, sequence: SequenceConfig, batch: int, count: int) -> float:
    """Seconds of the last of `count` forward and backward passes in bf16 on the CPU."""
    network = cost.network_on("cpu", config)
    data, t, conditions = cost.example_batch(config, sequence, batch, "cpu")
    for _ in range(count):
        began = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = cost.step_loss(network, data, t, conditions)
        loss.backward()
        network.zero_grad()
        del loss
    return time.perf_counter() - began


def resident_bytes(which: str) -> int:
    """VmRSS (now) or VmHWM (the peak) of this process."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError as error:
        raise UserError("the check of memory reads /proc/self/status, which only Linux has") from error
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{which}:"))


# --- measured on a GPU ---


def measure(
    name: str, config: NetworkConfig, sequence: SequenceConfig, device: str, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Training steps at each batch that fits, and sampling at batch 1 and 8."""
    gpu, flops_of_peak, found = known_gpu(device), None, []
    if gpu is not None:
        flops_of_peak = cost.count_flops(config, sequence).total / (gpu.peak_tflops * 1e12)
    for batch in options.measure_batch:
        for checkpointed in (False, True):
            try:
                row = measured.measure_training(
                    config,
                    sequence,
                    batch,
                    device,
                    options.measure_steps,
                    checkpointed=checkpointed,
                    flops_of_peak=flops_of_peak,
                )
            except torch.cuda.OutOfMemoryError:
                torch.cuda.empty_cache()
                continue
            found.append({"preset": name, "checkpointed": checkpointed, **asdict(row)})
            say(f"{name}, batch {batch}: {1 / row.seconds_per_step:.2f} steps/s")
    for batch in (1, 8):
        seconds = measured.measure_sampling(config, sequence, batch, device)
        found.append({"preset": name, "batch": batch, "sampling_s": seconds})
    return found


def known_gpu(device: str) -> cost.Gpu | None:
    """Whose data sheet is known here: H100 and H200 SXM; other cards get no MFU."""
    name = torch.cuda.get_device_name() if device == "cuda" else ""
    return next((gpu for gpu in cost.GPUS if gpu.name.split()[0] in name and "PCIe" not in name), None)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
