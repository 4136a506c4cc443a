#!/usr/bin/env python
"""How fast views are rendered, beside ffmpeg's v360 at the same size and interpolation, in one run.

    python benchmarks/viewport.py                       3840x1920 and 1920x960 panoramas, 2 threads
    python benchmarks/viewport.py --frames 10 --rounds 2    a quick look

Contenders, all bilinear, from the same frame in memory (no decoding, no encoding):

ours            bi_audio_dataset.viewport.Viewport on RGB, sampling the panorama as it is (what v360 does)
ours, smooth    the same with its antialiasing, which is what the builder uses
v360 gbrp       ffmpeg's filter as PyAV carries it, on planar RGB: as many samples as ours
v360 yuv420p    the same on half as many samples
ffmpeg gbrp     the ffmpeg program, where there is one (--ffmpeg): frame time from two lengths of a run

Paths: static; yaw (a turn about the vertical alone); moving (yaw, pitch and roll change with every frame).
v360 moves by a command for each angle that changes, and computes its map anew for each.

A round runs every contender once; the fastest round counts. The ratio is v360's time over ours: above 1, ours
is faster. Wall time is what a quiet machine should be judged by; CPU time holds on a busy one too.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from bi_audio_dataset import sphere
from bi_audio_dataset.viewport import Viewport

SOURCES = ((3840, 1920), (1920, 960))
OUTPUTS = ((1280, 720), (640, 360), (256, 144))
PATHS = ("static", "yaw", "moving")
OURS = ("ours", "ours, smooth")
HFOV_DEG = 90.0
FPS = 25

#: (wall s, CPU s) for so many frames.
Timing = tuple[float, float]


def angles_deg(path: str, frame: int) -> dict[str, float]:
    """Yaw (left), pitch and roll of a frame; what does not move stays at 17, 5 and 2 degrees."""
    time_s = frame / FPS
    moved = {"yaw": 17 + 20 * time_s, "pitch": 5 + 8 * np.sin(time_s), "roll": 2 + 3 * np.sin(0.7 * time_s)}
    still = {"yaw": 17.0, "pitch": 5.0, "roll": 2.0}
    names = {"static": (), "yaw": ("yaw",), "moving": ("yaw", "pitch", "roll")}[path]
    return {name: float(moved[name] if name in names else still[name]) for name in still}


def timed(run: Callable[[], object]) -> Timing:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def run_ours(frame: np.ndarray, size: tuple[int, int], path: str, count: int, antialias: bool) -> Timing:
    lens = Viewport(*size, np.radians(HFOV_DEG), frame.shape[1], frame.shape[0], antialias)
    angles = [list(np.radians(list(angles_deg(path, k).values()))) for k in range(count + 1)]
    rotations = sphere.rotation_matrix(*np.transpose(angles))
    lens.render(frame, rotations[0])

    def run() -> None:
        for rotation in rotations[1:]:
            lens.render(frame, rotation)

    return timed(run)


def v360_options(size: tuple[int, int], path: str) -> str:
    """v360's yaw runs to the right."""
    angles = angles_deg(path, 0)
    vfov_deg = 2 * np.degrees(np.arctan(size[1] / size[0] * np.tan(np.radians(HFOV_DEG / 2))))
    return (
        f"input=equirect:output=flat:h_fov={HFOV_DEG:g}:v_fov={vfov_deg:.6f}:w={size[0]}:h={size[1]}"
        f":interp=linear:reset_rot=1:yaw={-angles['yaw']}:pitch={angles['pitch']}:roll={angles['roll']}"
    )


def commands(path: str, frame: int) -> list[tuple[str, str]]:
    """What v360 is told before a frame."""
    before, now = angles_deg(path, frame - 1), angles_deg(path, frame)
    return [
        (name, f"{-value if name == 'yaw' else value:.6f}")
        for name, value in now.items()
        if value != before[name]
    ]


def run_v360(
    frame: np.ndarray, size: tuple[int, int], path: str, count: int, pixels: str, threads: int
) -> Timing:
    source = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pixels)
    graph = av.filter.Graph()
    graph.threads = threads
    entry = graph.add_buffer(
        width=source.width,
        height=source.height,
        format=av.VideoFormat(pixels),
        time_base=Fraction(1, FPS),
    )
    v360 = graph.add("v360", v360_options(size, path))
    graph.link_nodes(entry, v360, graph.add("buffersink")).configure()

    def run(first: int, last: int) -> None:
        for k in range(first, last):
            for name, value in commands(path, k) if k else ():
                v360.process_command(name, value)
            source.pts = k
            graph.vpush(source)
            graph.vpull()

    run(0, 1)
    return timed(lambda: run(1, count + 1))


