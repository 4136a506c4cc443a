#!/usr/bin/env python
"""Can the `small` network learn eight clips by heart? Loss on one fixed grid of noise and t, and samples.

    python benchmarks/overfit.py --output runs/overfit            trains, or goes on where it stopped
    python benchmarks/overfit.py --output runs/overfit --report   figures and curve of what there is so far

The network, its conditions' sizes and the latents' shape are the preset's; the clips are short and drawn
here: smooth random tracks that no rule connects with their conditions, so all that is learned is learned by
heart. The run is the repository's own `train()`: checkpoints, EMA and resuming included.

Legend: B clips, 2 ears (0 = left), N tokens, D dimensions of a token.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from visaudio import flow, presets, solver
from visaudio.cli.common import seed_number
from visaudio.flow import timesteps_from_normal
from visaudio.guidance import guided
from visaudio.presets import Preset
from visaudio.training import loop
from visaudio.training.batches import DropoutConfig, conditions_of, stream
from visaudio.training.checkpoint import list_checkpoints, load_checkpoint
from visaudio.training.ema import EmaConfig, TrackedEma
from visaudio.training.flow_stage import new_network
from visaudio.training.loop import FlowLoopConfig, train
from visaudio.training.schedule import ScheduleConfig

TARGET = 0.05  # of the loss before the first step
TIMES = 5
EAR_CORRELATION = 0.7
SMOOTH_TOKENS = 2.0  # standard deviation of the latents' smoothing in time


class SmoothClips:
    """`count` clips of the preset's shapes, drawn from (seed, clip): see the head of the file."""

    def __init__(self, preset: Preset, duration_s: float, count: int = 8, seed: int = 0):
        c, sequence = preset.network, preset.sequence.with_duration(duration_s)
        self.ids = [f"clip{index}" for index in range(count)]
        self.rows: list[dict[str, Any]] = []
        for sample_id in self.ids:
            random = stream(seed, "overfit", sample_id)
            shared, own = (_tracks(random, n, sequence.num_tokens, c.token_dim) for n in (1, 2))
            frames, cells = sequence.num_clip_frames, c.spatial_rows * c.spatial_columns
            self.rows.append(
                {
                    "latents": EAR_CORRELATION**0.5 * shared + (1 - EAR_CORRELATION) ** 0.5 * own,
                    "clip": nn.functional.normalize(_features(random, frames, c.clip_dim), dim=-1),
                    "grid": _features(random, frames * cells, c.spatial_dim).view(frames, cells, -1),
                    "sync": _features(random, sequence.num_sync_tokens, c.sync_dim),
                    "text": _features(random, c.text_tokens, c.text_dim),
                    "hfov_rad": math.radians(float(random.uniform(50, 110))),
                    "id": sample_id,
                }
            )

    def get(self, index: int, mirror: bool) -> Mapping[str, Any]:
        if mirror:
            raise ValueError("these clips have no mirrored features")
        return self.rows[index]


def _normal(random: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(random.standard_normal(shape, dtype=np.float32))


def _features(random: np.random.Generator, tokens: int, dim: int) -> Tensor:
    """(tokens, dim) of unit variance: half of it the clip's own, the same in all tokens, as encoders' is."""
    return (_normal(random, 1, dim) + _normal(random, tokens, dim)) / 2**0.5


def _tracks(random: np.random.Generator, ears: int, tokens: int, dim: int) -> Tensor:
    """(ears, tokens, dim) of unit variance, smooth along the tokens."""
    reach = math.ceil(3 * SMOOTH_TOKENS)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / SMOOTH_TOKENS) ** 2)
    kernel = torch.from_numpy((kernel / np.linalg.norm(kernel)).astype(np.float32))
    return (_normal(random, ears, tokens + 2 * reach, dim).unfold(1, len(kernel), 1) * kernel).sum(-1)


class Grid:
    """The fixed grid: one noise for each clip, t at the middles of TIMES equally likely parts of the
    training's own logit-normal, so that its mean loss is the training's loss without the chance of a draw.
    """

    def __init__(self, samples: SmoothClips, t_mean: float, bf16: bool):
        self.samples, self.bf16 = samples, bf16
        middles = (torch.arange(TIMES) + 0.5) / TIMES
        self.times = timesteps_from_normal(torch.special.ndtri(middles), t_mean)

    def losses(self, network: nn.Module) -> list[float]:
        """Mean over the clips at each time."""
        training = network.training
        network.eval()
        rows = self.samples.rows
        x_1 = network.normalize(torch.stack([row["latents"] for row in rows]))
        x_0, conditions = noise_of(self.samples, "grid"), conditions_of(rows)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            prepared = network.preprocess_conditions(conditions, x_1.shape[2])
            found = []
            for t in self.times:
                t = t.expand(len(rows))
                v_pred = network.predict_velocity(flow.interpolate(x_0, x_1, t), t, prepared)
                loss = flow.flow_matching_loss(v_pred, flow.velocity_target(x_0, x_1))
                found.append(float(loss.mean()))
        network.train(training)
        return found


