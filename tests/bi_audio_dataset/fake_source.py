"""A tiny corpus: a white square on grey that ticks, at a known azimuth, in a 160x80 panorama."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bi_audio_dataset import ambisonics, media
from bi_audio_dataset.build_config import BuildConfig
from bi_audio_dataset.schema import AUDIO_RATE_HZ, TRUTH_RATE_HZ, SourceTruth, UserError
from bi_audio_dataset.sources.base import Recording
from bi_audio_dataset.trajectory import TrajectoryConfig

WIDTH, HEIGHT = 160, 80


def tiny_config(**changes) -> BuildConfig:
    return BuildConfig(**{"clip_s": 0.8, "width": 64, "height": 36, "rows_per_shard": 2, **changes})


def still_camera() -> TrajectoryConfig:
    """Looks exactly where it is told, without motion."""
    return TrajectoryConfig(
        static_probability=1.0,
        first_yaw_offset_deg=0.0,
        first_pitch_offset_deg=0.0,
        roll_range_deg=(0.0, 0.0),
    )


@dataclass(frozen=True)
class FakeSource:
    azimuths_deg: tuple[float, ...] = (30.0, -60.0, 100.0)
    duration_s: float = 0.8
    broken: tuple[int, ...] = ()
    deadly: tuple[int, ...] = ()
    kind: str = "square"
    name: str = "fake"

    @property
    def settings(self):
        return {"azimuths_deg": list(self.azimuths_deg)}

    def recording_ids(self) -> list[str]:
        return [f"fake-{i}" for i in range(len(self.azimuths_deg))]

    def split(self, recording_id: str) -> str:
        return "test" if recording_id == "fake-0" else "train"

    def fetch(self, recording_id: str, workdir: Path) -> Recording:
        index = int(recording_id.split("-")[1])
        if index in self.broken:
            raise UserError(f"'{recording_id}' is broken")
        if index in self.deadly:
            os._exit(9)  # what the kernel's memory killer does to a worker
        azimuth_deg = self.azimuths_deg[index]
        frames, truth = scene(azimuth_deg, self.duration_s, self.kind)
        video, audio = workdir / "v.mp4", workdir / "a.flac"
        media.write_video(video, frames, fps=25, crf=10, preset="ultrafast")
        signal = ticks(round(self.duration_s * AUDIO_RATE_HZ), index)
        media.write_audio(audio, ambisonics.encode(signal, np.radians(azimuth_deg), 0.0), AUDIO_RATE_HZ)
        return Recording(recording_id, video, audio, "CC0-1.0", "made by the test", "none", (truth,))


def scene(azimuth_deg: float, duration_s: float, kind: str = "square") -> tuple[np.ndarray, SourceTruth]:
    count = round(duration_s * TRUTH_RATE_HZ)
    frames = np.full((count, HEIGHT, WIDTH, 3), 60, np.uint8)
    column = round((0.5 - azimuth_deg / 360) * WIDTH)
    frames[:, HEIGHT // 2 - 3 : HEIGHT // 2 + 3, np.arange(column - 3, column + 3) % WIDTH] = 250
    full = np.full(count, 1.0)
    truth = SourceTruth(
        class_name="square",
        member="white",
        caption="a white square",
        on_screen_kind=kind,
        azimuth_rad=np.radians(azimuth_deg) * full,
        elevation_rad=0 * full,
        distance_m=2 * full,
        size_rad=0.2 * full,
        onset_s=(0.1, 0.5),
        envelope_db=np.where(np.arange(count) % 10 < 5, 0.0, -80.0),
    )
    return frames, truth


def ticks(samples: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(samples)
    gate = (np.arange(samples) % (AUDIO_RATE_HZ // 4)) < AUDIO_RATE_HZ // 10
    return (0.05 * noise * gate).astype(np.float32)
