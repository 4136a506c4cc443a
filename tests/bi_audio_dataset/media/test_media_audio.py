"""Audio is read exact, un-remixed and aligned to presentation time 0."""

import numpy as np
import pytest
import soundfile

from bi_audio_dataset import media
from bi_audio_dataset.schema import UserError


def integers(rng, channels, count, bits):
    """(C, N) float32 whose values are exact multiples of 2^-(bits - 1)."""
    full = 1 << (bits - 1)
    return (rng.integers(-full, full, (channels, count)) / full).astype(np.float32)


@pytest.mark.parametrize(
    ("suffix", "subtype", "bits"), [(".flac", "PCM_16", 16), (".flac", "PCM_24", 24), (".wav", "PCM_24", 24)]
)
def test_ambisonics_file_is_bit_exact(tmp_path, suffix, subtype, bits):
    foa_4N = integers(np.random.default_rng(0), 4, 5000, bits)
    path = tmp_path / f"foa{suffix}"
    assert media.write_audio(path, foa_4N, 48000, subtype) == 5000
    read_4N, rate = media.read_audio(path)
    assert rate == 48000
    np.testing.assert_array_equal(read_4N, foa_4N)
    assert read_4N.dtype == np.float32


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_ambisonics_track_beside_a_picture_is_bit_exact(tmp_path, make_video, suffix):
    foa_4N = integers(np.random.default_rng(1), 4, 48000, 16)
    path = make_video(tmp_path / f"foa{suffix}", audio_CN=foa_4N, audio_codec="flac", audio_rate=48000)
    read_4N, rate = media.read_audio(path)
    assert rate == 48000
    np.testing.assert_array_equal(read_4N, foa_4N)


def test_real_ambisonics(shared_dir):
    path = shared_dir / "media/foa/eigenmike_rec1_foa_ambix.flac"
    expected, rate = soundfile.read(path, dtype="int32", always_2d=True)
    read_4N, read_rate = media.read_audio(path)
    assert (read_4N.shape, read_rate) == (expected.T.shape, rate)
    np.testing.assert_array_equal(read_4N.T.astype(np.float64) * 2.0**31, expected)


def clicks(count, *positions):
    audio_2N = np.zeros((2, count), np.float32)
    audio_2N[0, list(positions)] = 0.8
    return audio_2N


def test_aac_priming_is_removed_and_the_length_kept(tmp_path, make_video):
    path = make_video(tmp_path / "clicks.mp4", audio_CN=clicks(44100, 5000, 30000))
    audio_2N, rate = media.read_audio(path)
    assert (audio_2N.shape, rate) == ((2, 44100), 44100)
    assert np.argmax(audio_2N[0, :20000]) == 5000
    assert np.argmax(audio_2N[0, 20000:]) == 10000
    assert np.abs(audio_2N[1]).max() < 0.05  # the other ear stays silent


def test_a_late_track_is_padded(tmp_path, make_video):
    path = make_video(tmp_path / "late.mp4", audio_CN=clicks(22050, 5000), audio_start_ms=200)
    audio_2N, _ = media.read_audio(path)
    assert np.argmax(audio_2N[0]) == pytest.approx(5000 + 8820, abs=45)  # the file counts in ms


def test_resampling_keeps_a_tone(tmp_path):
    time_s = np.arange(48000) / 48000
    path = tmp_path / "tone.wav"
    media.write_audio(path, np.sin(2 * np.pi * 440 * time_s)[None] * 0.5, 48000, "FLOAT")
    audio_1N, rate = media.read_audio(path, sample_rate=22050)
    assert (audio_1N.shape, rate) == ((1, 22050), 22050)
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(22050) / 22050)
    assert np.abs(audio_1N[0, 500:-500] - expected[500:-500]).max() < 1e-4


def test_mono_is_the_mean(tmp_path):
    stereo_2N = integers(np.random.default_rng(2), 2, 1000, 16)
    media.write_audio(tmp_path / "s.wav", stereo_2N, 8000)
    audio_1N, _ = media.read_audio(tmp_path / "s.wav", mono=True)
    np.testing.assert_allclose(audio_1N, stereo_2N.mean(axis=0, keepdims=True), atol=1e-7)


def test_write_in_blocks_equals_write_at_once(tmp_path):
    audio_2N = integers(np.random.default_rng(3), 2, 10_000, 16)
    media.write_audio(tmp_path / "a.flac", audio_2N, 44100)
    media.write_audio(tmp_path / "b.flac", (audio_2N[:, i : i + 999] for i in range(0, 10_000, 999)), 44100)
    np.testing.assert_array_equal(
        media.read_audio(tmp_path / "a.flac")[0], media.read_audio(tmp_path / "b.flac")[0]
    )


def test_write_clips_rather_than_wraps(tmp_path):
    media.write_audio(tmp_path / "loud.flac", np.array([[1.5, -1.5, 0.5]], np.float32), 44100)
    audio_1N, _ = media.read_audio(tmp_path / "loud.flac")
    np.testing.assert_allclose(audio_1N, [[1, -1, 0.5]], atol=1e-4)


@pytest.mark.parametrize(
    ("audio", "message"),
    [(np.full((2, 9), np.nan, np.float32), "NaN"), (np.zeros(9, np.float32), "channels, samples")],
)
def test_write_refuses_nonsense_and_leaves_nothing(tmp_path, audio, message):
    with pytest.raises(ValueError, match=message):
        media.write_audio(tmp_path / "bad.flac", audio, 44100)
    assert list(tmp_path.iterdir()) == []


def test_a_silent_film_has_no_audio(tmp_path, make_video):
    with pytest.raises(UserError, match="no audio track"):
        media.read_audio(make_video(tmp_path / "silent.mp4"))
