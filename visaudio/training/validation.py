"""What the flow stage looks at while it trains: the loss by timestep, and what the network sounds like.

The clips, the noise and the times are fixed for a run, so that two steps, or two runs, can be compared.
Legend: B clips, 2 ears (0 = left), N tokens, D dimensions, S samples.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from visaudio import flow
from visaudio.model.conditions import Conditions
from visaudio.training.batches import Samples, conditions_of, stream
from visaudio.training.interaural import active_frames, frames_of, ild_db
from visaudio.training.progress import say
from visaudio.training.trackers import Trackers

SIDE_ILD_DB = 2.0  # the truth's ILD beyond which a frame has a side


@dataclass(frozen=True)
class ValidationConfig:
    """loss_clips at each of time_bins times; audio_clips are sampled (num_steps, guidance_scale) and
    logged.
    """

    loss_clips: int = 32
    time_bins: int = 5
    audio_clips: int = 4
    num_steps: int = 25
    guidance_scale: float = 3.0


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
        self._truth: Tensor | None = None

    def __call__(self, network: nn.Module, step: int, writer: Trackers) -> dict[str, float]:
        began = time.monotonic()
        was_training = network.training
        network.eval()
        with torch.no_grad():
            figures = self.losses(network)
            figures.update(self.sound(network, step, writer))
        network.train(was_training)
        for name, value in figures.items():
            writer.add_scalar(f"validation/{name}", value, step)
        text = "  ".join(f"{name} {value:.3f}" for name, value in figures.items())
        say(f"flow: validation at step {step} ({time.monotonic() - began:.0f} s)  {text}")
        return figures

    def losses(self, network: nn.Module) -> dict[str, float]:
        """Mean loss of the held-out clips at the middle of each of the equal time bins, and over all bins."""
        totals = np.zeros(self.config.time_bins)
        count = min(self.config.loss_clips, len(self.samples.ids))
        device = next(network.parameters()).device
        for first in range(0, count, 16):
            rows, noise = self._clips(range(first, min(count, first + 16)))
            x_1 = network.normalize(_latents(rows).to(device))
            x_0, conditions = noise.to(device), conditions_of(rows).to(device)
            for b in range(self.config.time_bins):
                t = torch.full((len(rows),), (b + 0.5) / self.config.time_bins, device=device)
                v_pred = network(flow.interpolate(x_0, x_1, t), t, conditions)
                totals[b] += float(flow.flow_matching_loss(v_pred, flow.velocity_target(x_0, x_1)).sum())
        means = totals / max(1, count)
        named = {f"loss_t{(b + 0.5) / len(means):.1f}": float(mean) for b, mean in enumerate(means)}
        return {"loss": float(means.mean()), **named}

    def sound(self, network: nn.Module, step: int, writer: Trackers) -> dict[str, float]:
        """Sample some clips; log them, and how their ILD follows that of the codec's round trip of the
        truth.
        """
        count = min(self.config.audio_clips, len(self.samples.ids))
        if self.sampler is None or self.decoder is None or count == 0:
            return {}
        device = next(network.parameters()).device
        rows, noise = self._clips(range(count))
        audio = self.sampler(network, conditions_of(rows).to(device), noise.to(device)).float().cpu()
        if self._truth is None:
            self._truth = self.decoder(_latents(rows).to(device)).float().cpu()
            _log_audio(writer, "truth", self._truth, step, self.sample_rate)
        _log_audio(writer, "sampled", audio, step, self.sample_rate)
        return ild_figures(audio, self._truth, self.sample_rate)

    def _clips(self, indices: Sequence[int]) -> tuple[list, Tensor]:
        rows = [self.samples.get(index, mirror=False) for index in indices]
        noise = [
            stream(self.seed, "validation", self.samples.ids[index]).standard_normal(
                tuple(row["latents"].shape), dtype=np.float32
            )
            for index, row in zip(indices, rows, strict=True)
        ]
        return rows, torch.from_numpy(np.stack(noise))


def ild_figures(audio: Tensor, truth: Tensor, sample_rate: int) -> dict[str, float]:
    """audio, truth (B, 2, S): over the truth's active frames, Pearson r of the frames' ILD (dB, positive
    = left louder), the share with the right sign among frames with a side, and the mean level error in
    dB. A silent ear pair has ILD 0, which counts as the wrong side.
    """
    length = min(audio.shape[-1], truth.shape[-1])
    ours, theirs = (frames_of(x[..., :length], sample_rate) for x in (audio, truth))
    active = active_frames(theirs)
    if not active.any():
        return {}
    ild, ild_true = ild_db(ours)[active], ild_db(theirs)[active]
    sided = ild_true.abs() > SIDE_ILD_DB
    figures = {"ild_error_db": float((ild - ild_true).abs().mean())}
    if len(ild) > 2 and ild.std() > 0 and ild_true.std() > 0:
        figures["ild_r"] = float(torch.corrcoef(torch.stack([ild, ild_true]))[0, 1])
    if sided.any():
        figures["side"] = float((torch.sign(ild) == torch.sign(ild_true))[sided].float().mean())
    level = [10 * torch.log10(x.square().mean(dim=(1, 3)) + 1e-9)[active] for x in (ours, theirs)]
    figures["level_error_db"] = float((level[0] - level[1]).abs().mean())
    return figures


def _latents(rows: Sequence) -> Tensor:
    return torch.stack([torch.as_tensor(row["latents"]).float() for row in rows])


def _log_audio(writer: Trackers, name: str, audio: Tensor, step: int, sample_rate: int) -> None:
    """TensorBoard plays one channel: the ears one after the other, half a second apart."""
    gap = torch.zeros(round(0.5 * sample_rate))
    for index, clip in enumerate(audio):
        ears = torch.cat([clip[0], gap, clip[1]]) / clip.abs().max().clamp_min(1e-3)
        writer.add_audio(f"{name}/{index} (left, then right)", ears[None], step, sample_rate)
