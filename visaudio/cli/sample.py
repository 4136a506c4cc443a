"""visaudio-sample: silent video in, the same video with a binaural track out.

The model and its libraries are loaded after all inputs and outputs have been looked at, so that a mistake
costs no wait.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bi_audio_dataset import media
from bi_audio_dataset.schema import UserError
from visaudio.cli.common import Parser, guard, positive, positive_int

if TYPE_CHECKING:
    from visaudio.pipeline import ViSAudioPipeline

VIDEO_SUFFIXES = {
    ".mp4",
    ".mov",
    ".m4v",
    ".mkv",
    ".webm",
    ".avi",
    ".mpg",
    ".mpeg",
    ".ts",
    ".3gp",
    ".ogv",
    ".flv",
}
MARK = ".binaural"
LONG_S = 20.0  # videos from this length on show a progress bar
LONGEST_S = 24 * 3600.0  # a --duration beyond it is a slip of the pen

EPILOG = """\
x.mp4 gives x.binaural.mp4 (picture copied packet for packet; webm and mkv where mp4 cannot hold it) and
x.binaural.flac. The packaged model makes sound at 22.05 kHz; files are resampled to 44.1 kHz.

A "tiny" model is trained on BiAudio-Synth alone: it knows bells, drums, wood blocks, balls, engines, bees,
birds and sirens as that generator draws and sounds them. To other videos it gives whichever of these sounds
comes nearest. Where the package carries no weights, train.py makes them: give its folder to --variant.

