"""Pretraining of the tiny Synchformer visual encoder: from each token, the sound of its 0.08 s in both ears.

Each of the eight tokens of a 16-frame segment predicts, through one linear layer that is dropped
afterwards: both ears' levels in mel bands (what is heard, how loud, on which side), onsets of visible
sources in its two frames, and which classes sound in view. The ILD of the predicted levels against the
truth's on held-out clips is the earliest proof that pictures tell this path where a sound is.

Legend: B segments of a step, C clips, T frames at 25 Hz, t tokens of a segment (2 frames each), E ears,
M mel bands, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from bi_audio_dataset.schema import UserError
from visaudio.data.dataset import (
    AudioCache,
    FrameCache,
    build_cache,
    open_dataset,
    read_clip,
    without_media,
)
from visaudio.encoders.synchformer import SynchformerConfig, SynchformerEncoder
from visaudio.training.pictures import JitterConfig, jitter_colours
from visaudio.training.slots import (
    BANDS,
    FLOOR_DB,
    FPS,
    LEVEL_SCALE_DB,
    SlotTruth,
    average_precision,
    onset_labels,
    pool_slots,
    slot_truth,
    total_ild_db,
)
from visaudio.training.stage import LoopConfig, finish, finished, run_stage, step_rng
from visaudio.training.truth import class_list


@dataclass(frozen=True)
class SynchformerStageConfig:
    """segments: per step; max_clips: how many clips' frames are decoded and kept (7.5 MB each on disk)."""

    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=4000, learning_rate=1e-3, betas=(0.9, 0.98), weight_decay=0.02
        )
    )
    jitter: JitterConfig = field(default_factory=JitterConfig)
    segments: int = 32
    max_clips: int = 1200
    validation_clips: int = 24
    level_weight: float = 1.0
    ild_weight: float = 2.0
    onset_weight: float = 1.0
    class_weight: float = 0.5
    repeat_frame_probability: float = 0.3


class SlotHeads(nn.Module):
    """Linear read-out of each token (B, t, D): what its 0.08 s sound like."""

    def __init__(self, width: int, classes: int, frames_per_slot: int) -> None:
        super().__init__()
        self.sizes = (2 * BANDS, frames_per_slot, classes)
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, sum(self.sizes))

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """levels (B, t, E, M) in LEVEL_SCALE_DB, logits of onsets (B, t, z) and of classes (B, t, K)."""
        levels, onset, classes = self.linear(self.norm(tokens.float())).split(self.sizes, dim=-1)
        return rearrange(levels, "b t (e m) -> b t e m", e=2) - 2.0, onset - 2.0, classes - 2.0


