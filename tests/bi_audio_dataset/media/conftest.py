"""Small videos whose frames say their own number, made with PyAV so that no media file is shipped."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

GREY_STEP = 4


class VideoMaker:
    """Writes test videos; frame n is grey of level 20 + 4 n, so `numbers` reads n back from a picture."""

    def __call__(
        self,
        path: Path,
        pts_ms=None,
        num_frames=25,
        size=(64, 48),
        codec="libx264",
        pix_fmt="yuv420p",
        pictures=None,
        audio_CN=None,
        audio_codec="aac",
        audio_rate=44100,
        audio_start_ms=0,
        options=None,
        movflags="",
        gop=10,
    ) -> Path:
        pts_ms = [40 * n for n in range(num_frames)] if pts_ms is None else pts_ms
        with av.open(str(path), "w", options={"movflags": movflags} if movflags else {}) as container:
            video = container.add_stream(codec, rate=25, options=options or {"qp": "0"})
            video.width, video.height, video.pix_fmt = *size, pix_fmt
            video.codec_context.time_base = Fraction(1, 1000)
            video.codec_context.gop_size = gop
            if codec == "libvpx":
                video.bit_rate = 2_000_000
            sound = None
            if audio_CN is not None:
                layout = {1: "mono", 2: "stereo", 4: "4.0"}[len(audio_CN)]
                sound = container.add_stream(audio_codec, rate=audio_rate, layout=layout)
            for number, pts in enumerate(pts_ms):
                level = 20 + GREY_STEP * number
                picture = (
                    np.full((size[1], size[0], 3), level, np.uint8) if pictures is None else pictures[number]
                )
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = pts, Fraction(1, 1000)
                container.mux(video.encode(frame))
            container.mux(video.encode())
            if sound is not None:
                is_flac = audio_codec == "flac"
                data = np.round(audio_CN * 32768).astype(np.int16).T.reshape(1, -1) if is_flac else audio_CN
                frame = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(data), format="s16" if is_flac else "fltp", layout=layout
                )
                frame.sample_rate, frame.time_base = audio_rate, Fraction(1, audio_rate)
                frame.pts = round(audio_start_ms * audio_rate / 1000)
                container.mux(sound.encode(frame))
                container.mux(sound.encode())
        return path

    @staticmethod
    def numbers(frames_THWC: np.ndarray) -> list[int]:
        """Which frame each picture is (yuv and scaling may darken it by 2 levels)."""
        return [round((float(frame.mean()) - 19) / GREY_STEP) for frame in frames_THWC]

    @staticmethod
    def with_matrix(source: Path, target: Path, matrix: tuple[int, int, int, int]) -> Path:
        """A copy of an mp4 whose display matrix has the given (a, b, c, d)."""
        data = bytearray(source.read_bytes())
        at = data.index(b"tkhd") + 44
        a, b, c, d = (value << 16 for value in matrix)
        data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
        target.write_bytes(bytes(data))
        return target

    @staticmethod
    def with_edit_list(source: Path, target: Path, hidden: int) -> Path:
        """A copy of an mp4 in which an edit list hides the first `hidden` frames of 40 ms."""
        with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
            stream = reader.streams.video[0]
            copy = writer.add_stream_from_template(stream)
            shift = round(Fraction(hidden * 40, 1000) / stream.time_base)
            for packet in reader.demux(stream):
                if packet.size:
                    packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                    packet.stream = copy
                    writer.mux(packet)
        return target

    @staticmethod
    def packets(path: Path) -> list[tuple[bytes, Fraction, bool]]:
        """(payload, presentation time in s, key frame) of every picture packet."""
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            return [
                (bytes(p), p.pts * stream.time_base, p.is_keyframe) for p in container.demux(stream) if p.size
            ]


@pytest.fixture(scope="session")
def make_video() -> VideoMaker:
    return VideoMaker()
