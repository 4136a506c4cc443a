"""A BiAudio folder of a few seconds, made here: a bright square that sounds from where it is seen."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bi_audio_dataset.media import encode_video_bytes
from bi_audio_dataset.schema import (
    AUDIO_RATE_HZ,
    CameraTrack,
    ClipRecord,
    Filters,
    SourceView,
    TruthTrack,
)

DURATION_S = 2.0
WIDTH, HEIGHT, FPS, HFOV_DEG = 96, 54, 25, 90.0
CLASSES = {"bell": (220, 40, 40), "drum": (40, 60, 230)}


def fake_clip(index: int, split: str) -> ClipRecord:
    """A square of its class's colour, still; noise bursts at 0.4 and 1.2 s, louder at the near ear."""
    rng = np.random.default_rng(index)
    name = list(CLASSES)[index % 2]
    azimuth_deg = (30.0, -30.0, 10.0, -20.0)[index % 4]
    onsets = (0.4, 1.2)
    frames = int(DURATION_S * FPS)
    x = 0.5 - 0.5 * math.tan(math.radians(azimuth_deg))
    picture = np.full((HEIGHT, WIDTH, 3), 90, dtype=np.uint8)
    column = int(x * WIDTH)
    picture[HEIGHT // 2 - 6 : HEIGHT // 2 + 6, max(0, column - 6) : column + 6] = CLASSES[name]
    time = np.arange(int(DURATION_S * AUDIO_RATE_HZ)) / AUDIO_RATE_HZ
    envelope = sum(np.where(time >= onset, np.exp(-(time - onset) / 0.15), 0) for onset in onsets)
    sound = 0.2 * envelope * rng.standard_normal(len(time))
    gain = 10 ** (0.3 * azimuth_deg / 20 * np.array([0.5, -0.5]))  # 0.3 dB of ILD per degree
    file = io.BytesIO()
    soundfile.write(file, np.clip(sound[:, None] * gain, -1, 1), AUDIO_RATE_HZ, format="FLAC")
    at_frames = envelope[(np.arange(frames) * AUDIO_RATE_HZ // FPS).astype(int)]
    constant = lambda value: tuple(float(value) for _ in range(frames))  # noqa: E731
    view = SourceView(
        class_name=name, member=name, caption=f"a small {name}",
        azimuth_deg=constant(azimuth_deg), elevation_deg=constant(0), lateral_deg=constant(azimuth_deg),
        distance_m=constant(2), size_deg=constant(10), visible=tuple([True] * frames), onset_s=onsets,
        envelope_db=tuple(np.maximum(20 * np.log10(at_frames + 1e-9), -80).tolist()),
    )  # fmt: skip
    return ClipRecord(
        id=f"fake-{index:03d}", recording_id=f"fake-{index:03d}", split=split,
        video=encode_video_bytes([picture] * frames, FPS), audio=file.getvalue(),
        caption=f"Visible sound: a small {name}, Invisible sound: none", duration_s=DURATION_S,
        width=WIDTH, height=HEIGHT, fps=FPS, hfov_deg=HFOV_DEG,
        camera=CameraTrack(FPS, constant(0), constant(0), constant(0)), truth=TruthTrack(FPS, (view,)),
        hrir_set="none", hrir_symmetric=True, room="", source_name="fake", provenance="made in a test",
        licence="CC0-1.0", filters=Filters(0.1, 1.0, 0.0, -20.0, -1.0),
    )  # fmt: skip


@pytest.fixture(scope="session")
def fake_biaudio(tmp_path_factory) -> Path:
    """Three train rows and one validation row as Parquet, as the builder lays them out."""
    from bi_audio_dataset.shards import write_rows

    folder = tmp_path_factory.mktemp("biaudio")
    (folder / "data").mkdir()
    for split, indices in (("train", (0, 1, 2)), ("validation", (3,))):
        records = [fake_clip(index, split) for index in indices]
        write_rows(folder / "data" / f"{split}-00000-of-00001.parquet", records)
    return folder
