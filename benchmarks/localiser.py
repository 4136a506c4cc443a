#!/usr/bin/env python
"""How far off the lateral angles are that `align` and `plausibility` hear.

    python -m bi_audio_dataset synth --clips 240 --seed 1000 --held-out --output data/heldout
    python benchmarks/localiser.py --dataset data/heldout --sofa KU100.sofa KEMAR.sofa

Three tables: plane waves of noise through the builder's spherical head and through measured heads (--sofa);
the held-out clips of one source that stays in view, in rooms, against the angle that their row says.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bi_audio_dataset.hrtf import HrirSet, load_sofa, spherical_head
from bi_audio_dataset.schema import UserError
from visaudio.data.dataset import open_dataset, read_clip
from visaudio.evaluation import lateral
from visaudio.evaluation.align import TOLERANCE
from visaudio.evaluation.synth_benchmark import active_frames, groups_of

RATE = lateral.ANALYSIS_RATE_HZ
AZIMUTHS_DEG = (-90, -60, -45, -30, -15, 0, 15, 30, 45, 60, 90)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", type=Path, help="a BiAudio-Synth folder; its test split")
    parser.add_argument("--sofa", type=Path, nargs="*", default=[], help="measured heads")
    parser.add_argument("--limit", type=int, help="only the first N clips")
    options = parser.parse_args(arguments)
    try:
        heads = {"spherical head": spherical_head(RATE, horizon_count=72)}
        heads |= {path.stem: load_sofa(path, RATE) for path in options.sofa}
        print("| head | " + " | ".join(f"{a:+d}" for a in AZIMUTHS_DEG) + " |")
        print("|---" * (len(AZIMUTHS_DEG) + 1) + "|")
        for name, head in heads.items():
            print(f"| {name} | " + " | ".join(f"{a:+.0f}" for a in plane_waves(head)) + " |")
        if options.dataset:
            print(clips(options.dataset, options.limit))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def plane_waves(head: HrirSet) -> list[float]:
    """The angle heard of noise from each of AZIMUTHS_DEG, on the horizon."""
    mono = 0.1 * np.random.default_rng(0).standard_normal(RATE)
    heard = []
    for azimuth in AZIMUTHS_DEG:
        audio = np.stack([np.convolve(mono, ear) for ear in head.nearest(np.radians(azimuth))])
        heard.append(float(np.median(lateral.lateral_deg(audio, RATE)[1:-1])))
    return heard


def clips(dataset: Path, limit: int | None) -> str:
    """Errors over the active frames of all clips of one source in view."""
    table, errors, angles, count = open_dataset(dataset, ["test"]), [], [], 0
    for index in range(len(table) if limit is None else min(limit, len(table))):
        clip = read_clip(table[index], sample_rate=RATE)
        camera = np.array([table[index]["camera"][f"{angle}_deg"] for angle in ("yaw", "pitch", "roll")])
        if not clip.sources or "gated" not in groups_of(clip, camera):
            continue
        source = clip.sources[0]
        found = lateral.lateral_deg(clip.audio, RATE)
        at = ((np.arange(len(found)) + 0.5) / lateral.FRAME_RATE_HZ * clip.truth_rate_hz).astype(int)
        at = np.minimum(at, len(source.lateral_deg) - 1)
        active = active_frames(source)[at]
        errors.append((found - source.lateral_deg[at])[active])
        angles.append(source.lateral_deg[at][active])
        count += 1
    if not errors:
        raise UserError(f"{dataset}: no clip of one source in view in its test split")
    error, angle = np.concatenate(errors), np.concatenate(angles)
    size = np.abs(error)
    beside = np.abs(angle) > 10
    sides = (np.sign(error + angle) == np.sign(angle))[beside].mean()
    within = np.degrees(np.arctan(2 * TOLERANCE))  # from the middle of a picture of 90 degrees
    return (
        f"\n{count} clips, {len(size)} frames: mean error {size.mean():.1f} degrees, median "
        f"{np.median(size):.1f}, 90th percentile {np.percentile(size, 90):.1f}; within {within:.0f} degrees "
        f"{(size < within).mean():.1%}; r {np.corrcoef(error + angle, angle)[0, 1]:.3f}; "
        f"side right beyond 10 degrees {sides:.1%}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
