"""Frames come by timestamp, upright, and only those that a player shows."""

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from bi_audio_dataset import media
from bi_audio_dataset.media import frames as frames_module

VFR_MS = [0, 17, 90, 100, 140, 300, 333, 500, 700, 705, 720, 900]


@pytest.fixture(params=["decord", "pyav"])
def reader(request, monkeypatch):
    """Runs a test with each decoder; the meaning of a time must not depend on it."""
    opened = frames_module._open_decord
    if request.param == "pyav":
        monkeypatch.setattr(frames_module, "_open_decord", lambda *args, **kwargs: None)
    else:

        def open_checked(*args, **kwargs):
            result = opened(*args, **kwargs)
            assert result is not None, "decord was to read this file"
            return result

        monkeypatch.setattr(frames_module, "_open_decord", open_checked)
    return request.param


def expected_numbers(pts_ms, times_s):
    return [max(n for n, pts in enumerate(pts_ms) if n == 0 or pts / 1000 <= t + 1e-6) for t in times_s]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_variable_rate_gives_the_frame_on_screen(tmp_path, make_video, reader, suffix):
    path = make_video(tmp_path / f"vfr{suffix}", pts_ms=VFR_MS)
    exact = [pts / 1000 for pts in VFR_MS]
    times_s = np.array(exact + [t - 0.002 for t in exact] + [t + 0.003 for t in exact] + [0.6, 5.0])
    frames = media.read_frames(path, times_s)  # not sorted: read_frames takes any order
    assert make_video.numbers(frames) == expected_numbers(VFR_MS, times_s)


def test_probe_of_variable_rate(tmp_path, make_video):
    info = media.probe(make_video(tmp_path / "vfr.mp4", pts_ms=VFR_MS))
    assert info.is_variable_rate
    assert info.num_frames == len(VFR_MS)
    assert info.fps == pytest.approx((len(VFR_MS) - 1) / 0.9)
    assert 0.9 < info.duration_s <= 1.1
    assert (info.audio_channels, info.audio_rate) == (None, None)


def test_probe_of_constant_rate(tmp_path, make_video):
    audio = np.zeros((2, 44100), np.float32)
    info = media.probe(make_video(tmp_path / "cfr.mp4", audio_CN=audio))
    assert not info.is_variable_rate
    assert info.duration_s == pytest.approx(1.0, abs=1e-9)
    assert (info.fps, info.num_frames) == (pytest.approx(25.0), 25)
    assert (info.width, info.height, info.rotation_deg, info.first_frame_s) == (64, 48, 0, 0.0)
    assert (info.audio_channels, info.audio_rate) == (2, 44100)
    assert (info.container, info.video_codec) == ("mp4", "h264")


def test_millisecond_container_is_not_variable(tmp_path, make_video):
    info = media.probe(make_video(tmp_path / "thirty.mkv", pts_ms=[round(n * 1000 / 30) for n in range(30)]))
    assert not info.is_variable_rate
    assert info.container == "mkv"


def test_blocks_equal_the_whole(tmp_path, make_video, reader):
    path = make_video(tmp_path / "v.mp4", num_frames=50)
    times_s = np.arange(0, 2, 1 / 30)
    whole = media.read_frames(path, times_s, size=(80, 60))
    blocks = list(media.iter_frames(path, times_s, size=(80, 60), chunk=7))
    assert max(len(block) for block in blocks) == 7
    np.testing.assert_array_equal(np.concatenate(blocks), whole)
    assert make_video.numbers(whole) == [int(t * 25 + 1e-5) for t in times_s]


def test_large_pictures_come_from_pyav_one_by_one(tmp_path, make_video, monkeypatch):
    path = make_video(tmp_path / "vfr.mp4", pts_ms=VFR_MS)
    times_s = np.array([pts / 1000 for pts in VFR_MS])
    whole = media.read_frames(path, times_s)
    monkeypatch.setattr(frames_module, "DECORD_PIXELS", 100)
    monkeypatch.setattr(frames_module, "_open_decord", lambda *args, **kw: pytest.fail("decord was asked"))
    kept = list(media.iter_frames(path, times_s, chunk=1))
    assert [block.shape for block in kept] == [(1, *whole.shape[1:])] * len(times_s)
    # Each stays what it was while the next ones come.
    assert make_video.numbers(np.concatenate(kept)) == make_video.numbers(whole) == list(range(len(times_s)))
    assert all(block.flags.c_contiguous for block in kept)


