#!/usr/bin/env python
"""Two choices of bi_audio_dataset/media, measured: who decodes large pictures, and x264's macroblock tree.

    python benchmarks/media.py                    both, a minute on two cores
    python benchmarks/media.py --encodes 12 --frames 0    the encoder alone

Decoders: a film of --size is written, and a process of its own reads all its frames by each decoder, one
thread, one frame at a time as the builder reads large pictures, and rests WORK_S after each, as if it worked
on it: CPU time of a frame, and how much the process's largest memory grew.

Encodes: six films of 1 s for each width, each --encodes times, one thread, by the builder's settings with the
macroblock tree and without: of how many films the files differ from encode to encode.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bi_audio_dataset import media
from bi_audio_dataset.media import encode, frames

DECODERS = ("decord", "pyav")
WIDTHS = (64, 96, 176, 208, 128, 256)
FILMS = 6
FPS = 25
WORK_S = 0.03


def moving_picture(width: int, height: int, count: int, seed: int = 0):
    """Smooth noise that drifts and flickers a little: (H, W, 3) uint8, `count` times."""
    import cv2

    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (max(2, height // 16), max(2, width // 16), 3)).astype(np.float32)
    picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for number in range(count):
        yield np.clip(np.roll(picture, 2 * number, axis=1) + rng.integers(0, 9), 0, 255).astype(np.uint8)


# -------------------- decoders


def decoders(size: tuple[int, int], count: int) -> dict[str, dict[str, float]]:
    """{decoder: {"cpu_ms": of a frame, "grown_gb": of memory}} for a film of `count` frames."""
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mp4"
        media.write_video(film, moving_picture(*size, count), fps=FPS, crf=20, preset="ultrafast")
        return {name: _in_a_process(name, film) for name in DECODERS}


def _in_a_process(name: str, film: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--read", name, str(film)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def read_all(name: str, film: Path) -> dict[str, float]:
    """Read the film here, by one decoder alone."""
    frames.DECORD_PIXELS = 2**62 if name == "decord" else 0
    frames.READ_AHEAD_BYTES = 2**62
    times_s = np.arange(round(media.probe(film).duration_s * FPS)) / FPS
    if name == "decord":
        frames._decord()  # its import is not what a frame costs
        frames._pyav_blocks = _refuse  # which stands in where decord gives up
    before, begun_s = _peak_gb(), time.process_time()
    count = 0
    for block in media.iter_frames(film, times_s, num_threads=1, chunk=1):
        count += len(block)
        time.sleep(WORK_S)
    cpu_ms = 1000 * (time.process_time() - begun_s) / count
    return {"cpu_ms": cpu_ms, "grown_gb": _peak_gb() - before}


def _refuse(path: Path, *_):
    raise SystemExit(f"decord does not take {path}")


def _peak_gb() -> float:
    # not getrusage's, which a process has from the one that started it
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e6


# -------------------- encoder


def encodes(width: int, times: int, tree: bool, films: int = FILMS) -> int:
    """Of how many films the file is not always the same."""
    settings, encode.STABLE_X264 = encode.STABLE_X264, f"mbtree={int(tree)}"
    try:
        return sum(len(_files(width, seed, times)) > 1 for seed in range(films))
    finally:
        encode.STABLE_X264 = settings


def _files(width: int, seed: int, times: int) -> set[str]:
    found = set()
    for number in range(times):
        kept = np.random.default_rng(number).integers(
            0, 255, 997 * (number + 1)
        )  # memory that lies otherwise
        film = media.encode_video_bytes(moving_picture(width, 64, FPS, seed), FPS, crf=20, preset="veryfast")
        found.add(hashlib.sha256(film).hexdigest())
        del kept
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="3840x1920", help="of the film to decode (default: 3840x1920)")
    parser.add_argument("--frames", type=int, default=90, help="of that film; 0: leave it out (default: 90)")
    parser.add_argument("--encodes", type=int, default=12, help="of each film; 0: leave out (default: 12)")
    parser.add_argument("--read", nargs=2, metavar=("DECODER", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.read:
        print(json.dumps(read_all(options.read[0], Path(options.read[1]))))
        return 0
    if options.frames:
        width, _, height = options.size.partition("x")
        for name, found in decoders((int(width), int(height)), options.frames).items():
            print(f"{name} {options.size}: {found['cpu_ms']:.0f} ms of CPU time a frame, "
                  f"{found['grown_gb']:.2f} GB")  # fmt: skip
    if options.encodes:
        for width in WIDTHS:
            with_tree, without = (encodes(width, options.encodes, tree) for tree in (True, False))
            print(f"{width} wide, {options.encodes} encodes: files of {with_tree} of {FILMS} films differ "
                  f"with the macroblock tree, of {without} without")  # fmt: skip
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
