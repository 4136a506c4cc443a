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
from visaudio.encoders.clip import ClipEncoder
from visaudio.encoders.synchformer import SynchformerConfig, SynchformerEncoder
from visaudio.training.cells import boxes_at, grid_targets
from visaudio.training.inflate import can_inflate, inflate
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
            steps=8000, learning_rate=3e-3, betas=(0.9, 0.98), weight_decay=0.02
        )
    )
    jitter: JitterConfig = field(default_factory=JitterConfig)
    segments: int = 32
    max_clips: int = 2000
    validation_clips: int = 24
    level_weight: float = 0.5
    ild_weight: float = 2.0
    total_ild_weight: float = 1.0
    onset_weight: float = 1.0
    class_weight: float = 0.5
    patch_weight: float = 1.0
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
        self.patch_head = nn.Linear(encoder.config.width, classes + 6)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.read(frames)[0]

    def read(self, frames: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        """What the slots say, and what the patches do: (B t, n, K + 6), see `patch_loss`."""
        patches = self.encoder.patch_tokens(frames)
        tokens = self.encoder.aggregate(patches)
        with torch.autocast(frames.device.type, enabled=False):
            return self.heads(tokens), self.patch_head(rearrange(patches.float(), "b g t n d -> (b g t) n d"))


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

    def patch_targets(self, step: int, device: str = "cpu") -> dict[str, Tensor]:
        """Targets of the patches of the same batch, B segments of t slots: tensors (B t, n, ...)."""
        config, tubelet = self.config, self.model.tubelet
        rng = step_rng(config.loop.seed, step)
        clips = rng.integers(len(self.frames), size=config.segments)
        starts = rng.integers(self.frames.shape[1] - self.model.segment_frames + 1, size=config.segments)
        mirror = rng.random(config.segments) < 0.5
        steps = self.model.segment_frames // tubelet
        moments = (starts[:, None] + np.arange(steps) * tubelet).reshape(-1)
        owners = clips.repeat(steps)
        boxes = boxes_at(self.truth.picture, owners, moments)
        boxes["x"] = np.where(mirror.repeat(steps)[:, None], 1 - boxes["x"], boxes["x"])
        side, classes = self.model.image_size // self.model.patch_size, len(self.truth.classes)
        tracks = self.truth.source_onsets
        last = np.minimum(moments + tubelet - 1, tracks.shape[1] - 1)
        boxes["onset"] = np.maximum(tracks[owners, moments], tracks[owners, last])
        values = vars(grid_targets(boxes, side, side, classes))
        return {name: value.flatten(1, 2).to(device) for name, value in values.items()}


def patch_loss(outputs: Tensor, targets: dict[str, Tensor]) -> Tensor:
    """outputs (B t, n, K + 6): presence of classes, offset of the centre in cells, active, onset, sides."""
    presence, offset, active, onset, sides = outputs.split((outputs.shape[-1] - 6, 2, 1, 1, 2), dim=-1)
    rare = torch.tensor(4.0, device=outputs.device)
    covered, centre = targets["covered"], targets["has_centre"]
    present = F.binary_cross_entropy_with_logits(presence - 3.0, targets["presence"], pos_weight=rare)
    apart = (offset - targets["offset"]).abs().mean(dim=-1)
    on = F.binary_cross_entropy_with_logits(active[..., 0], targets["active"], reduction="none")
    starts = F.binary_cross_entropy_with_logits(
        onset[..., 0] - 2.0, targets["onset"], reduction="none", pos_weight=rare
    )
    covered_count, centre_count = covered.sum().clamp_min(1), centre.sum().clamp_min(1)
    return (
        10 * present
        + (apart * centre).sum() / centre_count
        + ((0.5 * on + starts) * covered).sum() / covered_count
        # most patches are empty: the sum over them, per covered one
        + F.smooth_l1_loss(sides, targets["sides"], beta=0.2, reduction="sum") / covered_count
    )


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
    # and the whole band's ILD, in units of 5 dB, where a visible source sounds: band by band it drowns
    seen = targets["sounding"].any(dim=-1) & (targets["levels_db"].amax(dim=(2, 3)) > FLOOR_DB + 20)
    estimate, truth_db = _total_ild(levels * LEVEL_SCALE_DB), _total_ild(targets["levels_db"])
    total_error = F.smooth_l1_loss(estimate / 5, truth_db / 5, beta=0.1, reduction="none")
    total_loss = (total_error * seen).sum() / seen.sum().clamp_min(1)
    rare = torch.tensor(4.0, device=onset.device)
    onset_loss = F.binary_cross_entropy_with_logits(onset, targets["onset"], pos_weight=rare)
    class_loss = F.binary_cross_entropy_with_logits(classes, targets["sounding"])
    loss = (
        config.level_weight * level_loss
        + config.ild_weight * ild_loss
        + config.total_ild_weight * total_loss
        + config.onset_weight * onset_loss
        + config.class_weight * class_loss
    )
    parts = {"level": level_loss, "ild": ild_loss, "total_ild": total_loss}
    return loss, {**parts, "onset": onset_loss, "class": class_loss}


def _total_ild(levels_db: Tensor) -> Tensor:
    """(B, t, E, M) band levels -> (B, t) ILD in dB."""
    return total_ild_db(levels_db.flatten(0, 1)).unflatten(0, levels_db.shape[:2])


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


def example_pictures(frames: np.ndarray, size: int, count: int = 64) -> Tensor:
    """Frames spread over a cache (C, T, 3, H, W) uint8 -> (count, 3, size, size) in [0, 1]."""
    chosen = np.linspace(0, len(frames) - 1, count).astype(int)
    pictures = torch.from_numpy(np.stack([frames[c, i % frames.shape[1]] for i, c in enumerate(chosen)]))
    return F.interpolate(pictures.float() / 255, size=(size, size), mode="bilinear", align_corners=False)


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
    clip_encoder: ClipEncoder | None = None,
) -> tuple[SynchformerEncoder, dict[str, float]]:
    """Train (or load, if trained) the encoder; writes model.safetensors and done.json under output.

    clip_encoder: a trained picture encoder to start from (inflate.py), if it is of the same width and depth.
    """
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

    if clip_encoder is not None and can_inflate(encoder, clip_encoder):
        inflate(encoder, clip_encoder, example_pictures(data["train"][0], clip_encoder.image_size))
    model = _Trained(encoder, len(classes)).to(device)
    sampler = SegmentSampler(*data["train"], config, model_config)

    def loss_function(step: int):
        frames, targets = sampler.batch(step, device)
        slots, patches = model.read(frames)
        loss, parts = slot_loss(slots, targets, config)
        parts["patch"] = patch_loss(patches, sampler.patch_targets(step, device))
        return loss + config.patch_weight * parts["patch"], parts

    validate = (lambda: slot_figures(model, *data[held])) if held in data else None
    figures = run_stage("synchformer", config.loop, model, loss_function, output, validate, progress)
    save_file({k: v.contiguous().cpu() for k, v in encoder.state_dict().items()}, weights)
    finish(output, figures, config)
    return encoder.eval(), figures
