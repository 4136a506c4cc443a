#!/usr/bin/env python
"""How near the direction of what moves in a picture comes to the direction of what sounds.

    python benchmarks/motion_direction.py --dataset data/heldout --clips 60

Lateral angles of baseline two-stage-motion's path against those of the ground truth, in frames in which the
source sounds (above -30 dB of its loudest) and is in view, over clips of one source; the lens is assumed to
be 90 degrees wide. r is pooled over frames; sides are counted beyond 20 degrees. Beside it the same with the
camera's motion left in.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import numpy as np
from tqdm import tqdm

from bi_audio_dataset.schema import UserError
from visaudio.data.dataset import read_clip
from visaudio.evaluation import cues, picture_motion
from visaudio.evaluation.baselines.saliency import motion_path
from visaudio.evaluation.baselines.sources import rows_of
from visaudio.evaluation.synth_benchmark import SIDE_DEG, active_frames

KINDS = ("compensated", "camera left in")


def lateral_deg(video: Path, frames: int, rate_hz: float, kind: str) -> np.ndarray:
    """(F,) of the path, at the truth's frames."""
    if kind == KINDS[0]:
        path = motion_path(video)
    else:
        with mock.patch.object(picture_motion, "camera_motion", lambda before, after: np.eye(3)):
            path = motion_path(video)
    return np.degrees(np.arcsin(np.clip(path.at(np.arange(frames) / rate_hz)[1], -1, 1)))


def measure(dataset: str, split: str, clips: int) -> dict[str, dict[str, float]]:
    rows = rows_of(dataset, split)
    true: list[np.ndarray] = []
    found: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    for index in tqdm(np.unique(np.linspace(0, len(rows) - 1, clips).astype(int)), unit="clip"):
        row = rows[int(index)]
        clip = read_clip(row)
        if len(clip.sources) != 1:
            continue
        source = clip.sources[0]
        counted = active_frames(source) & source.visible
        with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
            file.write(row["video"]["bytes"])
            file.flush()
            for kind in KINDS:
                angles = lateral_deg(Path(file.name), len(counted), clip.truth_rate_hz, kind)
                found[kind].append(angles[counted])
        true.append(source.lateral_deg[counted])
    if not true:
        raise UserError(f"'{dataset}' has no clip of one source with ground truth in split {split}")
    x = np.concatenate(true)
    beyond = np.abs(x) > SIDE_DEG
    figures = {}
    for kind, parts in found.items():
        y = np.concatenate(parts)
        figures[kind] = {
            "clips": len(true),
            "r": round(cues.pearson(x, y), 3),
            "side": round(float((np.sign(x) == np.sign(y))[beyond].mean()), 3),
            "error_deg": round(float(np.abs(x - y).mean()), 2),
            "error_of_front_deg": round(float(np.abs(x).mean()), 2),
        }
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--dataset", required=True, help="BiAudio-Synth")
    parser.add_argument("--split", default="test")
    parser.add_argument("--clips", type=int, default=60, help="spread evenly; those of one source count")
    options = parser.parse_args(arguments)
    try:
        print(json.dumps(measure(options.dataset, options.split, options.clips), indent=1))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
