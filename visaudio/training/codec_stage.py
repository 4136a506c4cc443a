"""Training of a codec, spectral or DAC: random crops of single ears in, the same crops out.

Legend: B crops, S samples of a crop, C clips. The codec hears one ear at a time, in training as in use; the
interaural figures that validation reports come only from what it keeps of each ear's phase and level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bi_audio_dataset.schema import UserError
from visaudio.codec.base import Codec
from visaudio.codec.dac import DacCodec, DacCodecConfig
from visaudio.codec.dac_training import DacLossConfig, begin, dac_codec_loss, refresh_codebooks
from visaudio.codec.kinds import CodecConfig, build_codec
from visaudio.codec.losses import (
    LevelReadout,
    SpectralLossConfig,
    reconstruction_losses,
    spectral_codec_loss,
)
from visaudio.codec.spectral import SpectralCodec, SpectralCodecConfig
from visaudio.data.dataset import AudioCache, build_cache, open_dataset
from visaudio.training.interaural import interaural_errors
from visaudio.training.stage import LoopConfig, finish, finished, run_stage, step_rng

BLOCK_S = 0.1
FULL_SCALE = 32767.0


@dataclass(frozen=True)
class CodecStageConfig:
    """crop_s: shortest and longest crop; gain_db: the random gain; active_share: crops that must be heard.

    loss: of both kinds of codec, as far as it speaks of what comes out; dac: what a DAC has beside it.
    pca_clips: training clips whose every frame the PCA of DAC's continuous latents is fitted to, spread
    over the set.
    """

    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=6000, learning_rate=2e-3, betas=(0.8, 0.99), weight_decay=0.01, optimizer="adamw"
        )
    )
    loss: SpectralLossConfig = field(default_factory=SpectralLossConfig)
    batch_size: int = 16
    crop_s: tuple[float, float] = (1.0, 1.5)
    gain_db: tuple[float, float] = (-18.0, 6.0)
    active_share: float = 0.85
    validation_clips: int = 16
    dac: DacLossConfig = field(default_factory=DacLossConfig)
    pca_clips: int = 1000


class CropSampler:
    """Draws batches of single-ear crops from (C, 2, samples) int16 by (seed, step)."""

    def __init__(self, audio: np.ndarray, sample_rate: int, config: CodecStageConfig, multiple: int) -> None:
        self.audio, self.sample_rate, self.config, self.multiple = audio, sample_rate, config, multiple
        self.block = round(BLOCK_S * sample_rate)
        self.active = _active_blocks(audio, self.block)
        self.loud = np.flatnonzero(self.active.reshape(-1, self.active.shape[-1]).any(axis=1))

    def batch(self, step: int) -> Tensor:
        """(B, 1, S) float32 in [-1, 1]; S is a whole number of latent frames, one length per batch."""
        config = self.config
        rng = step_rng(config.loop.seed, step)
        longest = self.audio.shape[-1]
        samples = int(rng.uniform(*config.crop_s) * self.sample_rate) // self.multiple * self.multiple
        samples = max(self.multiple, min(samples, longest // self.multiple * self.multiple))
        crops = np.stack([self._crop(rng, samples) for _ in range(config.batch_size)])
        gain = 10 ** (rng.uniform(*config.gain_db, size=(config.batch_size, 1)) / 20)
        sign = rng.choice([-1.0, 1.0], size=(config.batch_size, 1))
        audio = torch.from_numpy((crops * (gain * sign / FULL_SCALE)).astype(np.float32))
        peak = audio.abs().amax(dim=1, keepdim=True)
        return (audio / peak.clamp_min(1.0))[:, None]

    def _crop(self, rng: np.random.Generator, samples: int) -> np.ndarray:
        clips, ears, longest = self.audio.shape
        last = longest - samples
        if len(self.loud) and rng.random() < self.config.active_share:
            row = int(self.loud[rng.integers(len(self.loud))])
            block = int(rng.choice(np.flatnonzero(self.active.reshape(-1, self.active.shape[-1])[row])))
            # the audible block may lie anywhere in the crop, so that onsets are seen with what comes before
            start = block * self.block - int(rng.uniform(0, max(1, samples - self.block)))
        else:
            row, start = int(rng.integers(clips * ears)), int(rng.integers(last + 1))
        start = min(max(0, start), last)
        return self.audio[row // ears, row % ears, start : start + samples].astype(np.float64)


def _active_blocks(audio: np.ndarray, block: int) -> np.ndarray:
    """(C, 2, blocks) bool: within 45 dB of the ear's loudest block and above -75 dBFS."""
    clips, ears, samples = audio.shape
    count = max(1, samples // block)
    level = np.empty((clips, ears, count), dtype=np.float32)
    for clip in range(clips):  # clip by clip: the squares of 1.4 GB need not all exist at once
        blocks = audio[clip, :, : count * block].reshape(ears, count, -1).astype(np.float32) / FULL_SCALE
        level[clip] = 10 * np.log10((blocks**2).mean(axis=-1) + 1e-12)
    return (level > level.max(axis=-1, keepdims=True) - 45) & (level > -75)


@torch.no_grad()
def codec_figures(codec: Codec, audio: Tensor, batch: int = 8) -> dict[str, float]:
    """Round trip of held-out binaural audio (C, 2, S), each ear alone.

    mel_distance is the mean |difference| of natural-log mel magnitudes, summed over the four scales of
    codec/losses.py; the interaural errors are those of interaural.py.
    """
    device = codec.device
    estimate = torch.cat(
        [
            codec.decode_binaural(codec.encode_binaural(part.to(device)), part.shape[-1]).float().cpu()
            for part in audio.split(batch)
        ]
    )
    mel = [
        float(
            reconstruction_losses(e.reshape(-1, 1, e.shape[-1]), a.reshape(-1, 1, a.shape[-1]), rate)["mel"]
        )
        for e, a, rate in zip(estimate, audio, [codec.sample_rate] * len(audio), strict=True)
    ]
    return {
        "mel_distance": 4 * float(np.mean(mel)),
        **interaural_errors(estimate, audio, codec.sample_rate),
    }


def train_codec(
    dataset: str | Path,
    codec_config: CodecConfig,
    config: CodecStageConfig,
    output: Path,
    cache: Path | None = None,
    duration_s: float = 8.0,
    workers: int = 2,
    device: str = "cpu",
    progress: bool = True,
) -> tuple[Codec, dict[str, float]]:
    """Train (or load, if already trained) the codec; writes output/model.safetensors and output/done.json.

    dataset: a BiAudio folder or repository: split train trains, validation (else test) is measured. cache:
    folder of the decoded audio, by default output/../cache. A DAC with `weights` is not trained: only the
    PCA of its continuous latents is fitted.
    """
    from safetensors.torch import load_file, save_file

    if not isinstance(codec_config, (SpectralCodecConfig, DacCodecConfig)):
        raise UserError(
            f"no stage trains a {type(codec_config).__name__}: expected a spectral codec or a DAC"
        )
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.loop.seed)
    codec = build_codec(codec_config).to(device)
    weights = output / "model.safetensors"
    if (figures := finished(output)) is not None and weights.is_file():
        codec.load_state_dict(load_file(weights))
        return codec.eval(), figures
    cache = output.parent / "cache" if cache is None else Path(cache)
    spec = AudioCache(codec.sample_rate, round(duration_s * codec.sample_rate))
    train, held_out = _load_audio(dataset, spec, cache, workers, progress, config.validation_clips)
    if isinstance(codec, SpectralCodec):
        figures = _train_spectral(codec, train, held_out, config, output, progress)
    else:
        figures = _train_dac(codec, train, held_out, config, output, progress)
    save_file({k: v.contiguous().cpu() for k, v in codec.state_dict().items()}, weights)
    finish(output, figures, config)
    return codec.eval(), figures


