"""The caption stage: `python -m bi_audio_dataset caption DIR`, by models or from a file of the user's.

DIR/captions.jsonl        append-only, the last row of a clip stands: {"id", "caption", "by": "model" |
"user", ...} DIR/caption_queue.jsonl   append-only, clips that the models gave no caption for, with all that
they wrote:
                          {"id", "reason", "attempts": [{"seed", "temperature", "description", "raw",
                          "problem"}]}

The builder's rows are not touched: finalize takes `load_captions`. Clips of synthetic scenes have theirs from
ground truth. A caption belongs to one rendering of a clip ("render", left out where it is 0): once a clip is
rendered along another path, it needs a new one.
"""

from __future__ import annotations

import sys
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bi_audio_dataset import captions, jsonl, media
from bi_audio_dataset.caption_models import AUDIO_RATE_HZ, ClipMedia
from bi_audio_dataset.clip_rows import ClipFolder, ClipInfo
from bi_audio_dataset.review.evidence import renders
from bi_audio_dataset.schema import UserError

CAPTIONS_FILE = "captions.jsonl"
QUEUE_FILE = "caption_queue.jsonl"


class Listener(Protocol):
    name: str

    def describe(self, clip: ClipMedia, seed: int, temperature: float) -> str:
        """What is heard, and whether it is seen, in free words."""
        ...


class Condenser(Protocol):
    name: str

    def condense(self, description: str, refused: str | None, seed: int, temperature: float) -> str:
        """A caption's line, one hopes. refused: why the answer before was none, None at the first try."""
        ...


@dataclass(frozen=True)
class CaptioningConfig:
    """How often and how differently the models are asked; temperatures: one per attempt, 0 = greedy."""

    seed: int = 0
    temperatures: tuple[float, ...] = (0.0, 0.4, 0.7, 1.0)
    # from this attempt on the clip is described anew: by then the description may be what is wrong
    describe_again_from: int = 2
    fps: float = 2.0


@dataclass(frozen=True)
class Attempt:
    seed: int
    temperature: float
    description: str
    raw: str
    problem: str | None


@dataclass(frozen=True)
class Outcome:
    """caption is None if no attempt gave one."""

    caption: str | None
    attempts: tuple[Attempt, ...]


@dataclass
class Tally:
    captioned: int = 0
    queued: int = 0


def caption_clip(
    clip_id: str, clip: ClipMedia, listener: Listener, condenser: Condenser, config: CaptioningConfig
) -> Outcome:
    """Ask until the answer is a caption that names a sound. Depends on nothing but the arguments."""
    attempts: list[Attempt] = []
    description, refused = "", None
    for number, temperature in enumerate(config.temperatures):
        seed = zlib.crc32(f"{config.seed}/{clip_id}/{number}".encode())
        if number == 0 or number >= config.describe_again_from:
            description = listener.describe(clip, seed, temperature)
        raw = condenser.condense(description, refused, seed, temperature)
        caption = captions.tidy(raw)
        refused = captions.problem(caption)
        if refused is None and caption == captions.UNKNOWN:
            refused = "it names no sound at all"
        attempts.append(Attempt(seed, temperature, description, raw, refused))
        if refused is None:
            return Outcome(caption, tuple(attempts))
    return Outcome(None, tuple(attempts))


