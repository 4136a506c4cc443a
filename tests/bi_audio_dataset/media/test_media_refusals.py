"""Whatever a user hands over, the answer is one clear line, and no file is left behind."""

import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest

from bi_audio_dataset import media
from bi_audio_dataset.schema import UserError


def missing(folder, make_video):
    return folder / "nowhere.mp4", "no such file"


def empty(folder, make_video):
    (folder / "empty.mp4").touch()
    return folder / "empty.mp4", "empty"


def text(folder, make_video):
    (folder / "text.mp4").write_text("This is not a film.\n" * 50)
    return folder / "text.mp4", "cannot be read as media"


def sound_only(folder, make_video):
    media.write_audio(folder / "sound.flac", np.zeros((2, 4410), np.float32), 44100)
    return folder / "sound.flac", "no picture"


def a_folder(folder, make_video):
    return folder, "is a folder"


def still_image(folder, make_video):
    from PIL import Image

    Image.new("RGB", (64, 48)).save(folder / "photo.png")
    return folder / "photo.png", "still image"


def truncated_index(folder, make_video):
    data = make_video(folder / "whole.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(data[: data.index(b"moov") - 10])
    return folder / "cut.mp4", "cut short"


def truncated_pictures(folder, make_video):
    data = make_video(folder / "whole.mp4", movflags="+faststart").read_bytes()
    (folder / "cut.mp4").write_bytes(data[: data.index(b"mdat") + 24])
    return folder / "cut.mp4", "cut short"


def zeroed_pictures(folder, make_video):
    data = make_video(folder / "whole.mp4", movflags="+faststart").read_bytes()
    at = data.index(b"mdat") + 4
    (folder / "zero.mp4").write_bytes(data[:at] + bytes(len(data) - at))
    return folder / "zero.mp4", "damaged"


BAD = [
    missing,
    empty,
    text,
    sound_only,
    a_folder,
    still_image,
    truncated_index,
    truncated_pictures,
    zeroed_pictures,
]


@pytest.mark.parametrize("bad", BAD, ids=[bad.__name__ for bad in BAD])
def test_bad_input(tmp_path, make_video, bad):
    path, message = bad(tmp_path, make_video)
    before = sorted(tmp_path.iterdir())
    audio = np.zeros((2, 44100), np.float32)
    for call in (
        lambda: media.probe(path),
        lambda: media.read_frames(path, [0.0]),
        lambda: media.output_container_for(path),
        lambda: media.mux_binaural(path, audio, 44100, tmp_path / "out.mp4"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            call()
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


def test_bad_input_for_sound(tmp_path, make_video):
    for bad in (missing, empty, text, a_folder):
        path, message = bad(tmp_path, make_video)
        with pytest.raises(UserError, match=message):
            media.read_audio(path)


def writers(folder, make_video):
    source = make_video(folder / "source.mp4")
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 44100)).astype(np.float32)
    noisy = np.random.default_rng(1).integers(0, 255, (10, 144, 256, 3)).astype(np.uint8)
    return [
        (".mp4", lambda path: media.mux_binaural(source, audio, 44100, path)),
        (".mkv", lambda path: media.mux_binaural(source, audio, 44100, path)),
        (".flac", lambda path: media.write_audio(path, audio, 44100)),
        (".wav", lambda path: media.write_audio(path, audio, 44100)),
        (".mp4", lambda path: media.write_video(path, noisy, 25)),
    ]


def test_output_folder_missing_or_a_folder(tmp_path, make_video):
    for suffix, write in writers(tmp_path, make_video):
        with pytest.raises(UserError, match="no such folder"):
            write(tmp_path / "nowhere" / f"out{suffix}")
        (tmp_path / f"dir{suffix}").mkdir(exist_ok=True)
        with pytest.raises(UserError, match="is a folder"):
            write(tmp_path / f"dir{suffix}")


def test_output_not_allowed(tmp_path, make_video):
    calls = writers(tmp_path, make_video)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    if os.geteuid() == 0:  # root may write anywhere but where the kernel itself refuses
        closed = Path("/proc/self")
    for suffix, write in calls:
        with pytest.raises(UserError, match="cannot be written"):
            write(closed / f"out{suffix}")


@pytest.fixture
def no_size_signal():
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("limit", [0, 3000, 20000])
def test_output_full(tmp_path, make_video, no_size_signal, limit):
    """A limit on the size of files stands for a full disk: each write says so and leaves nothing."""
    calls = writers(tmp_path, make_video)
    before = sorted(tmp_path.iterdir())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for suffix, write in calls:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
        try:
            with pytest.raises(UserError, match="cannot be written"):
                write(tmp_path / f"out{suffix}")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert sorted(tmp_path.iterdir()) == before