def _train_spectral(
    codec: SpectralCodec, train: np.ndarray, held_out: Tensor | None, config, output: Path, progress: bool
) -> dict[str, float]:
    sampler = CropSampler(train, codec.sample_rate, config, codec.latent_hop)
    device = codec.device
    readout = LevelReadout(codec.latent_dim, config.loss.readout_bands).to(device)
    trained = nn.ModuleDict({"codec": codec, "readout": readout})

    def loss_function(step: int):
        generator = torch.Generator(device).manual_seed(config.loop.seed * 1_000_003 + step)
        return spectral_codec_loss(codec, sampler.batch(step).to(device), generator, config.loss, readout)

    return run_stage(
        "codec", config.loop, trained, loss_function, output, _validation(codec, held_out), progress
    )


def _train_dac(
    codec: DacCodec, train: np.ndarray, held_out: Tensor | None, config, output: Path, progress: bool
) -> dict[str, float]:
    """Its quantised form is trained, whatever its latents are; then the PCA of continuous ones is fitted."""
    figures: dict[str, float] = {}
    if codec.config.weights is None:
        figures = _train_quantised(codec, train, held_out, config, output, progress)
    if codec.config.latents == "continuous":
        kept = codec.fit_pca(whole_clips(train, config.pca_clips))
        figures = {"pca_variance_kept": kept}
        if (measure := _validation(codec.eval(), held_out)) is not None:
            figures |= measure()
    return figures