Exit code: 0 if every video was done or skipped, 2 if anything failed.
"""


@dataclass(frozen=True)
class Job:
    """One video, and the files to make of it."""

    video: Path
    sound: Path
    composite: Path | None

    @property
    def outputs(self) -> tuple[Path, ...]:
        return (self.sound,) if self.composite is None else (self.composite, self.sound)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    return guard(lambda: run(options))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="visaudio-sample",
        description="Binaural sound (two ears) for silent video.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--video", nargs="+", required=True, type=Path, metavar="PATH", help="videos, or folders of videos")
    add("--prompt", default=None, help="what sounds, in words")
    add("--negative_prompt", default=None, help="what should not sound")
    add("--duration", type=_duration, metavar="S", help="seconds from the start (default: the whole video)")
    add("--cfg_strength", type=float, help="guidance; 1 is off (default: the model's own)")
    add("--num_steps", type=positive_int, help="solver steps (default: the model's own, usually 25)")
    add(
        "--mask_away_clip",
        action="store_true",
        help="withhold CLIP's picture features: the prompt says what sounds",
    )
    add("--seed", type=_seed, default=42, help="of the noise; the same for every video (default: 42)")
    add("--skip_video_composite", action="store_true", help="write the .flac only")
    add(
        "--variant",
        default="tiny",
        help="packaged name, model folder, Hub repository, or mmaudio-small-44k, -medium-44k, -large-44k, "
        "-large-44k-v2: MMAudio's public weights, equal in both ears (default: tiny)",
    )
    add("--revision", metavar="NAME", help="branch, tag or commit, where --variant is a Hub repository")
    add(
        "--weights",
        action="append",
        default=[],
        type=_part,
        metavar="PART=FILE",
        help="take a part (network, codec, clip, synchformer, spatial; mmaudio-* also vocoder) from another "
        "file; may be repeated",
    )
    add("--output", type=Path, metavar="DIR", help="folder to write to (default: beside each video)")
    add("--full_precision", action="store_true", help="float32 on a GPU too (a CPU always uses it)")
    add(
        "--hfov_deg",
        type=float,
        metavar="DEG",
        help="horizontal field of view of the lens (default: unknown, taken as 90; with another lens, what "
        "is at the picture's edge is then heard up to 20 degrees too far out at 50, 10 too near at 110)",
    )
    add("--overwrite", action="store_true", help="replace files that exist")
    return parser


def _duration(text: str) -> float:
    value = positive(text)
    if value > LONGEST_S:
        raise argparse.ArgumentTypeError(f"expected at most {LONGEST_S:.0f} s (24 h), got {text}")
    return value


def _part(text: str) -> tuple[str, str]:
    part, equals, source = text.partition("=")
    if not (part and equals and source):
        raise argparse.ArgumentTypeError(f"expected PART=FILE, got '{text}'")
    return part, source


def _seed(text: str) -> int:
    value = int(text)
    if not -(2**63) <= value < 2**63:
        raise argparse.ArgumentTypeError(f"expected a whole number from -2^63 to 2^63 - 1, got {text}")
    return value


def run(options: argparse.Namespace) -> int:
    videos, is_batch = find_videos(options.video)
    progress = _Report(is_batch)
    created = _make_folder(options.output)
    try:
        jobs = []
        taken: dict[Path, Path] = {}
        for video in videos:
            with progress.of(video):
                job = plan(video, options.output, not options.skip_video_composite)
                _claim(job, taken)
                if not options.overwrite and _exists(job, is_batch):
                    progress.skipped += 1
                    continue
                jobs.append(job)
        if jobs:
            _run_jobs(jobs, options, progress)
    finally:
        _remove_if_empty(created)
    return progress.finish()


def find_videos(paths: Sequence[Path]) -> tuple[list[Path], bool]:
    """(videos, whether it is a batch). A folder stands for the videos directly in it, by name.

    Raises UserError for a folder without videos; a file is taken as it is.
    """
    videos = []
    for path in paths:
        if not path.is_dir():
            videos.append(path)
            continue
        inside = sorted(
            p
            for p in path.iterdir()
            if p.suffix.lower() in VIDEO_SUFFIXES and not p.stem.endswith(MARK) and not p.name.startswith(".")
        )
        if not inside:
            raise UserError(f"{path}: holds no video ({' '.join(sorted(VIDEO_SUFFIXES))})")
        videos += inside
    return videos, len(paths) > 1 or paths[0].is_dir()


def plan(video: Path, output: Path | None, composite: bool = True) -> Job:
    """The job for one video. Raises UserError if it cannot be read."""
    media.probe(video)
    stem = (output or video.parent) / f"{video.stem}{MARK}"
    suffix = media.output_container_for(video) if composite else None
    return Job(video, Path(f"{stem}.flac"), Path(f"{stem}{suffix}") if suffix else None)


def _claim(job: Job, taken: dict[Path, Path]) -> None:
    for path in job.outputs:
        if path in taken:
            raise UserError(
                f"{job.video}: its output {path} is that of {taken[path]} too; give them separate --output"
            )
    taken.update(dict.fromkeys(job.outputs, job.video))


def _exists(job: Job, is_batch: bool) -> bool:
    """Whether to skip; raises UserError where the outputs may be neither skipped nor replaced."""
    there = [path for path in job.outputs if path.exists()]
    if not there:
        return False
    if is_batch and len(there) == len(job.outputs):
        return True
    raise UserError(f"{there[0]}: exists already; --overwrite replaces it, --output DIR writes elsewhere")


def _run_jobs(jobs: list[Job], options: argparse.Namespace, report: _Report) -> None:
    from visaudio.pipeline import ViSAudioPipeline

    pipeline = ViSAudioPipeline.from_pretrained(
        options.variant,
        revision=options.revision,
        overrides=dict(options.weights),
        full_precision=options.full_precision,
    )
    if pipeline.components.info.limits:
        print(f"note: {pipeline.components.info.limits}", file=sys.stderr)
    for job in jobs:
        with report.of(job.video):
            started = time.monotonic()
            duration_s = sample(pipeline, job, options)
            names = ", ".join(str(path) for path in job.outputs)
            print(
                f"{job.video} -> {names} ({duration_s:.1f} s of sound in {time.monotonic() - started:.1f} s)"
            )
            report.written += 1


def sample(pipeline: ViSAudioPipeline, job: Job, options: argparse.Namespace) -> float:
    """Makes the outputs of one job, all of them or none; returns the sound's length in seconds."""
    duration_s = options.duration or media.probe(job.video).duration_s
    folder = job.sound.parent
    staging = None
    try:
        staging = tempfile.mkdtemp(prefix=f".{job.video.stem}.", suffix=".partial", dir=folder)
        made = _make(pipeline, job, options, duration_s, Path(staging))
        _put(made, job.outputs, Path(staging))
    except UserError as error:
        if staging is None:
            raise
        # a message names the file that the user knows, not the one that was being made
        raise UserError(str(error).replace(staging, str(folder))) from error
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error})") from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
    return duration_s


