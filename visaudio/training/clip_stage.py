"""Pretraining of the tiny CLIP: pictures against captions, and what sounds where from the patch tokens.

The contrastive part is CLIP's with several positives: clips of one caption are positives of each other.
The heads, dropped afterwards, teach the patch tokens (8 x 8) and the pooled grid that the network gets
(2 x 8) which class is seen in a cell, where its centre lies within it, whether it sounds just now, and how
far to the left or right what sounds there is; the joint embedding which classes are in view; the text
tokens which classes a text names.

Legend: B pictures of a step, C clips, T frames of a clip, H x W patches, K classes, S source slots, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bi_audio_dataset.schema import UserError
from visaudio.data.dataset import Clip, FrameCache, build_cache, open_dataset, read_clip, without_media
from visaudio.encoders.clip import ClipConfig, ClipEncoder
from visaudio.encoders.grid import pool_grid
from visaudio.training.cells import CellTargets, boxes_at, grid_targets
from visaudio.training.pictures import JitterConfig, apply_window, jitter_colours, random_window
from visaudio.training.stage import LoopConfig, finish, finished, run_stage, step_rng
from visaudio.training.truth import PictureTruth, class_list, picture_truth


@dataclass(frozen=True)
class ClipStageConfig:
    """pictures: per step; text_variants: share of texts that are only a part of the caption."""

    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=8000, learning_rate=3e-3, betas=(0.9, 0.98), weight_decay=0.05
        )
    )
    jitter: JitterConfig = field(default_factory=JitterConfig)
    pictures: int = 96
    fps: float = 8.0
    max_clips: int = 4000
    validation_clips: int = 64
    text_variants: float = 0.4
    contrastive_weight: float = 0.3
    presence_weight: float = 1.0
    offset_weight: float = 1.0
    active_weight: float = 0.2
    sides_weight: float = 1.0
    class_weight: float = 0.5


class CellHead(nn.Module):
    """Linear read-out of cell tokens (B, H, W, D)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.linear = nn.Linear(width, classes + 5)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(B, H, W, ...): presence logits (K), offset in cells (2), active logit (), sides (2)."""
        presence, offset, active, sides = self.linear(tokens.float()).split((self.classes, 2, 1, 2), dim=-1)
        return presence - 3.0, offset, active[..., 0], sides

    def loss(self, tokens: Tensor, targets: CellTargets, config: ClipStageConfig) -> dict[str, Tensor]:
        presence, offset, active, sides = self(tokens)
        rare = torch.tensor(4.0, device=presence.device)
        present = F.binary_cross_entropy_with_logits(presence, targets.presence, pos_weight=rare)
        apart = (offset - targets.offset).abs().mean(dim=-1)
        sounding = F.binary_cross_entropy_with_logits(active, targets.active, reduction="none")
        aside = F.smooth_l1_loss(sides, targets.sides, beta=0.2, reduction="sum")
        return {
            # a mean over mostly empty cells: scaled to weigh as much as the others
            "presence": 10 * present,
            "sides": aside / targets.covered.sum().clamp_min(1),
            "offset": _masked_mean(apart, targets.has_centre),
            "active": _masked_mean(sounding, targets.covered),
        }


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum().clamp_min(1)


class _Trained(nn.Module):
    def __init__(self, encoder: ClipEncoder, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.patch_head = CellHead(encoder.grid_dim, classes)
        self.grid_head = CellHead(encoder.grid_dim, classes)
        self.picture_head = nn.Linear(encoder.embed_dim, classes)
        self.text_head = nn.Linear(encoder.text_dim, classes)

    def pictures(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, S, S) in [0, 1] -> unit embeddings (B, D), patches (B, H, W, D), grid (B, R, C, D)."""
        pooled, tokens = self.encoder.encode_patches(pictures[:, None])
        config = self.encoder.config
        grid = pool_grid(tokens[:, 0].float(), config.grid_rows, config.grid_columns)
        grid = grid.unflatten(1, (config.grid_rows, config.grid_columns))
        return F.normalize(pooled[:, 0].float(), dim=-1), tokens[:, 0], grid


def multi_positive_loss(logits: Tensor, positive: Tensor) -> Tensor:
    """Symmetric InfoNCE with several positives: cross-entropy against the uniform over each row's positives.

    logits (B, B), positive (B, B) bool, symmetric, true on the diagonal.
    """
    target = positive.float()
    rows = -(target / target.sum(1, keepdim=True) * logits.log_softmax(dim=1)).sum(dim=1).mean()
    columns = -(target / target.sum(0, keepdim=True) * logits.log_softmax(dim=0)).sum(dim=0).mean()
    return 0.5 * (rows + columns)


