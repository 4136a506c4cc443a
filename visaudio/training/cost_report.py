"""The tables of benchmarks/training_cost.py, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from visaudio import tables
from visaudio.training import cost
from visaudio.training.ema import EmaConfig

GB = 1e9


def markdown(figures: dict[str, Any], batches: Sequence[int]) -> str:
    """All tables of benchmarks/training_cost.py's figures."""
    parts = [parameters_table(figures), memory_table(figures, batches), hours_table(figures)]
    if figures["checks"]:
        parts.append(check_table(figures))
    if figures.get("measured"):
        parts.append(measured_table(figures))
    return "\n\n".join(parts) + "\n"


def parameters_table(figures: dict[str, Any]) -> str:
    def row(name: str, found: dict[str, Any]) -> list[str]:
        p = found["parameters"]
        keys = ("total", "trunk_per_ear", "entry", "joint", "branch", "new")
        return [name, found["tokens"], *(f"{p[key] / 1e6:.1f}" for key in keys)]

    head = ["millions of parameters", "tokens of 8 s", "in all", "one ear's trunk", "entry and output"]
    head += ["joint blocks", "branch blocks, each ear", "new parts"]
    rows = [row(name, found) for name, found in figures["presets"].items()]
    return (
        "**Parameters.** One ear's trunk is what MMAudio has too: entry and output, joint blocks, one "
        "branch. New: inter-ear attention, spacetime module and, in `tiny`, the guesses.\n\n"
    ) + tables.table(head, rows)


def fitting(gpu: cost.Gpu, fixed: float, kept: dict[str, Any]) -> int:
    """Clips of one step that fit into the card's memory beside `fixed` bytes."""
    return max(0, int((gpu.memory_gb * GB - fixed - kept["kept_fixed"]) / kept["kept_each"]))


def memory_table(figures: dict[str, Any], batches: Sequence[int]) -> str:
    stays, kept_rows, snapshots = [], [], EmaConfig().snapshots
    for name, found in figures["presets"].items():
        adamw, plain, again = found["adamw"], found["plain"], found["checkpointed"]
        fixed = sum(adamw.values())
        sizes = [adamw[key] for key in ("weights", "gradients", "optimizer")]
        sizes += [found["muon"]["optimizer"], adamw["ema"], fixed]
        on_disk = [fixed - adamw["gradients"], snapshots * adamw["ema"]]
        stays.append([name, *(f"{size / GB:.2f}" for size in (*sizes, *on_disk))])
        kept = [(plain["kept"][str(batch)], again["kept"][str(batch)]) for batch in batches]
        kept_rows.append(
            [
                name,
                *(f"{one / GB:.2f} / {other / GB:.2f}" for one, other in kept),
                *(f"{fitting(gpu, fixed, plain)} / {fitting(gpu, fixed, again)}" for gpu in cost.GPUS),
            ]
        )
    head = ["GB (1e9 bytes)", "weights", "gradients", "AdamW", "or Muon", "two averages", "in all, AdamW"]
    head += ["disk: a checkpoint", f"disk: {snapshots} snapshots of both averages"]
    kept_head = ["GB", *(f"kept at batch {batch}" for batch in batches)]
    kept_head += [f"clips that fit: {gpu.name}, {gpu.memory_gb:g} GB" for gpu in cost.GPUS]
    return (
        "**Memory, computed** (nothing of these two tables is measured; the check is below). What stays from "
        "step to step, and the gradients, all float32:\n\n"
        + tables.table(head, stays)
        + "\n\nKept: what the forward pass leaves for the backward pass in bf16 autocast, the weights' "
        "16-bit copies among them, with the operations of a GPU (flash attention), followed on fake tensors. "
        "After the stroke with activation checkpointing of every joint, branch and inter-ear block, to which "
        "the backward pass adds one block's own at a time. Clips of 8 s of a step that fit beside the rest, "
        "without what CUDA, the allocator and the backward pass's temporaries take:\n\n"
        + tables.table(kept_head, kept_rows)
    )


