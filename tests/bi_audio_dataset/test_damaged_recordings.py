"""A film that is damaged in its middle, by the command line: the windows that lack pictures are left out or
marked, the others built."""

import av
import numpy as np
import pytest
from foa_films import panorama, signals

from bi_audio_dataset import manifest, media
from bi_audio_dataset.__main__ import main

RATE = 48000


def damaged_film(folder, first_s: float, last_s: float):
    """NAME.mp4 of 3 s, turning, with a key frame every second; what is between the two times is noise."""
    folder.mkdir()
    path, sphere = folder / "walk.mp4", panorama(seed=4)
    with av.open(str(path), "w") as film:
        video = film.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "10"})
        video.width, video.height, video.pix_fmt = 128, 64, "yuv420p"
        video.codec_context.gop_size = 25
        for number in range(75):
            picture = np.ascontiguousarray(np.roll(sphere, 3 * number, axis=1))
            film.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        film.mux(video.encode())
    media.write_audio(path.with_suffix(".flac"), signals(4, 3.0, RATE), RATE)
    with av.open(str(path)) as film:
        packets = [(p.pos, p.size, float(p.pts * p.time_base)) for p in film.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    for at, size, time_s in packets:
        if first_s <= time_s < last_s:
            data[at : at + size] = np.random.default_rng(at).bytes(size)
    path.write_bytes(bytes(data))


def built(tmp_path, *more) -> dict:
    command = ["build", str(tmp_path / "films"), "--output", str(tmp_path / "set"), "--channels", "ambix"]
    assert main([*command, "--clip-s", "1", "--size", "64x36", "--mark", "weak_cue", *more]) == 0
    rows = manifest.read(tmp_path / "set" / "manifest.jsonl")
    return {row["id"]: row for row in rows if row["kind"] == "clip"}


@pytest.mark.slow
def test_windows_without_pictures_are_left_out(tmp_path):
    damaged_film(tmp_path / "films", 1.0, 1.3)
    clips = built(tmp_path)
    assert {name: row["decision"] for name, row in clips.items()} == {
        "walk-0000": "accept",
        "walk-0001": "reject",
        "walk-0002": "accept",
    }
    bad = clips["walk-0001"]
    assert list(bad["reasons"]) == ["damaged_picture"]
    assert bad["reasons"]["damaged_picture"].startswith("1.00 s of the picture (100%) cannot be decoded")
    assert bad["measures"]["damaged_picture.seconds"] == 1.0
    assert clips["walk-0000"]["measures"]["damaged_picture.fraction"] == 0.0
    assert main(["validate", str(tmp_path / "set")]) == 0


@pytest.mark.slow
def test_less_than_a_second_is_measured_and_a_mark_keeps_the_clip(tmp_path):
    damaged_film(tmp_path / "films", 1.4, 1.6)
    clips = built(tmp_path, "--mark", "damaged_picture")
    assert {row["decision"] for row in clips.values()} == {"accept"}
    assert not any("damaged_picture" in row["marks"] for row in clips.values())
    measured = clips["walk-0001"]["measures"]
    assert measured["damaged_picture.fraction"] == measured["damaged_picture.seconds"] == 0.6
