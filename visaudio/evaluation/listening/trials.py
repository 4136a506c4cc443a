"""Which trials a listener gets, in which order: from the seed and the listener's name alone.

A rating trial is one sound of one clip; a pair trial two systems on one clip. Balance holds for each
listener by itself, to within one: every system is rated equally often, every pair compared equally often and
each way round equally often, every clip heard equally often. As far as there is a choice, no clip follows
itself and nothing is asked twice. Which clip falls to which system changes from listener to listener.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

RATING, PAIR = "rating", "pair"
KINDS = (RATING, PAIR)


@dataclass(frozen=True)
class Trial:
    """number: its place in the plan. order: the systems as they are played, one for a rating."""

    number: int
    kind: str
    clip: str
    order: tuple[str, ...]


def generator(seed: int, *names: str) -> np.random.Generator:
    """Of (seed, names), alike on every machine."""
    digest = hashlib.sha256("\0".join(names).encode("utf-8", "surrogatepass")).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest[:16], "<u4").tolist()])


def plan(
    systems: Sequence[str],
    clips: Sequence[str],
    listener: str,
    count: int,
    seed: int,
    kinds: Sequence[str] = KINDS,
) -> list[Trial]:
    """`count` trials, half of each kind where both are asked. ValueError for pairs of a single system."""
    if PAIR in kinds and len(systems) < 2:
        raise ValueError("pairs need two systems")
    rng = generator(seed, listener)
    pairs = 0 if PAIR not in kinds else count // 2 if RATING in kinds else count
    asked = [(RATING, (name,)) for name in _cycle(list(systems), count - pairs, rng)]
    asked += [(PAIR, two) for two in _turned(list(combinations(systems, 2)), pairs, rng)]
    asked = [asked[k] for k in rng.permutation(count)]
    heard = _settled([(kind, *sorted(who)) for kind, who in asked], _cycle(list(clips), count, rng))
    return [Trial(k, kind, clip, who) for k, ((kind, who), clip) in enumerate(zip(asked, heard, strict=True))]


def fingerprint(
    systems: Sequence[str], clips: Sequence[str], count: int, seed: int, kinds: Sequence[str]
) -> str:
    """Of everything that plans follow from: answers to one plan are not taken for answers to another."""
    text = json.dumps([sorted(systems), sorted(clips), count, seed, sorted(kinds)])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _cycle(items: list, count: int, rng: np.random.Generator) -> list:
    """`count` of the items: each once in a random order, again in another, and so on."""
    found: list = []
    while len(found) < count:
        found += [items[k] for k in rng.permutation(len(items))]
    return found[:count]


def _turned(pairs: list[tuple[str, str]], count: int, rng: np.random.Generator) -> list[tuple[str, ...]]:
    """Pairs in a cycle, each the other way round than the last time; half of them begin turned."""
    ways = np.arange(len(pairs)) % 2 ^ rng.integers(2)
    turned = dict(zip(pairs, rng.permutation(ways).tolist(), strict=True))
    found = []
    for pair in _cycle(pairs, count, rng) if count else []:
        found.append(pair[::-1] if turned[pair] else pair)
        turned[pair] ^= 1
    return found


def _settled(asked: Sequence[tuple], clips: list[str]) -> list[str]:
    """Clips that changed places so that, where it can be had, none follows itself and none is asked the same
    twice."""
    if len(set(clips)) < 2:
        return clips
    clips = list(clips)

    def faults() -> int:
        again = len(clips) - len(set(zip(asked, clips, strict=True)))
        return again + sum(a == b for a, b in zip(clips, clips[1:], strict=False))

    best = faults()
    for i in range(len(clips)):
        for j in range(len(clips)):
            if not best:
                return clips
            clips[i], clips[j] = clips[j], clips[i]
            if (now := faults()) < best:
                best = now
            else:
                clips[i], clips[j] = clips[j], clips[i]
    return clips
