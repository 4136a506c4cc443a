"""360-degree films with real sound: BiAudio-Synth's panoramas over the ambisonic recordings of ../shared.

There is no real 360-degree video among the reference media, so its two halves are put together: a moving
picture that closes around the sphere, 2:1, H.264, with an object straight ahead; and a recording in each form
in which ambisonics are handed around. As a program it builds datasets of them by the command line and prints
what came out (docs/results.md, "Dataset builder: real recordings"):

    python tests/bi_audio_dataset/compose.py --media ../shared/media --output runs/real
"""

from __future__ import annotations

import argparse
import io
import math
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import soundfile
import soxr
from foa_films import write_film

from bi_audio_dataset import ambisonics, manifest, media, sphere
from bi_audio_dataset.build_config import AIM_FROM_HZ
from bi_audio_dataset.render import high_passed
from bi_audio_dataset.review import drawing
from bi_audio_dataset.review.evidence import collect
from bi_audio_dataset.schema import TRUTH_RATE_HZ
from bi_audio_dataset.shards import read_rows
from bi_audio_dataset.sources.synthetic.panorama import render_panorama
from bi_audio_dataset.sources.synthetic.scene import plan_scene

#: name in a table -> file of ../shared/media/foa. BSD-3-Clause (A. Politis), AmbiX, 24 bit, 44.1 kHz.
RECORDINGS = {
    "outdoor": "bf1_outdoor_ambix.flac",
    "orchestra": "bf4_orchestra_ambix.flac",
    "lab1": "eigenmike_rec1_foa_ambix.flac",
    "lab3": "eigenmike_rec3_foa_ambix.flac",
}
LICENCE = "BSD-3-Clause"
#: MANIFEST.md: of all of them the main source comes out in front. In front: within this angle of azimuth 0.
FRONT_DEG = 45.0
#: A channel this far under the loudest is silence with noise, of which a lossy codec keeps nothing.
SILENT_DB = -40.0
#: Codecs are compared from here on: Opus takes out what is lower, and the outdoor recording holds wind.
AUDIBLE_HZ = 20.0
#: Ears are compared from here on: what is lower has a side in the field, but hardly any level difference.
HEARD_HZ = 500.0


@dataclass(frozen=True)
class Form:
    """How a film carries its sound. codec "": a FLAC file beside it. rate: None for the recording's own."""

    suffix: str
    codec: str
    layout: str = "quad"
    family: str = ""
    rate: int | None = None
    lossless: bool = False

    @property
    def options(self) -> dict[str, str]:
        return {"mapping_family": self.family} if self.family else {}


FORMS = {
    "PCM, mkv": Form(".mkv", "pcm_s24le", lossless=True),
    "PCM, mov": Form(".mov", "pcm_s24le", lossless=True),
    "AAC 4.0, mp4": Form(".mp4", "aac", "4.0"),
    "Opus family 2, mkv": Form(".mkv", "libopus", "ambisonic 1", "2", 48000),
    "Opus family 255, mkv": Form(".mkv", "libopus", "quad", "255", 48000),
    "FLAC beside mp4": Form(".mp4", "", lossless=True),
}


def read_recording(shared: Path, name: str, seconds: float | None = None) -> tuple[np.ndarray, int]:
    """((4, N) AmbiX, rate) of a recording, or of its first seconds."""
    return media.read_audio(shared / "foa" / RECORDINGS[name], duration_s=seconds)


def pictures(seconds: float, seed: int, size: tuple[int, int] = (768, 384)) -> list[np.ndarray]:
    """A scene's panorama (width, height) at TRUTH_RATE_HZ; its first object stays straight ahead."""
    scene = plan_scene(seed, 0, seconds)
    still = np.zeros_like(scene.objects[0].azimuth_rad)
    ahead = replace(scene.objects[0], azimuth_rad=still, elevation_rad=still)
    scene = replace(scene, objects=(ahead, *scene.objects[1:]))
    frames = [_closed(frame) for frame in render_panorama(scene, *size)]
    # the light changes a little, or so small an object's movements would pass for a still picture
    light = 0.94 - 0.06 * np.sin(2 * np.pi * 0.4 * np.arange(len(frames)) / TRUTH_RATE_HZ)
    return [cv2.convertScaleAbs(frame, alpha=float(gain)) for frame, gain in zip(frames, light, strict=True)]


