"""Films that have their ears already become pairs as they are; others are refused."""

import pickle

import numpy as np
import pytest
from foa_films import insert_box, panorama, signals, st3d, sv3d, write_film

from bi_audio_dataset import media
from bi_audio_dataset.schema import MONO_EARS, UserError
from bi_audio_dataset.sources.base import Source, read_sound
from bi_audio_dataset.sources.perspective import PerspectiveSource

RATE = 44100
VIEW = panorama((64, 36))


def test_sound_in_the_film_and_beside_it(tmp_path):
    ears = (np.round(signals(2, 0.6, RATE) * 2**15) / 2**15).astype(np.float32)
    write_film(tmp_path / "in.mkv", ears, RATE, "pcm_s16le", "stereo", picture=VIEW)
    write_film(tmp_path / "beside.mp4", signals(2, 0.6, RATE, 9), RATE, "aac", "stereo", picture=VIEW)
    media.write_audio(tmp_path / "beside.wav", ears, RATE)
    source = PerspectiveSource(tmp_path, hfov_deg=75.0, licence="CC0-1.0", provenance="our walk")
    assert isinstance(source, Source)
    assert source.recording_ids() == ["beside", "in"]
    for name in source.recording_ids():
        recording = pickle.loads(pickle.dumps(source)).fetch(name, tmp_path)
        assert (recording.kind, recording.ears, recording.hfov_deg) == ("pair", "recorded: binaural", 75.0)
        np.testing.assert_array_equal(read_sound(recording, RATE), ears)
    assert recording.provenance == "our walk: in.mkv"


def test_stereo_says_so(tmp_path):
    write_film(tmp_path / "a.mp4", signals(2, 0.6, RATE), RATE, "aac", "stereo", picture=VIEW)
    source = PerspectiveSource(tmp_path, sound="stereo")
    assert source.fetch("a", tmp_path).ears == "recorded: stereo"
    assert source.settings["sound"] == "stereo"


def test_mono_is_taken_where_it_is_declared(tmp_path):
    """One channel, or the mean of two, is both ears; rows say so by the words that training reads."""
    one, two = signals(1, 0.6, RATE), signals(2, 0.6, RATE, 5)
    for name, sound in (("one", one), ("two", two)):
        write_film(tmp_path / f"{name}.mp4", seconds=0.6, picture=VIEW)
        media.write_audio(tmp_path / f"{name}.wav", sound, RATE)
    write_film(tmp_path / "four.mp4", signals(4, 0.6, RATE), RATE, "aac", "4.0", picture=VIEW)
    source = PerspectiveSource(tmp_path, sound="mono")
    for name, expected in (("one", one[0]), ("two", two.mean(axis=0))):
        recording = source.fetch(name, tmp_path)
        assert recording.ears == MONO_EARS and recording.mono
        ears = read_sound(recording, RATE)
        np.testing.assert_array_equal(ears[0], ears[1])
        np.testing.assert_allclose(ears[0], expected, atol=1e-4)  # 16 bits on disk
    with pytest.raises(UserError, match="has 4 audio channels, expected 1 or 2 for mono"):
        source.fetch("four", tmp_path)


def test_real_films(shared_dir, tmp_path):
    """The three kinds of file that people have: AAC in mp4, Vorbis in webm, mono that is refused."""
    source = PerspectiveSource(shared_dir / "media/video_stereo", sound="stereo")
    for name in ("avsync_anvil_hammer", "tears_of_steel_25s"):
        recording = source.fetch(name, tmp_path)
        ears = read_sound(recording, 44100, 1.0, 1.0)
        assert ears.shape == (2, 44100)
        whole, _ = media.read_audio(recording.audio_path, 44100)
        part = ears[0, 100:40000]
        match = [np.corrcoef(part, whole[0, 44200 + k : 84100 + k])[0, 1] for k in range(-50, 51)]
        assert max(match) > 0.999
    with pytest.raises(UserError, match="has 1 audio channels .mono"):
        PerspectiveSource(shared_dir / "media/video_mono").fetch("pancake_flip", tmp_path)


@pytest.mark.parametrize(
    ("channels", "layout", "words"),
    [
        (1, "mono", "1 audio channels .mono holds no direction"),
        (4, "4.0", "4 audio channels .ambisonics"),
        (6, "5.1", "6 audio channels"),
    ],
)
def test_other_numbers_of_channels(tmp_path, channels, layout, words):
    write_film(tmp_path / "a.mp4", signals(channels, 0.6, RATE), RATE, "aac", layout, picture=VIEW)
    with pytest.raises(UserError, match=words):
        PerspectiveSource(tmp_path).fetch("a", tmp_path)


def test_panoramas_and_two_eyes_are_no_views(tmp_path):
    sphere = write_film(tmp_path / "a.mp4", signals(2, 0.6, RATE), RATE, "aac", "stereo", picture=VIEW)
    eyes = write_film(tmp_path / "b.mp4", signals(2, 0.6, RATE), RATE, "aac", "stereo", picture=VIEW)
    insert_box(sphere, b"avc1", sv3d())
    insert_box(eyes, b"avc1", st3d(2))
    for name, words in (("a", "is a 360-degree video"), ("b", "holds two eyes .side-by-side")):
        with pytest.raises(UserError, match=words):
            PerspectiveSource(tmp_path).fetch(name, tmp_path)


def test_silent_films(tmp_path):
    write_film(tmp_path / "a.mp4", seconds=0.6, picture=VIEW)
    with pytest.raises(UserError, match="has no sound that can be decoded"):
        PerspectiveSource(tmp_path).fetch("a", tmp_path)


def test_wrong_settings(tmp_path):
    with pytest.raises(UserError, match="sound is 'quad'"):
        PerspectiveSource(tmp_path, sound="quad")
    with pytest.raises(UserError, match="field of view is 200 degrees"):
        PerspectiveSource(tmp_path, hfov_deg=200.0)
