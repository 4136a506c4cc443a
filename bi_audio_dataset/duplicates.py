"""The same thing twice: perceptual hashes of pictures, fingerprints of sound, and the search among many
clips.

Picture: HASHES hashes of 64 bits, signs of the low frequencies of a 32x32 cosine transform, of pictures
spread over the window. Sound: words of 16 bits every FRAME_S, the signs of how the tilt between
neighbouring bands changes from frame to frame (after Haitsma and Kalker, "A highly robust audio
fingerprinting system", ISMIR
2002); gain and moderate coding leave them as they are. Unrelated sounds differ in half of the bits.

Two clips are duplicates if picture AND sound agree; they are near-duplicates, to be kept in one split, if
either does. The search compares clips of different recordings only, and only those that share 32 bits
somewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

HASHES = 4
BANDS = 17
FRAME_S = 0.1
WINDOW_S = 0.372
LOWEST_HZ, HIGHEST_HZ = 200.0, 6000.0
#: Keys that more than this many recordings share tell nothing apart.
MAX_BUCKET = 64
_POPCOUNT = np.array([bin(i).count("1") for i in range(1 << 16)], dtype=np.uint8)
_PAIRS_OF_BANDS = ((0, 1), (2, 3), (0, 2), (1, 3), (0, 3), (1, 2))


@dataclass(frozen=True)
class DuplicateFilter:
    """Shares of differing bits up to which two pictures, two sounds count as the same.

    min_overlap_s: sounds may be shifted against each other, but this much of both must be common.
    keep_together: near-duplicates are brought into one split; not wanted where a corpus's own splits must
    stay.
    """

    max_picture_error: float = 0.12
    max_audio_error: float = 0.20
    min_overlap_s: float = 2.0
    keep_together: bool = True
    action: str = "reject"


# -------------------- one clip


def picture_hash(grey: NDArray[np.float32]) -> int:
    """64 bits of a grey picture (H, W)."""
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:8, :8].reshape(-1)
    # a margin, so that terms which are nothing (of symmetric or nearly flat pictures) fall to one side
    bits = low > np.median(low[1:]) + 0.1 * np.abs(low[1:]).mean()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def audio_fingerprint(mono: NDArray, sample_rate: int) -> NDArray[np.uint16]:
    """Words (T - 1,) of a signal (N,), T = frames every FRAME_S; empty for silence and for less than a
    second."""
    hop, size = round(FRAME_S * sample_rate), round(WINDOW_S * sample_rate)
    count = (len(mono) - size) // hop + 1
    if count < round(1.0 / FRAME_S) - 3 or float(np.abs(mono).max(initial=0)) < 1e-5:
        return np.zeros(0, np.uint16)
    window = np.hanning(size).astype(np.float32)
    edges_hz = np.geomspace(LOWEST_HZ, min(HIGHEST_HZ, 0.45 * sample_rate), BANDS + 1)
    edges = np.round(edges_hz * size / sample_rate).astype(int)
    energy = np.empty((count, BANDS))
    for i in range(count):
        power = np.abs(np.fft.rfft(mono[i * hop : i * hop + size] * window)) ** 2
        energy[i] = np.add.reduceat(power[: edges[-1]], edges[:-1])
    level = np.log(energy + 1e-12)
    tilt = level[:, :-1] - level[:, 1:]  # (T, 16)
    bits = np.diff(tilt, axis=0) > 0
    return np.packbits(bits, axis=1).view(">u2").astype(np.uint16).reshape(-1)


def to_text(hashes: list[int], words: NDArray[np.uint16]) -> dict[str, str]:
    """For the manifest: hexadecimal."""
    picture = "".join(f"{value:016x}" for value in hashes)
    return {"picture": picture, "audio": words.astype(">u2").tobytes().hex()}


# -------------------- many clips


@dataclass
class Fingerprints:
    """Of n clips: picture (n, HASHES) u64 with has_picture (n,); words (n, T) u16 with their counts (n,)."""

    picture: NDArray[np.uint64]
    has_picture: NDArray[np.bool_]
    words: NDArray[np.uint16]
    count: NDArray[np.int64]

    @classmethod
    def parse(cls, texts: list[dict[str, str]]) -> Fingerprints:
        """The inverse of `to_text`, for many; a missing or broken one counts as none."""
        n = len(texts)
        sounds = [np.frombuffer(bytes.fromhex(t.get("audio") or ""), ">u2") for t in texts]
        words = np.zeros((n, max((len(s) for s in sounds), default=0)), np.uint16)
        for row, sound in zip(words, sounds, strict=True):
            row[: len(sound)] = sound
        picture = np.zeros((n, HASHES), np.uint64)
        has_picture = np.zeros(n, bool)
        for i, text in enumerate(texts):
            value = text.get("picture") or ""
            if len(value) == 16 * HASHES:
                picture[i] = np.frombuffer(bytes.fromhex(value), ">u8")
                has_picture[i] = True
        return cls(picture, has_picture, words, np.array([len(s) for s in sounds], np.int64))


@dataclass
class Matches:
    """Pairs (P, 2) of clip indices, the lower one first, and whether picture and sound agree. Each pair
    occurs once."""

    pairs: NDArray[np.int64]
    same_picture: NDArray[np.bool_]
    same_audio: NDArray[np.bool_]


def find_matches(prints: Fingerprints, recordings: NDArray[np.int64], config: DuplicateFilter) -> Matches:
    """Pairs of clips of different recordings that agree in picture or sound. recordings (n,): of which each
    is."""
    pictures = _picture_candidates(prints, recordings)
    sounds, offsets = _audio_candidates(prints, recordings)
    n = len(recordings)
    pairs = np.concatenate([pictures, sounds])
    unique = np.unique(pairs[:, 0] * n + pairs[:, 1])
    pairs = np.stack([unique // n, unique % n], axis=1) if len(unique) else np.zeros((0, 2), np.int64)
    same_picture = picture_error(prints, pairs) <= config.max_picture_error
    error = np.ones(len(pairs))
    wanted, at = sounds[:, 0] * n + sounds[:, 1], np.zeros(len(pairs), np.int64)
    for shift, ours in ((np.zeros(len(sounds), np.int64), wanted), (offsets, wanted)):
        at[:] = 0
        place = np.searchsorted(unique, ours)
        place = np.minimum(place, max(0, len(unique) - 1))
        hit = unique[place] == ours if len(unique) else np.zeros(0, bool)
        at[place[hit]] = shift[hit]
        error = np.minimum(error, audio_error(prints, pairs, at, config.min_overlap_s))
    same_audio = error <= config.max_audio_error
    keep = same_picture | same_audio
    return Matches(pairs[keep], same_picture[keep], same_audio[keep])


def picture_error(prints: Fingerprints, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of differing bits (P,); 1 where one of the two has no hash."""
    a, b = pairs[:, 0], pairs[:, 1]
    differing = np.ascontiguousarray(prints.picture[a] ^ prints.picture[b]).view(np.uint16)
    error = _POPCOUNT[differing].sum(axis=1) / (64.0 * HASHES) if len(pairs) else np.zeros(0)
    return np.where(prints.has_picture[a] & prints.has_picture[b], error, 1.0)


