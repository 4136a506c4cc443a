#!/usr/bin/env python
"""How much memory a worker of the builder needs on a 4k recording.

    python benchmarks/dataset_memory.py
    python benchmarks/dataset_memory.py --seconds 60 --views 4 --workers 2

A film is made on the fly (moving texture, 3840 x 1920 at 30 fps, H.264 with B-frames, ambisonics in
4-channel PCM), one for each worker, and `python -m bi_audio_dataset build` runs on them in a process of its
own. While it runs, /proc says of each process below it how much it holds; the peak is the kernel's own
(VmHWM). Printed as JSON; exit code 1 where a worker needs more than LIMIT_GB (1 GB = 10^9 bytes). Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

LIMIT_GB = 1.5
FPS = 30
RATE = 48000
CLIP_S = 10.0
POLL_S = 0.02


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a film (default: 10)")
    parser.add_argument("--size", default="3840x1920", help="of its picture (default: 3840x1920)")
    parser.add_argument("--views", type=int, default=1, help="views of each window (default: 1)")
    parser.add_argument("--workers", type=int, default=1, help="processes, a film for each (default: 1)")
    parser.add_argument("--view-size", default="640x360", help="of a view (default: 640x360)")
    options = parser.parse_args(arguments)
    width, height = (int(side) for side in options.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        films = Path(folder, "films")
        films.mkdir()
        for number in range(options.workers):
            write_film(films / f"film{number}.mkv", options.seconds, (width, height), number)
        found = measure(films, Path(folder, "set"), options.views, options.workers, options.view_size)
    found = {"source": f"{options.size}, {FPS} fps, {options.seconds:g} s", "views": options.views, **found}
    print(json.dumps(found, indent=1))
    return 0 if found["largest_worker_gb"] <= LIMIT_GB else 1


def write_film(path: Path, seconds: float, size: tuple[int, int], seed: int = 0) -> None:
    """A texture that moves sideways by 8 pixels a frame, under noise from one direction."""
    width, height = size
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(40, 215, (height // 16, width // 16, 3)).astype(np.float32)
    coarse = np.concatenate([coarse, coarse[:, :1]], axis=1)  # closed around the sphere
    texture = cv2.resize(coarse, (width + 16, height), interpolation=cv2.INTER_CUBIC)[:, 8 : width + 8]
    texture = texture.clip(0, 255).astype(np.uint8)
    mono = 0.1 * rng.standard_normal(round(seconds * RATE))
    foa = mono * np.array([[1.0], [0.6], [0.1], [0.79]])
    with av.open(str(path), "w") as film:
        options = {"preset": "ultrafast", "crf": "23", "bf": "3", "refs": "4"}
        picture = film.add_stream("libx264", rate=FPS, options=options)
        picture.width, picture.height, picture.pix_fmt = width, height, "yuv420p"
        sound = film.add_stream("pcm_s16le", rate=RATE, layout="quad")
        for number in range(round(seconds * FPS)):
            shown = np.roll(texture, 8 * number, axis=1)
            film.mux(picture.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        film.mux(picture.encode())
        samples = np.round(foa.T * 32767).clip(-32768, 32767).astype(np.int16).reshape(1, -1)
        block = av.AudioFrame.from_ndarray(samples, format="s16", layout="quad")
        block.sample_rate, block.pts, block.time_base = RATE, 0, Fraction(1, RATE)
        film.mux(sound.encode(block))
        film.mux(sound.encode())


def measure(films: Path, dataset: Path, views: int, workers: int, view_size: str) -> dict[str, object]:
    """Peaks in GB of a build: of the process itself, and of each of its workers."""
    command = [sys.executable, "-m", "bi_audio_dataset", "build", str(films), "--output", str(dataset)]
    command += ["--channels", "ambix", "--clip-s", f"{CLIP_S:g}", "--size", view_size]
    command += ["--views", str(views), "--workers", str(workers)]
    command += ["--off", "duplicate", "--off", "weak_cue"]
    paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    began = time.perf_counter()
    build = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.DEVNULL)
    peaks: dict[int, int] = {}
    together = 0
    while build.poll() is None:
        now = 0
        for process in tree(build.pid):
            held, peak = memory(process)
            peaks[process] = max(peak, peaks.get(process, 0))
            now += held
        together = max(together, now)
        time.sleep(POLL_S)
    if build.returncode:
        raise SystemExit(f"the build failed with exit code {build.returncode}")
    rows = (json.loads(line) for line in (dataset / "manifest.jsonl").read_text().splitlines())
    clips = [row for row in rows if row["kind"] == "clip"]
    if not clips or any(row["decision"] != "accept" for row in clips):
        raise SystemExit("a clip was left out, so it may not have been rendered: the peaks say nothing")
    # multiprocessing's own resource tracker is small and no worker
    below = sorted((peak for process, peak in peaks.items() if process != build.pid), reverse=True)
    return {
        "clips": len(clips),
        "workers_gb": [round(peak / 1e9, 3) for peak in below[:workers]],
        "largest_worker_gb": round(below[0] / 1e9, 3),
        "parent_gb": round(peaks[build.pid] / 1e9, 3),
        "all_processes_gb": round(together / 1e9, 3),
        "limit_gb": LIMIT_GB,
        "seconds": round(time.perf_counter() - began, 1),
    }


def tree(process: int) -> list[int]:
    """A process and all below it."""
    found = [process]
    for parent in found:
        try:
            tasks = list(Path("/proc", str(parent), "task").iterdir())
            found += [int(child) for task in tasks for child in (task / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def memory(process: int) -> tuple[int, int]:
    """(resident now, its peak) in bytes; zeros for a process that has ended."""
    try:
        lines = Path("/proc", str(process), "status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    held, peak = (int(fields.get(name, "0 kB").split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return held, peak


if __name__ == "__main__":
    raise SystemExit(main())
