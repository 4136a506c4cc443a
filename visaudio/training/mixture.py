"""Several sets of encoded clips as one: whose clip stands at which place of the stream, and which are mono.

A source's weight is its share of the samples, relative to the others' weights, whatever its number of clips.
An epoch has as many places as there are clips in all. In each epoch a permutation per (seed, epoch) says
which places are whose, in exact numbers; at its places a source goes through its own clips by a permutation
per (seed, source, pass), each clip once before any comes again. So a place's clip is a function of (seed,
place) alone, whatever the number of processes and wherever a run is resumed. A clip that comes twice in an
epoch is in two passes, and gets noise, t, dropout and mirror of each: the pass takes the epoch's part in the
draws' names.

Mono clips (both ears one sound, declared) teach sound, not space. Their spatial condition and lens always
count as absent, for otherwise what is seen at the left would be learned to sound from the middle. The null
spatial condition then stands for "no place is known", mono among it; where space is given, only binaural
clips have been. Their mirror image is exact: equal ears need no swapping.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bi_audio_dataset.schema import UserError
from visaudio.training.batches import Samples, stream

LOOKED_AT = 16  # clips whose ears are compared
EQUAL_EARS = 5e-3  # deviation of their difference over that of their sum; codecs are deaf to less


@dataclass(frozen=True)
class Part:
    """One source: its encoded clips, its share of the stream, and whether both ears are one sound."""

    name: str
    samples: Samples
    weight: float = 1.0
    mono: bool = False


class MixedSamples:
    """`Samples` over several parts; ids are "source/id". See the head of the file.

    mono, hrir_symmetric: a bool for each sample. terms: what beside the ids must be the same in a resumed
    run. alternate: the order of the ids goes round the parts, so that the first few are of all of them.
    """

    def __init__(self, parts: Sequence[Part], alternate: bool = False) -> None:
        empty = [part.name for part in parts if len(part.samples.ids) == 0]
        if not parts or empty:
            raise UserError(f"source {empty[0] if empty else ''}: holds no clips of this split; leave it out")
        names = [part.name for part in parts]
        if len(set(names)) < len(names):
            raise UserError(f"two sources have one name ({', '.join(names)}): set data.N.name")
        self.parts = list(parts)
        where = [(p, i) for p, part in enumerate(parts) for i in range(len(part.samples.ids))]
        if alternate:
            where.sort(key=lambda place: (place[1], place[0]))
        self._where = where
        self.ids = [f"{parts[p].name}/{parts[p].samples.ids[i]}" for p, i in where]
        self.mono = [parts[p].mono for p, _ in where]
        symmetric = [
            getattr(part.samples, "hrir_symmetric", None) or [True] * len(part.samples.ids) for part in parts
        ]
        self.hrir_symmetric = [parts[p].mono or symmetric[p][i] for p, i in where]
        self.terms = [f"{part.name} weight {part.weight:g} mono {part.mono}" for part in parts]

    def get(self, index: int, mirror: bool) -> Mapping[str, Any]:
        part, inner = self._where[index]
        return self.parts[part].samples.get(inner, mirror)

    def positions(self, seed: int) -> MixedPositions:
        members = [[] for _ in self.parts]
        for index, (part, _) in enumerate(self._where):
            members[part].append(index)
        return MixedPositions(
            [part.name for part in self.parts], members, [part.weight for part in self.parts], seed
        )


class MixedPositions:
    """Endless stream of (pass, index); see the head of the file. members: the indices of each source."""

    def __init__(
        self, names: Sequence[str], members: Sequence[Sequence[int]], weights: Sequence[float], seed: int
    ) -> None:
        self.names, self.seed = list(names), seed
        self.members = [np.asarray(m, dtype=np.int64) for m in members]
        self.count = sum(len(m) for m in self.members)
        self.places = places_of(weights, self.count)
        self._epoch: tuple[int, np.ndarray, np.ndarray] = (-1, np.empty(0), np.empty(0))

    def __getitem__(self, position: int) -> tuple[int, int]:
        epoch, offset = divmod(position, self.count)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, *self._arrange(epoch))
        _, passes, indices = self._epoch
        return int(passes[offset]), int(indices[offset])

    def _arrange(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Pass and index at each place of an epoch, (count,) each."""
        labels = np.repeat(np.arange(len(self.names)), self.places)
        labels = labels[stream(self.seed, "sources", epoch).permutation(self.count)]
        passes, indices = np.empty(self.count, np.int64), np.empty(self.count, np.int64)
        for source, (name, members, places) in enumerate(
            zip(self.names, self.members, self.places, strict=True)
        ):
            # the clips that this source has shown before, counted over all epochs
            numbers = epoch * places + np.arange(places)
            in_pass, offsets = np.divmod(numbers, len(members))
            chosen = np.empty(places, np.int64)
            for one in np.unique(in_pass):
                order = stream(self.seed, "order", name, int(one)).permutation(len(members))
                here = in_pass == one
                chosen[here] = members[order[offsets[here]]]
            passes[labels == source], indices[labels == source] = in_pass, chosen
        return passes, indices


def places_of(weights: Sequence[float], count: int) -> list[int]:
    """`count` places shared out by weight: within one of the exact share, at least one each."""
    if count < len(weights):
        raise ValueError(f"{count} places for {len(weights)} sources")
    shares = np.asarray(weights, dtype=np.float64) / sum(weights) * count
    places = np.maximum(np.floor(shares).astype(int), 1)
    while places.sum() < count:  # largest remainders first
        places[np.argmax(shares - places)] += 1
    while places.sum() > count:  # a place that a small source was given is taken from where most is over
        places[np.argmax(np.where(places > 1, places - shares, -np.inf))] -= 1
    return places.tolist()


def held_out_of(parts: Sequence[Part]) -> Samples | None:
    """Held-out clips of the binaural sources, all of them among the first few; of mono ones where there are
    no others. None without any: validation asks how two ears come out."""
    parts = [part for part in parts if len(part.samples.ids)]
    chosen = [part for part in parts if not part.mono] or parts
    return MixedSamples(chosen, alternate=True) if chosen else None


def check_ears(part: Part) -> None:
    """Raise UserError where what a source's sound is declared to be is not what its clips hold."""
    count = len(part.samples.ids)
    equal = [_equal_ears(part.samples, i) for i in range(0, count, max(1, count // LOOKED_AT))]
    if part.mono and not all(equal):
        raise UserError(
            f"source {part.name}: is declared mono, but its features hold two different ears; remove its "
            "features folder to extract them anew"
        )
    if not part.mono and equal and all(equal):
        raise UserError(
            f"source {part.name}: both ears of its clips are one sound, which would teach that all is in the "
            "middle; declare it mono: true, or leave it out"
        )


def _equal_ears(samples: Samples, index: int) -> bool:
    left, right = torch.as_tensor(samples.get(index, mirror=False)["latents"]).float()
    return float((left - right).std()) <= EQUAL_EARS * float((left + right).std())
