"""The flow stage: encoded clips in, the averaged weights of the network out.

Legend: C clips, 2 ears (0 = left), F codec frames, N tokens, D dimensions of a token.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bi_audio_dataset.schema import UserError
from visaudio.codec.base import Codec
from visaudio.encoders.clip import ClipEncoder
from visaudio.model.conditions import Conditions
from visaudio.model.network import DualBranchNetwork, NetworkConfig
from visaudio.sequence import SequenceConfig, from_tokens, to_tokens
from visaudio.training.batches import Samples
from visaudio.training.best import BestWeights, KeepBest, load_best
from visaudio.training.checkpoint import list_checkpoints, load_checkpoint
from visaudio.training.ema import TrackedEma
from visaudio.training.feature_checks import check_features
from visaudio.training.initial import initialise
from visaudio.training.loop import FlowLoopConfig, LoopResult, train
from visaudio.training.lora import (
    LoraConfig,
    adapters_of,
    add_adapters,
    check_lora,
    merged_state,
    trained_share,
)
from visaudio.training.progress import say
from visaudio.training.validation import FlowValidation, ValidationConfig

STATS_CLIPS = 512  # clips that the latent statistics are taken from


EXPORTS = ("average", "best")


@dataclass(frozen=True)
class FlowStageConfig:
    """export: which weights a model gets. "average" is the post-hoc average of the configured width at the
    newest checkpoint, "best" the average of the validation that was best by validation.best_metric.
    """

    loop: FlowLoopConfig = field(default_factory=FlowLoopConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    export: str = "average"

    def __post_init__(self) -> None:
        if self.export not in EXPORTS:
            raise UserError(f"export is {self.export!r}, expected one of {', '.join(EXPORTS)}")
        if self.export == "best" and not self.loop.validate_every:
            raise UserError("export is 'best', which validation chooses; set loop.validate_every above 0")


class TokenSamples:
    """Encoded clips with their latents as the network's tokens: (2, F, d) -> (2, N, D)."""

    def __init__(self, samples: Samples, frames_per_token: int):
        self.ids = list(samples.ids)
        for name in ("hrir_symmetric", "mono", "positions", "terms"):
            setattr(self, name, getattr(samples, name, None))
        self._samples, self._frames_per_token = samples, frames_per_token

    def get(self, index: int, mirror: bool) -> Mapping[str, Any]:
        row = self._samples.get(index, mirror)
        latents = torch.as_tensor(row["latents"]).float()
        return {**row, "latents": to_tokens(latents, self._frames_per_token)}