def caption_folder(
    clips: ClipFolder,
    ids: Sequence[str],
    listener: Listener,
    condenser: Condenser,
    config: CaptioningConfig,
    progress: bool = False,
) -> Tally:
    """Caption the clips one by one into the two files; what is written stays if the run is stopped.

    A clip whose media cannot be decoded is queued with the reason. UserError if a model fails, e.g. for want
    of memory: it would fail at the next clip too.
    """
    from tqdm import tqdm

    tally, rendered = Tally(), renders(clips.folder)
    for clip_id in tqdm(ids, desc="caption", unit="clip", disable=not progress, file=sys.stderr):
        try:
            clip = read_media(clips.row(clip_id), config.fps)
        except UserError as error:
            outcome, reason = Outcome(None, ()), str(error)
        else:
            outcome = _ask(clip_id, clip, listener, condenser, config)
            reason = "" if outcome.caption else f"{len(outcome.attempts)} answers, none of them a caption"
        render = {"render": rendered[clip_id]} if rendered.get(clip_id) else {}
        if outcome.caption is None:
            row = {
                "id": clip_id,
                "reason": reason,
                "attempts": [asdict(a) for a in outcome.attempts],
                **render,
            }
            jsonl.append_rows(clips.folder / QUEUE_FILE, [row])
            tally.queued += 1
            continue
        models = f"{listener.name} + {condenser.name}"
        row = {"id": clip_id, "caption": outcome.caption, "by": "model", "model": models, **render}
        jsonl.append_rows(clips.folder / CAPTIONS_FILE, [row | {"attempts": len(outcome.attempts)}])
        tally.captioned += 1
    return tally


def _ask(
    clip_id: str, clip: ClipMedia, listener: Listener, condenser: Condenser, config: CaptioningConfig
) -> Outcome:
    """`caption_clip`; what a model raises, out of memory above all, as one line."""
    try:
        return caption_clip(clip_id, clip, listener, condenser, config)
    except (RuntimeError, MemoryError, UserError) as error:  # torch raises RuntimeError and kinds of it
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"the models failed at '{clip_id}' ({why}): captions so far are written, the same command goes "
            "on after them; short of memory, try --dtype bfloat16, smaller models or another --device"
        ) from error


def read_media(row: dict[str, Any], fps: float) -> ClipMedia:
    """What the listener is given of a dataset row. UserError if it cannot be decoded."""
    count = max(2, 2 * round(row["duration_s"] * fps / 2))  # the models take frames in pairs
    with tempfile.TemporaryDirectory() as folder:
        video, audio = Path(folder, "clip.mp4"), Path(folder, "clip.flac")
        video.write_bytes(row["video"]["bytes"])
        audio.write_bytes(row["audio"]["bytes"])
        frames = media.read_frames(video, np.arange(count) / fps)
        sound, _ = media.read_audio(audio, AUDIO_RATE_HZ, mono=True)
    return ClipMedia(frames, fps, sound[0])


def load_captions(folder: Path) -> dict[str, str]:
    """Clip id -> its last caption in DIR/captions.jsonl; those of an earlier rendering are left out.

    UserError naming the line that is malformed.
    """
    folder = Path(folder)
    found = {}
    rendered = renders(folder)
    for number, row in jsonl.read_rows(folder / CAPTIONS_FILE):
        clip_id = row.get("id")
        reason = captions.problem(row.get("caption"))
        if not isinstance(clip_id, str) or reason is not None:
            why = reason or "it has no id"
            raise UserError(f"{folder / CAPTIONS_FILE}:{number}: {why}: correct or remove the line")
        if row.get("render", 0) == rendered.get(clip_id, 0):
            found[clip_id] = row["caption"]
    return found


def load_queue(folder: Path) -> dict[str, str]:
    """Clip id -> why the models gave no caption, for the clips that still have none."""
    folder = Path(folder)
    rendered, captioned = renders(folder), load_captions(folder)
    rows = [row for _, row in jsonl.read_rows(folder / QUEUE_FILE)]
    return {
        row["id"]: str(row.get("reason", ""))
        for row in rows
        if isinstance(row.get("id"), str)
        and row["id"] not in captioned
        and row.get("render", 0) == rendered.get(row["id"], 0)
    }


def clips_to_caption(clips: ClipFolder, retry_queued: bool = False) -> list[str]:
    """Ids that need a caption of a model: no ground truth, none of another origin, not queued for review."""
    done = set(load_captions(clips.folder))
    if not retry_queued:
        done |= set(load_queue(clips.folder))
    return [info.id for info in clips.index().values() if info.id not in done and _unknown(info)]


