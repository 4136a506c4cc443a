#!/usr/bin/env python
"""How long sample.py takes and how much memory it needs, start to finished files, as a user would run it.

    python benchmarks/speed.py                  8 s of 720p: wall (median of five) and peak memory
    python benchmarks/speed.py --long           also 10 s against 5 minutes: memory must not grow

The videos are made here. Beside each wall time stands that of a fixed reference workload (fp32 matrix
products) measured right before it: figures of other machines, or of this one under load, can be compared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from bi_audio_dataset import media

ROOT = Path(__file__).resolve().parents[1]
FPS = 25
LIMIT_WALL_S, LIMIT_RSS_GB = 15.0, 2.5
REFERENCE_SIZE, REFERENCE_PRODUCTS = 1024, 40  # 86 GFLOP


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny", help="packaged name or model folder (default: tiny)")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--long", action="store_true", help="also 10 s against 300 s")
    parser.add_argument("--long-s", type=float, default=300.0, help="length of the long video in seconds")
    parser.add_argument("--output", type=Path, help="a JSON file for the figures")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        figures = measure(options, Path(scratch))
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(figures, indent=1) + "\n")
    print(markdown(figures))
    return 0


def measure(options: argparse.Namespace, scratch: Path) -> dict:
    clip = write_video(scratch / "clip.mp4", 8.0)
    runs = []
    for number in range(options.runs):
        reference_s = reference_workload_s()
        runs.append({"reference_s": reference_s, **run_sample(clip, scratch / f"run{number}", options.model)})
        say(f"run {number + 1}: {runs[-1]['wall_s']:.2f} s, reference {reference_s:.2f} s")
    figures = {
        "machine": {
            "cores": os.cpu_count(),
            "machine": platform.machine(),
            "python": platform.python_version(),
        },
        "runs": runs,
        "median": {key: statistics.median(run[key] for run in runs) for key in runs[0]},
    }
    if options.long:
        figures["long"] = {}
        for seconds in (10.0, options.long_s):
            video = write_video(scratch / f"{seconds:g}.mp4", seconds)
            result = run_sample(video, scratch / f"long{seconds:g}", options.model)
            figures["long"][f"{seconds:g} s"] = result
            say(f"{seconds:g} s of video: {result['wall_s']:.1f} s, {result['peak_rss_gb']:.2f} GB")
    return figures


def run_sample(video: Path, output: Path, model: str) -> dict[str, float]:
    """sample.py in a process of its own: wall seconds, CPU seconds, and peak resident memory in GB."""
    command = [sys.executable, str(ROOT / "sample.py"), "--video", str(video), "--output", str(output)]
    began = time.perf_counter()
    with open(output.with_suffix(".log"), "wb") as log:
        process = subprocess.Popen([*command, "--variant", model], stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"sample.py failed: {output.with_suffix('.log').read_text().strip()[-500:]}")
    # the peak of a child never reads lower than that of this process when it started it (some 0.4 GB)
    unit = 1e-9 if sys.platform == "darwin" else 1024e-9  # ru_maxrss is in bytes there, in KiB on Linux
    return {
        "wall_s": wall_s,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_rss_gb": usage.ru_maxrss * unit,
    }


def reference_workload_s() -> float:
    """Seconds for REFERENCE_PRODUCTS fp32 products of square matrices, on torch's own number of threads."""
    import torch

    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(REFERENCE_SIZE, REFERENCE_SIZE, generator=generator) for _ in range(2))
    a @ b  # threads and buffers are there before the clock runs
    began = time.perf_counter()
    for _ in range(REFERENCE_PRODUCTS):
        torch.mm(a, b)
    return time.perf_counter() - began


def write_video(path: Path, seconds: float) -> Path:
    """720p at 25 fps: an object that crosses a textured ground, so that decoding is real work."""
    media.write_video(path, _frames(round(seconds * FPS)), FPS, crf=23, preset="ultrafast")
    return path


def _frames(count: int, width: int = 1280, height: int = 720) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    texture = rng.integers(60, 160, (height // 8, width // 8, 3), dtype=np.uint8)
    ground = texture.repeat(8, axis=0).repeat(8, axis=1)
    for index in range(count):
        frame = np.roll(ground, index % width, axis=1)
        left = round((width - 120) * (0.5 + 0.5 * np.sin(2 * np.pi * index / 150)))
        frame[300:420, left : left + 120] = (220, 180, 40)
        yield frame


def markdown(figures: dict) -> str:
    median = figures["median"]
    reached = median["wall_s"] <= LIMIT_WALL_S and median["peak_rss_gb"] <= LIMIT_RSS_GB
    lines = [
        "| 8 s of 720p, sample.py | median | bound |",
        "|---|---|---|",
        f"| wall | {median['wall_s']:.1f} s | {LIMIT_WALL_S:g} s |",
        f"| CPU time | {median['cpu_s']:.1f} s | |",
        f"| peak memory | {median['peak_rss_gb']:.2f} GB | {LIMIT_RSS_GB:g} GB |",
        f"| reference ({REFERENCE_PRODUCTS} fp32 products of {REFERENCE_SIZE}^2, just before) "
        f"| {median['reference_s']:.2f} s | |",
        "",
        f"{len(figures['runs'])} runs on {figures['machine']['cores']} cores: "
        f"{'within' if reached else '**beyond**'} the bounds.",
    ]
    if "long" in figures:
        lines += ["", "| video | wall | peak memory |", "|---|---|---|"]
        lines += [
            f"| {name} | {run['wall_s']:.1f} s | {run['peak_rss_gb']:.2f} GB |"
            for name, run in figures["long"].items()
        ]
    return "\n".join(lines)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
