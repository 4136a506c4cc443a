#!/usr/bin/env python
"""The whole builder beside a plain `ffmpeg` decode, v360 and encode of the same output, in one run.

    python benchmarks/builder.py                         3840x1920 and 1920x960 recordings of 24 s
    python benchmarks/builder.py --seconds 8 --rounds 1  a quick look

Recordings: a panorama of blobs over moving noise with four AmbiX channels (PCM), encoded here. The builder
(`python -m bi_audio_dataset build`, start of the process, filters, ears, shards and card included) makes 8 s
clips of them, at 640x360 by default, a process a core. `ffmpeg` makes the same seconds of the same size, rate
and encoder settings with as many threads: v360 with a yaw that a command turns at each frame, bilinear; no
sound, no filters. It works on RGB (gbrp), and in a second column on yuv420p, which is half as many samples.
The fastest of --rounds counts. Ratio: ffmpeg's time over the builder's, 1 where they are equal; the bound is
0.5.

Needs the ffmpeg program (--ffmpeg).
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
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bi_audio_dataset.ambisonics import encode  # noqa: E402
from bi_audio_dataset.build_config import BuildConfig  # noqa: E402

SOURCES = ((3840, 1920), (1920, 960))
FPS, AUDIO_RATE_HZ = 25, 44100


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=int, default=24, help="of each recording (default: 24)")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--size", default="640x360", help="of a view (default: 640x360)")
    parser.add_argument("--ffmpeg", default=shutil.which("ffmpeg"), help="the program (default: on the path)")
    parser.add_argument("--output", type=Path, help="a JSON file for the figures")
    options = parser.parse_args(arguments)
    if options.ffmpeg is None:
        parser.error("no ffmpeg program on the path: give --ffmpeg")
    rows = []
    print(f"| recording | builder | ffmpeg, gbrp | ratio | ffmpeg, yuv420p | ratio |\n|{'---|' * 6}")
    for size in SOURCES:
        with tempfile.TemporaryDirectory() as scratch:
            rows.append(measure(Path(scratch), size, options))
        print(markdown(rows[-1]), flush=True)
    if options.output:
        options.output.write_text(json.dumps(rows, indent=1))
    return 0


def measure(scratch: Path, size: tuple[int, int], options: argparse.Namespace) -> dict:
    """Seconds of each contender for as many recordings as there are cores."""
    cores = len(os.sched_getaffinity(0))
    films = scratch / "films"
    films.mkdir()
    write_recording(films / "0.mkv", size, options.seconds, seed=0)
    for number in range(1, cores):  # the same again: the filter of duplicates is off
        shutil.copyfile(films / "0.mkv", films / f"{number}.mkv")
    best: dict[str, float] = {}
    for number in range(options.rounds):
        for name, run in (
            ("builder", lambda n: run_builder(films, scratch / f"set{n}", options.size, cores)),
            ("gbrp", lambda _: run_ffmpeg(films, scratch / "out", options, "gbrp", cores)),
            ("yuv420p", lambda _: run_ffmpeg(films, scratch / "out", options, "yuv420p", cores)),
        ):
            start = time.perf_counter()
            run(number)
            best[name] = min(best.get(name, np.inf), time.perf_counter() - start)
    return {"width": size[0], "height": size[1], "seconds": options.seconds, "films": cores, **best}


def run_builder(films: Path, output: Path, size: str, workers: int) -> None:
    command = [sys.executable, "-m", "bi_audio_dataset", "build", films, "--output", output, "--size", size]
    command += ["--workers", workers, "--licence", "CC0-1.0", "--off", "duplicate", "--channels", "ambix"]
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the builder failed: {done.stderr.strip()}")


def run_ffmpeg(films: Path, output: Path, options: argparse.Namespace, pix_fmt: str, threads: int) -> None:
    """All recordings, one after another, with as many threads as there are cores; whole clips of 8 s."""
    output.mkdir(exist_ok=True)
    config = BuildConfig()
    width, _, height = options.size.partition("x")
    clips = int(options.seconds // config.clip_s)
    frames = int(clips * config.clip_s * FPS)
    turns = ";".join(f"{n / FPS:.3f} v360 yaw {20 * n / FPS % 360 - 180:.3f}" for n in range(frames))
    commands = output / "turns.txt"
    commands.write_text(turns + ";")
    view = f"v360=input=e:output=flat:h_fov=90:v_fov=58.7:w={width}:h={height}:interp=linear"
    chain = f"sendcmd=f={commands},fps={FPS},format={pix_fmt},{view},format=yuv420p"
    encoder = ["-c:v", "libx264", "-preset", config.preset, "-crf", str(config.crf)]
    for film in sorted(films.iterdir()):
        command = [options.ffmpeg, "-v", "error", "-y", "-threads", str(threads), "-i", str(film)]
        command += ["-filter_threads", str(threads), "-vf", chain, "-an", "-frames:v", str(frames), *encoder]
        command += ["-threads", str(threads), str(output / f"{film.stem}.mp4")]
        subprocess.run(command, check=True)


def write_recording(path: Path, size: tuple[int, int], seconds: int, seed: int) -> None:
    """A panorama in H.264 at 25 fps, and four channels of PCM."""
    with av.open(str(path), "w") as container:
        encoder = {"preset": "veryfast", "crf": "23"}
        video = container.add_stream("libx264", rate=Fraction(FPS), options=encoder)
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=AUDIO_RATE_HZ, layout="4.0")
        for picture in panoramas(size, seconds * FPS, seed):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode())
        sound = (field(seconds, seed) * 32767).astype(np.int16)
        for start in range(0, sound.shape[1], 1024):
            block = np.ascontiguousarray(sound[:, start : start + 1024].T).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(block, format="s16", layout="4.0")
            frame.sample_rate, frame.pts = AUDIO_RATE_HZ, start
            container.mux(audio.encode(frame))
        container.mux(audio.encode())


def panoramas(size: tuple[int, int], count: int, seed: int) -> Iterator[np.ndarray]:
    """A textured surround with a bright object that travels round it."""
    import cv2

    rng, (width, height) = np.random.default_rng(seed), size
    coarse = rng.integers(0, 255, (height // 32, width // 32, 3), np.uint8)
    ground = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC) // 2
    for number in range(count):
        picture = np.roll(ground, number * width // 3600, axis=1).copy()
        centre = (int(width * (0.3 + number / count * 0.4)), height // 2)
        cv2.circle(picture, centre, height // 20, (240, 220, 60), -1)
        yield picture


def field(seconds: int, seed: int) -> np.ndarray:
    """(4, N) AmbiX of noise bursts from one direction over faint noise, float64 in -1 .. 1."""
    rng, count = np.random.default_rng(seed), seconds * AUDIO_RATE_HZ
    times_s = np.arange(count) / AUDIO_RATE_HZ
    source = rng.standard_normal(count) * 0.1 * (np.sin(2 * np.pi * 1.5 * times_s) > 0)
    return np.clip(encode(source, 0.6, 0.1) + 0.002 * rng.standard_normal((4, count)), -1, 1)


def markdown(row: dict) -> str:
    clips = f"{row['films']} of {row['width']}x{row['height']}, {row['seconds']} s"
    parts = [clips, f"{row['builder']:.1f} s"]
    for name in ("gbrp", "yuv420p"):
        parts += [f"{row[name]:.1f} s", f"{row[name] / row['builder']:.2f}"]
    return f"| {' | '.join(parts)} |"


if __name__ == "__main__":
    raise SystemExit(main())