def noise_of(samples: SmoothClips, name: str) -> Tensor:
    """(B, 2, N, D), of this name and the clips' own."""
    shape = tuple(samples.rows[0]["latents"].shape)
    return torch.stack([_normal(stream(0, name, sample_id), *shape) for sample_id in samples.ids])


class Curve:
    """`train`'s validate: a line {"step", "raw", "averaged"} of losses on the grid, a list each, by time."""

    def __init__(self, network: nn.Module, grid: Grid, path: Path):
        self.raw, self.grid, self.path = network, grid, path

    def __call__(self, averaged: nn.Module, step: int, _writer: object) -> None:
        lines = [line for line in read_curve(self.path) if line["step"] < step]
        lines.append(
            {"step": step, "raw": self.grid.losses(self.raw), "averaged": self.grid.losses(averaged)}
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        print(json.dumps(lines[-1]), file=sys.stderr, flush=True)


def read_curve(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def loop_config(options: argparse.Namespace) -> FlowLoopConfig:
    return FlowLoopConfig(
        steps=options.steps,
        batch_size=options.batch,
        optimizer=options.optimizer,
        precision=options.precision,
        mirror_probability=0.0,
        t_mean=options.t_mean,
        log_every=10,
        validate_every=options.every,
        checkpoint_minutes=options.checkpoint_minutes,
        keep_checkpoints=1,
        schedule=ScheduleConfig(
            peak=options.peak, warmup_steps=options.warmup, decay="cosine", decay_start=0.6, final_ratio=0.02
        ),
        dropout=DropoutConfig(visual=0, clip=0, sync=0, spatial=0, text=0, hfov=0),
        ema=EmaConfig(sigma_rels=(0.05, 0.15), output_sigma_rel=0.05, snapshots=1),
    )


@contextmanager
def fused_on_cpu() -> Iterator[None]:
    """AdamW's fused kernel, which the loop takes on GPUs alone (it rounds otherwise, and would change the
    golden losses). Where one step meets eight clips of a large network, AdamW is a good part of the step.
    """
    usual = loop.make_optimizer

    def fused(*args: Any, **settings: Any) -> torch.optim.Optimizer:
        optimizer = usual(*args, **settings)
        for part in getattr(optimizer, "parts", {"": optimizer}).values():
            if isinstance(part, torch.optim.AdamW):
                for group in part.param_groups:
                    group["fused"] = True
        return optimizer

    loop.make_optimizer = fused
    try:
        yield
    finally:
        loop.make_optimizer = usual


def samples_errors(network: nn.Module, samples: SmoothClips, num_steps: int, bf16: bool) -> dict[str, float]:
    """Latents sampled from other noise than the grid's, in the flow's space, by Euler without guidance.

    error: RMS of (sampled - truth) over the truth's RMS; of_another: the same against the next clip's truth;
    own_is_nearest: share of clips whose nearest truth is their own.
    """
    rows = samples.rows
    truth = network.normalize(torch.stack([row["latents"] for row in rows]))
    noise = noise_of(samples, "sampling")
    network.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        prepared = network.preprocess_conditions(conditions_of(rows), truth.shape[2])
        velocity = guided(network.predict_velocity, prepared, None, 1.0)
        found = solver.solve(velocity, noise, solver.time_grid(num_steps)).float()
    size = truth.square().mean().sqrt()
    apart = (found[:, None] - truth[None]).square().mean(dim=(2, 3, 4)).sqrt() / size  # (B sampled, B true)
    return {
        "error": float(apart.diagonal().square().mean().sqrt()),
        "worst_clip": float(apart.diagonal().max()),
        "of_another": float(apart.roll(1, dims=1).diagonal().square().mean().sqrt()),
        "own_is_nearest": float((apart.argmin(dim=1) == torch.arange(len(rows))).float().mean()),
    }


def report(options: argparse.Namespace, preset: Preset, samples: SmoothClips, config: FlowLoopConfig) -> dict:
    """Figures of the newest checkpoint below the output folder, raw weights and EMA."""
    found = list_checkpoints(options.output / "checkpoints")
    if not found:
        raise SystemExit(f"no checkpoint in {options.output / 'checkpoints'}: train first")
    checkpoint = load_checkpoint(found[-1])
    network = new_network(preset.network, samples, None, options.seed)
    network.audio_input_proj.requires_grad_(not options.keep_input)
    ema = TrackedEma(network, config.ema, options.output / "ema")
    ema.load_state_dict(checkpoint.ema)
    network.load_state_dict(checkpoint.network)
    curve = read_curve(options.output / "curve.jsonl")
    grid = Grid(samples, options.t_mean, bf16=False)
    start = mean(curve[0]["raw"])
    figures: dict[str, Any] = {
        "step": checkpoint.state["step"],
        "parameters": sum(p.numel() for p in network.parameters()),
        "tokens": samples.rows[0]["latents"].shape[1],
        "start": start,
        "times": grid.times.tolist(),
    }
    for name, one in (("raw", network), ("averaged", ema.averaged)):
        losses = grid.losses(one)
        figures[name] = {"losses": losses, "loss": mean(losses), "of_start": mean(losses) / start}
        figures[name] |= samples_errors(one, samples, options.sampling_steps, bf16=False)
    return figures


def plot(curve: Sequence[Mapping[str, float]], path: Path) -> None:
    """Share of the first loss over steps, logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    steps, start = [line["step"] for line in curve], mean(curve[0]["raw"])
    figure, axes = plt.subplots(figsize=(6.4, 3.2), dpi=100)
    for name, label in (("raw", "weights as trained"), ("averaged", "EMA, sigma_rel 0.05")):
        axes.plot(steps, [100 * mean(line[name]) / start for line in curve], label=label)
    axes.axhline(100 * TARGET, color="grey", linestyle=":", label=f"{100 * TARGET:g} %")
    axes.set(
        yscale="log",
        xlabel="optimizer step",
        ylabel="loss, % of its start",
        title="Eight clips, one fixed grid",
    )
    axes.legend()
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)


def markdown(figures: Mapping[str, Any], command: str, commit: str) -> str:
    lines = [
        f"`{command}` at commit `{commit}`: {figures['parameters'] / 1e6:.0f} M parameters, "
        f"{figures['tokens']} tokens an ear, {figures['step']} steps; loss {figures['start']:.2f} before.",
        "",
        "| weights | loss | of its start | sampled latents off by | worst clip | off another clip's "
        "| own clip nearest |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, label in (("raw", "as trained"), ("averaged", "EMA")):
        one = figures[name]
        lines.append(
            f"| {label} | {one['loss']:.3f} | {100 * one['of_start']:.1f} % | {100 * one['error']:.1f} % "
            f"| {100 * one['worst_clip']:.1f} % | {100 * one['of_another']:.0f} % "
            f"| {100 * one['own_is_nearest']:.0f} % |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the run")
    parser.add_argument("--preset", default="small")
    parser.add_argument(
        "--set", nargs="*", default=[], help="e.g. network.hidden_dim=128 network.num_heads=2"
    )
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--duration-s", type=float, default=0.5)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--peak", type=float, default=8e-4, help="learning rate")
    parser.add_argument(
        "--keep-input", action="store_true", help="the latents' input projection stays as it was drawn"
    )
    parser.add_argument("--warmup", type=int, default=30, help="steps until the learning rate is at its peak")
    parser.add_argument("--optimizer", default="adamw")
    parser.add_argument("--t-mean", type=float, default=0.0, help="of the logit-normal times")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--every", type=int, default=40, help="steps between points of the curve")
    parser.add_argument("--checkpoint-minutes", type=float, default=20.0)
    parser.add_argument("--sampling-steps", type=int, default=25)
    parser.add_argument("--seed", type=seed_number, default=0)
    parser.add_argument("--report", action="store_true", help="train no further")
    parser.add_argument("--plot", type=Path, help="a PNG of the curve")
    options = parser.parse_args(arguments)
    preset = presets.load_preset(options.preset, options.set)
    samples = SmoothClips(preset, options.duration_s, options.clips, options.seed)
    config = loop_config(options)
    if not options.report:
        network = new_network(preset.network, samples, None, options.seed)
        network.audio_input_proj.requires_grad_(not options.keep_input)
        grid = Grid(samples, options.t_mean, options.precision == "bf16")
        curve = Curve(network, grid, options.output / "curve.jsonl")
        if not read_curve(curve.path):
            curve(network, 0, None)
        with fused_on_cpu():
            train(network, samples, config, options.output, options.seed, curve)
        del network, curve
    figures = report(options, preset, samples, config)
    (options.output / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    if options.plot:
        plot(read_curve(options.output / "curve.jsonl"), options.plot)
    print(markdown(figures, "python benchmarks/overfit.py " + " ".join(arguments or sys.argv[1:]), commit()))
    return 0


def commit() -> str:
    root = Path(__file__).parents[1]
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    raise SystemExit(main())
