"""Sounds written for a test: noise bursts that differ by seed, in whatever container is asked for."""

from pathlib import Path

import av
import numpy as np
import soundfile


def noise(seconds: float = 0.5, rate: int = 8000, channels: int = 2, seed: int = 0, level: float = 0.1):
    """(S, C) float32."""
    rng = np.random.default_rng(seed)
    return (level * rng.standard_normal((round(seconds * rate), channels))).astype(np.float32)


def write(path: Path, samples=None, rate: int = 8000, **options) -> Path:
    """A .wav, .flac, .ogg, .mp3 by libsndfile; .m4a by PyAV."""
    samples = noise(rate=rate) if samples is None else samples
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".m4a":
        return _write_aac(path, samples, rate)
    soundfile.write(path, samples, rate, **options)
    return path


def _write_aac(path: Path, samples, rate: int) -> Path:
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("aac", rate=rate)
        stream.layout = "stereo"
        for start in range(0, len(samples), 1024):
            block = np.ascontiguousarray(samples[start : start + 1024].T)
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = rate, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def cut_short(path: Path, share: float = 0.6) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path
