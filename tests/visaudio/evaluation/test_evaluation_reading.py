"""Each thing that may be wrong with a sound file has its own refusal; what is right passes unchanged."""

import av
import numpy as np
import pytest
import soundfile
from sound_files import cut_short, noise, write

from visaudio.evaluation.reading import Refused, SoundFile, read_sound


def refusal(path) -> tuple[str, str]:
    with pytest.raises(Refused) as raised:
        read_sound(path)
    assert "\n" not in raised.value.detail and str(path.parent) not in raised.value.detail
    return raised.value.kind, raised.value.detail


def test_a_stereo_file_is_read_as_it_is(tmp_path):
    samples = noise(seed=3)
    sound = read_sound(write(tmp_path / "a.wav", samples, subtype="FLOAT"))
    assert (sound.sample_rate, sound.channels) == (8000, 2)
    np.testing.assert_array_equal(sound.audio, samples.T)


def test_mono_goes_to_both_ears(tmp_path):
    samples = noise(channels=1)
    sound = read_sound(write(tmp_path / "a.wav", samples, subtype="FLOAT"))
    assert sound.channels == 1
    np.testing.assert_array_equal(sound.audio, np.stack([samples[:, 0]] * 2))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_not_finite(tmp_path, bad):
    samples = noise()
    samples[7, 1] = bad
    kind, detail = refusal(write(tmp_path / "a.wav", samples, subtype="FLOAT"))
    assert kind == "not_finite" and "1 samples" in detail


@pytest.mark.parametrize("peak", [1.01e6, 2.0**31, 1e30])
@pytest.mark.parametrize("sign", [1, -1])
def test_samples_far_beyond_full_scale(tmp_path, peak, sign):
    samples = noise()
    samples[7, 1] = sign * peak
    kind, detail = refusal(write(tmp_path / "a.wav", samples, subtype="FLOAT"))
    assert kind == "too_large"
    assert detail.startswith(f"a.wav: peak {peak:.3g} of full scale, expected at most 1e+06: divide")


def test_the_largest_level_passes_unchanged(tmp_path):
    samples = noise()
    samples[7, 1] = -1e6
    sound = read_sound(write(tmp_path / "a.wav", samples, subtype="FLOAT"))
    np.testing.assert_array_equal(sound.audio, samples.T)


@pytest.mark.parametrize("rate", [1, 100, 999])
def test_sampling_rates_that_hold_no_cue(tmp_path, rate):
    kind, detail = refusal(write(tmp_path / "a.wav", noise(), rate))
    assert kind == "low_rate"
    assert detail.startswith(f"a.wav: sampling rate {rate} Hz, expected at least 1000 Hz: ")


def test_the_lowest_rate_passes(tmp_path):
    assert read_sound(write(tmp_path / "a.wav", noise(), 1000)).sample_rate == 1000


def test_more_than_two_channels(tmp_path):
    assert refusal(write(tmp_path / "a.wav", noise(channels=4))) == ("channels", "a.wav: 4 channels")


def test_no_samples_and_no_bytes(tmp_path):
    assert refusal(write(tmp_path / "a.wav", noise(0)))[0] == "empty"
    (tmp_path / "b.flac").write_bytes(b"")
    assert refusal(tmp_path / "b.flac")[0] == "empty"


def test_not_a_sound_and_gone(tmp_path):
    (tmp_path / "a.wav").write_text("not a sound at all, whatever its name says")
    assert refusal(tmp_path / "a.wav")[0] == "unreadable"
    with pytest.raises(Refused, match="No such file"):
        SoundFile(tmp_path / "gone.wav").digest  # noqa: B018


@pytest.mark.parametrize("suffix", [".wav", ".ogg", ".mp3"])
@pytest.mark.parametrize("share", [0.6, 0.9])
def test_a_file_that_ends_too_soon(tmp_path, suffix, share):
    path = write(tmp_path / f"a{suffix}", noise(4, 44100), 44100)
    assert read_sound(path).audio.shape[1] >= 4 * 44100 - 2048
    assert refusal(cut_short(path, share))[0] == "truncated"


@pytest.mark.parametrize("suffix", [".flac", ".m4a"])
def test_a_file_that_ends_within_a_block_cannot_be_read(tmp_path, suffix):
    assert refusal(cut_short(write(tmp_path / f"a{suffix}", noise(2))))[0] == "unreadable"


def test_an_mp4_that_ends_between_blocks(tmp_path):
    """Nothing fails in decoding it: only its own word says that there was more."""
    path = write(tmp_path / "a.m4a", noise(4, 44100), 44100)
    with av.open(str(path)) as container:
        ends = [p.pos + p.size for p in container.demux(audio=0) if p.size]
    path.write_bytes(path.read_bytes()[: ends[len(ends) // 2]])
    kind, detail = refusal(path)
    assert kind == "truncated" and "of the 4.0" in detail


@pytest.mark.parametrize("stated", [0, 0xFFFFFFFF])
def test_a_wav_from_a_stream_states_no_length(tmp_path, stated):
    """As ffmpeg writes it to a pipe: whatever follows the header is the sound."""
    path = write(tmp_path / "a.wav", noise(), subtype="PCM_16")
    data = bytearray(path.read_bytes())
    place = data.index(b"data") + 4
    expected, _ = soundfile.read(path, dtype="float32")
    data[place : place + 4] = stated.to_bytes(4, "little")
    path.write_bytes(data)
    if stated:  # libsndfile takes 0 for an empty chunk
        np.testing.assert_array_equal(read_sound(path).audio, expected.T)
    else:
        assert refusal(path)[0] == "empty"


def test_an_mp3_without_a_count_of_frames_is_not_suspected(tmp_path):
    path = write(tmp_path / "a.mp3", noise(2, 44100), 44100)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"Xing", b"\0\0\0\0", 1).replace(b"Info", b"\0\0\0\0", 1))
    assert read_sound(path).audio.shape[1] > 1.9 * 44100


def test_silence_is_a_fact_not_a_refusal(tmp_path):
    quiet, heard = (
        SoundFile(write(tmp_path / f"{level}.wav", np.full((4000, 2), level, np.float32), subtype="FLOAT"))
        for level in (-0.0009, -0.0011)  # -60 dBFS is 0.001
    )
    assert quiet.facts.silent and not heard.facts.silent
    assert quiet.facts.seconds == 0.5


def test_a_cut_is_made_once_and_shares_what_was_resampled(tmp_path):
    file = SoundFile(write(tmp_path / "a.wav", noise(1)))
    cut = file.cut(0.25)
    assert cut.audio.shape == (2, 2000) and file.cut(0.25) is cut
    assert cut.at(16000) is file.cut(0.25).at(16000) and cut.at(16000).shape == (2, 4000)
