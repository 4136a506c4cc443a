"""What the flow stage looks at while it trains: the loss by timestep, and what the network sounds like.

The clips, the noise and the times are fixed for a run, so that two steps, or two runs, can be compared.
Sounds are made by the one `sampling.generate` and heard by the evaluation package; the truth is the codec's
round trip of the clip's own sound. It runs on the first process while the others wait: at the defaults it
costs 160 evaluations of one clip for the losses and 200 for the sounds, fewer than one step of batch 512.

Legend: B clips, 2 ears (0 = left), N tokens, D dimensions, S samples, F frames at 25 Hz.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bi_audio_dataset.schema import UserError
from visaudio import flow
from visaudio.evaluation import cues, onsets
from visaudio.model.conditions import Conditions
from visaudio.training.batches import Samples, conditions_of, stream
from visaudio.training.progress import say
from visaudio.training.trackers import Trackers

SIDE_ILD_DB = 2.0  # the truth's ILD beyond which a frame has a side
ACTIVE_BELOW_PEAK_DB = 40.0  # frames of the truth further below its loudest are not compared
BATCH = 16  # clips at a time
LOGGED = 4  # sounds that TensorBoard gets
# what is heard -> whether more of it is better
SOUND_METRICS = {
    "ild_r": True,
    "ild_error_db": False,
    "side": True,
    "itd_error_us": False,
    "onset_f1": True,
    "level_error_db": False,
}


@dataclass(frozen=True)
class ValidationConfig:
    """loss_clips at each of time_bins times; audio_clips are sampled (num_steps, guidance_scale), heard, and
    the first few logged. best_metric: the figure by which the best weights are kept (best.py): loss,
    loss_t0.1 and so on, or one of SOUND_METRICS.
    """

    loss_clips: int = 32
    time_bins: int = 5
    audio_clips: int = 4
    num_steps: int = 25
    guidance_scale: float = 3.0
    best_metric: str = "loss"

    def __post_init__(self) -> None:
        for name in ("loss_clips", "time_bins", "num_steps"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.audio_clips < 0:
            raise UserError(f"audio_clips is {self.audio_clips}, expected at least 0")
        if self.best_metric in SOUND_METRICS and not self.audio_clips:
            raise UserError(
                f"best_metric {self.best_metric!r} is heard in sampled clips: set audio_clips above 0"
            )
        if self.best_metric not in self.metrics:
            raise UserError(
                f"best_metric is {self.best_metric!r}, which this validation does not compute; "
                f"expected one of {', '.join(self.metrics)}"
            )

    @property
    def bins(self) -> dict[str, float]:
        """Name of the loss in each bin -> the time in its middle."""
        times = [(b + 0.5) / self.time_bins for b in range(self.time_bins)]
        digits = max(1, math.ceil(math.log10(2 * self.time_bins)))
        return {f"loss_t{t:.{digits}f}": t for t in times}

    @property
    def metrics(self) -> dict[str, bool]:
        """Every figure that it computes -> whether more of it is better."""
        return {
            **dict.fromkeys(["loss", *self.bins], False),
            **(SOUND_METRICS if self.audio_clips else {}),
        }


# (network, conditions of B clips, tokens of noise (B, 2, N, D)) -> audio (B, 2, S)
Sampler = Callable[[nn.Module, Conditions, Tensor], Tensor]
Decoder = Callable[[Tensor], Tensor]  # codec tokens (B, 2, N, D) -> audio (B, 2, S)


class FlowValidation:
    """Callable for `loop.train`: (network, step, writer) -> figures, written to the trackers and to the
    log. writer: Trackers or a SummaryWriter.
    """

    def __init__(
        self,
        samples: Samples,
        config: ValidationConfig,
        seed: int,
        sampler: Sampler | None = None,
        decoder: Decoder | None = None,
        sample_rate: int = 22050,
    ):
        self.samples, self.config, self.seed = samples, config, seed
        self.sampler, self.decoder, self.sample_rate = sampler, decoder, sample_rate
        self._truth: np.ndarray | None = None

    def __call__(self, network: nn.Module, step: int, writer: Trackers) -> dict[str, float]:
        began = time.monotonic()
        was_training = network.training
        network.eval()
        with torch.no_grad():
            figures = self.losses(network)
            figures.update(self.sound(network, step, writer))
        network.train(was_training)
        for name, value in figures.items():
            if math.isfinite(value):  # nothing to hear in these clips: no figure
                writer.add_scalar(f"validation/{name}", value, step)
        text = "  ".join(f"{name} {value:.3f}" for name, value in figures.items())
        say(f"flow: validation at step {step} ({time.monotonic() - began:.0f} s)  {text}")
        return figures

    def losses(self, network: nn.Module) -> dict[str, float]:
        """Mean loss of the held-out clips at the middle of each of the equal time bins, and over all bins."""
        bins = self.config.bins
        totals = dict.fromkeys(bins, 0.0)
        count = min(self.config.loss_clips, len(self.samples.ids))
        device = next(network.parameters()).device
        for rows, noise in self._batches(count):
            x_1 = network.normalize(_latents(rows).to(device))
            x_0, conditions = noise.to(device), conditions_of(rows).to(device)
            for name, middle in bins.items():
                t = torch.full((len(rows),), middle, device=device)
                v_pred = network(flow.interpolate(x_0, x_1, t), t, conditions)
                losses = flow.flow_matching_loss(v_pred, flow.velocity_target(x_0, x_1))
                totals[name] += float(losses.sum())
        means = {name: total / max(1, count) for name, total in totals.items()}
        return {"loss": sum(means.values()) / len(means), **means}

    def sound(self, network: nn.Module, step: int, writer: Trackers) -> dict[str, float]:
        """Sample some clips, log the first few, and hear them against the codec's round trip of the truth."""
        count = min(self.config.audio_clips, len(self.samples.ids))
        if self.sampler is None or self.decoder is None or count == 0:
            return {}
        device = next(network.parameters()).device
        sampled, truth = [], []
        for rows, noise in self._batches(count):
            sampled.append(self.sampler(network, conditions_of(rows).to(device), noise.to(device)))
            if self._truth is None:
                truth.append(self.decoder(_latents(rows).to(device)))
        if self._truth is None:
            self._truth = torch.cat(truth).float().cpu().numpy()
            _log_audio(writer, "truth", self._truth, step, self.sample_rate)
        audio = torch.cat(sampled).float().cpu().numpy()
        _log_audio(writer, "sampled", audio, step, self.sample_rate)
        return sound_figures(audio, self._truth, self.sample_rate)

    def _batches(self, count: int):
        """The first `count` clips, BATCH at a time."""
        for first in range(0, count, BATCH):
            yield self._clips(range(first, min(count, first + BATCH)))

    def _clips(self, indices: Sequence[int]) -> tuple[list, Tensor]:
        rows = [self.samples.get(index, mirror=False) for index in indices]
        noise = [
            stream(self.seed, "validation", self.samples.ids[index]).standard_normal(
                tuple(row["latents"].shape), dtype=np.float32
            )
            for index, row in zip(indices, rows, strict=True)
        ]
        return rows, torch.from_numpy(np.stack(noise))


