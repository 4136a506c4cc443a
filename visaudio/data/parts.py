"""The frozen parts that make a clip's features, and the decoding that goes ahead of them in other processes.

Legend: B clips, 2 ears (0 = left), S samples, F codec frames (whole tokens), D latent dimensions, Tc CLIP
frames, T sync frames, R x C grid cells, Ts sync tokens, L text tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from visaudio.codec.base import Codec
from visaudio.data.dataset import fit_samples, read_clip
from visaudio.data.eight_bits import to_bytes
from visaudio.encoders.clip import ClipEncoder
from visaudio.encoders.frames import mirror, prepare_frames, to_signed
from visaudio.encoders.synchformer import SynchformerEncoder
from visaudio.sequence import SequenceConfig


class SpatialEncoder(Protocol):
    """Gives the grid in CLIP's place: `encode_grid` (B, Tc, 3, H, W) uint8 -> (B, Tc, R C, Dg)."""

    image_size: int
    config: Any

    def encode_grid(self, frames: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Decoder:
    """A row's media as the parts take them. sizes: name -> (pixels, resize mode) of square pictures."""

    sequence: SequenceConfig
    latent_hop: int
    clip: tuple[int, str]
    sync: tuple[int, str]
    spatial: tuple[int, str] | None = None

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Tensor]:
        """clip, spatial (Tc, 3, H, W) and sync (T, 3, H, W) uint8; audio (2, S) float32, whole tokens."""
        sequence = self.sequence
        sync_times = np.arange(sequence.num_sync_frames) / sequence.sync_fps
        clip_times = np.arange(sequence.num_clip_frames) / sequence.clip_fps
        # one pass over the video gives both rates
        times = np.concatenate([sync_times, clip_times])
        clip = read_clip(row, times_s=times, sample_rate=sequence.sample_rate)
        fine, coarse = clip.frames[: len(sync_times)], clip.frames[len(sync_times) :]
        audio = fit_samples(clip.audio[:, : sequence.num_samples], sequence.num_frames * self.latent_hop)
        out = {"sync": prepare_frames(fine, *self.sync), "clip": prepare_frames(coarse, *self.clip)}
        if self.spatial is not None:
            out["spatial"] = prepare_frames(coarse, *self.spatial)
        return {**out, "audio": torch.from_numpy(np.ascontiguousarray(audio))}


@dataclass
class Parts:
    """The frozen parts and the lengths they work at.

    bf16: the picture towers run in bfloat16, in half the time; what they give is stored in 16 bits anyway.
    spatial: whose grid, if it is there, takes the place of CLIP's.
    """

    codec: Codec
    clip: ClipEncoder
    synchformer: SynchformerEncoder
    sequence: SequenceConfig
    bf16: bool = False
    spatial: SpatialEncoder | None = None

    @property
    def modules(self) -> dict[str, nn.Module]:
        found = {"codec": self.codec, "clip": self.clip, "synchformer": self.synchformer}
        return found if self.spatial is None else {**found, "spatial": self.spatial}

    def to(self, device: torch.device | str) -> Parts:
        """Moves every part, in place; returns itself."""
        for module in self.modules.values():
            module.eval().to(device)
        return self

    @property
    def decoder(self) -> Decoder:
        def size(part) -> tuple[int, str]:
            return part.image_size, part.config.resize

        spatial = None if self.spatial is None else size(self.spatial)
        return Decoder(self.sequence, self.codec.latent_hop, size(self.clip), size(self.synchformer), spatial)

    @torch.inference_mode()
    def encode_batch(self, clips: Mapping[str, Tensor], captions: Sequence[str]) -> dict[str, Tensor]:
        """What the decoder gives, stacked (B, ...) -> float16 latents (B, 2, F, D), text (B, L, Dt), clip
        (B, Tc, Dc), sync (B, Ts, Ds); float32 grid (B, Tc, R C, Dg); and clip_mirror, sync_mirror,
        grid_mirror.
        """
        device = next(self.clip.parameters()).device
        clips = {name: value.to(device, non_blocking=True) for name, value in clips.items()}
        out = {
            "latents": self.codec.encode_binaural(clips["audio"]).half(),
            "text": self.clip.encode_text(captions).half(),
        }
        for ending, change in (("", lambda frames: frames), ("_mirror", mirror)):
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.bf16):
                pooled, grid = self.clip.encode_images(change(clips["clip"]))
                if self.spatial is not None:
                    grid = self.spatial.encode_grid(change(clips["spatial"]))
                sync = self.synchformer(to_signed(change(clips["sync"])))
            out |= {
                f"clip{ending}": pooled.half(),
                f"sync{ending}": sync.half(),
                f"grid{ending}": grid.float(),
            }
        return out

    def stored_batch(self, clips: Mapping[str, Tensor], captions: Sequence[str]) -> dict[str, np.ndarray]:
        """The columns of a shard for these clips, on the CPU: as `encode_batch`, the grids in 8 bits."""
        out = self.encode_batch(clips, captions)
        for ending in ("", "_mirror"):
            name = f"grid{ending}"
            out[name], out[f"grid_range{ending}"] = to_bytes(out[name])
        return {name: value.cpu().numpy() for name, value in out.items()}

    def encode(self, row: Mapping[str, Any]) -> dict[str, Tensor]:
        """`encode_batch` of one row, without the axis of clips."""
        clips = {name: value[None] for name, value in self.decoder(row).items()}
        return {name: value[0].cpu() for name, value in self.encode_batch(clips, [row["caption"]]).items()}

    def made_from(self) -> dict[str, Any]:
        """What names these parts: features of other parts, lengths or rates are not taken for theirs."""
        weights = {name: digest(module) for name, module in self.modules.items()}
        return {"sequence": asdict(self.sequence), "weights": weights, "bf16": self.bf16}


def digest(module: nn.Module) -> str:
    """Of a part's weights, in half precision (in which a model folder may keep them), and of what else
    decides what it gives: its class, its sizes and how it is fed."""
    found = hashlib.blake2b(digest_size=16)
    config = getattr(module, "config", None)
    settings = asdict(config) if is_dataclass(config) else {}
    settings = {name: value for name, value in settings.items() if name not in NOT_THE_RESULT}
    found.update(json.dumps([type(module).__name__, settings], sort_keys=True, default=str).encode())
    for name, value in module.state_dict().items():
        found.update(name.encode())
        value = value.detach().half() if value.is_floating_point() else value.detach()
        found.update(value.cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


# of a part's config: where the weights came from, how many pictures at once
NOT_THE_RESULT = ("weights", "vocoder_weights", "max_batch")
