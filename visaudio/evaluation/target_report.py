"""What kinds of a codec's latents are compared by: figures of sounds generated as each, and differences.

A system is a kind of latents and a way to decode them; the others are held against "projected".
Intervals are of 95 %, over clips; differences are of the same clips under the same resamples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from visaudio.codec.losses import reconstruction_losses
from visaudio.evaluation.synth_benchmark import Score, paired_difference, summarise

KINDS = ("round trip", "sampled")
TITLES = {
    "projected": "projected latents, snapped to codes",
    "continuous": "PCA of the continuous ones",
    "requantised": "PCA, quantised before decoding",
}
COLUMNS = ("side", "r", "ild_error_db", "onset_f1", "sound_class")


@dataclass(frozen=True)
class Heard:
    """Of one clip's sound: its score against the truth, mel distance to the truth and to its round trip."""

    score: Score
    mel_truth: float
    mel_codec: float


def mel_distance(a: Tensor, b: Tensor, rate: int) -> float:
    """Of two sounds (2, S): as the codec stage's figure, summed over the four scales of codec/losses.py."""
    return 4 * float(reconstruction_losses(a[:, None], b[:, None], rate)["mel"])


def summary(by_system: Mapping[str, Mapping[str, Sequence[Heard]]]) -> dict[str, Any]:
    """Figures of each system's round trips and samples, and its samples' difference from "projected"."""
    found = {kind: {system: heard[kind] for system, heard in by_system.items()} for kind in KINDS}
    out: dict[str, Any] = {"clips": len(found["sampled"]["projected"])}
    for kind, systems in found.items():
        out[kind] = {system: figures_of(heard) for system, heard in systems.items()}
    plain = found["sampled"]["projected"]
    out["minus projected"] = {
        system: differences(heard, plain)
        for system, heard in found["sampled"].items()
        if system != "projected"
    }
    return out


def figures_of(heard: Sequence[Heard]) -> dict[str, list[float]]:
    """name -> [value, low, high], 95 % over clips."""
    figures = summarise([one.score for one in heard])
    out = {name: [figures[name].value, figures[name].low, figures[name].high] for name in COLUMNS}
    for name in ("mel_truth", "mel_codec"):
        out[name] = interval(np.array([getattr(one, name) for one in heard]))
    return out


def differences(a: Sequence[Heard], b: Sequence[Heard]) -> dict[str, list[float]]:
    """a - b, [value, low, high] over the same resampled clips."""
    scores = paired_difference([one.score for one in a], [one.score for one in b])
    out = {name: [scores[name].value, scores[name].low, scores[name].high] for name in COLUMNS}
    for name in ("mel_truth", "mel_codec"):
        pairs = [getattr(x, name) - getattr(y, name) for x, y in zip(a, b, strict=True)]
        out[name] = interval(np.array(pairs))
    return out


def interval(values: np.ndarray, seed: int = 0, resamples: int = 1000) -> list[float]:
    drawn = np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
    low, high = np.percentile(values[drawn].mean(axis=1), [2.5, 97.5])
    return [float(values.mean()), float(low), float(high)]


# -------------------- the table


HEADS = {
    "side": "side %", "r": "ILD r", "ild_error_db": "ILD error dB", "onset_f1": "onset F1",
    "sound_class": "class %", "mel_truth": "mel, to the truth", "mel_codec": "mel, to its round trip",
}  # fmt: skip


def markdown(figures: Mapping[str, Any]) -> str:
    note, pca, codec = figures["made"], figures["pca"], figures["codec"]
    num_steps, scale = note["sampler"]
    said = ", ".join(f"{name} {value:.3g}" for name, value in codec.items())
    lines = [
        f"`{note['command']}` at commit `{note['commit']}`: {figures['clips']} validation clips, intervals",
        f"of 95 % over clips; flows of {note['flow_steps']} steps of {note['batch_size']} clips, sampled",
        f"in {num_steps} steps under guidance {scale:g}. The PCA keeps {100 * pca['kept']:.2f} % of the",
        f"variance in {pca['dims']} of {pca['of']} dimensions.",
        f"The DAC after {note['codec_steps']} steps: {said}.",
        "",
        "| | " + " | ".join(HEADS.values()) + " |",
        "|---" * (len(HEADS) + 1) + "|",
    ]
    groups = [("round trip: ", figures["round trip"]), ("flow: ", figures["sampled"])]
    groups.append(("flow, less projected: ", figures["minus projected"]))
    for title, systems in groups:
        lines += [f"| {title}{TITLES[s]} | " + " | ".join(cells(row)) + " |" for s, row in systems.items()]
    return "\n".join(lines) + "\n"


def cells(row: Mapping[str, Sequence[float]]) -> Iterable[str]:
    for name in HEADS:
        scale = 100 if name in ("side", "sound_class") else 1
        value, low, high = (scale * v for v in row[name])
        digits = 1 if scale == 100 else 2
        yield f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
