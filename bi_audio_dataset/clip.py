"""One recording in, clips and manifest rows out: camera path, view, ears, truth, caption, and what was
decided.

All randomness of a clip comes from (seed, recording id, window, view, render), never from a worker or an
order.
"""

from __future__ import annotations

import io
import time
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from bi_audio_dataset import captions, media
from bi_audio_dataset import filters as rules
from bi_audio_dataset.binaural import BinauralDecoder, render_binaural
from bi_audio_dataset.build_config import BuildConfig
from bi_audio_dataset.camera_plan import Camera, WindowCameras, camera_track, choose_hfov, clip_rng
from bi_audio_dataset.clip_manifest import Window, clip_row, recording_row
from bi_audio_dataset.duplicates import audio_fingerprint, to_text
from bi_audio_dataset.filters import Finding
from bi_audio_dataset.hrtf import HrirSet, load_sofa, spherical_head
from bi_audio_dataset.ids import view_id, window_id
from bi_audio_dataset.level import decibel, lr_difference, normalise_level, rms_dbfs
from bi_audio_dataset.picture import PictureProbe, look_at
from bi_audio_dataset.plugins import load_plugins
from bi_audio_dataset.render import denoise, high_passed, true_peak
from bi_audio_dataset.review.evidence import Evidence, collect
from bi_audio_dataset.schema import (
    AUDIO_RATE_HZ,
    ClipRecord,
    Direction,
    Filters,
    TruthTrack,
)
from bi_audio_dataset.sound import RecordingSound, window_starts
from bi_audio_dataset.sources.base import Recording
from bi_audio_dataset.trajectory import CameraPath
from bi_audio_dataset.truth import caption_of, view_truth
from bi_audio_dataset.unusable import Unusable
from bi_audio_dataset.views import film_size, recode_film, render_views, sampled

__all__ = [
    "BuildConfig",
    "ClipMaker",
    "Unusable",
    "caption_of",
    "choose_hfov",
    "clip_rng",
    "lr_difference",
    "normalise_level",
    "true_peak",
    "view_truth",
]


@dataclass
class Made:
    """What a recording gave: the clips that stay, and one manifest row for it and for each clip, kept or
    not."""

    records: list[ClipRecord] = field(default_factory=list)
    recording: dict[str, Any] = field(default_factory=dict)
    clips: list[dict[str, Any]] = field(default_factory=list)
    # what the review page shows of a clip's recording, by clip id; empty unless it was asked for
    evidence: dict[str, Evidence] = field(default_factory=dict)
    # seconds that the windows took: what a longer recording takes more of (forecast.py)
    windows_s: float = 0.0


