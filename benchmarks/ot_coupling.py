#!/usr/bin/env python
"""How much nearer minibatch optimal-transport coupling brings noise and latents, by the size of its groups.

    python benchmarks/ot_coupling.py --features runs/tiny/features

For groups of clips of a features folder: the mean squared distance between a clip's normalised latents and
its noise, coupled over uncoupled, and how long the coupling of one clip takes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from bi_audio_dataset.schema import UserError
from visaudio.data.feature_store import FeatureDataset
from visaudio.training.batches import stream
from visaudio.training.coupling import assign
from visaudio.training.flow_stage import latent_stats


def measure(samples: FeatureDataset, groups: Sequence[int], seed: int = 0) -> list[dict[str, float]]:
    mean, std, _ = latent_stats(samples)
    count = max(groups)
    if len(samples.ids) < count:
        raise UserError(f"{len(samples.ids)} clips, expected at least {count}: leave out the larger groups")
    x_1 = torch.stack([samples.get(i, mirror=False)["latents"].float() for i in range(count)])
    x_1 = (x_1 - mean) / std
    noise = stream(seed, "ot").standard_normal(tuple(x_1.shape), dtype="float32")
    x_0 = torch.from_numpy(noise)
    rows = []
    for group in groups:
        began, order = time.perf_counter(), []
        for first in range(0, count - group + 1, group):
            order.append(first + assign(x_0[first : first + group], x_1[first : first + group]))
        took, order = time.perf_counter() - began, torch.cat(order)
        paired = (x_0[order] - x_1[: len(order)]).square().mean()
        plain = (x_0[: len(order)] - x_1[: len(order)]).square().mean()
        rows.append(
            {
                "group": group,
                "dimensions": x_1[0].numel(),
                "distance, coupled / plain": round(float(paired / plain), 4),
                "ms per clip": round(1000 * took / len(order), 3),
            }
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--features", required=True, type=Path, help="features folder")
    parser.add_argument("--groups", type=int, nargs="+", default=[8, 32, 128, 512], help="clips in a group")
    options = parser.parse_args(arguments)
    try:
        for row in measure(FeatureDataset(options.features, "train"), options.groups):
            print(json.dumps(row))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