def _train_quantised(
    codec: DacCodec, train: np.ndarray, held_out: Tensor | None, config, output: Path, progress: bool
) -> dict[str, float]:
    device, seed = codec.device, config.loop.seed
    sampler = CropSampler(train, codec.sample_rate, config, codec.latent_hop)
    # the same network under projected latents: validation wants no PCA that does not exist yet
    plain = DacCodec(replace(codec.config, latents="projected")).to(device)
    plain.model = codec.model
    begin(plain)

    def loss_function(step: int):
        every, count = config.dac.refresh_every, config.dac.refresh_batches
        if step == 0 or (every and step % every == 0):
            batches = (sampler.batch(step + ahead) for ahead in range(count))
            refresh_codebooks(plain, batches, seed + step, everything=step == 0)
        generator = torch.Generator(device).manual_seed(seed * 1_000_003 + step)
        return dac_codec_loss(plain, sampler.batch(step).to(device), generator, config.dac, config.loss)

    return run_stage(
        "codec", config.loop, plain, loss_function, output, _validation(plain, held_out), progress
    )


def _validation(codec: Codec, held_out: Tensor | None) -> Callable[[], dict[str, float]] | None:
    return None if held_out is None else (lambda: codec_figures(codec, held_out))


def whole_clips(audio: np.ndarray, count: int) -> Iterator[Tensor]:
    """Evenly spaced clips of (C, 2, S) int16, each as its two ears (2, 1, S) float32."""
    for clip in np.unique(np.linspace(0, len(audio) - 1, min(count, len(audio))).astype(int)):
        yield torch.from_numpy(audio[clip].astype(np.float32) / FULL_SCALE)[:, None]


def _load_audio(dataset, spec: AudioCache, cache: Path, workers: int, progress: bool, validation_clips: int):
    rows = open_dataset(dataset)
    splits = np.array(rows["split"])
    train = rows.select(np.flatnonzero(splits == "train"))
    if not len(train):
        raise UserError(f"the dataset at '{dataset}' has no row in split 'train': nothing to train on")
    held = "validation" if (splits == "validation").any() else "test"
    held_out = rows.select(np.flatnonzero(splits == held)[:validation_clips])
    # in memory: crops are scattered, and page faults on 1.4 GB cost more than reading it once
    audio = np.array(build_cache(train, spec, cache / "train", workers, progress))
    if not len(held_out):
        return audio, None
    reference = np.array(build_cache(held_out, spec, cache / held, workers, progress))
    return audio, torch.from_numpy(reference.astype(np.float32) / FULL_SCALE)
