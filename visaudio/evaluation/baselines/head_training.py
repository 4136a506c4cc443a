"""Training of the mono-to-binaural head on a dataset's own (mono mix, difference) pairs.

    python -m visaudio.evaluation.baselines train-spatialiser --dataset DIR --features DIR --output DIR

Nothing of any generative model enters but the frozen encoders' features. Short (minutes of one core), hence
not resumable. With --steps, two runs on one machine give the same bits; with --minutes the number of steps
is the machine's.

Legend: B crops, S samples, F bins, K frames.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bi_audio_dataset.schema import MONO_EARS, UserError
from visaudio.data.dataset import AudioCache, build_cache, open_dataset
from visaudio.data.feature_store import FeatureDataset
from visaudio.evaluation import cues
from visaudio.evaluation.baselines.head import HeadConfig, Seen, SpatialiserHead, difference, save, transform
from visaudio.evaluation.baselines.head_settings import TrainConfig
from visaudio.sequence import SequenceConfig
from visaudio.stored import writing

ENCODERS = ("clip", "synchformer", "spatial")  # whose features the head is told


class Pairs:
    """A split's sounds, decoded once into `cache`, and their features; at most `limit`, spread evenly.

    Clips without features, and those whose two ears are one sound, are left out: known counts the others,
    rows_there all.
    """

    def __init__(
        self, dataset: str | Path, features: str | Path, split: str, cache: Path, rate: int, limit: int
    ) -> None:
        self.features = FeatureDataset(features, split)
        columns = ("id", "split", "audio", "hrir_set")
        table = open_dataset(dataset, [split], columns=columns)
        index = {name: place for place, name in enumerate(self.features.ids)}
        rows = [
            row
            for row, (name, ears) in enumerate(zip(table["id"], table["hrir_set"], strict=True))
            if name in index and ears != MONO_EARS
        ]
        self.known, self.rows_there = len(rows), len(table)
        if rows:
            rows = [rows[k] for k in np.linspace(0, len(rows) - 1, min(limit, len(rows))).astype(int)]
        table = table.select(rows)
        self.places = [index[name] for name in table["id"]]
        self.seconds = sequence_of(self.features).duration_s
        if rows:
            kind = AudioCache(rate, round(rate * self.seconds))
            self.sound = _cached(table, kind, cache / split)

    def __len__(self) -> int:
        return len(self.places)

    def audio(self, number: int, start: int = 0, length: int | None = None) -> np.ndarray:
        """(2, S) float32."""
        end = None if length is None else start + length
        return self.sound[number, :, start:end].astype(np.float32) / 32767

    def seen(self, number: int) -> Seen:
        """B = 1."""
        place = self.places[number]

        def views(name: str) -> Tensor:
            return torch.stack([self.features.tensor(place, name + e).float() for e in ("", "_mirror")])[None]

        return Seen(views("sync"), views("grid"))

    def crop(self, rng: np.random.Generator, length: int) -> tuple[int, np.ndarray, int]:
        """A clip, its sound (2, length) around a moment within 30 dB of its loudest, and the crop's start."""
        number = int(rng.integers(len(self)))
        audio = self.audio(number)
        power = (audio[:, : audio.shape[1] // 512 * 512].reshape(2, -1, 512) ** 2).mean(axis=(0, 2))
        loud = np.flatnonzero(power > 1e-3 * power.max())
        moment = 512 * int(rng.choice(loud)) if power.max() > 0 else 0
        start = int(np.clip(moment - rng.integers(length), 0, max(0, audio.shape[1] - length)))
        return number, audio[:, start : start + length], start


def _cached(table: Any, kind: AudioCache, folder: Path) -> np.ndarray:
    try:
        with writing(folder):
            return build_cache(table, kind, folder, workers=0)
    except UserError:
        raise
    except (ValueError, EOFError) as error:
        raise UserError(
            f"{folder}: holds damaged files ({error}); remove it: the same command makes it again"
        ) from error


def sequence_of(features: FeatureDataset) -> SequenceConfig:
    """The lengths and rates that a features folder was made with."""
    return SequenceConfig(**features.made_from["sequence"])


def head_config(features: FeatureDataset, **sizes: Any) -> HeadConfig:
    """The config that fits these features."""
    sequence, shapes, weights = sequence_of(features), features.shapes, features.made_from["weights"]
    return HeadConfig(
        sync_dim=shapes["sync"][-1],
        grid_dim=shapes["grid"][-1],
        grid_cells=shapes["grid"][-2],
        sync_per_segment=sequence.tokens_per_segment,
        sync_hop=int(sequence.sync_slots_per_stride),
        sync_slot_hz=sequence.sync_slots_per_second,
        clip_fps=sequence.clip_fps,
        encoders={name: weights[name] for name in ENCODERS if name in weights},
        **sizes,
    )


def loss(
    config: HeadConfig, mask: Tensor, mono: Tensor, side: Tensor, floor: Tensor, ild_weight: float
) -> Tensor:
    """Of a predicted mask (B, F, K) for spectra of m and d (B, F, K); floor (B,): power added to each frame.

    Spectral: |M X_m - X_d|^2 of each frame over its power, so that a quiet frame counts as a loud one does.
    Level: |dB of the predicted ILD - dB of the true one|, of the whole band and in BANDS bands.
    """
    wrong = (mask * mono - side).abs().square().sum(dim=1)
    power = (mono.abs().square() + side.abs().square()).sum(dim=1)
    heard = (power / (power + floor[:, None])).detach()
    spectral = (wrong / (power + floor[:, None])).mean()
    bands = _bands(config).to(mono.device)

    def ild(difference: Tensor) -> Tensor:
        ears = [(mono + sign * difference).abs().square() for sign in (1, -1)]
        levels = [torch.einsum("bfk,fn->bnk", ear, bands) + 0.01 * floor[:, None, None] for ear in ears]
        return 10 * torch.log10(levels[0] / levels[1])

    apart = (ild(mask * mono) - ild(side)).abs()
    level = (heard[:, None] * apart).mean()
    return spectral + ild_weight * level


BANDS_HZ = (0, 500, 1500, 3000, 6000, 1e6)


def _bands(config: HeadConfig) -> Tensor:
    """(F, 1 + bands): the whole, then the bands of BANDS_HZ."""
    hz = torch.arange(config.bins) * config.sample_rate / config.n_fft
    parts = [(hz >= low) & (hz < high) for low, high in zip(BANDS_HZ, BANDS_HZ[1:], strict=False)]
    return torch.stack([torch.ones_like(parts[0]), *parts], dim=1).float()


def train(
    pairs: Pairs, config: HeadConfig, settings: TrainConfig, progress: Callable[[float, float], None]
) -> tuple[SpatialiserHead, int]:
    """The trained head and its steps. progress is told the share done and a running loss, step by step."""
    torch.manual_seed(settings.seed)
    head = SpatialiserHead(config)
    decayed = [p for p in head.parameters() if p.ndim > 1]
    plain = [p for p in head.parameters() if p.ndim < 2]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": plain, "weight_decay": 0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98))
    length = min(round(settings.crop_s * config.sample_rate), pairs.audio(0).shape[1])
    began, step, share, running = time.monotonic(), 0, 0.0, None
    while share < 1:
        rate = settings.learning_rate * min(1, (step + 1) / 20) * 0.5 * (1 + np.cos(np.pi * share))
        for group in optimizer.param_groups:
            group["lr"] = rate
        value = _step(head, pairs, np.random.default_rng((settings.seed, step)), settings, length)
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        step += 1
        running = value.item() if running is None else 0.95 * running + 0.05 * value.item()
        passed = (time.monotonic() - began) / 60 / settings.minutes
        share = step / settings.steps if settings.steps else min(1.0, passed)
        progress(share, running)
    return head.eval(), step


def _step(head, pairs: Pairs, rng: np.random.Generator, settings: TrainConfig, length: int) -> Tensor:
    """The loss of one batch of random crops."""
    crops = [pairs.crop(rng, length) for _ in range(settings.batch_size)]
    sound = torch.from_numpy(np.stack([audio for _, audio, _ in crops]))
    seen = Seen.stack([pairs.seen(number) for number, _, _ in crops])
    start_s = torch.tensor([start / head.config.sample_rate for _, _, start in crops])
    left, right = transform(head.config, sound).unbind(1)
    mono, side = (left + right) / 2, (left - right) / 2
    loudest = (mono.abs().square() + side.abs().square()).sum(dim=1).amax(dim=1).clamp_min(1e-9)
    floor = loudest * 10 ** (settings.silence_db / 10)
    return loss(head.config, head(mono, seen, start_s), mono, side, floor, settings.ild_weight)


@torch.inference_mode()
def judge(head: SpatialiserHead, pairs: Pairs) -> dict[str, float]:
    """On whole clips, from their true mono mix: r of the frame ILD (80 ms, 25 Hz; frames within 30 dB of the
    clip's loudest), mean |ILD error| in dB of the head and of equal ears, share of frames with a true ILD
    beyond 1 dB whose side is right."""
    true, said = [], []
    rate = head.config.sample_rate
    for number in range(len(pairs)):
        audio = pairs.audio(number)
        mono = audio.mean(axis=0)
        apart = difference(head, mono, rate, [(0.0, pairs.seen(number))])
        level = cues.levels_db(audio, rate).max(axis=1)
        active = level > max(level.max() - 30, cues.SILENCE_DBFS)
        true.append(cues.ild_db(audio, rate)[active])
        said.append(cues.ild_db(np.stack([mono + apart, mono - apart]), rate)[active])
    x, y = np.concatenate(true), np.concatenate(said)
    beyond = np.abs(x) > 1
    return {
        "clips": len(pairs),
        "ild_r": cues.pearson(x, y),
        "ild_error_db": float(np.abs(x - y).mean()) if x.size else float("nan"),
        "ild_error_of_equal_ears_db": float(np.abs(x).mean()) if x.size else float("nan"),
        "side": float((np.sign(x) == np.sign(y))[beyond].mean()) if beyond.any() else float("nan"),
    }


def run(
    dataset: str | Path,
    features: str | Path,
    output: Path,
    settings: TrainConfig,
    progress: Callable[[float, float], None],
    sizes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train on the training split, judge on the validation split, save; gives what stands in the notes."""
    sizes = dict(sizes or {})
    rate = sizes.get("sample_rate", HeadConfig.sample_rate)
    pairs = Pairs(dataset, features, "train", output / "cache", rate, settings.clips)
    if not len(pairs):
        raise UserError(
            f"of the {pairs.rows_there} training clips of '{dataset}' none has two ears and features in "
            f"'{features}' ({len(pairs.features)} there): python -m visaudio.data.features makes them"
        )
    config = head_config(pairs.features, **sizes)
    head, steps = train(pairs, config, settings, progress)
    held_out = Pairs(dataset, features, "validation", output / "cache", rate, settings.validation_clips)
    notes = {
        "clips": len(pairs),
        "clips_known": pairs.known,
        "steps": steps,
        "settings": asdict(settings),
        "parameters": sum(p.numel() for p in head.parameters()),
        "validation": judge(head, held_out) if len(held_out) else None,
    }
    save(head, output, notes)
    return notes
