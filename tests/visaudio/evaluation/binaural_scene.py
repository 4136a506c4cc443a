"""A scene whose answer is known: a bright blob that crosses a textured picture, and the sound it makes."""

from pathlib import Path

import numpy as np

from bi_audio_dataset.hrtf import spherical_head
from bi_audio_dataset.media import write_video
from visaudio.data.dataset import Clip, SourceTrack

RATE, FPS, WIDTH, HEIGHT, HFOV_DEG = 22050, 25, 192, 108, 90.0


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))


def plane_wave(mono: np.ndarray, azimuth_deg) -> np.ndarray:
    """(S,) -> (2, S) at the ears of the spherical head; a moving source is cross-faded over 0.1 s blocks."""
    head = _head()
    block = RATE // 10
    azimuth = np.broadcast_to(np.asarray(azimuth_deg, float), (len(mono) // block + 2,))
    sound = np.zeros((2, len(mono) + head.hrirs.shape[-1] + 2 * block))
    fade = np.hanning(2 * block + 1)[:-1]
    padded = np.pad(mono, (block, 2 * block))
    for k, angle in enumerate(azimuth):
        part = padded[k * block : (k + 2) * block]
        part = part * fade[: len(part)]
        for ear in (0, 1):
            heard = np.convolve(part, head.nearest(np.radians(angle))[ear])
            start = k * block
            end = min(start + len(heard), sound.shape[1])
            sound[ear, start:end] += heard[: end - start]
    return sound[:, block : block + len(mono)].astype(np.float32)


_heads = []


def _head():
    if not _heads:
        _heads.append(spherical_head(RATE, elevation_step_deg=90.0, horizon_count=72))
    return _heads[0]


def texture(width: int = WIDTH, height: int = HEIGHT, seed: int = 1) -> np.ndarray:
    """(H, W, 3) uint8, smooth patches with corners to track."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 180, (height // 12 + 1, width // 12 + 1, 1), np.uint8)
    return np.repeat(np.repeat(np.repeat(coarse, 12, 0), 12, 1), 3, 2)[:height, :width]


def blob_video(path: Path, azimuth_deg: np.ndarray, size_px: int = 14) -> Path:
    """A blob at azimuth_deg (one a frame of FPS) that shimmers as it goes."""
    frames = []
    rng = np.random.default_rng(2)
    for angle in azimuth_deg:
        picture = texture().copy()
        column = 0.5 - np.tan(np.radians(angle)) / (2 * np.tan(np.radians(HFOV_DEG / 2)))
        x = round(column * WIDTH)
        rows = slice(HEIGHT // 2 - size_px // 2, HEIGHT // 2 + size_px // 2)
        picture[rows, max(0, x - size_px // 2) : max(0, x + size_px // 2)] = rng.integers(180, 256)
        frames.append(picture)
    write_video(path, frames, FPS)
    return path


def clip_of(azimuth_deg: np.ndarray, size_deg: float = 8.0, visible: bool = True, name: str = "bell") -> Clip:
    """What the row of such a scene says; azimuth_deg at FPS."""
    azimuth = np.asarray(azimuth_deg, float)
    zero = np.zeros(len(azimuth))
    source = SourceTrack(
        name, name, name, azimuth, zero, azimuth, zero + 2, zero + size_deg, (zero + visible).astype(bool),
        np.array([0.0]), zero - 3,
    )  # fmt: skip
    seconds = len(azimuth) / FPS
    return Clip("scene", "test", "", seconds, HFOV_DEG, WIDTH, HEIGHT, True, float(FPS), (source,))
