#!/usr/bin/env python
"""How often an interval of FD holds what it should: percentile, and recentred (FigureSpec.recentred).

    OMP_NUM_THREADS=1 python benchmarks/frechet_intervals.py        two minutes on one core

Two paired sets of C clips, one embedding of D dimensions each, from Gaussians whose variances fall as 1/k;
the second is the first with noise and a shift. "FD, these" is the mean FD of sets of C clips, which is what a
figure from C clips estimates; that of endless clips is below it. Each interval is of 100 resamples and should
hold the former in 95 % of the sets.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from visaudio.cli.common import seed_number
from visaudio.evaluation.distributions import frechet_of_rows

CASES = ((60, 128), (200, 128), (100, 512), (400, 512))
RESAMPLES = 100


def draw(rng: np.random.Generator, clips: int, dims: int) -> tuple[np.ndarray, np.ndarray]:
    """Reference and generated (C, D)."""
    scale = np.arange(1.0, dims + 1) ** -0.5
    scale /= np.sqrt((scale**2).sum())
    reference = rng.standard_normal((clips, dims)) * scale
    noise = rng.standard_normal((clips, dims)) * scale
    return reference, 0.7 * reference + 0.6 * noise + 0.3 * scale


def fd(sets: tuple[np.ndarray, np.ndarray], weight: np.ndarray) -> float:
    return frechet_of_rows(sets[1], weight, sets[0], weight)


def measured(clips: int, dims: int, sets: int, seed: int) -> str:
    rng = np.random.default_rng(seed)
    ones = np.ones(clips, int)
    values = np.array([fd(draw(rng, clips, dims), ones) for _ in range(4 * sets)])
    endless = fd(draw(rng, 40 * dims, dims), np.ones(40 * dims, int))
    true, held, above = values.mean(), {"percentile": 0, "recentred": 0}, []
    for _ in range(sets):
        drawn = draw(rng, clips, dims)
        value = fd(drawn, ones)
        index = rng.integers(clips, size=(RESAMPLES, clips))
        resampled = np.array([fd(drawn, np.bincount(i, minlength=clips)) for i in index])
        above.append(resampled.mean() - value)
        low, high = np.percentile(resampled, [2.5, 97.5])
        shift = value - resampled.mean()
        held["percentile"] += low <= true <= high
        held["recentred"] += low + shift <= true <= high + shift
    return (
        f"| {clips} | {dims} | {endless:.3f} | {true:.3f} | {values.std():.3f} | {np.mean(above):.3f} | "
        f"{held['percentile'] / sets:.0%} | {held['recentred'] / sets:.0%} |"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sets", type=int, default=50, help="sets of clips that are drawn")
    parser.add_argument("--seed", type=seed_number, default=0)
    given = parser.parse_args(arguments)
    print("| clips | D | FD, endless | FD, these | spread | resamples above it by | percentile | recentred |")
    print("|---|---|---|---|---|---|---|---|")
    for clips, dims in CASES:
        print(measured(clips, dims, given.sets, given.seed), flush=True)


if __name__ == "__main__":
    main()