def import_captions(clips: ClipFolder, path: Path, skip_bad: bool = False) -> tuple[int, list[str]]:
    """Take the captions of a user's file; (rows taken, problems). With problems nothing is taken, unless
    skip_bad. Rows that say what stands already are not written again."""
    from bi_audio_dataset.caption_files import read_caption_file

    found, problems = read_caption_file(path, clips.index())
    if problems and not skip_bad:
        return 0, problems
    before, rendered = load_captions(clips.folder), renders(clips.folder)
    rows = [
        {"id": clip_id, "caption": caption, "by": "user"}
        | ({"render": rendered[clip_id]} if rendered.get(clip_id) else {})
        for clip_id, caption in found.items()
        if before.get(clip_id) != caption
    ]
    jsonl.append_rows(clips.folder / CAPTIONS_FILE, rows)
    return len(rows), problems


def _unknown(info: ClipInfo) -> bool:
    return not info.has_truth and info.caption in ("", captions.UNKNOWN)


def main(argv: Sequence[str] | None = None) -> int:
    """python -m bi_audio_dataset caption DIR. Exit 2 where a row of --from was refused; raises UserError."""
    from bi_audio_dataset.arguments import Parser, not_negative
    from bi_audio_dataset.caption_models import InstructCondenser, ModelConfig, OmniListener

    parser = Parser(
        prog="python -m bi_audio_dataset caption",
        description="Caption the clips of a dataset by models, or from a file of your own. Clips with "
        "ground truth, and those that have a caption already, are left alone; what the models fail at is "
        "queued "
        "for review.",
    )
    defaults, models = CaptioningConfig(), ModelConfig()
    parser.add_argument("folder", type=Path, metavar="DIR", help="dataset folder, finished or being built")
    parser.add_argument(
        "--from",
        dest="file",
        type=Path,
        metavar="FILE",
        help="CSV or JSON lines with id and caption: no models",
    )
    parser.add_argument(
        "--skip-bad", action="store_true", help="with --from: take the good rows all the same"
    )
    parser.add_argument("--listener", default=models.listener, help="Qwen2.5-Omni folder or Hub id")
    parser.add_argument("--condenser", default=models.condenser, help="instruct model, folder or Hub id")
    parser.add_argument("--device", default=models.device, help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--dtype", default=models.dtype, choices=("auto", "float32", "bfloat16", "float16"))
    parser.add_argument("--seed", type=not_negative, default=defaults.seed)
    parser.add_argument("--limit", type=int, metavar="N", help="stop after N clips")
    parser.add_argument("--retry-queued", action="store_true", help="ask again for clips that are queued")
    options = parser.parse_args(argv)
    if options.limit is not None and options.limit < 1:
        parser.error(f"--limit must be at least 1, got {options.limit}")
    if options.skip_bad and options.file is None:
        parser.error("--skip-bad goes with --from FILE")

    clips = ClipFolder(options.folder)
    if options.file is not None:
        taken, problems = import_captions(clips, options.file, options.skip_bad)
        for line in problems:
            print(line, file=sys.stderr)
        left = (
            ", nothing was taken (--skip-bad takes the others)" if problems and not options.skip_bad else ""
        )
        print(f"{options.folder}: {taken} captions taken, {len(problems)} rows refused{left}")
        return 2 if problems else 0

    ids = clips_to_caption(clips, options.retry_queued)
    total = len(ids)
    ids = ids[: options.limit]
    if not ids:
        print(
            f"{options.folder}: no clip needs a caption, {len(load_queue(options.folder))} are queued for "
            f"review"
        )
        return 0
    choice = ModelConfig(options.listener, options.condenser, options.device, options.dtype)
    listener, condenser = OmniListener(choice), InstructCondenser(choice)
    config = CaptioningConfig(seed=options.seed)
    tally = caption_folder(clips, ids, listener, condenser, config, progress=sys.stderr.isatty())
    print(
        f"{options.folder}: {tally.captioned} captioned, {tally.queued} queued for review, "
        f"{total - len(ids)} left for another run"
    )
    return 0
