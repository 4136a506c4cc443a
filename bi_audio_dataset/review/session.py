"""What a reviewer sees and does, without any page: the queue by doubt, one clip's view, decisions, progress.

All methods take the clip's id, so one session serves several open tabs; the decisions file is the only state.
"""

from __future__ import annotations

import hashlib
import io
import math
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from bi_audio_dataset import captions, media, schema, sphere
from bi_audio_dataset.captioning import CAPTIONS_FILE, QUEUE_FILE, load_captions, load_queue
from bi_audio_dataset.clip_rows import ClipFolder, ClipInfo
from bi_audio_dataset.review import decisions, drawing, evidence
from bi_audio_dataset.review.decisions import Decision, Verdict
from bi_audio_dataset.workplace import JOURNAL, WORK

FILES_KEPT = 8  # playable files of the clips shown last


@dataclass(frozen=True)
class ClipView:
    """All that the page shows of one clip. video is a playable MP4 with the binaural track as its sound."""

    clip_id: str
    video: Path
    map_image: drawing.Image
    ild_image: drawing.Image
    caption: str
    facts: str
    duration_s: float


@dataclass(frozen=True)
class Progress:
    """Clips by what stands. waiting: asked to be rendered again and not rendered yet."""

    total: int
    accepted: int
    rejected: int
    waiting: int
    disagreements: int

    @property
    def open(self) -> int:
        return self.total - self.accepted - self.rejected - self.waiting

    def __str__(self) -> str:
        done = self.total - self.open
        text = f"{done} of {self.total} decided: {self.accepted} accepted, {self.rejected} rejected, "
        text += f"{self.waiting} to be rendered again"
        return f"{text}; reviewers differ on {self.disagreements}" if self.disagreements else text


def order_by_doubt(
    infos: dict[str, ClipInfo], queued: dict[str, str], disputed: set[str] = frozenset()
) -> list[str]:
    """Clip ids, the most doubtful first: those that reviewers differ on, those whose captions the models
    failed at, then by falling doubt of the direction (low confidence first, unmeasured before all); ties by
    id."""

    def key(clip_id: str) -> tuple:
        confidence = infos[clip_id].confidence
        measured = confidence if math.isfinite(confidence) else -math.inf
        return (clip_id not in disputed, clip_id not in queued, measured, clip_id)

    return sorted(infos, key=key)


class _Watched:
    """What `read` makes of files or folders, read again only when one of them has changed: at 100,000 clips
    each of them takes up to a second."""

    def __init__(self, read: Callable[[], Any], *paths: Path) -> None:
        self._read, self._paths = read, paths
        self._stamp: tuple | None = None
        self._value: Any = None

    def __call__(self) -> Any:
        stamp = tuple(
            (stat.st_mtime_ns, stat.st_size) if (stat := _stat(path)) else None for path in self._paths
        )
        if stamp != self._stamp:
            self._value, self._stamp = self._read(), stamp
        return self._value