def _put(made: Sequence[Path], outputs: Sequence[Path], staging: Path) -> None:
    """Moves the files to where they belong; if one cannot be, all outputs are as they were before."""
    placed: list[tuple[Path, Path | None]] = []
    try:
        for number, (temporary, path) in enumerate(zip(made, outputs, strict=True)):
            old = staging / f"replaced.{number}" if path.is_file() else None
            if old is not None:
                os.replace(path, old)
            placed.append((path, old))
            os.replace(temporary, path)
    except BaseException:
        for path, old in reversed(placed):
            if old is not None:
                os.replace(old, path)
            elif path.is_file():
                path.unlink()
        raise


def _make(
    pipeline: ViSAudioPipeline, job: Job, options: argparse.Namespace, duration_s: float, staging: Path
) -> list[Path]:
    """The files of job.outputs, inside `staging`, in that order."""
    import torch

    from visaudio.level import OUTPUT_RATE_HZ, FinishedSound

    made = [staging / path.name for path in job.outputs]
    with FinishedSound(pipeline.sample_rate, duration_s, staging) as sound:
        with _bar(job, duration_s) as bar:
            blocks = pipeline.blocks(
                job.video,
                prompt=options.prompt,
                negative_prompt=options.negative_prompt,
                num_inference_steps=options.num_steps,
                guidance_scale=options.cfg_strength,
                generator=torch.Generator().manual_seed(options.seed),
                duration=duration_s,
                hfov_deg=options.hfov_deg,
                mask_away_clip=options.mask_away_clip,
                progress=lambda done: bar.update(done * duration_s - bar.n),
            )
            for block in blocks:
                sound.add(block)
            sound.close()
        media.write_audio(made[-1], sound.blocks(), OUTPUT_RATE_HZ, subtype="PCM_24")
        if job.composite is not None:
            media.mux_binaural(job.video, sound.blocks(), OUTPUT_RATE_HZ, made[0])
    return made


def _bar(job: Job, duration_s: float):
    from tqdm import tqdm

    layout = "{l_bar}{bar}| {n:.0f}/{total:.0f} s of sound [{elapsed}<{remaining}]"
    return tqdm(
        total=duration_s, desc=job.video.name, disable=duration_s < LONG_S, bar_format=layout, file=sys.stderr
    )


class _Report:
    """What became of each video. One video's error ends the run; a batch goes on and names it at the end."""

    def __init__(self, is_batch: bool) -> None:
        self.is_batch = is_batch
        self.written, self.skipped = 0, 0
        self.failed: list[Path] = []
        self._video: Path | None = None

    def of(self, video: Path) -> _Report:
        self._video = video
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, trace) -> bool:
        if not isinstance(error, Exception) or not self.is_batch:
            return False
        said = " ".join(str(error).split())
        if not isinstance(error, UserError):  # a fault of ours: the other videos may well be spared it
            said = f"{kind.__name__}: {said[:200]}".rstrip(": ")
        if self._video.name not in said:
            said = f"{self._video}: {said}"
        print(f"error: {said}", file=sys.stderr)
        self.failed.append(self._video)
        return True

    def finish(self) -> int:
        if self.is_batch:
            names = ": " + ", ".join(str(path) for path in self.failed) if self.failed else ""
            skipped = f"{self.skipped} skipped (their outputs exist)"
            print(f"{self.written} written, {skipped}, {len(self.failed)} failed{names}")
        return 2 if self.failed else 0


def _make_folder(folder: Path | None) -> Path | None:
    """Creates --output; returns it if it was not there. Raises UserError if it is no folder."""
    if folder is None or folder.is_dir():
        return None
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be made a folder to write to ({error.strerror or error})"
        ) from error
    return folder


def _remove_if_empty(folder: Path | None) -> None:
    if folder is not None and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


if __name__ == "__main__":
    sys.exit(main())