def latent_stats(samples: Samples) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, standard deviation and that of (left - right) / sqrt 2 per token dimension, (D,) each.

    Over both ears of evenly spaced clips, without those that are declared mono where there are others: their
    ears do not differ, and the network's are to.

    A dimension that hardly moves keeps a deviation of at least 1 % of the largest, lest it be blown up.
    """
    count = len(samples.ids)
    if count == 0:
        raise UserError("the training set holds no samples; build the data and extract features first")
    mono = getattr(samples, "mono", None) or [False] * count
    there = [index for index in range(count) if not mono[index]] or range(count)
    chosen = there[:: max(1, len(there) // STATS_CLIPS)]
    total, square, apart, number = 0.0, 0.0, 0.0, 0
    for index in chosen:
        ears = samples.get(index, mirror=False)["latents"].double()
        apart = apart + (ears[0] - ears[1]).square().sum(0)  # each pair counts for two tokens
        tokens = ears.flatten(0, 1)
        total, square, number = total + tokens.sum(0), square + tokens.square().sum(0), number + len(tokens)
    mean = total / number
    std = (square / number - mean.square()).clamp_min(0).sqrt()
    least = 0.01 * float(std.max())
    return mean.float(), std.clamp_min(least).float(), (apart / number).sqrt().clamp_min(0.1 * least).float()


def new_network(
    config: NetworkConfig,
    samples: Samples,
    clip: ClipEncoder | None,
    seed: int,
    init_from: str | None = None,
    folder: Path | None = None,
    lora: LoraConfig | None = None,
) -> DualBranchNetwork:
    """An untrained network with the set's latent statistics and the text encoder's features of ''.

    init_from: weights as in initial.py; what they hold takes the place of both. folder: of its report. lora:
    adapters on what came from there; what did not is trained in full.
    """
    torch.manual_seed(seed)
    network = DualBranchNetwork(config)
    network.set_latent_stats(*latent_stats(samples))
    if clip is not None:
        with torch.no_grad():
            network.set_empty_text(clip.encode_text([""])[0].float().cpu())
    new: tuple[str, ...] = ()
    if init_from is not None:
        new = initialise(network, init_from, folder).new
    elif not config.straight_guess:  # which hands the latents to the output itself
        network.let_latents_through()
    if lora is not None and lora.on:
        check_lora(lora, init_from)
        add_adapters(network, lora, new, folder)
    return network


def train_flow(
    features: Samples,
    held_out: Samples | None,
    network_config: NetworkConfig,
    sequence: SequenceConfig,
    config: FlowStageConfig,
    output: Path,
    codec: Codec | None = None,
    clip: ClipEncoder | None = None,
    seed: int = 0,
    init_from: str | None = None,
    shared_noise: bool = False,
) -> LoopResult:
    """Train the network (or go on training it) below ``output``; `export_weights` then gives the result.

    features, held_out: encoded clips with latents (2, F, d). With ``codec``, validation samples sound, with
    one x_0 for both ears if ``shared_noise``.
    """
    for encoded in (features, held_out):
        check_features(encoded, sequence, network_config)
    samples = TokenSamples(features, sequence.frames_per_token)
    if config.export == "best" and (held_out is None or not len(held_out.ids)):
        raise UserError("flow.export is 'best', but the data have no validation split to choose by")
    network = new_network(network_config, samples, clip, seed, init_from, output, config.lora)
    validate = None
    if held_out is not None and len(held_out.ids):
        sampler = decoder = None
        if codec is not None:
            sampler = generate_sampler(codec, sequence, config.validation, shared_noise)
            decoder = token_decoder(codec, sequence)
        validation = FlowValidation(
            TokenSamples(held_out, sequence.frames_per_token),
            config.validation,
            seed,
            sampler,
            decoder,
            sequence.sample_rate,
        )
        metric = config.validation.best_metric
        best = BestWeights(output / "best", metric, config.validation.metrics[metric])
        validate = KeepBest(validation, best)
    trained, parameters = trained_share(network)
    share = "" if trained == parameters else f", of which {trained / 1e6:.1f} M are trained"
    say(f"flow: network of {parameters / 1e6:.1f} M parameters{share}")
    return train(network, samples, config.loop, output, seed, validate)


def token_decoder(codec: Codec, sequence: SequenceConfig):
    """Codec tokens (B, 2, N, D) -> audio (B, 2, S)."""

    def decode(tokens: Tensor) -> Tensor:
        latents = from_tokens(tokens, sequence.frames_per_token)
        return codec.decode_binaural(latents.to(codec.device), sequence.num_samples)

    return decode


def generate_sampler(
    codec: Codec, sequence: SequenceConfig, config: ValidationConfig, shared_noise: bool = False
):
    """The validation's sampler: sampling.generate, with the given noise, or the left ear's for both."""
    from visaudio.sampling import generate

    def sample(network: nn.Module, conditions: Conditions, noise: Tensor) -> Tensor:
        if shared_noise:
            noise = noise[:, :1].expand_as(noise)
        return generate(
            network,
            codec,
            conditions,
            sequence=sequence,
            noise=noise,
            num_steps=config.num_steps,
            guidance_scale=config.guidance_scale,
        )

    return sample


def export_weights(
    network_config: NetworkConfig, config: FlowStageConfig, output: Path, sigma_rel: float | None = None
) -> dict[str, Tensor]:
    """The averaged weights that a model gets, of a finished or an unfinished run below ``output``: those of
    the best validation, or (config.export) those at the newest checkpoint.

    Also written to ``output/model.safetensors``. Raises UserError where there are none.
    """
    network = DualBranchNetwork(network_config)
    if config.lora.on:
        add_adapters(network, config.lora, adapters_of(output), output)
    if config.export == "best":
        weights, _ = load_best(output / "best")
    else:
        weights = _newest_average(network, config, output, sigma_rel)
    if config.lora.on:
        network.load_state_dict(weights)
        weights = merged_state(network)
    save_file({name: value.contiguous() for name, value in weights.items()}, output / "model.safetensors")
    return weights


def weights_summary(config: FlowStageConfig, output: Path) -> dict[str, Any]:
    """What a model card says of the exported weights: at which step, and how they were averaged or chosen."""
    if config.export == "best":
        _, record = load_best(output / "best")
        value = record.figures[record.metric]
        return {
            "flow steps": record.step,
            "weights": f"of the best validation, {record.metric} {value:.4g} at step {record.step}",
            "EMA relative width": config.loop.ema.sigma_rels[0],
        }
    state = json.loads((list_checkpoints(output / "checkpoints")[-1] / "state.json").read_text())
    return {"flow steps": state["step"], "EMA relative width": config.loop.ema.output_sigma_rel}


def _newest_average(
    network: DualBranchNetwork, config: FlowStageConfig, output: Path, sigma_rel: float | None
) -> dict[str, Tensor]:
    """The average of the given width at the newest checkpoint; adapters stand beside what they adapt."""
    found = list_checkpoints(output / "checkpoints")
    if not found:
        raise UserError(f"no checkpoint in {output / 'checkpoints'}: train the flow stage first")
    checkpoint = load_checkpoint(found[-1])
    network.load_state_dict(checkpoint.network)
    with tempfile.TemporaryDirectory(prefix="visaudio-ema-") as scratch:
        # A copy, because the average at this checkpoint is added and a resumed run must not find it.
        folder = Path(scratch) / "ema"
        shutil.copytree(output / "ema", folder)
        ema = TrackedEma(network, config.loop.ema, folder)
        ema.load_state_dict(checkpoint.ema)
        ema.forget_after(checkpoint.state["step"])
        ema.snapshot()
        return ema.synthesize(sigma_rel)
