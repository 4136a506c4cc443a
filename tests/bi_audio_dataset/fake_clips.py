"""A dataset folder of a few clips without a build: rows with real media, written straight into shards or "
"parts."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bi_audio_dataset import media
from bi_audio_dataset.captions import UNKNOWN
from bi_audio_dataset.clip import encode_flac
from bi_audio_dataset.schema import AUDIO_RATE_HZ, SCHEMA_VERSION
from bi_audio_dataset.shards import arrow_schema

DURATION_S, FPS, WIDTH, HEIGHT = 0.8, 25, 64, 36


def row(
    clip_id: str, confidence: float | None = 0.5, caption: str = UNKNOWN, left: float = 0.1, **more
) -> dict:
    """A clip of grey frames that brighten; left and right amplitudes of its noise are `left` and 0.1."""
    count = round(DURATION_S * FPS)
    levels = np.arange(count, dtype=np.uint8)[:, None, None, None] * 8
    frames = np.broadcast_to(levels, (count, HEIGHT, WIDTH, 3))
    noise = np.random.default_rng(0).uniform(-1, 1, (1, round(DURATION_S * AUDIO_RATE_HZ)))
    mp4, flac = (
        media.encode_video_bytes(frames, FPS, preset="ultrafast"),
        encode_flac(noise * [[left], [0.1]]),
    )
    still = [0.0] * count
    return {
        "schema_version": SCHEMA_VERSION,
        "id": clip_id,
        "recording_id": clip_id.split("-")[0],
        "split": "train",
        "video": {"bytes": mp4, "path": f"{clip_id}.mp4"},
        "audio": {"bytes": flac, "path": f"{clip_id}.flac"},
        "caption": caption,
        "duration_s": DURATION_S,
        "width": WIDTH,
        "height": HEIGHT,
        "fps": FPS,
        "hfov_deg": 90.0,
        "camera": {"rate_hz": FPS, "yaw_deg": still, "pitch_deg": still, "roll_deg": still},
        "truth": {"rate_hz": 25.0, "sources": []},
        "hrir_set": "sphere",
        "hrir_symmetric": True,
        "room": "",
        "source_name": "fake",
        "provenance": "made by the test",
        "licence": "CC0-1.0",
        "filters": {"direction_confidence": confidence, "lr_difference": 0.2, "rms_dbfs": -20.0},
        "direction": None,
        **more,
    }


def truth_source(**changes) -> dict:
    count = round(DURATION_S * 25)
    flat = {"elevation_deg": 0.0, "lateral_deg": 30.0, "distance_m": 2.0, "size_deg": 5.0, "envelope_db": 0.0}
    arrays = {name: [value] * count for name, value in {"azimuth_deg": 30.0, **flat, **changes}.items()}
    words = {"class_name": "bell", "member": "large", "caption": "a bell"}
    return {**words, **arrays, "visible": [True] * count, "onset_s": [0.1]}


def write(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=arrow_schema()), path, row_group_size=2)


def dataset(folder: Path, rows: list[dict]) -> Path:
    write(folder / "data" / "train-00000-of-00001.parquet", rows)
    return folder
