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
from visaudio.evaluation import cues, lateral
from visaudio.evaluation.align import TOLERANCE
from visaudio.evaluation.synth_benchmark import active_frames, groups_of

RATE = lateral.ANALYSIS_RATE_HZ
# the tolerance of align, in the middle of a picture of 90 degrees
WITHIN_DEG = float(np.degrees(np.arctan(2 * TOLERANCE)))
HEADER = (
    f"| degrees | mean error | median | 90th percentile | within {WITHIN_DEG:.0f} | "
    "side, of those beyond 10 | r |"
)
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


def from_delay_alone(audio: np.ndarray) -> np.ndarray:
    """(F,) degrees: GCC-PHAT, and Woodworth's ITD = (a / c)(t + sin t) turned round."""
    grid = np.linspace(-np.pi / 2, np.pi / 2, 721)
    delay = lateral.HEAD_RADIUS_M / lateral.SPEED_OF_SOUND * (grid + np.sin(grid))
    frames = {"rate_hz": lateral.FRAME_RATE_HZ, "window_s": lateral.WINDOW_S}
    return np.degrees(np.interp(cues.itd_gcc_phat(audio, RATE, **frames), delay, grid))


WAYS = {
    "lateral.py": lambda audio: lateral.lateral_deg(audio, RATE),
    "GCC-PHAT and Woodworth alone": from_delay_alone,
}


def clips(dataset: Path, limit: int | None) -> str:
    """Errors over the active frames of all clips of one source in view."""
    table, angles, count = open_dataset(dataset, ["test"]), [], 0
    heard: dict[str, list[np.ndarray]] = {name: [] for name in WAYS}
    for index in range(len(table) if limit is None else min(limit, len(table))):
        clip = read_clip(table[index], sample_rate=RATE)
        camera = np.array([table[index]["camera"][f"{angle}_deg"] for angle in ("yaw", "pitch", "roll")])
        if not clip.sources or "gated" not in groups_of(clip, camera):
            continue
        source, count = clip.sources[0], count + 1
        for name, way in WAYS.items():
            heard[name].append(way(clip.audio))
        frames = np.arange(len(heard["lateral.py"][-1])) + 0.5
        at = (frames / lateral.FRAME_RATE_HZ * clip.truth_rate_hz).astype(int)
        at = np.minimum(at, len(source.lateral_deg) - 1)
        active = active_frames(source)[at]
        angles.append(np.where(active, source.lateral_deg[at], np.nan))
    if not count:
        raise UserError(f"{dataset}: no clip of one source in view in its test split")
    true = np.concatenate(angles)
    asked = np.isfinite(true)
    lines = [f"\n{count} clips of one source in view, {asked.sum()} frames", "", HEADER, "|---" * 7 + "|"]
    return "\n".join(lines + [line(n, np.concatenate(x)[asked], true[asked]) for n, x in heard.items()])


def line(name: str, found: np.ndarray, true: np.ndarray) -> str:
    """found, true: (F,) degrees."""
    size, beside = np.abs(found - true), np.abs(true) > 10
    side = (np.sign(found) == np.sign(true))[beside].mean() if beside.any() else np.nan
    r = cues.pearson(found, true)
    return (
        f"| {name} | {size.mean():.1f} | {np.median(size):.1f} | {np.percentile(size, 90):.1f} | "
        f"{(size < WITHIN_DEG).mean():.1%} | {side:.1%} | {r:.3f} |"
    )


if __name__ == "__main__":
    raise SystemExit(main())
