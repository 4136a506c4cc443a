#!/usr/bin/env python
"""How far our networks lie from what upstream's gave, or from another implementation of the same network.

    python benchmarks/parity.py --golden ../shared/golden
    python benchmarks/parity.py --golden ../shared/golden --full      # and Synchformer at full width: 3 GB

Every row is the largest absolute error in float32 on this machine, with the bound that the tests hold it to.
CLIP and the Perception Encoder have no golden file: their random weights also go through transformers'
CLIPModel, and through a plain reading of the paper (tests/clip_pair.py, tests/plain_perception.py).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]


class Row(NamedTuple):
    part: str
    against: str
    quantity: str
    error: float
    bound: float


def error(ours: Tensor, theirs: Tensor) -> float:
    if ours.shape != theirs.shape:
        raise ValueError(f"shapes differ: {tuple(ours.shape)}, {tuple(theirs.shape)}")
    return float((ours - theirs).abs().max())


def below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def synchformer(golden: Path) -> Iterator[Row]:
    from visaudio.encoders.frames import to_signed
    from visaudio.encoders.synchformer import SynchformerConfig, SynchformerEncoder

    stored = load_file(golden / "synchformer_visual_reduced.safetensors")
    encoder = SynchformerEncoder(SynchformerConfig(width=48, depth=2, heads=4)).eval()
    encoder.load_weights(below(stored, "weights."))
    found = error(encoder(to_signed(stored["frames_u8"])), stored["sync_features"])
    yield Row("Synchformer, reduced", "synchformer_visual_reduced", "sync features", found, 1e-4)


def synchformer_full(golden: Path) -> Iterator[Row]:
    from visaudio import weight_files
    from visaudio.encoders.frames import to_signed
    from visaudio.encoders.synchformer_sync import Synchformer

    file = "synchformer_full_io"
    stored = load_file(golden / f"{file}.safetensors")
    shapes = json.loads((golden / "upstream_state_dicts.json").read_text())["synchformer_full"]
    longest = max(math.prod(shape) for shape in shapes.values())
    angle = 0.7390851 * torch.arange(longest, dtype=torch.float64)
    cos, sin = angle.cos(), angle.sin()

    def weight(name: str, shape: list[int]) -> Tensor:
        count, shift = math.prod(shape), zlib.crc32(name.encode()) % 1000
        value = 0.02 * (cos[:count] * math.cos(shift) - sin[:count] * math.sin(shift))
        return (value + (len(shape) == 1 and name.endswith("weight"))).view(shape).float()

    with torch.device("meta"):
        model = Synchformer().eval()
    model.to_empty(device="cpu")
    state = {name: weight(name, shape) for name, shape in shapes.items()}
    weight_files.load_into(model, state, "the formula", "the whole Synchformer")
    found = {
        "sync features": (model.visual_features(to_signed(stored["frames_u8"])), "visual_features"),
        "audio features": (model.afeat_extractor(stored["log_mel"][:, :, 0]), "audio_features"),
        "offset logits": (model.offset_logits(stored["head_visual"], stored["head_audio"]), "head_logits"),
    }
    for quantity, (ours, theirs) in found.items():
        yield Row("Synchformer, full width", file, quantity, error(ours, stored[theirs]), 1e-4)


def network(golden: Path) -> Iterator[Row]:
    from visaudio.guidance import guided
    from visaudio.model.conditions import Conditions
    from visaudio.model.network import DualBranchNetwork, NetworkConfig
    from visaudio.model.warm_start import load_mmaudio_state_dict
    from visaudio.sequence import SequenceConfig
    from visaudio.solver import solve, time_grid

    sizes = {"hidden_dim": 64, "num_heads": 2, "joint_blocks": 2, "branch_blocks": 2, "token_dim": 40}
    for name, generation in (
        ("mmaudio_reduced", {"projections": "v1", "time_frequencies": 256, "time_scale": 1.0}),
        ("mmaudio_reduced_v2", {"projections": "v2", "time_frequencies": 64, "time_scale": 10000.0}),
    ):
        stored = load_file(golden / f"{name}.safetensors")
        ours = DualBranchNetwork(
            NetworkConfig(spatial_dim=16, spatial_width=16, **sizes, **generation)
        ).eval()
        load_mmaudio_state_dict(ours, below(stored, "weights."))
        batch = len(stored["x"])
        conditions = Conditions(
            stored["clip"],
            stored["sync"],
            stored["text"],
            torch.randn(batch, 64, 16, 16),
            torch.full((batch,), 1.2),
        )
        x = stored["x"][:, None].expand(-1, 2, -1, -1)
        told = ours.preprocess_conditions(conditions, 345)
        untold = ours.preprocess_conditions(ours.null_conditions(1, SequenceConfig()), 345).expand(batch)
        velocity = ours.predict_velocity(x, stored["t"], told)
        end = solve(guided(ours.predict_velocity, told, untold, 4.5), x, time_grid(5), "euler")
        for quantity, found, key in (
            ("velocity, each ear", velocity, "velocity"),
            ("5 Euler steps, guidance 4.5, each ear", end, "euler5_cfg4.5"),
        ):
            worst = max(error(found[:, ear], stored[key]) for ear in (0, 1))
            yield Row("network from MMAudio", name, quantity, worst, 1e-4)


def mmaudio_codec(golden: Path) -> Iterator[Row]:
    from visaudio.codec.bigvgan import BigVgan
    from visaudio.codec.mel_vae import MelVae, MelVaeConfig
    from visaudio.codec.mmaudio import LogMel, read_vocoder_config

    stored = load_file(golden / "mmaudio_vae44k_reduced.safetensors")
    name = "mmaudio_vae44k_reduced"
    mel = LogMel(44100, 2048, 512, 128)(stored["wav"])
    yield Row("MMAudio's log-mel", name, "mel", error(mel, stored["mel"]), 1e-4)
    vae = MelVae(MelVaeConfig(width=32)).eval()
    vae.load_state_dict(below(stored, "vae."))
    mean, std = vae.encode(stored["mel"])
    yield Row("MMAudio's mel VAE", name, "latent mean", error(mean, stored["latent_mean"]), 1e-4)
    yield Row("MMAudio's mel VAE", name, "latent deviation", error(std, stored["latent_std"]), 1e-4)
    decoded = vae.decode(stored["latent_mean"])
    yield Row("MMAudio's mel VAE", name, "decoded mel", error(decoded, stored["decoded_mel"]), 1e-4)
    stored = load_file(golden / "bigvgan_v2_reduced.safetensors")
    vocoder = BigVgan(read_vocoder_config(golden / "bigvgan_v2_reduced.json")).eval()
    vocoder.load_state_dict(below(stored, "bigvgan."))
    loudest = float(stored["audio"].abs().max())
    found = error(vocoder(stored["mel"]), stored["audio"]) / loudest
    yield Row("BigVGAN v2", "bigvgan_v2_reduced", "audio, of its peak", found, 1e-4)


def dac(golden: Path) -> Iterator[Row]:
    from visaudio.codec.dac import DacCodec, DacCodecConfig

    codec = DacCodec(DacCodecConfig(weights=str(golden / "dac_reduced.pth")))
    stored = load_file(golden / "dac_reduced_io.safetensors")
    latents = codec.encode(stored["audio"])
    part, name = "DAC, Descript's .pth", "dac_reduced"
    yield Row(part, name, "projected latents", error(latents.mT, stored["projected_latents"]), 1e-4)
    yield Row(
        part, name, "distances of codes that differ", _code_distance(codec, latents, stored["codes"]), 1e-5
    )
    decoded = codec.decode(stored["projected_latents"].mT)
    yield Row(part, name, "reconstruction", error(decoded, stored["reconstruction_from_latents"]), 1e-4)
    decoded = codec.decode(latents)
    yield Row(part, name, "encoded and decoded", error(decoded, stored["reconstruction"]), 1e-4)


def _code_distance(codec, latents: Tensor, theirs: Tensor) -> float:
    """Where we take another code than they do, how much nearer one lies than the other, at the most."""
    ours, apart = codec.codes(latents), 0.0
    size = codec.config.codebook_dim
    for sample, book, frame in (ours != theirs).nonzero().tolist():
        table = torch.nn.functional.normalize(codec.model.quantizer.quantizers[book].codebook.weight)
        point = latents[sample, frame, book * size : book * size + size]
        distances = torch.cdist(torch.nn.functional.normalize(point[None], dim=-1), table)[0]
        both = distances[[int(codes[sample, book, frame]) for codes in (ours, theirs)]]
        apart = max(apart, float((both[0] - both[1]).abs()))
    return apart


def clip(golden: Path) -> Iterator[Row]:
    from clip_pair import SIZE, transformers_clip, write_repository

    from visaudio.encoders.clip import ClipConfig, ClipEncoder

    texts = ["a small brass bell rings twice", "", "rain on a tin roof, " * 30]
    for activation in ("quick_gelu", "gelu"):
        theirs = transformers_clip(activation)
        with tempfile.TemporaryDirectory() as folder:
            write_repository(Path(folder), theirs, activation == "quick_gelu")
            ours = ClipEncoder(ClipConfig(model_name=f"local-dir:{folder}", grid_columns=4)).eval()
        frames = torch.rand(1, 3, 3, SIZE, SIZE)
        seen = theirs(pixel_values=((frames - ours.mean) / ours.std)[0], input_ids=ours.tokenize(texts))
        tokens = theirs.vision_model.post_layernorm(seen.vision_model_output.last_hidden_state[:, 1:])
        for quantity, found, expected in (
            ("embeddings of unit norm", ours.encode_images(frames)[0][0], seen.image_embeds),
            ("patch tokens", ours.encode_patches(frames)[1][0].flatten(1, 2), tokens),
            ("77 text tokens", ours.encode_text(texts), seen.text_model_output.last_hidden_state),
        ):
            yield Row(
                f"CLIP, {activation}", "transformers' CLIPModel", quantity, error(found, expected), 1e-5
            )


def perception(golden: Path) -> Iterator[Row]:
    from plain_perception import noisy, plain_tokens

    from visaudio.encoders.perception import PerceptionConfig, PerceptionEncoder

    sizes = {"image_size": 64, "patch_size": 2, "width": 32, "depth": 2, "heads": 2}
    encoder = noisy(PerceptionEncoder(PerceptionConfig("vit_pe_spatial_tiny_patch16_512", None, **sizes)))
    frames = torch.rand(1, 2, 3, 64, 64)
    expected = plain_tokens(encoder.model.state_dict(), frames[0], patch=2, heads=2)
    found = error(encoder.encode_patches(frames)[0], expected)
    yield Row("PE-Spatial, reduced", "the paper, read plainly", "patch tokens", found, 1e-5)


PARTS = (clip, perception, synchformer, network, dac, mmaudio_codec)


@torch.inference_mode()
def measure(golden: Path, full: bool = False) -> Iterator[Row]:
    for part in (*PARTS, *([synchformer_full] if full else [])):
        torch.manual_seed(0)
        yield from part(golden)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--golden", type=Path, default=ROOT.parent / "shared" / "golden")
    parser.add_argument("--full", action="store_true", help="Synchformer at full width as well")
    options = parser.parse_args()
    if not (options.golden / "upstream_state_dicts.json").is_file():
        print(f"error: no goldens in {options.golden}", file=sys.stderr)
        return 2
    print("| part | against | what | largest error | bound |\n|---|---|---|---|---|")
    worst = 0.0
    for row in measure(options.golden, options.full):
        print(
            f"| {row.part} | {row.against} | {row.quantity} | {row.error:.1e} | {row.bound:.0e} |", flush=True
        )
        worst = max(worst, row.error / row.bound)
    return 0 if worst < 1 else 1


if __name__ == "__main__":
    raise SystemExit(main())