def _closed(frame: np.ndarray, columns: int = 24) -> np.ndarray:
    """The panorama without the step of a few grey values that the generator's grain leaves at its seam."""
    whole = frame.astype(np.float32)
    step = whole[:, :1] - whole[:, -1:]
    whole[:, -columns:] += step * np.linspace(0, 1, columns)[:, None]
    return np.clip(whole, 0, 255).astype(np.uint8)


def compose(
    folder: Path, name: str, foa: np.ndarray, rate: int, form: Form, shown: list[np.ndarray]
) -> tuple[Path, np.ndarray, int]:
    """A film `name` in the folder: (its path, the sound (4, N) that went into its encoder, its rate)."""
    if form.rate is not None and form.rate != rate:
        foa = np.ascontiguousarray(soxr.resample(foa.T, rate, form.rate, quality="VHQ").T, dtype=np.float32)
        rate = form.rate
    path = folder / f"{name}{form.suffix}"
    if form.codec:
        write_film(path, foa, rate, form.codec, form.layout, form.options, pictures=shown)
    else:
        write_film(path, pictures=shown)
        media.write_audio(path.with_suffix(".flac"), foa, rate, "PCM_24")
    return path, foa, rate


def sound_file(path: Path) -> Path:
    """Where the sound of a composed film lies."""
    beside = path.with_suffix(".flac")
    return beside if beside.is_file() else path


def correlations(read: np.ndarray, sent: np.ndarray, rate: int) -> np.ndarray:
    """(4, 4) of every channel sent (rows) with every channel read, at the same time; nan for silent ones."""
    count = min(read.shape[1], sent.shape[1])
    read, sent = (
        high_passed(sound[:, :count].astype(np.float64), rate, AUDIBLE_HZ) for sound in (read, sent)
    )
    inner = slice(4096, count - 4096)  # codecs and filters fade at the ends
    table = np.corrcoef(sent[:, inner], read[:, inner])[:4, 4:]
    level = np.sqrt(np.mean(sent**2, axis=1))
    table[level < level.max() * 10 ** (SILENT_DB / 20)] = np.nan
    return table


def from_front_deg(azimuth_deg: float, elevation_deg: float) -> float:
    """Angle between a direction and straight ahead."""
    found = sphere.direction(math.radians(azimuth_deg), math.radians(elevation_deg))
    return math.degrees(sphere.angle_between(found, sphere.direction(0.0, 0.0)))