def test_a_late_start_equals_the_tail(tmp_path, make_video, reader):
    path = make_video(tmp_path / "v.mp4", num_frames=50)
    assert make_video.numbers(media.read_frames(path, [1.5, 1.9, 1.62])) == [37, 47, 40]


def test_falling_times_are_an_error(tmp_path, make_video):
    path = make_video(tmp_path / "v.mp4")
    with pytest.raises(ValueError, match="falls"):
        next(media.iter_frames(path, [0.2, 0.1]))
    assert media.read_frames(path, []).shape == (0, 48, 64, 3)


QUADRANTS = np.zeros((200, 300, 3), np.uint8)
QUADRANTS[:100, :150], QUADRANTS[:100, 150:], QUADRANTS[100:, :150] = (250, 0, 0), (0, 250, 0), (0, 0, 250)


def corners(picture):
    h, w = picture.shape[:2]
    names = {True: "K", False: ""}
    return [
        names[bool(p.max() < 90)] or "RGB"[p.argmax()]
        for p in (picture[y, x] for y in (h // 5, h - h // 5) for x in (w // 5, w - w // 5))
    ]


@pytest.mark.parametrize(
    ("matrix", "rotation_deg", "upright"),
    [  # (a, b, c, d): x' = a x + c y, y' = b x + d y with y down; corners as top left, top right, bottom ...
        ((1, 0, 0, 1), 0, "RGBK"),
        ((0, 1, -1, 0), 270, "BRKG"),  # clockwise: a phone held upright
        ((-1, 0, 0, -1), 180, "KBGR"),
        ((0, -1, 1, 0), 90, "GKRB"),
        ((-1, 0, 0, 1), 0, "GRKB"),  # mirrors: selfie cameras
        ((1, 0, 0, -1), 180, "BKRG"),
        ((0, 1, 1, 0), 270, "RBGK"),
        ((0, -1, -1, 0), 90, "KGBR"),
    ],
)
def test_display_matrix(tmp_path, make_video, matrix, rotation_deg, upright):
    plain = make_video(tmp_path / "plain.mp4", size=(300, 200), pictures=[QUADRANTS] * 3, num_frames=3)
    path = make_video.with_matrix(plain, tmp_path / "turned.mp4", matrix)
    info = media.probe(path)
    width, height = (200, 300) if matrix[0] == 0 else (300, 200)
    assert (info.width, info.height, info.rotation_deg) == (width, height, rotation_deg)
    for size in (None, (160, 90)):
        frames = media.read_frames(path, [0.0, 0.1], size)
        assert frames.shape == (2, *(size or (width, height))[::-1], 3)
        assert corners(frames[1]) == list(upright)


@pytest.mark.parametrize("size", [(32, 20), (48, 27), (96, 54), (144, 81), (33, 21), (112, 112)])
def test_sizes_at_which_decord_pads_rows(tmp_path, make_video, size):
    path = make_video(tmp_path / "q.mp4", size=(300, 200), pictures=[QUADRANTS] * 3, num_frames=3)
    frames = media.read_frames(path, [0.0, 0.05], size)
    assert frames.shape == (2, size[1], size[0], 3)
    assert corners(frames[1]) == list("RGBK")


def test_odd_sides(tmp_path, make_video, reader):
    path = make_video(tmp_path / "odd.mp4", size=(301, 203), pix_fmt="yuv444p")
    frames = media.read_frames(path, [0.0, 0.5])
    assert frames.shape == (2, 203, 301, 3)
    assert make_video.numbers(frames) == [0, 12]


def test_a_still_picture_and_a_short_clip_are_held(tmp_path, make_video, reader):
    still = make_video(tmp_path / "still.mp4", num_frames=1)
    assert media.probe(still).duration_s == pytest.approx(0.04, abs=0.005)
    assert make_video.numbers(media.read_frames(still, [0.0, 3.0, 8.0])) == [0, 0, 0]
    short = make_video(tmp_path / "short.mp4", pts_ms=[0, 100, 200])
    assert make_video.numbers(media.read_frames(short, [0.0, 0.15, 0.25, 8.0])) == [0, 1, 2, 2]


def test_webm(tmp_path, make_video, reader):
    path = make_video(tmp_path / "v.webm", codec="libvpx", options={"deadline": "realtime"})
    info = media.probe(path)
    assert (info.container, info.video_codec, info.num_frames) == ("webm", "vp8", 25)
    assert make_video.numbers(media.read_frames(path, [0.0, 0.21, 0.9])) == [0, 5, 22]


def test_edit_list_hides_frames(tmp_path, make_video):
    path = make_video.with_edit_list(make_video(tmp_path / "all.mp4"), tmp_path / "edited.mp4", hidden=5)
    info = media.probe(path)
    assert (info.num_frames, info.first_frame_s) == (20, 0.0)
    assert info.duration_s == pytest.approx(0.8, abs=1e-6)
    times_s = np.array([-1.0, 0.0, 0.041, 0.3, 0.79, 2.0])
    assert make_video.numbers(media.read_frames(path, times_s)) == [5, 5, 6, 12, 24, 24]


@pytest.mark.parametrize(
    "name", ["video_mono/squash_two_players.mp4", "video_stereo/mmaudio_whaleshark_sea.mp4"]
)
def test_real_edit_lists(shared_dir, name):
    path = shared_dir / "media" / name
    info = media.probe(path)
    assert (info.num_frames, info.first_frame_s) == (251, 0.0)
    assert info.duration_s == pytest.approx(10.04)
    with av.open(str(path)) as container:  # what a player shows first
        first = next(container.decode(video=0)).to_ndarray(
            format="rgb24", width=160, height=90, interpolation="BICUBIC"
        )
    np.testing.assert_array_equal(media.read_frames(path, [0.01], size=(160, 90))[0], first)


def test_picture_that_starts_late(tmp_path, make_video, reader):
    audio = np.zeros((2, 44100), np.float32)
    path = make_video(tmp_path / "late.mp4", pts_ms=[400, 440, 480, 520], audio_CN=audio)
    info = media.probe(path)
    assert info.first_frame_s == pytest.approx(0.4, abs=1e-6)
    assert info.duration_s == pytest.approx(0.56, abs=1e-6)
    assert make_video.numbers(media.read_frames(path, [0.0, 0.399, 0.45, 1.0])) == [0, 0, 1, 3]


def test_what_is_left_of_a_cut_file_still_plays(tmp_path, make_video):
    whole = make_video(tmp_path / "whole.mp4", num_frames=50, movflags="+faststart").read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole[: len(whole) - (len(whole) - whole.index(b"mdat")) // 2])
    info = media.probe(path)
    assert 5 < info.num_frames < 45
    last = info.num_frames - 1
    assert make_video.numbers(media.read_frames(path, [0.0, 0.08, 2.0]))[:2] == [0, 2]
    assert abs(make_video.numbers(media.read_frames(path, [2.0]))[0] - last) <= 1


def test_a_relative_name_with_a_colon(tmp_path, make_video, monkeypatch):
    make_video(tmp_path / "a.mp4").rename(tmp_path / "take:1.mp4")
    monkeypatch.chdir(tmp_path)
    assert make_video.numbers(media.read_frames(Path("take:1.mp4"), [0.5])) == [12]


def test_a_long_video_is_not_read_ahead(tmp_path, make_video, monkeypatch):
    """Decord would go on decoding while its user works: 0.8 GB for five minutes at 256 x 144."""
    path = make_video(tmp_path / "long.mp4")
    times = np.arange(5) / 25
    expected = frames_module.read_frames(path, times)
    opened = []
    monkeypatch.setattr(frames_module, "_decord", lambda: opened.append(1))
    monkeypatch.setattr(frames_module, "READ_AHEAD_BYTES", expected[0].nbytes)
    frames = frames_module.read_frames(path, times)
    assert not opened
    assert np.abs(frames.astype(int) - expected).mean() < 2


def test_decord_comes_without_the_cuda_libraries():
    """decord2 would load all of them at import: 380 MB that a CPU user has no use for."""
    script = (
        "import bi_audio_dataset.media.frames as f; f._decord();"
        "print(sum('libcublas' in line or 'libcudnn' in line for line in open('/proc/self/maps')))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "0"