class PictureSampler:
    """Draws batches of frames with texts and truth by (seed, step)."""

    def __init__(
        self, frames: np.ndarray, clips: list[Clip], truth: PictureTruth, config: ClipStageConfig
    ) -> None:
        self.frames, self.clips, self.truth, self.config = frames, clips, truth, config

    def batch(self, step: int, device: str = "cpu") -> dict:
        """pictures (B, 3, S, S), boxes (B, S) after crop and mirror, captions, texts, named (B, K)."""
        config = self.config
        rng = step_rng(config.loop.seed, step)
        chosen = rng.choice(len(self.clips), config.pictures, replace=len(self.clips) < config.pictures)
        moments = rng.integers(self.frames.shape[1], size=config.pictures)
        pictures = np.stack([self.frames[c, t] for c, t in zip(chosen, moments, strict=True)])
        window = random_window(rng, config.pictures, config.jitter.zoom)
        pictures = torch.from_numpy(pictures).to(device).float().div_(255)
        pictures = jitter_colours(apply_window(pictures, window)[:, None], rng, config.jitter)[:, 0]
        boxes = boxes_at(self.truth, chosen, moments)
        boxes["x"], boxes["y"] = window.move_x(boxes["x"]), window.move_y(boxes["y"])
        boxes["half_width"] = boxes["half_width"] / window.width[:, None]
        boxes["half_height"] = boxes["half_height"] / window.height[:, None]
        texts, named = zip(*(self._text(rng, self.clips[c]) for c in chosen), strict=True)
        captions = [self.clips[c].caption for c in chosen]
        return {
            "pictures": pictures, "boxes": boxes, "captions": captions, "texts": list(texts),
            "named": torch.from_numpy(np.stack(named)),
        }  # fmt: skip

    def _text(self, rng: np.random.Generator, clip: Clip) -> tuple[str, np.ndarray]:
        """A caption, or a part of it such as a user may type, and the classes (K,) that it names."""
        sources = clip.sources
        text = clip.caption
        if sources and rng.random() < self.config.text_variants:
            source = sources[int(rng.integers(len(sources)))]
            text = [source.caption, source.class_name, f"the sound of {source.caption}"][int(rng.integers(3))]
            sources = (source,)
        named = np.zeros(len(self.truth.classes), dtype=np.float32)
        for source in sources:
            if source.class_name in self.truth.classes:
                named[self.truth.classes.index(source.class_name)] = 1
        return text, named


def clip_loss(model: _Trained, batch: dict, config: ClipStageConfig) -> tuple[Tensor, dict[str, Tensor]]:
    embedding, patches, grid = model.pictures(batch["pictures"])
    device, classes = embedding.device, model.patch_head.classes
    parts: dict[str, Tensor] = {}
    with torch.autocast(device.type, enabled=False):
        for head, tokens in ((model.patch_head, patches), (model.grid_head, grid)):
            targets = grid_targets(batch["boxes"], *tokens.shape[1:3], classes)
            targets = CellTargets(**{k: v.to(device) for k, v in vars(targets).items()})
            for name, value in head.loss(tokens, targets, config).items():
                parts[name] = parts.get(name, 0) + 0.5 * value
        in_view = targets.presence.amax(dim=(1, 2))
        parts["picture_class"] = F.binary_cross_entropy_with_logits(
            model.picture_head(10 * embedding), in_view
        )
    texts, text_index = np.unique(batch["texts"], return_inverse=True)  # each distinct text is encoded once
    tokens, text_embedding = encode_texts(model.encoder, texts.tolist())
    text_index = torch.from_numpy(text_index).to(device)
    with torch.autocast(device.type, enabled=False):
        named = model.text_head(tokens.float().mean(dim=1))[text_index]
        parts["text_class"] = F.binary_cross_entropy_with_logits(named, batch["named"].to(device))
        logits = model.encoder.logit_scale.clamp(max=100) * embedding @ text_embedding.float()[text_index].T
        positive = _same(batch["captions"]) | _same(batch["texts"])
        parts["contrastive"] = multi_positive_loss(logits, torch.from_numpy(positive).to(device))
        loss = (
            config.presence_weight * parts["presence"]
            + config.offset_weight * parts["offset"]
            + config.active_weight * parts["active"]
            + config.sides_weight * parts["sides"]
            + config.class_weight * (parts["picture_class"] + parts["text_class"])
            + config.contrastive_weight * parts["contrastive"]
        )
    return loss, {name: value.detach() for name, value in parts.items()}


def encode_texts(encoder: ClipEncoder, texts: list[str]) -> tuple[Tensor, Tensor]:
    """All tokens (N, L, D) and unit joint embeddings (N, D) in one pass of the text tower."""
    ids = encoder.tokenize(texts)
    tokens = encoder.encode_tokens(ids)
    end = tokens[torch.arange(len(ids), device=ids.device), ids.argmax(dim=-1)]
    return tokens, F.normalize((end @ encoder.model.text_projection).float(), dim=-1)


