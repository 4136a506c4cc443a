"""Which samples a step sees, and every random number that goes with them.

The order is a permutation per (seed, epoch); position p of the endless stream is sample p mod n of epoch
p div n. All draws of a sample (mirror, timestep, dropped conditions, noise) come from a Philox stream
keyed by (seed, epoch, sample id): they depend neither on the process that holds the sample nor on its
place in the batch, so any number of processes and any resume point train on the same numbers. Philox in
NumPy gives the same values on every machine.
"""

import hashlib
import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from bi_audio_dataset.schema import UserError
from visaudio.flow import timesteps_from_normal
from visaudio.model.conditions import Conditions
from visaudio.training.coupling import Coupling

CONDITION_NAMES = ("clip", "sync", "spatial", "text", "hfov")
SPACE = ("spatial", "hfov")  # what says where things are


class Samples(Protocol):
    """A random-access set of encoded clips (``visaudio.data.features``, or a fake in a test).

    ``get`` returns latents (2, F, D) ear 0 = left, clip (Tc, Dc), grid (Tc, R*C, Dg), sync (Ts, Ds), text
    (L, Dt), hfov_rad float. With ``mirror`` the vision features are those of the flipped frames; the
    latents stay as they are (swapping the ears is this module's work).

    A set may have `hrir_symmetric`, a bool for each sample: where False, one ear is not the other's mirror
    image (a measured head), and the sample is never mirrored. It may have `mono`, likewise: where True, both
    ears are one sound, and spatial condition and lens count as absent; and `positions(seed)` in place of
    `Positions` (mixture.py).
    """

    ids: Sequence[str]

    def get(self, index: int, mirror: bool) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class DropoutConfig:
    """Probability that a sample's condition counts as absent (the network has null features for it).

    ``visual`` drops clip, sync and spatial together (guidance needs the case with nothing known to be
    trained); the others drop one condition each, on top.
    """

    visual: float = 0.1
    clip: float = 0.05
    sync: float = 0.05
    spatial: float = 0.05
    text: float = 0.5
    hfov: float = 0.5

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0.0 <= value <= 1.0:
                raise UserError(f"dropout.{name} is {value}; expected a probability in 0-1")


@dataclass(frozen=True)
class Draws:
    """All random numbers of one sample in one epoch. t_normal: the normal number that becomes its timestep;
    noise (2, F, D), independent per ear.
    """

    mirror: bool
    dropped: dict[str, bool]
    t_normal: float
    noise: np.ndarray


@dataclass(frozen=True)
class Batch:
    """latents, noise (B, 2, F, D) float32, latents not yet normalised; t (B,); conditions: dropped ones
    marked, in the dtype of the set until `to`.
    """

    ids: tuple[str, ...]
    latents: Tensor
    noise: Tensor
    t: Tensor
    conditions: Conditions

    def to(self, device: torch.device) -> "Batch":
        """On the device, in float32; a pinned batch is copied while the host goes on."""
        conditions = self.conditions.to(device, non_blocking=True)
        return Batch(
            self.ids,
            self.latents.to(device, non_blocking=True),
            self.noise.to(device, non_blocking=True),
            self.t.to(device, non_blocking=True),
            conditions._map(lambda value: value.float() if value.is_floating_point() else value),
        )

    def pinned(self) -> "Batch":
        """In memory that an accelerator copies from by itself."""
        conditions = {
            name: None if value is None else value.pin_memory()
            for name, value in vars(self.conditions).items()
        }
        return Batch(
            self.ids,
            self.latents.pin_memory(),
            self.noise.pin_memory(),
            self.t.pin_memory(),
            Conditions(**conditions),
        )


def stream(seed: int, *names: object) -> np.random.Generator:
    """Random stream named by (seed, names...): stable across processes, machines and Python versions."""
    digest = hashlib.blake2b("\x00".join(map(str, (seed, *names))).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(digest, dtype="<u8")))