class ReviewSession:
    """One reviewer at one dataset folder."""

    def __init__(self, folder: Path, reviewer: str, decisions_file: Path | None = None) -> None:
        if not reviewer.strip():
            raise schema.UserError("a reviewer's name must not be empty: give --reviewer NAME")
        self.folder, self.reviewer = Path(folder), reviewer.strip()
        self.clips = ClipFolder(folder)
        self.file = Path(decisions_file or self.folder / decisions.DECISIONS_FILE)
        home, pictures = self.folder, self.folder / evidence.FOLDER
        written, failed = home / CAPTIONS_FILE, home / QUEUE_FILE
        self.rows = _Watched(lambda: decisions.read(self.file), self.file)
        self.verdicts = _Watched(lambda: decisions.resolve(self.rows()), self.file)
        self.renders = _Watched(lambda: evidence.renders(home), pictures)
        self.captions = _Watched(lambda: load_captions(home), written, pictures)
        self.failures = _Watched(lambda: load_queue(home), failed, written, pictures)
        self.verdicts()  # a malformed file is better refused now than at the first decision
        self._media = tempfile.TemporaryDirectory(prefix="bi_audio_review_")
        self._shown: list[Path] = []
        self._lock = threading.Lock()

    @property
    def media_folder(self) -> Path:
        return Path(self._media.name)

    @property
    def notice(self) -> str:
        """What the reviewer should know of the folder; empty where clips wait for finalize."""
        if (self.folder / WORK / JOURNAL).exists():
            return ""
        return (
            "This dataset is finished: decisions are written down, but finalize can apply them only to clips "
            "of build --review, or after finalize --keep."
        )

    def close(self) -> None:
        self._media.cleanup()

    def queue(self) -> list[str]:
        """Clips that wait for a decision on the rendering that lies here, the most doubtful first; disputed
        ones come back until this reviewer has seen the other's word, that is, has decided after it."""
        infos, verdicts = self.clips.index(), self.verdicts()
        rendered = self.renders()
        disputed = {
            clip_id for clip_id, verdict in verdicts.items() if verdict.disagreement
        } - self._answered()
        waiting = {
            clip_id: info
            for clip_id, info in infos.items()
            if clip_id in disputed or _is_open(verdicts.get(clip_id), rendered.get(clip_id, 0))
        }
        return order_by_doubt(waiting, self.failures(), disputed & set(waiting))

    def progress(self) -> Progress:
        infos, rendered = self.clips.index(), self.renders()
        verdicts = {clip_id: verdict for clip_id, verdict in self.verdicts().items() if clip_id in infos}
        counts: Counter = Counter()
        for clip_id, verdict in verdicts.items():
            if not _is_open(verdict, rendered.get(clip_id, 0)):
                counts[verdict.decision] += 1
        return Progress(
            total=len(infos),
            accepted=counts["accept"],
            rejected=counts["reject"],
            waiting=counts["rerender"],
            disagreements=sum(verdict.disagreement for verdict in verdicts.values()),
        )

    def after(self, clip_id: str | None) -> str | None:
        """The next clip of the queue behind clip_id; from its top if it is not in the queue or is the last;
        None where nothing else waits."""
        queue = self.queue()
        if clip_id in queue:
            place = queue.index(clip_id)
            queue = queue[place + 1 :] + queue[:place]
        return queue[0] if queue else None

    def decide(self, clip_id: str, decision: str, caption: str) -> None:
        """Append a decision on the rendering that lies here. caption: the text as it stands on the page; it
        must be of the form unless the clip is not accepted. UserError says what is wrong with it; nothing is
        written then."""
        info = self.clips.index().get(clip_id)
        if info is None:
            raise schema.UserError(f"clip '{clip_id}' is not in '{self.folder}' any more")
        caption, changed = caption.strip(), ""
        if decision == "accept":
            reason = captions.problem(caption)
            if reason is None and caption == captions.UNKNOWN:
                reason = "it names no sound"
            if reason is not None:
                raise schema.UserError(f"the caption cannot be taken: {reason}")
            changed = caption if caption != self.caption(info) else ""
        render = self.renders().get(clip_id, 0)
        row = Decision(decisions.now(), self.reviewer, clip_id, decision, changed, render)
        decisions.append(self.file, row)

    def caption(self, info: ClipInfo) -> str:
        """The clip's caption apart from decisions: from the caption stage, else the builder's."""
        return self.captions().get(info.id, info.caption)

    def view(self, clip_id: str, moment_s: float | None = None) -> ClipView:
        """moment_s: the time that map and plot are drawn for; None: the whole clip. UserError if it cannot be
        shown.
        """
        info = self.clips.index().get(clip_id)
        if info is None:
            raise schema.UserError(f"clip '{clip_id}' is not in '{self.folder}' any more")
        row = self.clips.row(clip_id)
        kept = evidence.load(self.folder, clip_id)
        ears, rate = _ears(row)
        verdict = self.verdicts().get(clip_id)
        times_s, ild_db = drawing.ild_track(ears, rate)
        return ClipView(
            clip_id=clip_id,
            video=self._playable(row, ears, rate),
            map_image=_map(row, kept, moment_s),
            ild_image=drawing.draw_ild(times_s, ild_db, row["duration_s"], moment_s),
            caption=(verdict.caption if verdict and verdict.caption else None) or self.caption(info),
            facts=_facts(row, kept, verdict, self.failures().get(clip_id)),
            duration_s=row["duration_s"],
        )

    def _answered(self) -> set[str]:
        """Clips on which this reviewer spoke last."""
        last = {row.clip_id: row.reviewer for row in sorted(self.rows())}
        return {clip_id for clip_id, reviewer in last.items() if reviewer == self.reviewer}

    def _playable(self, row: dict, ears: np.ndarray, rate: int) -> Path:
        """The view with the ears as its sound, in the session's folder; the oldest files are removed."""
        identity = f"{row['id']}/{self.renders().get(row['id'], 0)}"
        name = hashlib.sha256(identity.encode()).hexdigest()[:24] + ".mp4"
        path = self.media_folder / name
        with self._lock:
            if path not in self._shown:
                silent = self.media_folder / f"silent-{name}"
                silent.write_bytes(row["video"]["bytes"])
                media.mux_binaural(silent, ears, rate, path)
                silent.unlink()
                self._shown.append(path)
            while len(self._shown) > FILES_KEPT:
                self._shown.pop(0).unlink(missing_ok=True)
        return path