class ClipMaker:
    """Turns recordings into clips; holds what is the same for all: the HRIR set, its decoder, filter
    models."""

    def __init__(self, config: BuildConfig, evidence: bool = False) -> None:
        self.config, self.evidence = config, evidence
        self.hrirs = load_hrirs(config)
        self.decoder = BinauralDecoder(self.hrirs)
        self.plugins = load_plugins(config.selection)

    def __call__(self, recording: Recording, source_name: str, split: str) -> list[ClipRecord]:
        """The clips of `make`."""
        return self.make(recording, source_name, split).records

    def make(
        self, recording: Recording, source_name: str, split: str, renders: dict[str, int] | None = None
    ) -> Made:
        """All whole windows of clip_s, from time 0, that the filters leave.

        A recording of kind "pair" has its own perspective picture and two ears: nothing is rendered.
        renders: {clip id: which rendering is asked for}; a reviewer who wants another camera path asks for
        the next. UserError if the recording as a whole is of no use: too short, damaged, not what it should
        be.
        """
        config, pair = self.config, recording.kind == "pair"
        info = media.probe(recording.video_path)
        sound = RecordingSound(recording)
        common_s = min(sound.duration_s, info.duration_s)
        whole = self._whole_findings(recording, sound, info)
        judged = rules.verdict(whole)
        starts_s = window_starts(recording.stretches, common_s, config.clip_s)
        if not starts_s:
            why = f"recording '{recording.recording_id}' lasts {common_s:.2f} s"
            why += ", of which no stretch holds" if recording.stretches else ", shorter than"
            reasons = {"too_short": f"{why} one clip of {config.clip_s:g} s"}
            raise Unusable(reasons, judged.measures | {"too_short.duration_s": round(common_s, 3)})
        if not judged.accepted:
            named = {name: f"'{recording.recording_id}': {why}" for name, why in judged.reasons.items()}
            raise Unusable(named, judged.measures)
        made = Made(recording=recording_row(recording, source_name, split, judged, common_s, len(starts_s)))
        begun_s = time.perf_counter()
        for number, start_s in enumerate(starts_s):
            clip_id = window_id(recording.recording_id, number, len(starts_s))
            audio = sound.read(start_s, config.num_samples)
            if not pair:
                audio = denoise(audio, AUDIO_RATE_HZ, config.denoiser)
            window = Window(recording, source_name, split, number, clip_id, start_s, audio, whole)
            (self._pair if pair else self._panorama)(window, made, renders or {})
        made.windows_s = time.perf_counter() - begun_s
        return made

    def _panorama(self, window: Window, made: Made, renders: dict[str, int]) -> None:
        config, foa = self.config, window.audio
        findings = [*window.findings, *self._sound_findings(foa)]
        if not rules.verdict(findings).accepted:
            made.clips.append(clip_row(window, self.config.clip_s, findings))
            return
        planned = WindowCameras(foa, window.recording.recording_id, window.number, config)
        plans = [self._plan(window, planned, view, renders) for view in range(config.views_per_recording)]
        times_s = window.start_s + np.arange(config.num_frames) / config.fps
        probe = self._probe(len(times_s), panorama=True, trusted=window.recording.trust_picture)
        cameras = [(camera.path.rotations(), camera.hfov_deg) for _, _, camera in plans]
        videos = render_views(window.recording.video_path, times_s, cameras, config, probe)
        findings += probe.findings()
        prints = self._fingerprint(foa[0], probe)
        for (clip_id, draw, camera), video in zip(plans, videos, strict=True):
            rotations, hfov_deg, facing = camera.path.rotations(), camera.hfov_deg, camera.facing
            ears = render_binaural(foa, self.decoder, rotations, config.fps, AUDIO_RATE_HZ)
            ears, gain_db = normalise_level(ears, config)
            truth = TruthTrack(
                sources=tuple(
                    view_truth(t, window.start_s, rotations, hfov_deg, config) for t in window.recording.truth
                )
            )
            record = self._record(
                window,
                id=clip_id,
                video=video,
                audio=encode_flac(ears),
                caption=caption_of(truth, config),
                width=config.width,
                height=config.height,
                hfov_deg=hfov_deg,
                camera=camera_track(camera.path),
                truth=truth,
                hrir_set=self.hrirs.name,
                hrir_symmetric=bool(self.hrirs.symmetric),
                filters=self._figures(ears, gain_db, facing["confidence"]),
                direction=Direction(*(facing[f.name] for f in fields(Direction))),
            )
            more = {"draw": draw, "direction": facing}
            kept = self._add(made, window, findings, record, ears, prints, more)
            if kept and self.evidence and probe.middle is not None:
                heard = high_passed(foa, AUDIO_RATE_HZ, config.aim_from_hz)
                made.evidence[clip_id] = collect(probe.middle, heard, AUDIO_RATE_HZ, draw["render"])

    def _pair(self, window: Window, made: Made, renders: dict[str, int]) -> None:
        config, recording = self.config, window.recording
        findings = [*window.findings, *self._sound_findings(window.audio)]
        if not rules.verdict(findings).accepted:
            made.clips.append(clip_row(window, self.config.clip_s, findings))
            return
        info = media.probe(recording.video_path)
        width, height = film_size(info.width, info.height, config)
        times_s = window.start_s + np.arange(config.num_frames) / config.fps
        probe = self._probe(len(times_s), panorama=False)
        video = recode_film(recording.video_path, times_s, (width, height), config, probe)
        findings += probe.findings()
        ears, gain_db = normalise_level(window.audio, config)
        stated = recording.hfov_deg
        record = self._record(
            window,
            id=window.clip_id,
            video=video,
            audio=encode_flac(ears),
            caption=captions.compose([], []),
            width=width,
            height=height,
            # a lens that nobody knows counts as the usual one; the manifest says so
            hfov_deg=float(stated or config.hfov_fixed_deg),
            camera=camera_track(CameraPath.fixed(config.num_frames, config.fps)),
            truth=TruthTrack(),
            hrir_set=recording.ears,
            hrir_symmetric=recording.mono,  # of equal ears one is the other's mirror image
            filters=self._figures(ears, gain_db, 0.0),
        )
        prints = self._fingerprint(window.audio.mean(axis=0), probe)
        more = {"draw": {"render": renders.get(window.clip_id, 0)}, "hfov_known": stated is not None}
        self._add(made, window, findings, record, ears, prints, more)

    def _whole_findings(
        self, recording: Recording, sound: RecordingSound, info: media.MediaInfo
    ) -> list[Finding]:
        chosen = self.config.selection
        power = sound.power()
        found = [rules.lengths(sound.duration_s, info.duration_s, chosen.length_mismatch)]
        if recording.kind == "panorama":
            found += rules.channels(power, chosen.dead_channel, chosen.planar)
            if chosen.not_equirectangular.action != "off":
                found.append(
                    look_at(recording.video_path, info, chosen.not_equirectangular, recording.trust_picture)
                )
        return [finding for finding in found if finding.action != "off"]

    def _plan(
        self, window: Window, cameras: WindowCameras, view: int, renders: dict[str, int]
    ) -> tuple[str, dict[str, int], Camera]:
        """(clip id, what its random numbers come from, camera)."""
        clip_id = view_id(window.clip_id, view, self.config.views_per_recording)
        render = renders.get(clip_id, 0)
        draw = {"seed": self.config.seed, "window": window.number, "view": view, "render": render}
        return clip_id, draw, cameras.camera(view, render)

    def _sound_findings(self, audio: np.ndarray) -> list[Finding]:
        chosen = self.config.selection
        found = []
        if chosen.silent.action != "off":
            found.append(rules.silence(audio, AUDIO_RATE_HZ, chosen.silent))
        if chosen.clipped.action != "off":
            found.append(rules.clipping(audio, chosen.clipped))
        return found

    def _probe(self, num_frames: int, panorama: bool, trusted: bool = False) -> PictureProbe:
        config = self.config
        count = len(sampled(num_frames, config.fps, config.selection.static.rate_hz))
        return PictureProbe(config.selection, count, panorama, trusted)

    def _fingerprint(self, mono: np.ndarray, probe: PictureProbe) -> dict[str, str]:
        if self.config.selection.duplicate.action == "off":
            return {}
        return to_text(probe.hashes(), audio_fingerprint(mono, AUDIO_RATE_HZ))

    def _figures(self, ears: np.ndarray, gain_db: float, confidence: float) -> Filters:
        return Filters(
            lr_difference=lr_difference(ears),
            direction_confidence=float(confidence),
            level_gain_db=gain_db,
            rms_dbfs=rms_dbfs(ears),
            true_peak_dbfs=decibel(true_peak(ears)),
        )

    def _record(self, window: Window, **fields: Any) -> ClipRecord:
        recording = window.recording
        return ClipRecord(
            recording_id=recording.recording_id,
            split=window.split,
            duration_s=self.config.clip_s,
            fps=self.config.fps,
            room=recording.room,
            source_name=window.source_name,
            provenance=recording.provenance,
            licence=recording.licence,
            **fields,
        )

    def _add(
        self,
        made: Made,
        window: Window,
        findings: list[Finding],
        record: ClipRecord,
        ears: np.ndarray,
        prints: dict[str, str],
        more: dict[str, Any],
    ) -> bool:
        """The last filters, which hear the finished clip; then its row and, if it stays, the clip itself."""
        config, chosen = self.config, self.config.selection
        findings = list(findings)
        if chosen.weak_cue.action != "off" and not window.recording.mono:
            findings.append(rules.weak_cue(record.filters.lr_difference, chosen.weak_cue))
        if self.plugins and rules.verdict(findings).accepted:
            frames = _frames_of(record)
            findings += [plugin.judge(frames, ears, AUDIO_RATE_HZ) for plugin in self.plugins]
        row = clip_row(window, config.clip_s, findings, record, {**more, "fingerprint": prints})
        made.clips.append(row)
        if row["decision"] == "accept":
            made.records.append(record)
        return row["decision"] == "accept"


def load_hrirs(config: BuildConfig) -> HrirSet:
    hrirs = spherical_head(AUDIO_RATE_HZ) if config.sofa is None else load_sofa(config.sofa, AUDIO_RATE_HZ)
    return hrirs.symmetrised() if config.symmetrise_hrirs and not hrirs.symmetric else hrirs


def encode_flac(ears: np.ndarray) -> bytes:
    """(2, N) float32 at AUDIO_RATE_HZ -> a 16-bit FLAC file."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, ears.T, AUDIO_RATE_HZ, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def _frames_of(record: ClipRecord) -> np.ndarray:
    """Two pictures a second of a finished clip (T, H, W, 3)."""
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        file.write(record.video)
        file.flush()
        return media.read_frames(file.name, np.arange(0, record.duration_s, 0.5), num_threads=1)
