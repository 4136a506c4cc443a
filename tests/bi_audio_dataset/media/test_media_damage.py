"""Frames that a damaged file lacks are counted, whichever decoder meets them, and the others stay exact."""

import av
import numpy as np
import pytest

from bi_audio_dataset import media
from bi_audio_dataset.media import frames as frames_module
from bi_audio_dataset.schema import UserError

NUM_FRAMES, GOP, FPS = 60, 10, 25
TIMES_S = np.arange(NUM_FRAMES) / FPS
RNG = np.random.default_rng(3)
NOISE = [np.repeat(RNG.integers(0, 255, (48, 64, 1)), 3, axis=2).astype(np.uint8) for _ in range(NUM_FRAMES)]


@pytest.fixture(params=["decord first", "pyav"])
def reader(request, monkeypatch):
    if request.param == "pyav":
        monkeypatch.setattr(frames_module, "_open_decord", lambda *args, **kwargs: None)
    return request.param


@pytest.fixture
def film(tmp_path, make_video):
    """60 pictures of noise, a key frame every 10, none that leans on a later one."""

    def write(name="film.mp4", **more):
        options = {"qp": "20", "bf": "0", "sc_threshold": "0"}
        return make_video(tmp_path / name, pictures=NOISE, num_frames=60, gop=GOP, options=options, **more)

    return write


def overwrite(path, first, last):
    """The packets first to last become noise; the index stays what it was."""
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    for at, size in packets[first : last + 1]:
        data[at : at + size] = np.random.default_rng(at).bytes(size)
    path.write_bytes(bytes(data))
    return path


def read(path, times_s=TIMES_S, rate_hz=FPS, chunk=7):
    """(pictures, numbers of the missing ones, Damage)."""
    damage, missing, pictures = media.Damage(rate_hz), [], []
    for block in media.iter_frames(path, times_s, chunk=chunk, damage=damage):
        pictures.append(block)
        missing.append(damage.missing)
    return np.concatenate(pictures), np.diff([0, *missing]), damage


def test_sound_files_lack_nothing(film, make_video, tmp_path, reader):
    beyond = np.arange(-5, 90) / FPS  # held before the first and after the last
    assert read(film(), beyond)[2] == media.Damage(FPS, wanted=95)
    variable = make_video(tmp_path / "vfr.mp4", pts_ms=[0, 17, 90, 100, 140, 300, 333, 500, 700, 2705])
    assert read(variable, np.arange(80) / FPS)[2].missing == 0
    late = make_video(tmp_path / "late.mp4", pts_ms=[400 + 40 * k for k in range(9)])
    assert read(late, np.arange(30) / FPS)[2].missing == 0
    plain = make_video(tmp_path / "plain.mp4", num_frames=60, pictures=NOISE, options={"bf": "3", "qp": "10"})
    assert read(plain)[2].missing == 0


def test_from_an_error_to_the_next_key_frame_pictures_are_missing(film, reader):
    whole = media.read_frames(film(), TIMES_S)
    damaged = overwrite(film("damaged.mp4"), 23, 26)
    found, per_block, damage = read(damaged, chunk=1)
    assert np.flatnonzero(per_block).tolist() == list(range(23, 30))
    assert (damage.fraction, damage.seconds) == (7 / 60, 7 / 25)
    np.testing.assert_allclose(found[:23].astype(int), whole[:23], atol=3)
    assert (found[23:30] == found[22]).all()
    np.testing.assert_allclose(found[30:].astype(int), whole[30:], atol=3)  # read on after the error


def test_key_frames_gone_up_to_the_end(film, reader):
    damaged = overwrite(film(), 30, 59)
    found, _, damage = read(damaged)
    assert damage.missing == 30
    assert (found[30:] == found[29]).all() and (found[29] != found[28]).any()
    # asked for these alone: the last picture before them stands in
    found_late, _, damage = read(damaged, TIMES_S[45:])
    assert damage.fraction == 1.0 and damage.wanted == 15
    np.testing.assert_allclose(found_late[0].astype(int), found[29], atol=3)


def test_first_key_frame_gone(film):
    with pytest.raises(UserError, match="damaged or cut short"):
        read(overwrite(film(), 0, 59))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_hole_in_the_times_of_a_constant_rate(make_video, tmp_path, suffix, reader):
    numbers = [n for n in range(60) if not 20 <= n < 45]
    path = make_video(tmp_path / f"hole{suffix}", pts_ms=[40 * n for n in numbers])
    _, per_block, damage = read(path, chunk=1)
    assert np.flatnonzero(per_block).tolist() == list(range(20, 45))
    assert damage.seconds == 1.0