def run(*arguments: str) -> str:
    """The builder's command line in a process of its own; what it printed. Ends the program if it fails."""
    command = [sys.executable, "-m", "bi_audio_dataset", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


@dataclass(frozen=True)
class Built:
    """A clip that the command line has made of a film: its row, manifest row and the film's own sound."""

    film: Path
    row: dict
    entry: dict

    @property
    def rotations(self) -> np.ndarray:
        """Camera-to-world (F, 3, 3)."""
        camera = self.row["camera"]
        return sphere.rotation_matrix(
            *(np.radians(camera[f"{name}_deg"]) for name in ("yaw", "pitch", "roll"))
        )

    def ears(self) -> tuple[np.ndarray, int]:
        """((2, N), rate) as published."""
        sound, rate = soundfile.read(io.BytesIO(self.row["audio"]["bytes"]), always_2d=True)
        return sound.T, rate

    def foa(self) -> tuple[np.ndarray, int]:
        """((4, N), rate) of the clip's part of the film, axes of the recording."""
        return media.read_audio(
            sound_file(self.film), None, False, self.entry["start_s"], self.row["duration_s"]
        )

    def sides_db(self) -> tuple[float, float]:
        """Left over right, from HEARD_HZ on: of the ears, and of cardioids that the camera carries along."""
        sound, rate = self.ears()
        foa, field_rate = self.foa()
        turned = ambisonics.rotate(foa, self.rotations, self.row["fps"], field_rate)
        pair = np.stack([turned[0] + turned[1], turned[0] - turned[1]])
        return _left_over_right(sound, rate), _left_over_right(pair, field_rate)

    def picture(self) -> np.ndarray:
        """Energy over the panorama with the camera's path, above the level difference over time."""
        seconds = self.row["duration_s"]
        middle = media.read_frames(self.film, [self.entry["start_s"] + seconds / 2])[0]
        foa, rate = self.foa()
        evidence = collect(middle, high_passed(foa, rate, AIM_FROM_HZ), rate)
        energy = drawing.energy_overlay(evidence.panorama, evidence.energy_map(256, 128))
        shape = self.row["hfov_deg"], self.row["width"] / self.row["height"]
        track = drawing.ild_track(*self.ears())
        return np.concatenate(
            [drawing.draw_map(energy, self.rotations, *shape), drawing.draw_ild(*track, seconds)]
        )


def _left_over_right(pair: np.ndarray, rate: int) -> float:
    left, right = np.mean(high_passed(pair.astype(np.float64), rate, HEARD_HZ) ** 2, axis=1)
    return 10 * math.log10(left / right)


def built(dataset: Path, films: dict[str, Path]) -> dict[str, Built]:
    """Every published clip by its id. films: recording id -> its film."""
    entries = {row["id"]: row for row in manifest.read(dataset / "manifest.jsonl") if row["kind"] == "clip"}
    rows = [row for shard in sorted((dataset / "data").glob("*.parquet")) for row in read_rows(shard)]
    return {row["id"]: Built(films[row["recording_id"]], row, entries[row["id"]]) for row in rows}


def line(form_name: str, name: str, table: np.ndarray, is_exact: bool, clips: list[Built]) -> str:
    """A row of the results: what the codec left of the sound, and what the builder found in it."""
    diagonal = " ".join("silent" if np.isnan(x) else f"{x:.4f}" for x in np.diag(table))
    found = clips[0].entry["direction"]
    angles = found["azimuth_deg"], found["elevation_deg"]
    heard = "; ".join("{:+.1f}, {:+.1f}".format(*clip.sides_db()) for clip in clips)
    match = "bit-exact" if is_exact else diagonal
    return (
        f"| {form_name} | {name} | {match} | {angles[0]:+.1f}, {angles[1]:+.1f} "
        f"| {from_front_deg(*angles):.0f} | {found['confidence']:.2f} | {heard} |"
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--media", type=Path, required=True, help="the folder ../shared/media")
    parser.add_argument("--output", type=Path, required=True, help="for films, datasets and pictures")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each recording (default: 5)")
    options = parser.parse_args(arguments)
    head = options.media / "hrir" / "MIT_KEMAR_normal_pinna.sofa"
    print(
        "| form | recording | correlation of W, Y, Z, X | azimuth, elevation | from front | confidence "
        "| two views: ears, cardioids |\n|---|---|---|---|---|---|---|"
    )
    shown = {name: pictures(options.seconds, seed) for seed, name in enumerate(RECORDINGS)}
    for form_name, form in FORMS.items():
        home = options.output / form_name.lower().replace(", ", "-").replace(" ", "-")
        films, dataset = home / "films", home / "set"
        films.mkdir(parents=True, exist_ok=True)
        paths, tables, exact = {}, {}, {}
        for name in RECORDINGS:
            foa, rate = read_recording(options.media, name, options.seconds)
            paths[name], sent, rate = compose(films, name, foa, rate, form, shown[name])
            read, _ = media.read_audio(sound_file(paths[name]))
            tables[name], exact[name] = correlations(read, sent, rate), np.array_equal(read, sent)
        # the outdoor recording is quiet: marked, and not rejected as silent
        command = ["build", str(films), "--output", str(dataset), "--clip-s", f"{options.seconds:g}"]
        command += ["--channels", "ambix", "--licence", LICENCE, "--views", "2", "--mark", "silent"]
        command += ["--sofa", str(head)]
        print(run(*command, "--dry-run"), file=sys.stderr)
        run(*command)
        print(run("validate", str(dataset)), run("status", str(dataset)), file=sys.stderr)
        clips = built(dataset, paths)
        for name in RECORDINGS:
            views = [clips[f"{name}-v{view}"] for view in range(2)]
            print(line(form_name, name, tables[name], exact[name], views), flush=True)
            cv2.imwrite(str(home / f"{name}.png"), views[0].picture()[..., ::-1])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