def draw(
    seed: int,
    epoch: int,
    sample_id: str,
    noise_shape: tuple[int, ...],
    dropout: DropoutConfig,
    mirror_probability: float = 0.5,
) -> Draws:
    """The draws of one sample in one epoch; see the head of the file."""
    random = stream(seed, epoch, sample_id)
    mirror, visual, *single = random.random(2 + len(CONDITION_NAMES))
    dropped = {
        name: bool(u < getattr(dropout, name)) for name, u in zip(CONDITION_NAMES, single, strict=True)
    }
    for name in ("clip", "sync", "spatial"):
        dropped[name] |= bool(visual < dropout.visual)
    t_normal = float(random.standard_normal())
    noise = random.standard_normal(noise_shape, dtype=np.float32)
    return Draws(bool(mirror < mirror_probability), dropped, t_normal, noise)


class Positions:
    """Endless stream of (epoch, index): a permutation of ``count`` samples per (seed, epoch), no
    remainder lost.
    """

    def __init__(self, count: int, seed: int):
        if count < 1:
            raise UserError("the training set holds no samples; build or extract features first")
        self.count, self.seed = count, seed
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def __getitem__(self, position: int) -> tuple[int, int]:
        epoch, offset = divmod(position, self.count)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, stream(self.seed, "order", epoch).permutation(self.count)
        return epoch, int(self._order[offset])


def share_of_batch(batch_size: int, world: int, accumulation: int) -> int:
    """Samples that one process takes at a time. Raises UserError where they do not come out even."""
    if batch_size % (world * accumulation):
        raise UserError(
            f"batch_size {batch_size} does not divide by {world} processes x "
            f"{accumulation} accumulation rounds"
        )
    return batch_size // (world * accumulation)


class BatchStream:
    """Batches of consecutive positions, for one process.

    batch_size: samples of one optimizer step over all processes and accumulation rounds. Round ``r`` of
    process ``rank`` takes an equal share of them. While the network works, ``workers`` threads prepare the
    next ``prefetch`` shares (reading, converting and drawing noise leave Python's lock to the others); what
    a share holds depends on neither. pin: into memory for an accelerator. waited_s: seconds that `get` has
    waited for a share that was not ready. coupling: which noise goes with which clip, if not each with its
    own.
    """

    def __init__(
        self,
        samples: Samples,
        seed: int,
        batch_size: int,
        dropout: DropoutConfig,
        mirror_probability: float = 0.5,
        t_mean: float = 0.0,
        t_scale: float = 1.0,
        rank: int = 0,
        world: int = 1,
        accumulation: int = 1,
        workers: int = 1,
        prefetch: int = 1,
        pin: bool = False,
        coupling: Coupling | None = None,
    ):
        self.samples, self.seed, self.batch_size = samples, seed, batch_size
        self.dropout, self.mirror_probability = dropout, mirror_probability
        self.t_mean, self.t_scale = t_mean, t_scale
        self.rank, self.world, self.accumulation = rank, world, accumulation
        self.share = share_of_batch(batch_size, world, accumulation)
        self.coupling = coupling
        if coupling is not None:
            coupling.check(self.share)
        self.prefetch, self.pin, self.waited_s = max(1, prefetch), pin, 0.0
        positions = getattr(samples, "positions", None)
        self._positions = positions(seed) if positions else Positions(len(samples.ids), seed)
        self._symmetric = getattr(samples, "hrir_symmetric", None) or [True] * len(samples.ids)
        self._mono = getattr(samples, "mono", None) or [False] * len(samples.ids)
        self._latent_shape = tuple(samples.get(0, mirror=False)["latents"].shape)  # one length in a set
        self._workers = ThreadPoolExecutor(max_workers=max(1, workers), thread_name_prefix="loader")
        self._ahead: deque[tuple[int, Future[Batch]]] = deque()  # (running number of the share, the share)

    def get(self, step: int, accumulation_round: int = 0) -> Batch:
        """This process's share of ``accumulation_round`` of optimizer step ``step``."""
        number = step * self.accumulation + accumulation_round
        if not self._ahead or self._ahead[0][0] != number:
            for _, waiting in self._ahead:
                waiting.cancel()
            self._ahead.clear()
            self._order(number)
        began = time.monotonic()
        batch = self._ahead.popleft()[1].result()
        self.waited_s += time.monotonic() - began
        following = self._ahead[-1][0] + 1 if self._ahead else number + 1
        for later in range(following, number + 1 + self.prefetch):
            self._order(later)
        return batch

    def close(self) -> None:
        self._workers.shutdown(wait=True, cancel_futures=True)

    def _order(self, number: int) -> None:
        """Have share ``number`` prepared; which samples it holds is looked up here, not in a thread."""
        step, accumulation_round = divmod(number, self.accumulation)
        first = step * self.batch_size + (accumulation_round * self.world + self.rank) * self.share
        chosen = [self._positions[first + i] for i in range(self.share)]
        self._ahead.append((number, self._workers.submit(self._prepare, chosen)))

    def _prepare(self, chosen: Sequence[tuple[int, int]]) -> Batch:
        batch = self.make(chosen)
        return batch.pinned() if self.pin else batch

    def make(self, chosen: Sequence[tuple[int, int]]) -> Batch:
        """Batch of given (epoch, index) pairs."""
        rows, draws = [], []
        for epoch, index in chosen:
            sample_id = self.samples.ids[index]
            one = draw(self.seed, epoch, sample_id, self._latent_shape, self.dropout, self.mirror_probability)
            one = replace(one, mirror=one.mirror and self._symmetric[index])
            if self._mono[index]:
                one = replace(one, dropped={**one.dropped, **dict.fromkeys(SPACE, True)})
            row = self.samples.get(index, mirror=one.mirror)
            rows.append(row)
            draws.append(one)
        batch = collate(
            [self.samples.ids[index] for _, index in chosen], rows, draws, self.t_mean, self.t_scale
        )
        if self.coupling is None:
            return batch
        return replace(batch, noise=self.coupling(batch.noise, batch.latents))


