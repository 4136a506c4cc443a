"""What a batch costs to prepare, and how many loader threads a step of a given length needs.

python benchmarks/loader.py                       the paper's shapes, features in memory
python benchmarks/loader.py --features FOLDER     those of an extracted set, from its memory map
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch

from visaudio.model.network import NetworkConfig
from visaudio.training.batches import BatchStream, DropoutConfig, conditions_of, draw

TOKENS, CLIP_FRAMES, SYNC_TOKENS = 345, 64, 192  # of 8 s


class PaperShapes:
    """Clips of the paper's shapes in float16, as the feature store hands them out: copied at each reading."""

    def __init__(self, count: int = 32) -> None:
        c = NetworkConfig()
        self.ids = [f"clip{i}" for i in range(count)]
        cells = c.spatial_rows * c.spatial_columns
        shapes = {
            "latents": (2, TOKENS, c.token_dim),
            "clip": (CLIP_FRAMES, c.clip_dim),
            "grid": (CLIP_FRAMES, cells, c.spatial_dim),
            "sync": (SYNC_TOKENS, c.sync_dim),
            "text": (c.text_tokens, c.text_dim),
        }
        random = np.random.default_rng(0)
        self.stored = {
            name: random.standard_normal(shape).astype(np.float16) for name, shape in shapes.items()
        }

    def get(self, index: int, mirror: bool) -> dict:
        row = {name: torch.from_numpy(value.copy()) for name, value in self.stored.items()}
        return {**row, "hfov_rad": math.radians(90), "id": self.ids[index]}


def seconds(function, rounds: int) -> float:
    """Least CPU time of `rounds` runs: what else the machine does hardly counts."""
    times = []
    for _ in range(rounds):
        began = time.process_time()
        function()
        times.append(time.process_time() - began)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=Path, help="a features folder")
    parser.add_argument("--share", type=int, default=8, help="samples of a batch")
    parser.add_argument(
        "--step_s", type=float, default=0.0, help="length of the pretended step; 0: as measured"
    )
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    samples = PaperShapes()
    if options.features:
        from visaudio.data.features import FeatureDataset

        samples = FeatureDataset(options.features)
    shape = tuple(samples.get(0, False)["latents"].shape)
    noise_s = seconds(lambda: draw(0, 0, "clip", shape, DropoutConfig()), 20)
    rows = [samples.get(0, False)] * 4
    widen_s = (seconds(lambda: conditions_of(rows), 5) - seconds(lambda: conditions_of(rows, True), 5)) / 4
    streams = BatchStream(samples, 0, options.share, DropoutConfig())
    chosen = [(0, i % len(samples.ids)) for i in range(options.share)]
    batch_s = seconds(lambda: streams.make(chosen), 5)
    streams.close()
    print(
        f"CPU time of a sample: {1e3 * batch_s / options.share:.2f} ms, of which noise {1e3 * noise_s:.2f} ms"
    )
    print(f"left to the device: widening the conditions, {1e3 * widen_s:.2f} ms a sample here")
    step_s = options.step_s or batch_s / 2
    print(f"of a batch of {options.share}: {batch_s:.3f} s; pretended step: {step_s:.3f} s")
    for workers in (1, 2, 4):
        stream = BatchStream(
            samples, 0, options.share, DropoutConfig(), workers=workers, prefetch=2 * workers
        )
        stream.get(0)
        before, began = stream.waited_s, time.perf_counter()
        for step in range(1, options.rounds + 1):
            stream.get(step)
            time.sleep(step_s)  # an accelerator at work leaves the cores to the loader
        share = (stream.waited_s - before) / (time.perf_counter() - began)
        stream.close()
        print(json.dumps({"workers": workers, "loader_wait": round(share, 3)}))


if __name__ == "__main__":
    main()
