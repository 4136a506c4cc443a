#!/usr/bin/env python
"""Seconds and memory of the quality measures on one sound of 8 s, at full size with random weights.

    OMP_NUM_THREADS=1 python benchmarks/quality_networks.py                    a minute on one core
    python benchmarks/quality_networks.py --device cuda --networks panns passt vggish

Three views a sound (left, right, mix) in one batch; the median of some sounds after one to warm up.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Sequence

import numpy as np

from visaudio.evaluation.audio_networks.cnn14 import Cnn14
from visaudio.evaluation.audio_networks.passt import Passt
from visaudio.evaluation.audio_networks.vggish import Vggish
from visaudio.evaluation.measures import Scene, Sound
from visaudio.evaluation.quality import PARTS, Quality

NETWORKS = {"panns": Cnn14, "passt": Passt, "vggish": Vggish}
RATE, DURATION_S = 44_100, 8.0


def seconds(name: str, device: str, sounds: int) -> float:
    measure = Quality(PARTS[name], NETWORKS[name](), "random", device)
    rng, taken = np.random.default_rng(0), []
    for _ in range(sounds + 1):
        audio = 0.1 * rng.standard_normal((2, int(RATE * DURATION_S)), dtype=np.float32)
        start = time.perf_counter()
        measure.hear(Sound(audio, RATE), Scene("clip", DURATION_S))  # ends with the copy to the CPU
        taken.append(time.perf_counter() - start)
    return float(np.median(taken[1:]))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--sounds", type=int, default=3)
    given = parser.parse_args(arguments)
    print("| network | s a sound | largest memory so far, GB |\n|---|---|---|")
    for name in given.networks:
        taken = seconds(name, given.device, given.sounds)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"| {name} | {taken:.2f} | {memory:.1f} |", flush=True)


if __name__ == "__main__":
    main()