def hours_table(figures: dict[str, Any]) -> str:
    recipe, mfu = cost.Recipe(**figures["recipe"]), figures["mfu"]
    rows = []
    for name, found in figures["presets"].items():
        plain, again = (found[way]["forward"] + found[way]["backward"] for way in ("plain", "checkpointed"))
        per_gpu = []
        for gpu in cost.GPUS:
            speed = cost.steps_per_second(plain, recipe.batch_size, gpu, mfu, gpus=8)
            hours = cost.gpu_hours(plain, recipe, gpu, mfu)
            per_gpu += [
                f"{speed:.3g} / {speed * plain / again:.3g}",
                f"{hours:,.0f} / {hours * again / plain:,.0f}",
            ]
        cells = [f"{found['plain'][k] / 1e9:,.1f}" for k in ("forward", "backward")]
        rows.append(
            [name, *cells, f"{again / plain:.2f}", f"{plain * recipe.batch_size / 1e15:.3g}", *per_gpu]
        )
    head = ["preset", "forward, GFLOP a clip", "backward", "with checkpointing, times", "PFLOP a step"]
    for gpu in cost.GPUS:
        head += [f"steps/s on 8 {gpu.name}", f"{gpu.name} hours"]
    assumed = " and ".join(f"{gpu.peak_tflops:g} TFLOPS ({gpu.name})" for gpu in cost.GPUS)
    return (
        f"**Operations, counted; hours, a forecast.** MMAudio's recipe, {recipe.steps:,} steps of "
        f"{recipe.batch_size} clips of 8 s, both ears. Counted by torch's FlopCounterMode on the meta device "
        "(matrix products and attention; a multiply-add is two). Speed and hours assume that "
        f"{mfu:.0%} of the peak is reached (MFU), the peak being the data sheets' dense bf16 {assumed}, and "
        "that the loader keeps up; validation and the extraction of features are not in it. After the "
        "stroke, with activation checkpointing, whose repeated operations take their time too. The two cards "
        "compute alike; the H200 holds more clips.\n\n"
    ) + tables.table(head, rows)


def check_table(figures: dict[str, Any]) -> str:
    rows = [
        [
            check["preset"],
            check["batch"],
            f"{check['computed'] / GB:.2f}",
            f"{check['measured'] / GB:.2f}",
            f"{check['measured'] / check['computed']:.2f}",
            f"{check['seconds']:.1f}",
        ]
        for check in figures["checks"]
    ]
    head = ["preset", "batch", "computed GB", "measured GB", "ratio", "seconds on one busy core"]
    return (
        "**Computed against measured**: weights, gradients and what both passes keep, at their highest, in "
        "bf16 on a CPU (plain attention, which keeps its weights). Computed on fake tensors; measured as the "
        "growth of the process's peak memory (VmHWM), one thread. What is larger was not run here.\n\n"
    ) + tables.table(head, rows)


def measured_table(figures: dict[str, Any]) -> str:
    steps, sampling = [], []
    for row in figures["measured"]:
        if "sampling_s" in row:
            sampling.append([row["preset"], row["batch"], f"{row['sampling_s']:.2f}"])
            continue
        peak = "-" if row["peak_bytes"] is None else f"{row['peak_bytes'] / GB:.1f}"
        steps.append(
            [
                row["preset"],
                row["batch"],
                "yes" if row["checkpointed"] else "no",
                f"{1 / row['seconds_per_step']:.2f}",
                f"{row['samples_per_second']:.1f}",
                "-" if row["mfu"] is None else f"{row['mfu']:.0%}",
                peak,
                ", ".join(f"{name} {share:.0%}" for name, share in row["top"]),
            ]
        )
    head = [
        "preset",
        "batch",
        "checkpointing",
        "steps/s",
        "clips/s",
        "MFU",
        "peak GB",
        "operations, own time",
    ]
    return (
        f"**Measured** on {figures['device']}: bf16 autocast; AdamW, clipping and both averages are in the "
        "step.\n\n"
        + tables.table(head, steps)
        + "\n\nSampling: 25 Euler steps with guidance, latents only.\n\n"
        + tables.table(["preset", "clips at once", "seconds"], sampling)
    )
