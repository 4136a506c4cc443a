"""Which of BiAudio-Synth's sounds a sound is: a small log-mel CNN, trained on renders alone.

It judges the model, so it never hears codec or model output: `train` takes the dataset's own renders, clips
of one source, in random crops and with random gain, noise and colour. It hears a mono mix.

    python -m visaudio.evaluation.classifier --dataset DIR --output FILE

Legend: B clips, S samples, F frames of 10 ms, M mel bands, K classes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import scipy.fft
import torch
from torch import Tensor, nn
from torch.nn import functional

from bi_audio_dataset.schema import UserError, reason_of
from visaudio.stored import write_whole

PACKAGED = Path(__file__).parent / "weights" / "sound_classifier.safetensors"
SAMPLE_RATE = 22050
HOP = 220
WINDOW = 1024
MELS = 64
RANGE_DB = 60.0  # of the features below the loudest frame
ACTIVE_DB = 30.0  # frames this far below the loudest one are not heard
SILENCE_DBFS = -60.0


def log_mel(mono: np.ndarray) -> np.ndarray:
    """(S,) at SAMPLE_RATE -> (F, M) float32 dB relative to the clip's loudest frame, in [-RANGE_DB, ~0].

    Relative, so that gain does not matter.
    """
    padded = np.pad(np.asarray(mono, np.float32), (WINDOW // 2, WINDOW))
    count = max(1, len(mono) // HOP)
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][:count]
    power = np.abs(scipy.fft.rfft(windows * np.hanning(WINDOW).astype(np.float32))) ** 2 @ _mel_weights()
    loudest = max(float(power.sum(axis=1).max()), 1e-12)
    return (10 * np.log10(np.maximum(power / loudest, 10 ** (-RANGE_DB / 10)))).astype(np.float32)


@lru_cache(maxsize=1)
def _mel_weights() -> np.ndarray:
    """(bins, M) triangles, even on the mel scale from 40 Hz to 10 kHz."""
    mel = 2595 * np.log10(1 + np.fft.rfftfreq(WINDOW, 1 / SAMPLE_RATE) / 700)
    centres = np.linspace(*(2595 * np.log10(1 + hz / 700) for hz in (40.0, 10000.0)), MELS + 2)
    step = centres[1] - centres[0]
    weights = np.maximum(0, 1 - np.abs(mel[:, None] - centres[None, 1:-1]) / step)
    return weights.astype(np.float32)


class SoundClassifier(nn.Module):
    """Log-mel frames (B, F, M) in dB -> logits (B, K), pooled over the frames that sound."""

    def __init__(self, classes: Sequence[str], width: int = 16) -> None:
        super().__init__()
        self.classes = tuple(classes)
        widths = (1, width, 2 * width, 2 * width, 3 * width)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(a, b, 3, stride=(2 if i < 2 else 1, 2), padding=1, bias=False),
                    nn.BatchNorm2d(b),
                    nn.ReLU(),
                )
                for i, (a, b) in enumerate(zip(widths, widths[1:], strict=False))
            )
        )
        self.hidden = nn.Linear(widths[-1] * MELS // 16, 2 * width)
        self.out = nn.Linear(4 * width, len(self.classes))

    def forward(self, mel: Tensor) -> Tensor:
        features = self.blocks((mel[:, None] + RANGE_DB) / RANGE_DB)  # (B, C, F / 4, M / 16)
        features = functional.relu(self.hidden(features.permute(0, 2, 1, 3).flatten(2)))  # (B, F / 4, H)
        level = torch.logsumexp(mel * (np.log(10) / 10), dim=-1, keepdim=True) * (10 / np.log(10))
        heard = (level > level.amax(dim=1, keepdim=True) - ACTIVE_DB).float()
        heard = functional.max_pool1d(heard.transpose(1, 2), 4, ceil_mode=True).transpose(1, 2)
        heard = heard[:, : features.shape[1]]
        mean = (features * heard).sum(dim=1) / heard.sum(dim=1).clamp_min(1)
        peak = (features * heard).amax(dim=1)
        return self.out(torch.cat([mean, peak], dim=-1))

    @torch.inference_mode()
    def classify(self, audio: np.ndarray, sample_rate: int) -> str | None:
        """The class of a sound (C, S); None if it is silent (never above SILENCE_DBFS in 10 ms)."""
        mono = np.atleast_2d(audio).mean(axis=0)
        blocks = mono[: len(mono) // (sample_rate // 100) * (sample_rate // 100)].reshape(
            -1, sample_rate // 100
        )
        if not blocks.size or 10 * np.log10((blocks**2).mean(axis=1).max() + 1e-20) < SILENCE_DBFS:
            return None
        if sample_rate != SAMPLE_RATE:
            import soxr

            mono = soxr.resample(mono, sample_rate, SAMPLE_RATE)
        return self.classes[int(self(torch.from_numpy(log_mel(mono))[None]).argmax())]


def save(classifier: SoundClassifier, path: Path, notes: dict[str, str] | None = None) -> None:
    """A safetensors file in half precision; the classes and notes are in its metadata."""
    from safetensors.torch import save as serialised

    state = {k: v.half() if v.is_floating_point() else v for k, v in classifier.state_dict().items()}
    write_whole(path, serialised(state, {"classes": json.dumps(classifier.classes), **(notes or {})}))


def load(path: str | Path) -> SoundClassifier:
    """Raises UserError if the file is not one that `save` wrote."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            classes = json.loads(file.metadata()["classes"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        classifier = SoundClassifier(classes)
        classifier.load_state_dict(state)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{path}: not a sound classifier ({reason_of(error, 120)}); train one with "
            "python -m visaudio.evaluation.classifier --dataset DIR --output FILE"
        ) from error
    return classifier.eval()


