"""Every clip through the frozen parts, once: what the flow training reads instead of video and sound.

    python -m visaudio.data.features --dataset DIR --output DIR [--weights DIR]

Legend: 2 ears (0 = left), F codec frames (whole tokens), D latent dimensions, Tc CLIP frames, R x C grid
cells, Ts sync tokens, L text tokens.

The folder's layout is in feature_store.py, whose names a user needs are importable from here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bi_audio_dataset.schema import UserError
from visaudio.codec.base import Codec
from visaudio.data.dataset import Clip, fit_samples, open_dataset, read_clip
from visaudio.data.feature_store import INDEX, FeatureDataset, latent_statistics, write_arrow
from visaudio.encoders.clip import ClipEncoder
from visaudio.encoders.frames import mirror, prepare_frames, to_signed
from visaudio.encoders.perception import PerceptionEncoder
from visaudio.encoders.synchformer import SynchformerEncoder
from visaudio.precision import use_bf16
from visaudio.sequence import SequenceConfig

SHARD_CLIPS = 64

__all__ = ["FeatureDataset", "Parts", "extract_features", "latent_statistics", "load_part"]


@dataclass
class Parts:
    """The frozen parts and the lengths they work at.

    spatial: where there is one, its grid takes the place of CLIP's.
    bf16: the picture towers run in bfloat16, in half the time; what they give is stored in 16 bits anyway.
    """

    codec: Codec
    clip: ClipEncoder
    synchformer: SynchformerEncoder
    sequence: SequenceConfig
    bf16: bool = False
    spatial: PerceptionEncoder | None = None

    @torch.inference_mode()
    def encode(self, row: Mapping[str, Any]) -> dict[str, Tensor]:
        """Row -> float16 latents (2, F, D), clip (Tc, Dc), grid (Tc, R C, Dg), sync (Ts, Ds), *_mirror."""
        sequence = self.sequence
        sync_times = np.arange(sequence.num_sync_frames) / sequence.sync_fps
        clip_times = np.arange(sequence.num_clip_frames) / sequence.clip_fps
        # one pass over the video gives both rates
        times = np.concatenate([sync_times, clip_times])
        clip = read_clip(row, times_s=times, sample_rate=sequence.sample_rate)
        device = next(self.clip.parameters()).device
        fine = prepare_frames(
            clip.frames[: len(sync_times)], self.synchformer.image_size, self.synchformer.config.resize
        )
        coarse = self.clip.prepare(clip.frames[len(sync_times) :])
        places = None if self.spatial is None else self.spatial.prepare(clip.frames[len(sync_times) :])
        out = {"latents": self._latents(clip)}
        for ending, change in (("", lambda frames: frames), ("_mirror", mirror)):
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.bf16):
                pooled, grid = self.clip.encode_images(change(coarse)[None].to(device))
                if self.spatial is not None:
                    grid = self.spatial.encode_grid(change(places)[None].to(device))
                sync = self.synchformer(to_signed(change(fine)[None].to(device)))
            out |= {f"clip{ending}": pooled[0], f"grid{ending}": grid[0], f"sync{ending}": sync[0]}
        return {name: value.half().cpu() for name, value in out.items()}

    def _latents(self, clip: Clip) -> Tensor:
        num_samples = self.sequence.num_frames * self.codec.latent_hop
        audio = fit_samples(clip.audio[:, : self.sequence.num_samples], num_samples)
        return self.codec.encode_binaural(torch.from_numpy(audio)[None].to(self.codec.device))[0]

    def digest(self) -> str:
        """Names these weights: features of other weights are not mixed with theirs."""
        found = hashlib.blake2b(digest_size=16)
        spatial = () if self.spatial is None else (self.spatial,)
        for module in (self.codec, self.clip, self.synchformer, *spatial):
            for name, value in module.state_dict().items():
                found.update(name.encode())
                found.update(value.detach().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()


def extract_features(
    dataset: str | Path,
    output: Path,
    codec: Codec,
    clip: ClipEncoder,
    synchformer: SynchformerEncoder,
    sequence: SequenceConfig,
    workers: int = 2,
    splits: Sequence[str] | None = None,
    progress: bool = True,
    spatial: PerceptionEncoder | None = None,
) -> Path:
    """Encode all clips of a BiAudio folder or repository; returns `output`.

    Finished shards of the same clips, lengths and weights are kept, others are made anew. On a CPU, `workers`
    processes of one thread each share the shards.
    """
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    parts = Parts(codec.eval(), clip.eval(), synchformer.eval(), sequence, use_bf16("auto"), spatial)
    rows = open_dataset(dataset, splits)
    if not len(rows):
        raise UserError(f"the dataset at '{dataset}' has no rows in splits {splits}")
    key = {"sequence": asdict(sequence), "weights": parts.digest(), "ids": _digest(rows["id"][:])}
    index_path = output / INDEX
    if index_path.is_file():
        index = json.loads(index_path.read_text())
        if index["key"] == key and "latent_mean" in index:
            return output
    if not index_path.is_file() or index["key"] != key:
        for old in output.glob("*.arrow"):
            old.unlink()
        index_path.write_text(json.dumps({"key": key}))
    shards = _shards(len(rows))
    _write_text(output / "text.arrow", sorted(set(rows["caption"][:])), parts.clip)
    todo = [shard for shard in range(len(shards)) if not _shard_path(output, shard, len(shards)).is_file()]
    _encode_shards(rows, shards, todo, parts, output, workers, progress)
    _write_index(output, key)
    return output


def _shards(count: int) -> list[range]:
    return [range(start, min(count, start + SHARD_CLIPS)) for start in range(0, count, SHARD_CLIPS)]


def _shard_path(output: Path, shard: int, of: int) -> Path:
    return output / f"features-{shard:05d}-of-{of:05d}.arrow"


def _encode_shards(rows, shards, todo, parts: Parts, output: Path, workers: int, progress: bool) -> None:
    from tqdm import tqdm

    paths = [_shard_path(output, shard, len(shards)) for shard in todo]
    done = sum(len(r) for r in shards) - sum(len(shards[shard]) for shard in todo)
    total = sum(len(r) for r in shards)
    with tqdm(total=total, initial=done, desc="features", unit="clip", disable=not progress) as bar:
        if workers < 2 or len(todo) < 2 or parts.codec.device.type != "cpu":
            for shard, path in zip(todo, paths, strict=True):
                _encode_shard(rows, shards[shard], path, parts, bar.update)
            return
        context = get_context("spawn")  # the parent may hold torch's threads, which a fork would break
        counter = context.Value("i", 0)
        with ProcessPoolExecutor(
            workers, mp_context=context, initializer=_start_worker, initargs=(rows, parts, counter)
        ) as pool:
            jobs = {pool.submit(_worker_shard, shards[s], p) for s, p in zip(todo, paths, strict=True)}
            while jobs:
                try:
                    for job in as_completed(jobs, timeout=2):
                        job.result()
                        jobs.discard(job)
                        break
                except TimeoutError:
                    pass
                bar.update(counter.value - (bar.n - done))


_worker: dict[str, Any] = {}


def _start_worker(rows, parts: Parts, counter) -> None:
    torch.set_num_threads(1)
    _worker.update(rows=rows, parts=parts, counter=counter)


def _worker_shard(indices: range, path: Path) -> None:
    def count(number: int) -> None:
        with _worker["counter"].get_lock():
            _worker["counter"].value += number

    _encode_shard(_worker["rows"], indices, path, _worker["parts"], count)


def _encode_shard(rows, indices: range, path: Path, parts: Parts, count) -> None:
    records, shapes = [], {}
    for index in indices:
        row = rows[index]
        tensors = parts.encode(row)
        shapes = {name: list(value.shape) for name, value in tensors.items()}
        record = {
            "id": row["id"],
            "split": row["split"],
            "caption": row["caption"],
            "hfov_deg": float(row["hfov_deg"]),
            "hrir_symmetric": bool(row["hrir_symmetric"]),
            "classes": [source["class_name"] for source in row["truth"]["sources"]],
        }
        records.append(record | {name: value.numpy().tobytes() for name, value in tensors.items()})
        count(1)
    write_arrow(path, records, shapes)


@torch.inference_mode()
def _write_text(path: Path, captions: list[str], clip: ClipEncoder) -> None:
    if path.is_file():
        return
    records, shape = [], []
    for start in range(0, len(captions), 64):
        chunk = captions[start : start + 64]
        tokens = clip.encode_text(chunk).half().cpu().numpy()
        shape = list(tokens.shape[1:])
        records += [{"caption": c, "text": t.tobytes()} for c, t in zip(chunk, tokens, strict=True)]
    write_arrow(path, records, {"text": shape})


def _write_index(output: Path, key: dict) -> None:
    """features.json with the mean and deviation of each latent dimension over the train split (else all)."""
    folder = FeatureDataset(output, None, complete=False)
    chosen = [i for i, split in enumerate(folder.splits) if split == "train"] or range(len(folder))
    total = square = number = 0.0
    for index in chosen:
        latents = folder.tensor(index, "latents").double().flatten(0, 1)
        total, square, number = (
            total + latents.sum(0),
            square + latents.square().sum(0),
            number + len(latents),
        )
    mean = total / number
    std = (square / number - mean.square()).clamp_min(1e-12).sqrt()
    index = {
        "key": key,
        "clips": len(folder),
        "shapes": folder.shapes,
        "latent_mean": mean.tolist(),
        "latent_std": std.tolist(),
    }
    (output / INDEX).write_text(json.dumps(index, indent=1) + "\n")


def _digest(values: Sequence[str]) -> str:
    return hashlib.blake2b("\n".join(values).encode(), digest_size=16).hexdigest()


def load_part(module: nn.Module, folder: Path, name: str) -> nn.Module:
    """Weights from a model folder (name.safetensors) or a training run (name/model.safetensors)."""
    from safetensors.torch import load_file

    for path in (folder / f"{name}.safetensors", folder / name / "model.safetensors"):
        if path.is_file():
            module.load_state_dict({key: value.float() for key, value in load_file(path).items()})
            return module.eval().requires_grad_(False)
    raise UserError(f"'{folder}' holds neither {name}.safetensors nor {name}/model.safetensors")


def main(arguments: Sequence[str] | None = None) -> int:
    import argparse
    import sys

    # above this file's floor, and needed by its command line alone
    from visaudio.codec.spectral import SpectralCodec
    from visaudio.presets import load_preset

    parser = argparse.ArgumentParser(
        prog="python -m visaudio.data.features", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--dataset", required=True, help="BiAudio folder or Hub repository")
    parser.add_argument("--output", required=True, type=Path, help="features folder")
    parser.add_argument(
        "--weights",
        type=Path,
        default=Path(__file__).parents[1] / "weights" / "tiny",
        help="model folder or training run with the codec and the encoders (default: those that ship)",
    )
    parser.add_argument("--preset", default="tiny", help="sizes of the parts")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    options = parser.parse_args(arguments)
    try:
        preset = load_preset(options.preset)
        extract_features(
            options.dataset,
            options.output,
            codec=load_part(SpectralCodec(preset.codec), options.weights, "codec"),
            clip=load_part(ClipEncoder(preset.clip), options.weights, "clip"),
            synchformer=load_part(SynchformerEncoder(preset.synchformer), options.weights, "synchformer"),
            sequence=preset.sequence,
            workers=options.workers,
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
