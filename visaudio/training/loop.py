"""The training loop of the flow network, on Accelerate.

One visible loop: batch, loss, backward, clip, learning rate, step, EMA, log, validate, checkpoint. Every
number that it depends on is a function of (seed, step), so a run that was killed and resumed ends with
the same weights, bit for bit on one machine's CPU, as one that ran straight through. Between two logged
steps nothing waits for an accelerator.
"""

import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bi_audio_dataset.schema import UserError
from visaudio import flow
from visaudio.precision import PRECISIONS, use_bf16
from visaudio.training import processes
from visaudio.training.batches import Batch, BatchStream, DropoutConfig, Samples, WaitShare, stream
from visaudio.training.block_wrappers import check_compiler, wrap_blocks
from visaudio.training.coupling import Coupling
from visaudio.training.ema import EmaConfig, TrackedEma
from visaudio.training.guards import FiniteGuard, StopSignal
from visaudio.training.losses import LossRecord
from visaudio.training.optimizer import check_optimizer, make_optimizer
from visaudio.training.progress import Progress
from visaudio.training.run_state import RunState
from visaudio.training.schedule import ScheduleConfig, learning_rate
from visaudio.training.trackers import Trackers, check_trackers, open_trackers


@dataclass(frozen=True)
class FlowLoopConfig:
    """steps: optimizer steps. max_minutes: if above 0, the run's length is the smaller of ``steps`` and
    what fits into that time by a timing of the first ``calibration_steps``; it is then fixed and stored,
    so that the learning rate stays a function of the step alone. batch_size: samples of one optimizer
    step over all processes and accumulation rounds. precision: 'bf16' is autocast with float32 weights;
    'auto' takes it where the hardware has it. activation_checkpointing: keep each block's inputs alone and
    compute the rest again for the backward pass. compile: the blocks, by torch.compile. loader_workers:
    threads of each process that prepare batches, prefetch: batches ahead. ot_group: clips among which noise
    is exchanged (coupling.py); 0 is off. trackers: of tensorboard, wandb and trackio.
    """

    steps: int = 20000
    max_minutes: float = 0.0
    calibration_steps: int = 30
    batch_size: int = 16
    accumulation: int = 1
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 1e-6
    optimizer: str = "adamw"  # or "muon"
    clip_norm: float = 1.0
    precision: str = "auto"
    activation_checkpointing: bool = False
    compile: bool = False
    loader_workers: int = 1
    prefetch: int = 2
    mirror_probability: float = 0.5
    t_mean: float = 0.0
    t_scale: float = 1.0
    ot_group: int = 0
    log_every: int = 20
    validate_every: int = 1000
    checkpoint_minutes: float = 10.0
    keep_checkpoints: int = 2
    trackers: tuple[str, ...] = ("tensorboard",)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    dropout: DropoutConfig = field(default_factory=DropoutConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UserError(f"precision is {self.precision!r}; expected one of {', '.join(PRECISIONS)}")
        check_optimizer(self.optimizer)
        if self.steps < 1 or self.batch_size < 1 or self.accumulation < 1:
            raise UserError("steps, batch_size and accumulation must be at least 1")
        if self.ot_group < 0 or self.ot_group == 1:
            raise UserError(f"ot_group is {self.ot_group}; expected 0 (off), or 2 and more clips")
        if self.log_every < 1 or self.loader_workers < 1 or self.prefetch < 1:
            raise UserError("log_every, loader_workers and prefetch must be at least 1")


class LoopResult(NamedTuple):
    """step: steps done; finished: False after a signal; loss: mean of the last logged window."""

    step: int
    total_steps: int
    finished: bool
    loss: float


Validate = Callable[[nn.Module, int, Trackers], object]


def train(
    network: nn.Module,
    samples: Samples,
    config: FlowLoopConfig,
    folder: Path,
    seed: int = 0,
    validate: Validate | None = None,
) -> LoopResult:
    """Train ``network`` in place on ``samples``; all files go below ``folder``.

    Goes on from the newest checkpoint in ``folder/checkpoints`` if there is one. SIGINT and SIGTERM save
    a checkpoint and return with ``finished=False``. ``validate(averaged_network, step, writer)`` runs on
    the first process. Raises UserError where the folder belongs to a run of other settings;
    FloatingPointError, naming the samples, where a loss is not finite.
    """
    check_trackers(config.trackers)
    accelerator = processes.start("bf16" if use_bf16(config.precision) else "no", config.accumulation)
    check_optimizer(config.optimizer, accelerator.is_fsdp2)
    if config.compile:
        check_compiler(accelerator.device, accelerator.local_process_index)
    main, folder = accelerator.is_main_process, Path(folder)
    batches = BatchStream(
        samples,
        seed,
        config.batch_size,
        config.dropout,
        config.mirror_probability,
        config.t_mean,
        config.t_scale,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        accumulation=config.accumulation,
        workers=config.loader_workers,
        prefetch=config.prefetch,
        pin=accelerator.device.type == "cuda",
        coupling=Coupling(config.ot_group, network) if config.ot_group else None,
    )
    network.to(accelerator.device).train()
    ema = TrackedEma(network, config.ema, folder / "ema")
    terms = getattr(samples, "terms", None) or ()  # of a mixture
    run = RunState(config, seed, [*samples.ids, *terms], folder / "checkpoints")
    run.resume(network, ema)
    wrap_blocks(network, config.activation_checkpointing, config.compile)
    optimizer = make_optimizer(
        network, config.optimizer, config.schedule.peak, config.betas, config.weight_decay
    )
    model, optimizer = processes.prepare(accelerator, network, optimizer)
    run.resume_optimizer(optimizer)
    ema.follow(main)
    processes.on_first(accelerator, ema.forget_after, run.step)

    record = LossRecord(folder, accelerator, run.step)
    trackers = open_trackers(accelerator, config.trackers, folder, run.step, asdict(config))
    progress = Progress("flow", run.total_steps, run.step, visible=main)
    progress.say(f"flow: {len(samples.ids)} clips, from step {run.step}, files go to {folder}")
    if changes := run.what_changes(accelerator):
        progress.say(f"flow: {changes}")
    alone_on_cpu = accelerator.device.type == "cpu" and accelerator.num_processes == 1
    guard = FiniteGuard(1 if alone_on_cpu else config.log_every, accelerator)
    window: list[Tensor] = []
    loss, last_save = math.nan, time.monotonic()
    waits = WaitShare(batches)

    with StopSignal() as stop, closing(batches), closing(trackers), closing(progress):
        while run.step < run.total_steps:
            # Only for a network that draws numbers itself: its draws, too, then depend on (seed, step) alone.
            torch.manual_seed(int(stream(seed, "torch", run.step).integers(2**62)))
            rate = learning_rate(run.step, run.total_steps, config.schedule)
            for group in optimizer.param_groups:
                group["lr"] = rate
            for accumulation_round in range(config.accumulation):
                batch = batches.get(run.step, accumulation_round).to(accelerator.device)
                with accelerator.accumulate(model):
                    with accelerator.autocast():
                        losses = batch_losses(model, network, batch)
                    guard.add(run.step, batch.ids, losses.detach())
                    record.add(run.step + 1, losses)
                    accelerator.backward(losses.mean())
                    if accelerator.sync_gradients:
                        norm = accelerator.clip_grad_norm_(model.parameters(), config.clip_norm)
                        grad_norm = processes.whole_number(norm)
                        guard.check(grad_norm)
                    optimizer.step()
                    optimizer.zero_grad()
                window.append(losses.detach().mean())
            ema.update()
            run.advance()
            progress.advance()

            if run.fix_length():
                progress.set_total(run.total_steps)
                progress.say(f"flow: {run.total_steps} steps fit into {config.max_minutes:g} min")
            last = run.step == run.total_steps
            if last or run.step % run.snapshot_every == 0:
                ema.snapshot(accelerator)
            if last or run.step % config.log_every == 0:
                record.flush()
                loss = processes.mean_over_processes(accelerator, torch.stack(window).mean())
                window.clear()
                figures = {"loss": loss, "grad_norm": float(grad_norm), "learning_rate": rate}
                speed = {"seconds_per_step": progress.seconds_per_step, "loader_wait": waits.since_last()}
                log_figures = {f"flow/{name}": value for name, value in {**figures, **speed}.items()}
                trackers.log(log_figures, run.step)
                progress.report(**figures)
            if validate and config.validate_every and (last or run.step % config.validate_every == 0):
                processes.on_first(accelerator, validate, ema.averaged, run.step, trackers)
            # Several processes must agree, which costs a round trip: then only at the steps that log.
            if accelerator.num_processes == 1 or last or run.step % config.log_every == 0:
                stopping = processes.any_process(accelerator, stop.asked)
                due = time.monotonic() - last_save > 60 * config.checkpoint_minutes
                if last or stopping or processes.any_process(accelerator, due):
                    guard.check(grad_norm, force=True)
                    record.flush()
                    run.save(accelerator, network, optimizer, ema)
                    last_save = time.monotonic()
                if stopping:
                    break

    finished = run.step >= run.total_steps
    if not finished:
        progress.say(f"flow: stopped and saved at step {run.step}; the same command goes on from there")
    accelerator.wait_for_everyone()
    return LoopResult(run.step, run.total_steps, finished, loss)


def batch_losses(model: nn.Module, network: nn.Module, batch: Batch) -> Tensor:
    """Flow-matching loss per sample (B,). ``model`` is ``network``, perhaps wrapped for several processes."""
    x_1 = network.normalize(batch.latents)
    x_t = flow.interpolate(batch.noise, x_1, batch.t)
    v_target = flow.velocity_target(batch.noise, x_1)
    v_pred = model(x_t, batch.t, batch.conditions)
    return flow.flow_matching_loss(v_pred.float(), v_target)