def _is_open(verdict: Verdict | None, rendered: int) -> bool:
    """Whether the rendering that lies here is yet to be judged."""
    if verdict is None:
        return True
    if verdict.decision == "rerender":
        return rendered >= verdict.render
    return rendered > verdict.render


def _stat(path: Path):
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _ears(row: dict) -> tuple[np.ndarray, int]:
    try:
        samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, TypeError) as error:
        raise schema.UserError(f"the sound of clip '{row['id']}' cannot be decoded ({error})") from None
    return samples.T, rate


def _map(row: dict, kept: evidence.Evidence | None, moment_s: float | None) -> drawing.Image:
    camera = row["camera"]
    angles = (np.radians(camera[name]) for name in ("yaw_deg", "pitch_deg", "roll_deg"))
    rotations = sphere.rotation_matrix(*angles)
    background = drawing.blank()
    if kept is not None:
        background = drawing.energy_overlay(kept.panorama, kept.energy_map(128, 64, moment_s))
    moment = None if moment_s is None else int(np.clip(moment_s * camera["rate_hz"], 0, len(rotations) - 1))
    aspect = row["width"] / row["height"]
    return drawing.draw_map(background, rotations, row["hfov_deg"], aspect, moment, _sources(row, rotations))


def _sources(row: dict, rotations: np.ndarray) -> list[np.ndarray]:
    """World directions of the objects that ground truth knows."""
    found = []
    for source in row["truth"]["sources"]:
        azimuth, elevation = np.radians(source["azimuth_deg"]), np.radians(source["elevation_deg"])
        frame = np.arange(len(azimuth)) / row["truth"]["rate_hz"] * row["camera"]["rate_hz"]
        at = np.clip(np.round(frame).astype(int), 0, len(rotations) - 1)
        found.append(np.einsum("tij,tj->ti", rotations[at], sphere.direction(azimuth, elevation)))
    return found


def _facts(row: dict, kept: evidence.Evidence | None, verdict: Verdict | None, failure: str | None) -> str:
    """Lines of Markdown."""
    filters = row["filters"]
    lines = [
        f"**{row['id']}** · recording {row['recording_id']} · {row['split']} · {row['licence']}",
        f"direction confidence {_figure(filters, 'direction_confidence', 2)} · left-right difference "
        f"{_figure(filters, 'lr_difference', 3)} · level {_figure(filters, 'rms_dbfs', 1)} dBFS · "
        f"view {row['hfov_deg']:.0f}°",
    ]
    if kept is None:
        lines.append("No panorama and no energy map were kept of this clip: the map shows the camera alone.")
    elif kept.render:
        times = "once" if kept.render == 1 else f"{kept.render} times"
        lines.append(f"Rendered again {times}, along another path.")
    if failure:
        lines.append(f"The models gave no caption: {failure}. Write one.")
    if verdict is not None:
        who = ", ".join(verdict.reviewers)
        word = "they differ, reject stands" if verdict.disagreement else verdict.decision
        lines.append(f"Decided by {who}: {word}.")
    return "  \n".join(lines)


def _figure(filters: dict, name: str, digits: int) -> str:
    value = filters.get(name)
    return "not measured" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"