class WaitShare:
    """The share of the time that the loop has waited for batches, from one look to the next."""

    def __init__(self, batches: BatchStream) -> None:
        self._batches = batches
        self._at, self._waited_s = time.monotonic(), batches.waited_s

    def since_last(self) -> float:
        now, waited_s = time.monotonic(), self._batches.waited_s
        share = (waited_s - self._waited_s) / max(1e-9, now - self._at)
        self._at, self._waited_s = now, waited_s
        return share


def collate(
    ids: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    draws: Sequence[Draws],
    t_mean: float = 0.0,
    t_scale: float = 1.0,
) -> Batch:
    """Stack samples and their draws; where mirrored, the ears of the latents change places."""
    latents = torch.stack(
        [
            _float(row["latents"]).flip(0) if one.mirror else _float(row["latents"])
            for row, one in zip(rows, draws, strict=True)
        ]
    )
    dropped = {name: torch.tensor([one.dropped[name] for one in draws]) for name in CONDITION_NAMES}
    hfov_dropped = dropped.pop("hfov")
    conditions = conditions_of(rows, as_stored=True).drop(dropped)
    return Batch(
        ids=tuple(ids),
        latents=latents,
        noise=torch.from_numpy(np.stack([one.noise for one in draws])),
        t=timesteps_from_normal(torch.tensor([one.t_normal for one in draws]), t_mean, t_scale),
        conditions=replace(conditions, hfov_rad=conditions.hfov_rad.masked_fill(hfov_dropped, math.nan)),
    )


def conditions_of(rows: Sequence[Mapping[str, Any]], as_stored: bool = False) -> Conditions:
    """Conditions of several samples of equal lengths, in float32; or as they are stored, for the device to
    widen (on the host it costs as much as drawing the noise, `python benchmarks/loader.py`).
    """
    stacked = {
        name: torch.stack([torch.as_tensor(row[name]) if as_stored else _float(row[name]) for row in rows])
        for name in ("clip", "sync", "text", "grid")
    }
    return Conditions(
        clip_features=stacked["clip"],
        sync_features=stacked["sync"],
        text_features=stacked["text"],
        spatial_features=stacked["grid"],
        hfov_rad=torch.tensor([float(row["hfov_rad"]) for row in rows], dtype=torch.float32),
    )


def _float(value: Any) -> Tensor:
    return torch.as_tensor(value).float()