class _Trained(nn.Module):
    def __init__(self, encoder: SynchformerEncoder, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = SlotHeads(encoder.output_dim, classes, encoder.config.tubelet)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tokens = self.encoder(frames)
        with torch.autocast(frames.device.type, enabled=False):
            return self.heads(tokens)


class SegmentSampler:
    """Draws batches of segments with their targets by (seed, step)."""

    def __init__(
        self, frames: np.ndarray, truth: SlotTruth, config: SynchformerStageConfig, model: SynchformerConfig
    ) -> None:
        self.frames, self.truth, self.config, self.model = frames, truth, config, model

    def batch(self, step: int, device: str = "cpu") -> tuple[Tensor, dict[str, Tensor]]:
        """frames (B, segment_frames, 3, H, W) in [-1, 1] and targets."""
        config, length = self.config, self.model.segment_frames
        rng = step_rng(config.loop.seed, step)
        clips = rng.integers(len(self.frames), size=config.segments)
        starts = rng.integers(self.frames.shape[1] - length + 1, size=config.segments)
        mirror = rng.random(config.segments) < 0.5
        frames = np.stack(
            [self.frames[c, self._frame_indices(rng, s)] for c, s in zip(clips, starts, strict=True)]
        )
        pictures = torch.from_numpy(frames).to(device)
        flip = torch.from_numpy(mirror).to(device)
        pictures[flip] = pictures[flip].flip(-1)
        pictures = jitter_colours(pictures, rng, config.jitter)
        return pictures.mul_(2).sub_(1), self._targets(clips, starts, mirror, device)

    def _frame_indices(self, rng: np.random.Generator, start: int) -> np.ndarray:
        index = np.arange(start, start + self.model.segment_frames)
        if rng.random() < self.config.repeat_frame_probability:
            # a source of another frame rate shows some frames twice at 25 Hz
            index = np.where(
                rng.random(len(index)) < rng.uniform(0, 0.3), np.maximum(index - 1, start), index
            )
        return index

    def _targets(self, clips, starts, mirror, device: str) -> dict[str, Tensor]:
        span = starts[:, None] + np.arange(self.model.segment_frames)
        levels = self.truth.levels_db[clips[:, None], :, span].astype(np.float32)  # (B, T, E, M)
        levels[mirror] = levels[mirror][:, :, ::-1]
        targets = pool_slots(
            levels, self.truth.onsets[clips[:, None], span], self.truth.sounding[clips[:, None], span],
            self.model.tubelet,
        )  # fmt: skip
        return {name: value.to(device) for name, value in targets.items()}


def slot_loss(
    outputs: tuple[Tensor, Tensor, Tensor], targets: dict[str, Tensor], config: SynchformerStageConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    levels, onset, classes = outputs
    truth = targets["levels_db"] / LEVEL_SCALE_DB
    level_loss = F.smooth_l1_loss(levels, truth, beta=0.1)
    # the side is a small difference of two large numbers: it gets a term of its own, where there is sound
    heard = truth.amax(dim=2) > (FLOOR_DB + 15) / LEVEL_SCALE_DB
    side_error = F.smooth_l1_loss(
        levels[:, :, 0] - levels[:, :, 1], truth[:, :, 0] - truth[:, :, 1], beta=0.05, reduction="none"
    )
    ild_loss = (side_error * heard).sum() / heard.sum().clamp_min(1)
    rare = torch.tensor(4.0, device=onset.device)
    onset_loss = F.binary_cross_entropy_with_logits(onset, targets["onset"], pos_weight=rare)
    class_loss = F.binary_cross_entropy_with_logits(classes, targets["sounding"])
    loss = (
        config.level_weight * level_loss
        + config.ild_weight * ild_loss
        + config.onset_weight * onset_loss
        + config.class_weight * class_loss
    )
    return loss, {"level": level_loss, "ild": ild_loss, "onset": onset_loss, "class": class_loss}


@torch.no_grad()
def slot_figures(model: _Trained, frames: np.ndarray, truth: SlotTruth) -> dict[str, float]:
    """Held-out figures over whole clips.

    onset_ap: average precision of "an onset of a visible source falls in this frame of 0.04 s" (frames
    beside a true one are left out of the ranking). Over slots within 40 dB of the clip's loudest in which a
    visible source sounds: ild_r, Pearson r of the predicted levels' ILD with the truth's; ild_error_db, mean
    absolute error; side, share of right signs where the truth's |ILD| is above 3 dB; class_accuracy, the
    strongest class is one that sounds.
    """
    config = model.encoder.config
    device = next(model.parameters()).device
    size, tubelet = config.segment_frames, config.tubelet
    scores, labels, ild, ild_truth, class_hits = [], [], [], [], []
    for index in range(len(frames)):
        count = frames.shape[1] // size * size  # segments back to back: each slot is judged once
        pictures = torch.from_numpy(np.array(frames[index, :count])).to(device).float() / 127.5 - 1
        levels, onset, classes = model(rearrange(pictures, "(b s) c h w -> b s c h w", s=size))
        target = pool_slots(
            truth.levels_db[index, :, :count].astype(np.float32).transpose(1, 0, 2)[None],
            truth.onsets[index, None, :count],
            truth.sounding[index, None, :count],
            tubelet,
        )
        hit, near = onset_labels(truth.onset_times[index], count)
        scores.append(onset.reshape(-1).cpu().numpy()[hit | ~near])
        labels.append(hit[hit | ~near])
        predicted = total_ild_db(rearrange(levels, "b t e m -> (b t) e m").cpu() * LEVEL_SCALE_DB)
        actual = total_ild_db(target["levels_db"][0])
        loud = target["levels_db"][0].amax(dim=(1, 2)) > -40
        chosen = loud & (target["sounding"][0].amax(dim=1) > 0)
        ild.append(predicted[chosen])
        ild_truth.append(actual[chosen])
        best = classes.reshape(-1, classes.shape[-1]).argmax(dim=1).cpu()
        class_hits.append(target["sounding"][0][torch.arange(len(best)), best][chosen])
    predicted, actual, hits = torch.cat(ild), torch.cat(ild_truth), torch.cat(class_hits)
    figures = {"onset_ap": average_precision(np.concatenate(scores), np.concatenate(labels))}
    if len(predicted) > 2:
        figures["ild_r"] = float(torch.corrcoef(torch.stack([predicted, actual]))[0, 1])
        figures["ild_error_db"] = float((predicted - actual).abs().mean())
        figures["class_accuracy"] = float(hits.mean())
        lateral = actual.abs() > 3
        if lateral.any():
            figures["side"] = float((predicted[lateral].sign() == actual[lateral].sign()).float().mean())
    return figures


def train_synchformer(
    dataset: str | Path,
    model_config: SynchformerConfig,
    config: SynchformerStageConfig,
    output: Path,
    cache: Path | None = None,
    duration_s: float = 8.0,
    sample_rate: int = 22050,
    workers: int = 2,
    device: str = "cpu",
    progress: bool = True,
) -> tuple[SynchformerEncoder, dict[str, float]]:
    """Train (or load, if trained) the encoder; writes model.safetensors and done.json under output."""
    from safetensors.torch import load_file, save_file

    output = Path(output)
    torch.manual_seed(config.loop.seed)
    encoder = SynchformerEncoder(model_config).to(device)
    weights = output / "model.safetensors"
    if (figures := finished(output)) is not None and weights.is_file():
        encoder.load_state_dict(load_file(weights))
        return encoder.eval(), figures
    cache = output.parent / "cache" if cache is None else Path(cache)
    num_frames = int(duration_s * FPS)
    num_frames -= num_frames % model_config.tubelet
    frame_cache = FrameCache(FPS, model_config.image_size, num_frames, model_config.resize)
    audio_cache = AudioCache(sample_rate, round(duration_s * sample_rate))

    rows = open_dataset(dataset)
    splits = np.array(rows["split"])
    held = "validation" if (splits == "validation").any() else "test"
    chosen = {
        "train": rows.select(np.flatnonzero(splits == "train")),
        held: rows.select(np.flatnonzero(splits == held)[: config.validation_clips]),
    }
    chosen["train"] = chosen["train"].select(range(min(config.max_clips, len(chosen["train"]))))
    clips = {name: [read_clip(row) for row in without_media(part)] for name, part in chosen.items()}
    classes = class_list(clips["train"])
    if not classes:
        raise UserError(f"the clips of '{dataset}' carry no truth: this stage learns from BiAudio-Synth")
    data = {}
    for name, part in chosen.items():
        if len(part):
            audio = build_cache(part, audio_cache, cache / f"{name}_{len(part)}", workers, progress)
            frames = build_cache(part, frame_cache, cache / f"{name}_{len(part)}", workers, progress)
            data[name] = frames, slot_truth(clips[name], audio, sample_rate, classes, num_frames)

    model = _Trained(encoder, len(classes)).to(device)
    sampler = SegmentSampler(*data["train"], config, model_config)

    def loss_function(step: int):
        frames, targets = sampler.batch(step, device)
        return slot_loss(model(frames), targets, config)

    validate = (lambda: slot_figures(model, *data[held])) if held in data else None
    figures = run_stage("synchformer", config.loop, model, loss_function, output, validate, progress)
    save_file({k: v.contiguous().cpu() for k, v in encoder.state_dict().items()}, weights)
    finish(output, figures, config)
    return encoder.eval(), figures