def _same(texts: list[str]) -> np.ndarray:
    array = np.array(texts)
    return array[:, None] == array[None, :]


@torch.no_grad()
def clip_figures(
    model: _Trained, frames: np.ndarray, clips: list[Clip], truth: PictureTruth
) -> dict[str, float]:
    """Held-out figures, from the pooled grid that the network will get.

    column: share of visible sources for whose class the strongest cell is in their column or next to it;
    x_error: mean |x| error there, in picture widths, from that cell and its offset; class_found: the class
    is among those that the grid says are there (logit above 0). retrieval: share of frames whose nearest
    caption, of the distinct ones held out, is their own.
    """
    device = next(model.parameters()).device
    moments = np.linspace(0, frames.shape[1] - 1, 8).astype(int)
    near, errors, found, right = [], [], [], []
    captions = sorted({clip.caption for clip in clips})
    _, text_embedding = encode_texts(model.encoder, captions)
    for index, clip in enumerate(clips):
        pictures = torch.from_numpy(frames[index, moments]).to(device).float() / 255
        embedding, _, grid = model.pictures(pictures)
        best = (embedding @ text_embedding.float().T).argmax(dim=1).cpu().numpy()
        right += [captions[i] == clip.caption for i in best]
        presence, offset, *_ = (part.float().cpu().numpy() for part in model.grid_head(grid))
        columns = presence.shape[2]
        boxes = boxes_at(truth, np.full(len(moments), index), moments)
        for moment, slot in zip(*np.nonzero(boxes["visible"] & (boxes["label"] >= 0)), strict=True):
            scores = presence[moment, :, :, boxes["label"][moment, slot]]
            row, column = np.unravel_index(scores.argmax(), scores.shape)
            x = boxes["x"][moment, slot]
            near.append(abs(column - int(x * columns)) <= 1)
            errors.append(abs((column + 0.5 + offset[moment, row, column, 0]) / columns - x))
            found.append(scores.max() > 0)
    figures = {"retrieval": float(np.mean(right))}
    if near:
        figures = {
            "column": float(np.mean(near)),
            "x_error": float(np.mean(errors)),
            "class_found": float(np.mean(found)),
            **figures,
        }
    return figures


def train_clip(
    dataset: str | Path,
    model_config: ClipConfig,
    config: ClipStageConfig,
    output: Path,
    cache: Path | None = None,
    duration_s: float = 8.0,
    workers: int = 2,
    device: str = "cpu",
    progress: bool = True,
) -> tuple[ClipEncoder, dict[str, float]]:
    """Train (or load, if trained) the encoder; writes model.safetensors and done.json under output."""
    from safetensors.torch import load_file, save_file

    output = Path(output)
    torch.manual_seed(config.loop.seed)
    encoder = ClipEncoder(model_config).to(device)
    weights = output / "model.safetensors"
    if (figures := finished(output)) is not None and weights.is_file():
        encoder.load_state_dict(load_file(weights))
        return encoder.eval(), figures
    cache = output.parent / "cache" if cache is None else Path(cache)
    spec = FrameCache(config.fps, encoder.image_size, int(duration_s * config.fps), model_config.resize)
    rows = open_dataset(dataset)
    splits = np.array(rows["split"])
    held = "validation" if (splits == "validation").any() else "test"
    parts = {
        "train": rows.select(np.flatnonzero(splits == "train")[: config.max_clips]),
        held: rows.select(np.flatnonzero(splits == held)[: config.validation_clips]),
    }
    clips = {name: [read_clip(row) for row in without_media(part)] for name, part in parts.items()}
    classes = class_list(clips["train"])
    if not classes:
        raise UserError(f"the clips of '{dataset}' carry no truth: this stage learns from BiAudio-Synth")
    data = {}
    for name, part in parts.items():
        if len(part):
            frames = build_cache(part, spec, cache / f"{name}_{len(part)}", workers, progress)
            data[name] = frames, clips[name], picture_truth(clips[name], classes, spec.fps, spec.num_frames)

    model = _Trained(encoder, len(classes)).to(device)
    sampler = PictureSampler(*data["train"], config)

    def loss_function(step: int):
        return clip_loss(model, sampler.batch(step, device), config)

    validate = (lambda: clip_figures(model, *data[held])) if held in data else None
    figures = run_stage("clip", config.loop, model, loss_function, output, validate, progress)
    save_file({k: v.contiguous().cpu() for k, v in encoder.state_dict().items()}, weights)
    finish(output, figures, config)
    return encoder.eval(), figures
