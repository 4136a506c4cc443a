#!/usr/bin/env python
"""What the frozen features tell of where and when it sounds: the limit of what looks through them alone.

    python -m visaudio.data.features --dataset data/heldout --output runs/heldout-features --splits test
    python benchmarks/feature_limit.py --train-data data/synth --train runs/tiny/features \\
        --dataset data/heldout --features runs/heldout-features

A small network reads, for each slot of the sync track (80 ms), whether any source is active and on which side
it lies, from Synchformer's tokens, the pictures' embeddings and their grid: all that the flow is told but
words and lens. It is trained on the annotations of the training clips, and asked on held-out clips of one
source in view what the quality table asks of a generated sound: in frames in which the source is active and
lies more than SIDE_DEG to a side, is it said to be active, and there? The same is asked of the validation
clips, whose looks and sounds are drawn as the training's are. Mirror images are both trained on and averaged
over. The threshold of activity is where as many slots of the validation clips are said to be active
as are.

Legend: B clips, U slots, D dimensions, F frames at 25 Hz.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from bi_audio_dataset.schema import UserError
from visaudio import tables
from visaudio.cli.common import Parser, guard, positive, positive_int, seed_number
from visaudio.data.dataset import open_dataset, read_clip, without_media
from visaudio.data.feature_store import FeatureDataset
from visaudio.evaluation.baselines.head import Block
from visaudio.evaluation.baselines.head_training import sequence_of
from visaudio.evaluation.intervals import RESAMPLES, draws, interval
from visaudio.evaluation.synth_benchmark import SIDE_DEG, active_frames, common_side_deg, groups_of
from visaudio.model.timing import interpolate_at, sync_track_index
from visaudio.sequence import SequenceConfig

ROOT = Path(__file__).resolve().parents[1]
WIDTH, BLOCKS, CELL_WIDTH = 192, 3, 16


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    given = list(sys.argv[1:] if arguments is None else arguments)
    return guard(lambda: run(options, tables.shown_command("benchmarks/feature_limit.py", given)))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--train-data", required=True, help="the dataset that the features of --train are of")
    add("--train", type=Path, required=True, help="features folder: its training clips are learned from")
    add("--dataset", required=True, help="held-out clips: a BiAudio folder, its test split")
    add("--features", type=Path, required=True, help="their features, by the same encoders")
    add("--steps", type=positive_int, default=1500, help="of 16 clips (default: 1500)")
    add("--learning-rate", type=positive, default=1e-3)
    add("--seed", type=seed_number, default=0)
    add("--write-to", type=Path, help="a Markdown file whose marked part the table replaces")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace, command: str) -> int:
    train, held_out = FeatureDataset(options.train, "train"), FeatureDataset(options.features, "test")
    validation = FeatureDataset(options.train, "validation")
    if train.made_from["weights"] != held_out.made_from["weights"]:
        raise UserError(f"{options.features} and {options.train} are features of other weights")
    sequence = sequence_of(train)
    if sequence_of(held_out) != sequence:
        raise UserError(f"{options.features} and {options.train} are features of other lengths or rates")
    taught = truths(options.train_data, "train", sequence)
    known = truths(options.train_data, "validation", sequence)
    asked = truths(options.dataset, "test", sequence)
    check_clips(train, taught, f"--train {options.train}", f"--train-data {options.train_data}")
    check_clips(validation, known, f"--train {options.train}", f"--train-data {options.train_data}")
    check_clips(held_out, asked, f"--features {options.features}", f"--dataset {options.dataset}")
    tables.check_part(options.write_to, "feature_limit")
    torch.manual_seed(options.seed)
    reader = Reader(train, sequence)
    fit(reader, train, taught, options)
    threshold = balance(reader, validation, known)
    columns = {"training's looks and sounds": (validation, known), "held-out ones": (held_out, asked)}
    counts = {
        f"{what}, {sum(t.gated for t in of.values())} clips": [
            count(reader, features, name, t, threshold) for name, t in of.items() if t.gated
        ]
        for what, (features, of) in columns.items()
    }
    text = f"`{command}` at commit `{tables.commit(ROOT)}`.\n\n{table(counts)}"
    tables.publish(text, None, options.write_to, "feature_limit")
    return 0


def check_clips(features: FeatureDataset, truth: Mapping[str, object], folder: str, data: str) -> None:
    """UserError unless features and truths are of the same clips: before any training."""
    if not features.ids:
        raise UserError(
            f"{folder}: holds no features of the split that is wanted ({data} has {len(truth)} clips of it)"
        )
    for known, other, there, lacking in (
        (truth, set(features.ids), data, folder),
        (features.ids, set(truth), folder, data),
    ):
        if missing := [name for name in known if name not in other]:
            raise UserError(
                f"{lacking} and {there} do not belong together: {len(missing)} of {len(known)} clips of "
                f"{there} are not in {lacking}, the first is '{missing[0]}'"
            )


# -------------------- what is true


@dataclass(frozen=True)
class Truth:
    """Of one clip. active (U,) bool; side (U,): +1 left, -1 right, 0 neither, of the sources that are active;
    frames (F,): the slot of each frame; frame_active, frame_side (F,): the same at 25 Hz."""

    active: np.ndarray
    side: np.ndarray
    frames: np.ndarray
    frame_active: np.ndarray
    frame_side: np.ndarray
    gated: bool


def truths(dataset: str | Path, split: str, sequence: SequenceConfig) -> dict[str, Truth]:
    table = without_media(open_dataset(dataset, [split]))
    return {row["id"]: _truth(row, sequence) for row in table}


def _truth(row: dict, sequence: SequenceConfig) -> Truth:
    clip = read_clip(row)
    if not clip.sources:
        raise UserError(f"clip {clip.id} has no annotated source, which the reader is to learn of")
    camera = np.array([row["camera"][f"{axis}_deg"] for axis in ("yaw", "pitch", "roll")])
    rate = sequence.sync_slots_per_second
    frames = round(min(clip.duration_s, sequence.duration_s) * 25)
    active = np.stack([active_frames(source)[:frames] for source in clip.sources])
    lateral = np.stack([source.lateral_deg[:frames] for source in clip.sources])
    common = common_side_deg(lateral, active)
    side = np.where(np.abs(common) > SIDE_DEG, np.sign(common), 0)
    slots = len(slot_order(sequence))
    of_frame = np.minimum((np.arange(active.shape[1]) / 25 * rate).astype(int), slots - 1)
    sounding, left = np.zeros(slots, bool), np.zeros(slots)
    np.logical_or.at(sounding, of_frame, active.any(axis=0))
    np.add.at(left, of_frame, side)
    gated = "gated" in groups_of(clip, camera)
    return Truth(sounding, np.sign(left), of_frame, active.any(axis=0), side, gated)


def slot_order(sequence: SequenceConfig) -> Tensor:
    """The sync token of each slot, (U,)."""
    hop = int(sequence.sync_slots_per_stride)
    return sync_track_index(sequence.num_segments, sequence.tokens_per_segment, hop)


# -------------------- the reader


class Reader(nn.Module):
    """Features of a clip -> for each slot of the sync track: is it active, is it left (logits)."""

    def __init__(self, features: FeatureDataset, sequence: SequenceConfig) -> None:
        super().__init__()
        shapes = features.shapes
        self.sequence = sequence
        self.order = slot_order(sequence)
        self.see_sync = nn.Linear(shapes["sync"][-1], WIDTH)
        self.see_picture = nn.Linear(shapes["clip"][-1], WIDTH)
        self.see_cell = nn.Linear(shapes["grid"][-1], CELL_WIDTH)
        self.see_grid = nn.Linear(shapes["grid"][-2] * CELL_WIDTH, WIDTH)
        self.blocks = nn.Sequential(*(Block(WIDTH) for _ in range(BLOCKS)))
        self.norm = nn.LayerNorm(WIDTH)
        self.out = nn.Linear(WIDTH, 2)

    def forward(self, sync: Tensor, pictures: Tensor, grid: Tensor) -> Tensor:
        """sync (B, Ts, D), pictures (B, Tc, D), grid (B, Tc, C, D) -> (B, U, 2)."""
        tokens = self.see_sync(sync[:, self.order])
        seen = self.see_picture(pictures) + self.see_grid(self.see_cell(grid).flatten(2))
        slots = (torch.arange(tokens.shape[1]) + 0.5) / self.sequence.sync_slots_per_second
        seen = interpolate_at(seen, (slots * self.sequence.clip_fps).clamp(0, seen.shape[1] - 1))
        return self.out(self.norm(self.blocks(tokens + seen)))


def inputs(features: FeatureDataset, numbers: Sequence[int], mirror: Sequence[bool]) -> tuple[Tensor, ...]:
    found = [features.get(number, flip) for number, flip in zip(numbers, mirror, strict=True)]
    return tuple(torch.stack([one[name].float() for one in found]) for name in ("sync", "clip", "grid"))


def fit(reader: Reader, features: FeatureDataset, truth: dict[str, Truth], options) -> None:
    optimizer = torch.optim.AdamW(reader.parameters(), lr=options.learning_rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.learning_rate, options.steps)
    rng = np.random.default_rng(options.seed)
    for _ in tqdm(range(options.steps), desc="reader", unit="step"):
        numbers, mirror = rng.integers(len(features), size=16), rng.random(16) < 0.5
        known = [truth[features.ids[number]] for number in numbers]
        active = torch.from_numpy(np.stack([t.active for t in known])).float()
        side = torch.from_numpy(
            np.stack([-t.side if flip else t.side for t, flip in zip(known, mirror, strict=True)])
        )
        said = reader(*inputs(features, numbers, mirror))
        lost = functional.binary_cross_entropy_with_logits(said[..., 0], active)
        sided = (side != 0) & (active > 0)
        if sided.any():
            left = (side[sided] > 0).float()
            lost = lost + functional.binary_cross_entropy_with_logits(said[..., 1][sided], left)
        optimizer.zero_grad()
        lost.backward()
        torch.nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    reader.eval()


@torch.inference_mode()
def read(reader: Reader, features: FeatureDataset, name: str) -> np.ndarray:
    """(U, 2) logits of a clip: the mean of what both views say."""
    number = features.ids.index(name)
    seen, flipped = reader(*inputs(features, [number, number], [False, True])).numpy()
    return (seen + flipped * [1, -1]) / 2


def balance(reader: Reader, features: FeatureDataset, truth: dict[str, Truth]) -> float:
    """The threshold of activity above which as many slots lie as are active."""
    said = np.concatenate([read(reader, features, name)[:, 0] for name in features.ids])
    active = np.concatenate([truth[name].active for name in features.ids])
    return float(np.quantile(said, 1 - active.mean()))


# -------------------- the table


def count(reader: Reader, features: FeatureDataset, name: str, truth: Truth, threshold: float) -> np.ndarray:
    """Frames of a clip: active; of these said so; all said to be active; asked for a side; of these said to
    be active; right; said to be active and right."""
    said = read(reader, features, name)[truth.frames]
    sounds, left = said[:, 0] > threshold, np.where(said[:, 1] > 0, 1, -1)
    asked = truth.frame_active & (truth.frame_side != 0)
    right = asked & (left == truth.frame_side)
    active = truth.frame_active
    found = (active, active & sounds, sounds, asked, asked & sounds, right, right & sounds)
    return np.array([one.sum() for one in found], float)


ROWS = (
    ("active frames that are said to be active (%)", 1, 0),
    ("frames said to be active that are (%)", 1, 2),
    ("frames on a side that are said to be active (%)", 4, 3),
    ("side right, whether active or not (%)", 5, 3),
    ("**side right, and said to be active (%)**", 6, 3),
)


def table(counts: Mapping[str, Sequence[np.ndarray]]) -> str:
    """Column -> counts (7,) of each clip, as Markdown with intervals over clips."""
    lines = [f"| what the features tell | {' | '.join(counts)} |", "| --- |" + " --- |" * len(counts)]
    cells = [_cells(np.stack(of)) if of else ["-"] * len(ROWS) for of in counts.values()]
    for row, (what, _, _) in enumerate(ROWS):
        lines.append(f"| {what} | {' | '.join(of[row] for of in cells)} |")
    return "\n".join(lines)


def _cells(counts: np.ndarray) -> list[str]:
    resampled = np.stack([counts[index].sum(axis=0) for index in draws(len(counts), RESAMPLES, 0)])
    total, cells = counts.sum(axis=0), []
    for _, above, below in ROWS:
        with np.errstate(invalid="ignore"):
            low, high = interval(100 * resampled[:, above] / resampled[:, below])
            value = 100 * total[above] / total[below]
        cells.append(f"{value:.1f} [{low:.1f}, {high:.1f}]")
    return cells


if __name__ == "__main__":
    raise SystemExit(main())