def audio_error(
    prints: Fingerprints, pairs: NDArray[np.int64], offsets: NDArray[np.int64], min_overlap_s: float
) -> NDArray[np.float64]:
    """Share of differing bits (P,) with word t of the first against word t + offset of the second; 1 where
    less than min_overlap_s is common (or less than all that the shorter one has)."""
    error = np.ones(len(pairs))
    width = prints.words.shape[1]
    time = np.arange(width)
    least = round(min_overlap_s / FRAME_S)
    for start in range(0, len(pairs), 1 << 14):
        chunk = slice(start, start + (1 << 14))
        a, b, shift = pairs[chunk, 0], pairs[chunk, 1], offsets[chunk, None]
        there = time + shift
        common = (time < prints.count[a][:, None]) & (there >= 0) & (there < prints.count[b][:, None])
        other = np.take_along_axis(prints.words[b], np.clip(there, 0, max(0, width - 1)), axis=1)
        differing = _POPCOUNT[prints.words[a] ^ other] * common
        size = common.sum(axis=1)
        needed = np.minimum(least, np.maximum(1, np.minimum(prints.count[a], prints.count[b])))
        share = differing.sum(axis=1) / (16.0 * np.maximum(size, 1))
        error[chunk] = np.where(size >= needed, share, 1.0)
    return error


