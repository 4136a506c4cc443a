"""One 360-degree recording in, clip records out: first direction, camera path, view, ears, truth, caption.

All randomness of a clip comes from (seed, recording id, window), never from a worker or an order.
"""

from __future__ import annotations

import io
import math
import zlib
from dataclasses import dataclass, field

import numpy as np

from bi_audio_dataset import ambisonics, captions, media, sphere
from bi_audio_dataset.binaural import BinauralDecoder, render_binaural
from bi_audio_dataset.hrtf import HrirSet, load_sofa, spherical_head
from bi_audio_dataset.schema import (
    AUDIO_RATE_HZ,
    TRUTH_RATE_HZ,
    CameraTrack,
    ClipRecord,
    Filters,
    SourceTruth,
    SourceView,
    TruthTrack,
    UserError,
    in_view,
)
from bi_audio_dataset.sources.base import Recording
from bi_audio_dataset.trajectory import CameraPath, TrajectoryConfig, random_path
from bi_audio_dataset.viewport import Viewport

QUIET = 1e-12


@dataclass(frozen=True)
class BuildConfig:
    """How clips are cut out of recordings. Angles in degrees."""

    seed: int = 0
    clip_s: float = 8.0
    width: int = 256
    height: int = 144
    fps: float = 25.0
    crf: int = 20
    preset: str = "veryfast"
    # first direction: that of most energy, offset by the trajectory; now and then any, for off-screen sound
    random_yaw_probability: float = 0.08
    trajectory: TrajectoryConfig = field(
        default_factory=lambda: TrajectoryConfig(first_yaw_offset_deg=25.0, first_pitch_offset_deg=8.0)
    )
    hfov_fixed_deg: float = 90.0
    hfov_fixed_probability: float = 0.5
    hfov_range_deg: tuple[float, float] = (50.0, 110.0)
    sofa: str | None = None  # None: the spherical-head model
    symmetrise_hrirs: bool = True
    # level: RMS is brought here, within the gain and the true peak
    rms_dbfs: float = -20.0
    true_peak_dbfs: float = -1.0
    max_gain_db: float = 40.0
    # caption: an object is visible if it is on view in this part of the frames in which it sounds
    visible_fraction: float = 0.3
    active_db: float = -40.0
    rows_per_shard: int = 100

    @property
    def num_frames(self) -> int:
        return round(self.clip_s * self.fps)

    @property
    def num_samples(self) -> int:
        return round(self.clip_s * AUDIO_RATE_HZ)