def sound_figures(audio: np.ndarray, truth: np.ndarray, sample_rate: int) -> dict[str, float]:
    """audio, truth (B, 2, S) -> SOUND_METRICS over the truth's active frames and all onsets, clips pooled.

    ild_r: Pearson r of the frames' ILD; side: share of the frames with the ILD's right sign among those where
    the truth's is beyond SIDE_ILD_DB (a silent frame is wrong); itd_error_us: median, from the phase below
    1.5 kHz; onset_f1: onsets heard in the sample against those heard in the truth. nan where nothing counts.
    """
    length = min(audio.shape[-1], truth.shape[-1])
    pooled: dict[str, list[np.ndarray]] = {name: [] for name in ("ild", "true_ild", "itd", "level")}
    sides, found = np.zeros(2, int), np.zeros(3, int)
    for ours, theirs in zip(audio[..., :length], truth[..., :length], strict=True):
        levels = cues.levels_db(theirs, sample_rate).max(axis=1)
        active = (levels > levels.max() - ACTIVE_BELOW_PEAK_DB) & ~cues.is_silent(theirs, sample_rate)
        ild, true_ild = (cues.ild_db(x, sample_rate)[active] for x in (ours, theirs))
        itd, true_itd = (cues.itd_from_phase(x, sample_rate)[active] for x in (ours, theirs))
        silent = cues.is_silent(ours, sample_rate)[active]
        # the truth's ILD in the place of the lateral angle: both are positive to the left
        sides += cues.side_correct(ild, true_ild, silent, SIDE_ILD_DB)
        heard = (onsets.detect_onsets(x, sample_rate) for x in (ours, theirs))
        found += onsets.match_onsets(*heard)
        level = cues.levels_db(ours, sample_rate)[active] - cues.levels_db(theirs, sample_rate)[active]
        for name, value in zip(pooled, (ild, true_ild, itd - true_itd, level.ravel()), strict=True):
            pooled[name].append(value)
    ild, true_ild, itd, level = (np.concatenate(values) for values in pooled.values())
    return {
        "ild_r": cues.pearson(ild, true_ild),
        "ild_error_db": _mean(np.abs(ild - true_ild)),
        "side": float(sides[0] / sides[1]) if sides[1] else math.nan,
        "itd_error_us": float(np.median(np.abs(itd)) * 1e6) if len(itd) else math.nan,
        "onset_f1": onsets.f1(*found) if found[2] else math.nan,
        "level_error_db": _mean(np.abs(level)),
    }


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _latents(rows: Sequence) -> Tensor:
    return torch.stack([torch.as_tensor(row["latents"]).float() for row in rows])


def _log_audio(writer: Trackers, name: str, audio: np.ndarray, step: int, sample_rate: int) -> None:
    """TensorBoard plays one channel: the ears one after the other, half a second apart."""
    gap = np.zeros(round(0.5 * sample_rate), np.float32)
    for index, clip in enumerate(audio[:LOGGED]):
        ears = np.concatenate([clip[0], gap, clip[1]]) / max(1e-3, float(np.abs(clip).max()))
        writer.add_audio(
            f"{name}/{index} (left, then right)", torch.from_numpy(ears[None]), step, sample_rate
        )
