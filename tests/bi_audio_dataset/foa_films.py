"""Small films with multi-channel sound, written by PyAV; and mp4 boxes put into them by hand."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

#: PyAV cannot ask an encoder for what it lacks; a build without it skips the test.
ENCODERS = {"aac", "libopus", "flac", "pcm_s16le", "pcm_s24le", "pcm_f32le"}


def signals(channels: int, seconds: float, rate: int, seed: int = 0) -> np.ndarray:
    """(C, N) distinct low-passed noises of different levels, which every codec keeps."""
    noise = np.random.default_rng(seed).standard_normal((channels, round(seconds * rate) + 64))
    smooth = np.stack([np.convolve(row, np.hanning(65) / 32, mode="valid") for row in noise])
    levels = np.linspace(0.06, 0.03, channels)[:, None]
    return (smooth / smooth.std(axis=1, keepdims=True) * levels).astype(np.float32)


def panorama(size=(128, 64), seed: int = 0) -> np.ndarray:
    """A picture that closes around the sphere: waves of whole periods, different above and below."""
    width, height = size
    azimuth, elevation = np.meshgrid(np.arange(width) / width, np.arange(height) / height)
    phase = np.random.default_rng(seed).uniform(0, 6, 3)
    waves = [np.sin(2 * np.pi * (k + 1) * azimuth + phase[k] + 5 * elevation) for k in range(3)]
    return np.stack([np.uint8(128 + 70 * wave * (0.3 + elevation)) for wave in waves], axis=2)


def write_film(
    path: Path,
    sound: np.ndarray | None = None,
    rate: int = 48000,
    codec: str = "aac",
    layout: str = "4.0",
    options: dict | None = None,
    picture: np.ndarray | None = None,
    seconds: float | None = None,
    metadata: dict | None = None,
    movflags: str = "",
    pictures: list[np.ndarray] | None = None,
) -> Path:
    """A film of one picture at 25 Hz, as long as its sound: (C, N) float, stored in the given codec.

    pictures: as many as its length asks for, in place of the one.
    """
    if sound is not None and codec not in ENCODERS:
        raise ValueError(codec)
    if seconds is None:
        seconds = 1.0 if sound is None else sound.shape[1] / rate
    if pictures is None:
        pictures = [panorama() if picture is None else picture] * round(seconds * 25)
    picture = pictures[0]
    with av.open(str(path), "w", options={"movflags": movflags} if movflags else {}) as film:
        video = film.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "10"})
        video.width, video.height, video.pix_fmt = picture.shape[1], picture.shape[0], "yuv420p"
        video.metadata.update(metadata or {})
        track = None
        if sound is not None:
            try:
                track = film.add_stream(codec, rate=rate, layout=layout, options=options or {})
            except (av.codec.codec.UnknownCodecError, ValueError):
                pytest.skip(f"no encoder {codec}")
            track.bit_rate = 512_000
        for shown in pictures:
            film.mux(video.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        film.mux(video.encode())
        if track is not None:
            frame = _frame(sound, codec, layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
            film.mux(track.encode(frame))
            film.mux(track.encode())
    return path


def _frame(sound: np.ndarray, codec: str, layout: str) -> av.AudioFrame:
    if codec == "aac":
        return av.AudioFrame.from_ndarray(np.ascontiguousarray(sound), format="fltp", layout=layout)
    flat = np.ascontiguousarray(sound.T.reshape(1, -1))
    if codec in ("libopus", "pcm_f32le"):
        return av.AudioFrame.from_ndarray(flat, format="flt", layout=layout)
    if codec == "pcm_s24le":
        data = np.round(flat.astype(np.float64) * 2**23).astype(np.int32) << 8
        return av.AudioFrame.from_ndarray(data, format="s32", layout=layout)
    data = np.round(flat * 2**15).clip(-(2**15), 2**15 - 1).astype(np.int16)
    return av.AudioFrame.from_ndarray(data, format="s16", layout=layout)


def box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), name) + body


def sa3d(places=(0, 1, 2, 3), order=1, ordering=0, normalisation=0, head_locked=False, count=None) -> bytes:
    count = len(places) if count is None else count
    head = struct.pack(">BBIBBI", 0, 0x80 * head_locked, order, ordering, normalisation, count)
    return box(b"SA3D", head + struct.pack(f">{len(places)}I", *places))


def st3d(mode: int) -> bytes:
    return box(b"st3d", bytes(4) + bytes([mode]))


def sv3d(projection: bytes = b"equi", yaw_deg: float = 0.0) -> bytes:
    pose = struct.pack(">3i", round(yaw_deg * 65536), 0, 0)
    bounds = bytes(16) if projection == b"equi" else bytes(8)
    proj = box(b"prhd", bytes(4) + pose) + box(projection, bytes(4) + bounds)
    return box(b"sv3d", box(b"svhd", bytes(4) + b"test\0") + box(b"proj", proj))


# bytes of a box's own fields before its children
_FIELDS = {b"stsd": 8, b"mp4a": 28, b"Opus": 28, b"fLaC": 28, b"ipcm": 28, b"avc1": 78}


def insert_box(path: Path, entry: bytes, new: bytes) -> Path:
    """Appends a box to the sample entry of that name ("mp4a", "avc1"). moov must stand after the media."""
    data = bytearray(path.read_bytes())
    assert data.index(b"mdat") < data.index(b"moov")
    sizes = _way(data, 0, len(data), [b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", entry])
    assert sizes, f"no {entry}"
    last = sizes[-1]
    end = last + struct.unpack(">I", data[last : last + 4])[0]
    data[end:end] = new
    for at in sizes:
        size = struct.unpack(">I", data[at : at + 4])[0]
        data[at : at + 4] = struct.pack(">I", size + len(new))
    path.write_bytes(bytes(data))
    return path


def _way(data: bytearray, begin: int, end: int, names: list[bytes]) -> list[int]:
    """Where the boxes on the way to the last name begin; [] if there is no way."""
    at = begin
    while at + 8 <= end:
        size, name = struct.unpack(">I4s", data[at : at + 8])
        if name == names[0]:
            if len(names) == 1:
                return [at]
            below = _way(data, at + 8 + _FIELDS.get(name, 0), at + size, names[1:])
            if below:
                return [at, *below]
        at += size
    return []