def groups(count: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Connected components (count,) of a graph; numbered by their smallest member."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ones = np.ones(len(pairs), np.int8)
    graph = coo_matrix((ones, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, label = connected_components(graph, directed=False)
    first = np.full(label.max(initial=-1) + 1, count, np.int64)
    np.minimum.at(first, label, np.arange(count))
    return first[label]


def _picture_candidates(prints: Fingerprints, recordings: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pairs that share two of the four 16-bit quarters of one hash: all with at most two differing bits in
    it."""
    clips = np.flatnonzero(prints.has_picture)
    found = [np.zeros((0, 2), np.int64)]
    for position in range(HASHES):
        quarters = np.ascontiguousarray(prints.picture[clips, position]).view(np.uint16).reshape(-1, 4)
        for first, second in _PAIRS_OF_BANDS:
            key = quarters[:, first].astype(np.uint64) << np.uint64(16) | quarters[:, second]
            pairs, _ = _neighbours(key, clips, np.zeros(len(clips), np.int64), recordings)
            found.append(pairs)
    return np.concatenate(found)


def _audio_candidates(
    prints: Fingerprints, recordings: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs that share two successive words, and the shift (second minus first) that most of a pair's keys
    have."""
    width = prints.words.shape[1]
    if width < 2:
        return np.zeros((0, 2), np.int64), np.zeros(0, np.int64)
    key = prints.words[:, :-1].astype(np.uint32) << np.uint32(16) | prints.words[:, 1:]
    valid = np.arange(1, width) < prints.count[:, None]
    clips, times = np.nonzero(valid)
    pairs, offsets = _neighbours(key[valid], clips, times, recordings)
    n = len(prints.count)
    span = 2 * width + 1
    code, votes = np.unique((pairs[:, 0] * n + pairs[:, 1]) * span + offsets + width, return_counts=True)
    order = np.lexsort((votes, code // span))
    last = np.append(np.diff(code[order] // span) != 0, True) if len(code) else np.zeros(0, bool)
    best = code[order][last]
    pair = best // span
    return np.stack([pair // n, pair % n], axis=1), best % span - width


def _neighbours(
    key: NDArray, clips: NDArray[np.int64], times: NDArray[np.int64], recordings: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(pairs (P, 2) lower first, times of the second minus the first) of entries (E,) with one key.

    Within a key, sorted by recording, each entry is paired with the two before it, with the first of each of
    the two recordings before its own, and with the key's first: enough to join a group, however many clips of
    one recording have the key (a camera that stands still gives all of them the same picture). Pairs within a
    recording are left out, and so are keys of more than MAX_BUCKET recordings.
    """
    order = np.lexsort((clips, recordings[clips], key))
    key, clips, times = key[order], clips[order], times[order]
    home = recordings[clips]
    new_key = np.append(True, key[1:] != key[:-1])[: len(key)]
    new_home = new_key | np.append(True, home[1:] != home[:-1])[: len(key)]
    starts = np.flatnonzero(new_home)  # of each recording's entries of one key
    ours = np.cumsum(new_home) - 1
    first_of_key = np.maximum.accumulate(np.where(new_key[starts], np.arange(len(starts)), 0))
    shared = np.bincount(first_of_key, minlength=len(starts))[first_of_key]  # recordings that have the key
    here = np.flatnonzero(((shared > 1) & (shared <= MAX_BUCKET))[ours])
    own, least = ours[here], first_of_key[ours[here]]
    head = starts[least]
    others = [head]
    for other in (
        np.maximum(here - 1, head),
        np.maximum(here - 2, head),
        starts[np.maximum(own - 1, least)],
        starts[np.maximum(own - 2, least)],
    ):
        seen = np.any([other == earlier for earlier in others], axis=0)
        others.append(np.where(seen, here, other))  # each pair of entries has one vote
    found_pairs, found_times = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.int64)]
    for other in others:
        good = home[other] != home[here]
        a, b = other[good], here[good]
        turned = clips[a] > clips[b]
        a, b = np.where(turned, b, a), np.where(turned, a, b)
        found_pairs.append(np.stack([clips[a], clips[b]], axis=1).astype(np.int64))
        found_times.append((times[b] - times[a]).astype(np.int64))
    return np.concatenate(found_pairs), np.concatenate(found_times)