class ClipMaker:
    """Turns recordings into clips; holds what is the same for all: the HRIR set and its decoder."""

    def __init__(self, config: BuildConfig) -> None:
        self.config = config
        self.hrirs = load_hrirs(config)
        self.decoder = BinauralDecoder(self.hrirs)

    def __call__(self, recording: Recording, source_name: str, split: str) -> list[ClipRecord]:
        """All whole windows of clip_s, from time 0. UserError if the recording is shorter than one."""
        foa, _ = media.read_audio(recording.audio_path, AUDIO_RATE_HZ)
        if foa.shape[0] < 4:
            raise UserError(
                f"'{recording.audio_path.name}' has {foa.shape[0]} audio channels, expected at least 4 "
                "(AmbiX: W, Y, Z, X): give the recording's ambisonic track"
            )
        foa = foa[:4]
        # encoders may drop the last packet: a tenth of a second of silence is forgiven
        windows = int((foa.shape[1] + AUDIO_RATE_HZ // 10) // self.config.num_samples)
        if windows == 0:
            raise UserError(
                f"recording '{recording.recording_id}' lasts {foa.shape[1] / AUDIO_RATE_HZ:.2f} s, "
                f"shorter than one clip of {self.config.clip_s:g} s"
            )
        return [self._clip(recording, foa, window, windows, source_name, split) for window in range(windows)]

    def _clip(
        self, recording: Recording, foa: np.ndarray, window: int, windows: int, source_name: str, split: str
    ) -> ClipRecord:
        config = self.config
        rng = clip_rng(config.seed, recording.recording_id, window)
        start_s = window * config.clip_s
        foa = _fit(foa[:, round(start_s * AUDIO_RATE_HZ) :], config.num_samples)

        hfov_deg = choose_hfov(rng, config)
        azimuth, elevation, confidence = ambisonics.max_energy_direction(foa, AUDIO_RATE_HZ)
        yaw = first_yaw(rng, azimuth, config)
        # a recording whose energy points far up or down is still looked at from near the horizon
        first_pitch = float(np.clip(elevation, *np.radians(config.trajectory.pitch_range_deg)))
        limits = config.trajectory.within_view(hfov_deg, math.degrees(first_pitch))
        path = random_path(rng, config.num_frames, config.fps, yaw, first_pitch, limits)
        rotations = path.rotations()

        video = self._render_video(recording, start_s, rotations, hfov_deg)
        ears = render_binaural(foa, self.decoder, rotations, config.fps, AUDIO_RATE_HZ)
        ears, gain_db = normalise_level(ears, config)

        truth = TruthTrack(
            sources=tuple(view_truth(t, start_s, rotations, hfov_deg, config) for t in recording.truth)
        )
        return ClipRecord(
            id=recording.recording_id if windows == 1 else f"{recording.recording_id}-{window:04d}",
            recording_id=recording.recording_id,
            split=split,
            video=video,
            audio=encode_flac(ears),
            caption=caption_of(truth, config),
            duration_s=config.clip_s,
            width=config.width,
            height=config.height,
            fps=config.fps,
            hfov_deg=hfov_deg,
            camera=camera_track(path),
            truth=truth,
            hrir_set=self.hrirs.name,
            hrir_symmetric=bool(self.hrirs.symmetric),
            room=recording.room,
            source_name=source_name,
            provenance=recording.provenance,
            licence=recording.licence,
            filters=Filters(
                lr_difference=lr_difference(ears),
                direction_confidence=float(confidence),
                level_gain_db=gain_db,
                rms_dbfs=_db(math.sqrt(float(np.mean(np.square(ears, dtype=np.float64))))),
                true_peak_dbfs=_db(true_peak(ears)),
            ),
        )

    def _render_video(
        self, recording: Recording, start_s: float, rotations: np.ndarray, hfov_deg: float
    ) -> bytes:
        config = self.config
        times_s = start_s + np.arange(config.num_frames) / config.fps

        def views():
            viewport, done = None, 0
            for block in media.iter_frames(recording.video_path, times_s):
                for frame, rotation in zip(block, rotations[done : done + len(block)], strict=True):
                    if viewport is None:
                        viewport = Viewport(
                            config.width,
                            config.height,
                            math.radians(hfov_deg),
                            frame.shape[1],
                            frame.shape[0],
                        )
                    yield viewport.render(frame, rotation)
                done += len(block)

        return media.encode_video_bytes(views(), config.fps, crf=config.crf, preset=config.preset)


def clip_rng(seed: int, recording_id: str, window: int = 0) -> np.random.Generator:
    """The clip's own random numbers."""
    return np.random.default_rng(np.random.SeedSequence((seed, zlib.crc32(recording_id.encode()), window)))


def load_hrirs(config: BuildConfig) -> HrirSet:
    hrirs = spherical_head(AUDIO_RATE_HZ) if config.sofa is None else load_sofa(config.sofa, AUDIO_RATE_HZ)
    return hrirs.symmetrised() if config.symmetrise_hrirs and not hrirs.symmetric else hrirs


def choose_hfov(rng: np.random.Generator, config: BuildConfig) -> float:
    """Horizontal field of view in degrees. Draws two numbers whatever it returns."""
    fixed, other = rng.random() < config.hfov_fixed_probability, rng.uniform(*config.hfov_range_deg)
    return float(config.hfov_fixed_deg if fixed else other)


def first_yaw(rng: np.random.Generator, azimuth_rad: float, config: BuildConfig) -> float:
    """Yaw before the trajectory's offset, radians. Draws two numbers whatever it returns."""
    anywhere, any_yaw = rng.random() < config.random_yaw_probability, rng.uniform(-math.pi, math.pi)
    return float(any_yaw if anywhere else azimuth_rad)


def true_peak(audio: np.ndarray) -> float:
    """Peak of the band-limited waveform, by fourfold oversampling (after ITU-R BS.1770). (C, N) -> linear."""
    import soxr

    upsampled = soxr.resample(audio.T, 1.0, 4.0, quality="HQ")
    return float(max(np.abs(audio).max(initial=0), np.abs(upsampled).max(initial=0)))


def normalise_level(ears: np.ndarray, config: BuildConfig) -> tuple[np.ndarray, float]:
    """One gain for both ears, so ILD never changes: RMS to rms_dbfs, but true peak at most true_peak_dbfs and
    gain at most max_gain_db. (2, N) -> (2, N) float32, gain in dB. Silence is left as it is."""
    rms = math.sqrt(float(np.mean(np.square(ears, dtype=np.float64))))
    if rms < QUIET:
        return ears.astype(np.float32), 0.0
    gain_db = min(
        config.rms_dbfs - _db(rms), config.true_peak_dbfs - _db(true_peak(ears)), config.max_gain_db
    )
    return (ears * 10 ** (gain_db / 20)).astype(np.float32), float(gain_db)


def lr_difference(ears: np.ndarray) -> float:
    """sum((L-R)^2) / (2 sum(L^2+R^2)): 0 for equal ears, 0.5 for uncorrelated ones, 1 for opposite."""
    left, right = ears.astype(np.float64)
    total = float(np.sum(left**2 + right**2))
    return float(np.sum((left - right) ** 2)) / (2 * total) if total > QUIET else 0.0


def camera_track(path: CameraPath) -> CameraTrack:
    yaw, pitch, roll = (np.degrees(a).tolist() for a in (path.yaw_rad, path.pitch_rad, path.roll_rad))
    return CameraTrack(float(path.rate_hz), tuple(yaw), tuple(pitch), tuple(roll))


def view_truth(
    truth: SourceTruth, start_s: float, rotations: np.ndarray, hfov_deg: float, config: BuildConfig
) -> SourceView:
    """Truth of one window in the camera's frame. rotations (F, 3, 3) are camera-to-world at config.fps."""
    count = round(config.clip_s * TRUTH_RATE_HZ)
    first = round(start_s * TRUTH_RATE_HZ)
    pick = np.clip(np.arange(first, first + count), 0, len(truth.azimuth_rad) - 1)
    at = np.minimum(np.round(np.arange(count) / TRUTH_RATE_HZ * config.fps).astype(int), len(rotations) - 1)

    world = sphere.direction(truth.azimuth_rad[pick], truth.elevation_rad[pick])
    azimuth, elevation = sphere.angles(sphere.to_camera(world, rotations[at]))
    on_view = in_view(azimuth, elevation, hfov_deg, config.width / config.height)
    onsets = [t - start_s for t in truth.onset_s if start_s <= t < start_s + config.clip_s]
    return SourceView(
        class_name=truth.class_name,
        member=truth.member,
        caption=truth.caption,
        azimuth_deg=_degrees(azimuth),
        elevation_deg=_degrees(elevation),
        lateral_deg=_degrees(sphere.lateral_angle(azimuth, elevation)),
        distance_m=_floats(truth.distance_m[pick]),
        size_deg=_degrees(truth.size_rad[pick]),
        visible=tuple(bool(v) for v in on_view & (truth.on_screen_kind != "none")),
        onset_s=_floats(onsets),
        envelope_db=_floats(truth.envelope_db[pick]),
    )


def caption_of(truth: TruthTrack, config: BuildConfig) -> str:
    """Which objects are heard, and which of them are seen. Objects that never sound are not named."""
    visible, invisible = [], []
    for view in truth.sources:
        active = np.asarray(view.envelope_db) > config.active_db
        if active.any():
            seen = np.asarray(view.visible)[active].mean() >= config.visible_fraction
            (visible if seen else invisible).append(view.caption)
    return captions.compose(visible, invisible)


def encode_flac(ears: np.ndarray) -> bytes:
    """(2, N) float32 at AUDIO_RATE_HZ -> a 16-bit FLAC file."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, ears.T, AUDIO_RATE_HZ, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def _fit(audio: np.ndarray, num_samples: int) -> np.ndarray:
    audio = audio[:, :num_samples]
    return np.pad(audio, ((0, 0), (0, num_samples - audio.shape[1])))


def _db(value: float) -> float:
    return 20 * math.log10(max(value, 1e-9))


def _floats(values) -> tuple[float, ...]:
    return tuple(float(v) for v in values)


def _degrees(values) -> tuple[float, ...]:
    return _floats(np.degrees(values))