def run_ffmpeg(
    program: str, source: tuple[int, int], size: tuple[int, int], path: str, count: int, threads: int
) -> Timing:
    """From the difference between a run of `count` frames more and one of a single frame."""
    with tempfile.TemporaryDirectory() as scratch:
        script = Path(scratch) / "commands.txt"
        lines = [
            f"{k / FPS:.3f} " + ", ".join(f"v360 {name} {value}" for name, value in said) + ";"
            for k in range(1, count + 1)
            if (said := commands(path, k))
        ]
        script.write_text("\n".join(lines) + "\n")
        filters = ("sendcmd=f=commands.txt," if lines else "") + "v360=" + v360_options(size, path)
        picture = f"testsrc2=s={source[0]}x{source[1]}:r={FPS},format=gbrp,loop=loop=-1:size=1"
        base = [program, "-v", "error", "-filter_threads", str(threads), "-f", "lavfi", "-i", picture]

        def once(frames: int) -> Timing:
            ends = ["-vf", filters, "-frames:v", str(frames), "-f", "null", "-"]
            began = time.perf_counter()
            process = subprocess.Popen([*base, *ends], cwd=scratch, stdin=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise SystemExit(
                    f"ffmpeg failed with exit code {process.returncode}: {' '.join(base + ends)}"
                )
            return time.perf_counter() - began, usage.ru_utime + usage.ru_stime

        short, long = once(1), once(count + 1)
        return tuple(max(0.0, b - a) for a, b in zip(short, long, strict=True))


def contenders(
    frame: np.ndarray, size: tuple[int, int], path: str, options: argparse.Namespace
) -> dict[str, tuple[int, Callable[[], Timing]]]:
    """By name: how many frames a run has, and the run."""
    count, threads, program = options.frames, options.threads, options.ffmpeg
    slow = count if path == "static" else max(2, count // 10)  # v360 takes some 0.3 s a frame
    # long enough to tell from what starting the program takes
    many = 20 * count if path == "static" else slow
    source = frame.shape[1::-1]
    found = {
        "ours": (count, lambda: run_ours(frame, size, path, count, False)),
        "ours, smooth": (count, lambda: run_ours(frame, size, path, count, True)),
        "v360 gbrp": (slow, lambda: run_v360(frame, size, path, slow, "gbrp", threads)),
        "v360 yuv420p": (slow, lambda: run_v360(frame, size, path, slow, "yuv420p", threads)),
    }
    if program:
        found["ffmpeg gbrp"] = (many, lambda: run_ffmpeg(program, source, size, path, many, threads))
    return found


def measure(options: argparse.Namespace) -> list[dict]:
    cv2.setNumThreads(options.threads)
    rng = np.random.default_rng(0)
    rows = []
    for source in options.sources:
        coarse = rng.integers(0, 256, (source[1] // 8, source[0] // 8, 3), dtype=np.uint8)
        frame = cv2.resize(coarse, source, interpolation=cv2.INTER_CUBIC)
        for size in options.outputs:
            for path in PATHS:
                best: dict[str, Timing] = {}
                for _ in range(options.rounds):
                    for name, (frames, run) in contenders(frame, size, path, options).items():
                        spent = tuple(1e3 * t / frames for t in run())
                        best[name] = tuple(map(min, spent, best.get(name, spent)))
                rows.append({"source": source, "output": size, "path": path, "ms": best})
                print(markdown_row(rows[-1]), flush=True)
    return rows


def header(names: Sequence[str]) -> str:
    cells = ["panorama", "view", "path", *names]
    cells += [f"{name} / ours" for name in names if name not in OURS]
    return f"| {' | '.join(cells)} |\n{'|---' * len(cells)}|"


def markdown_row(row: dict) -> str:
    """Times as wall (CPU) ms a frame, ratios of wall (CPU) time."""
    wall, cpu = row["ms"]["ours"]
    cells = ["x".join(map(str, row["source"])), "x".join(map(str, row["output"])), row["path"]]
    cells += [f"{a:.2f} ({b:.2f})" for a, b in row["ms"].values()]
    cells += [f"{a / wall:.1f} ({b / cpu:.1f})" for name, (a, b) in row["ms"].items() if name not in OURS]
    return f"| {' | '.join(cells)} |"


def size_of(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(width), int(height)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--sources", type=size_of, nargs="+", default=list(SOURCES), help="panoramas, as 3840x1920")
    add("--outputs", type=size_of, nargs="+", default=list(OUTPUTS), help="views, as 1280x720")
    add("--frames", type=int, default=100, help="a contender and round (default: 100)")
    add("--rounds", type=int, default=5, help="of which the fastest counts (default: 5)")
    add("--threads", type=int, default=2, help="of every contender (default: 2)")
    add("--ffmpeg", default=shutil.which("ffmpeg"), help="the program (default: the one on the path, if any)")
    add("--output", type=Path, help="a JSON file for the figures")
    options = parser.parse_args(arguments)
    versions = f"OpenCV {cv2.__version__}, PyAV {av.__version__}"
    print(f"ms a frame: wall (CPU); {options.threads} threads, {os.cpu_count()} cores, {versions}\n")
    names = [*OURS, "v360 gbrp", "v360 yuv420p", *(["ffmpeg gbrp"] if options.ffmpeg else [])]
    print(header(names))
    rows = measure(options)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(rows, indent=1) + "\n")
    slower = [row for row in rows if row["ms"]["ours"][1] > row["ms"]["v360 gbrp"][1]]
    print(f"\n{len(rows) - len(slower)} of {len(rows)} rows: ours takes no more CPU time than v360 on gbrp.")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