# -------------------- training


@dataclass(frozen=True)
class TrainConfig:
    """crop_s: length of the crops; each holds a frame within ACTIVE_DB of its clip's loudest."""

    steps: int = 400
    batch_size: int = 32
    learning_rate: float = 3e-3
    crop_s: float = 2.0
    seed: int = 0


def train(
    mels: Sequence[np.ndarray], labels: Sequence[int], classes: Sequence[str], config: TrainConfig
) -> SoundClassifier:
    """mels: (F, M) of each clip, by `log_mel`; labels index classes."""
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    classifier = SoundClassifier(classes)
    optimiser = torch.optim.AdamW(classifier.parameters(), lr=config.learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.learning_rate, config.steps)
    targets = torch.as_tensor(labels)
    for _ in range(config.steps):
        chosen = rng.integers(len(mels), size=config.batch_size)
        batch = torch.from_numpy(np.stack([_crop(mels[i], config.crop_s, rng) for i in chosen]))
        loss = functional.cross_entropy(classifier(batch), targets[chosen], label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return classifier.eval()


def _crop(mel: np.ndarray, crop_s: float, rng: np.random.Generator) -> np.ndarray:
    """A crop of active sound with random gain (loud ones lose their floor), colour and noise."""
    length = round(crop_s * SAMPLE_RATE / HOP)
    if len(mel) < length:
        mel = np.pad(mel, ((0, length - len(mel)), (0, 0)), constant_values=-RANGE_DB)
    level = np.logaddexp.reduce(mel * (np.log(10) / 10), axis=1)
    active = np.flatnonzero(level > level.max() - ACTIVE_DB / 10 * np.log(10))
    start = int(np.clip(rng.choice(active) - rng.integers(length), 0, len(mel) - length))
    crop = mel[start : start + length]
    knots = rng.uniform(-6, 6, 4)
    colour = np.interp(np.linspace(0, 3, mel.shape[1]), np.arange(4), knots)
    noise = rng.uniform(-RANGE_DB - 10, -35) + rng.normal(0, 4, crop.shape)
    crop = 10 * np.log10(10 ** ((crop + colour + rng.uniform(-6, 3)) / 10) + 10 ** (noise / 10))
    return np.maximum(crop, -RANGE_DB).astype(np.float32)


def single_source_renders(dataset: str | Path, splits: Sequence[str]) -> tuple[list[np.ndarray], list[str]]:
    """Log-mel frames and class of the dataset's clips that hold exactly one source."""
    from visaudio.data.dataset import open_dataset, read_clip

    table = open_dataset(dataset, splits)
    mels, names = [], []
    for index, truth in enumerate(table["truth"]):
        if len(truth["sources"]) == 1:
            audio = read_clip(table[index], sample_rate=SAMPLE_RATE).audio
            mels.append(log_mel(audio.mean(axis=0)))
            names.append(truth["sources"][0]["class_name"])
    return mels, names


@torch.inference_mode()
def accuracy(classifier: SoundClassifier, mels: Sequence[np.ndarray], names: Sequence[str]) -> float:
    """Share of whole clips named right; nan without clips."""
    right = [
        classifier.classes[int(classifier(torch.from_numpy(mel)[None]).argmax())] == name
        for mel, name in zip(mels, names, strict=True)
    ]
    return float(np.mean(right)) if right else float("nan")


def main(arguments: Sequence[str] | None = None) -> int:
    import argparse
    import sys

    parser = argparse.ArgumentParser(description="Train the sound classifier of the benchmark on renders.")
    parser.add_argument("--dataset", required=True, type=Path, help="a BiAudio-Synth folder")
    parser.add_argument("--output", required=True, type=Path, help="the .safetensors file to write")
    parser.add_argument("--steps", type=int, default=TrainConfig.steps)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        mels, names = single_source_renders(options.dataset, ["train"])
        if not mels:
            raise UserError(f"{options.dataset}: no training clip of one source")
        classes = sorted(set(names))
        labels = [classes.index(name) for name in names]
        classifier = train(mels, labels, classes, TrainConfig(steps=options.steps))
        held_out = single_source_renders(options.dataset, ["validation", "test"])
        score = accuracy(classifier, *held_out)
        save(classifier, options.output, {"held_out_accuracy": f"{score:.4f}", "clips": str(len(mels))})
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{len(mels)} training clips; {score:.1%} of {len(held_out[0])} held-out renders named right")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
