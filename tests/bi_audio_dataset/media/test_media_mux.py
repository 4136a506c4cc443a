"""The picture is copied packet for packet; the sound keeps place, length and interaural cues."""

import av
import numpy as np
import pytest
import soxr

from bi_audio_dataset import media
from bi_audio_dataset.schema import UserError

RATE = 44100
# What 256 kb/s AAC may change, broadband, on noise with known cues.
ILD_TOLERANCE_DB = 0.5
ITD_TOLERANCE_S = 25e-6


def noise(seconds, seed=0, rate=RATE):
    """(N,) band-limited noise, as most sounds are."""
    white = np.random.default_rng(seed).standard_normal(round(seconds * rate))
    spectrum = np.fft.rfft(white)
    frequency = np.fft.rfftfreq(len(white), 1 / rate)
    spectrum *= (frequency > 100) * (frequency < 8000) / (1 + frequency / 800)
    shaped = np.fft.irfft(spectrum, len(white))
    return (0.04 * shaped / shaped.std()).astype(np.float32)


def delayed(signal, delay_s, rate=RATE):
    frequency = np.fft.rfftfreq(len(signal), 1 / rate)
    spectrum = np.fft.rfft(signal) * np.exp(-2j * np.pi * frequency * delay_s)
    return np.fft.irfft(spectrum, len(signal)).astype(np.float32)


def binaural(seconds, itd_s=0.0, ild_db=0.0, seed=0):
    """(2, N) noise; positive ITD: left first, positive ILD: left louder."""
    source = noise(seconds, seed)
    gain = 10 ** (ild_db / 40)
    return np.stack([gain * delayed(source, -itd_s / 2), delayed(source, itd_s / 2) / gain]).astype(
        np.float32
    )


def ild_db(audio_2N):
    return 10 * np.log10(np.sum(audio_2N[0] ** 2) / np.sum(audio_2N[1] ** 2))


def delay_s(a, b, rate=RATE):
    """By how much b comes after a, in s: the peak of their cross-correlation on a 32 times finer grid."""
    cross = np.fft.rfft(b) * np.conj(np.fft.rfft(a))
    size = len(a) * 32
    correlation = np.fft.irfft(cross, size)
    peak = int(np.argmax(correlation))
    return (peak - size if peak > size // 2 else peak) / (32 * rate)


def assert_picture_untouched(make_video, source, output):
    before, after = make_video.packets(source), make_video.packets(output)
    assert [p[0] for p in before] == [p[0] for p in after]
    assert [p[2] for p in before] == [p[2] for p in after]
    offset = before[0][1] - after[0][1]
    assert max(abs(x[1] - y[1] - offset) for x, y in zip(before, after, strict=True)) < 1e-5
    a, b = media.probe(source), media.probe(output)
    for name in ("num_frames", "width", "height", "rotation_deg", "is_variable_rate", "video_codec"):
        assert getattr(a, name) == getattr(b, name), name
    assert b.first_frame_s == pytest.approx(a.first_frame_s, abs=1e-3)
    assert b.duration_s == pytest.approx(a.duration_s, abs=1e-3)
    assert b.audio_channels == 2
    with av.open(str(output)) as container:
        assert len(container.streams.audio) == 1 and len(container.streams.video) == 1
        assert container.duration / av.time_base == pytest.approx(a.duration_s, abs=0.01)


def make_plain(make_video, folder):
    return make_video(folder / "s.mp4", audio_CN=binaural(1.0))


def make_variable(make_video, folder):
    return make_video(folder / "s.mp4", pts_ms=[0, 17, 90, 100, 140, 300, 333, 500, 700])


def make_matroska(make_video, folder):
    return make_video(folder / "s.mkv", pts_ms=[round(n * 1000 / 29.97) for n in range(25)])


def make_edited(make_video, folder):
    return make_video.with_edit_list(make_video(folder / "all.mp4"), folder / "s.mp4", hidden=7)


def make_turned(make_video, folder):
    return make_video.with_matrix(make_video(folder / "plain.mp4"), folder / "s.mp4", (0, 1, -1, 0))


def make_mirrored(make_video, folder):
    return make_video.with_matrix(make_video(folder / "plain.mp4"), folder / "s.mp4", (-1, 0, 0, 1))


def make_webm(make_video, folder):
    return make_video(folder / "s.webm", codec="libvpx", options={"deadline": "realtime"})


def make_transport(make_video, folder):
    return make_video(folder / "s.ts", audio_CN=binaural(1.0))


def make_still(make_video, folder):
    return make_video(folder / "s.mp4", num_frames=1)


def make_short(make_video, folder):
    return make_video(folder / "s.mp4", pts_ms=[0, 100, 200])


def make_odd(make_video, folder):
    return make_video(folder / "s.mp4", size=(65, 49), pix_fmt="yuv444p")


MAKERS = [
    (make_plain, ".mp4"), (make_variable, ".mp4"), (make_matroska, ".mp4"), (make_edited, ".mp4"),
    (make_turned, ".mp4"), (make_mirrored, ".mp4"), (make_webm, ".webm"), (make_transport, ".mp4"),
    (make_still, ".mp4"), (make_short, ".mp4"), (make_odd, ".mp4"),
]  # fmt: skip


@pytest.mark.parametrize(("maker", "suffix"), MAKERS, ids=[maker.__name__ for maker, _ in MAKERS])
def test_picture_is_copied(tmp_path, make_video, maker, suffix):
    source = maker(make_video, tmp_path)
    assert media.output_container_for(source) == suffix
    output = tmp_path / f"out{suffix}"
    media.mux_binaural(source, binaural(1.0), RATE, output)
    if source.suffix == ".ts":  # other framing of the same bytes: the frames are compared instead
        times_s = np.arange(25) * 0.04
        np.testing.assert_array_equal(media.read_frames(source, times_s), media.read_frames(output, times_s))
    else:
        assert_picture_untouched(make_video, source, output)
    assert not list(tmp_path.glob("*partial*")) and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    "name",
    [
        "video_mono/squash_two_players.mp4",
        "video_stereo/mmaudio_whaleshark_sea.mp4",
        "video_stereo/tears_of_steel_25s.webm",
        "video_mono/pancake_flip.mkv",
        "video_mono/puppy_bark.mp4",
    ],
)
def test_real_clips(shared_dir, tmp_path, make_video, name):
    source = shared_dir / "media" / name
    output = tmp_path / f"out{media.output_container_for(source)}"
    audio_2N = binaural(4.0)
    media.mux_binaural(source, audio_2N, RATE, output)
    assert_picture_untouched(make_video, source, output)
    read_2N, rate = media.read_audio(output)
    assert read_2N.shape[1] == round(media.probe(source).duration_s * rate)
    reference_2N = soxr.resample(audio_2N.T, RATE, rate).T
    assert abs(delay_s(reference_2N[0], read_2N[0, : reference_2N.shape[1]], rate)) <= 1 / rate


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(("itd_s", "level_db"), [(0.0, 0.0), (400e-6, 8.0), (-650e-6, -15.0), (100e-6, -3.0)])
def test_coding_keeps_interaural_cues_and_place(tmp_path, make_video, suffix, itd_s, level_db):
    source = make_video(tmp_path / "s.mp4", num_frames=50)
    audio_2N = binaural(2.0, itd_s, level_db)
    media.mux_binaural(source, audio_2N, RATE, tmp_path / f"o{suffix}")
    media.write_audio(tmp_path / "o.flac", audio_2N, RATE)
    coded_2N, _ = media.read_audio(tmp_path / f"o{suffix}", sample_rate=RATE)
    flac_2N, _ = media.read_audio(tmp_path / "o.flac")
    assert coded_2N.shape == flac_2N.shape
    assert abs(ild_db(coded_2N) - ild_db(flac_2N)) < ILD_TOLERANCE_DB
    assert abs(ild_db(flac_2N) - level_db) < 0.1
    itd_flac_s, itd_coded_s = delay_s(*flac_2N), delay_s(*coded_2N)
    assert itd_flac_s == pytest.approx(itd_s, abs=2e-6)
    assert abs(itd_coded_s - itd_flac_s) < ITD_TOLERANCE_S
    for ear in (0, 1):  # aligned to the FLAC to within a sample
        assert abs(delay_s(flac_2N[ear], coded_2N[ear])) <= 1 / RATE


def test_coding_keeps_cues_of_two_simultaneous_sounds_per_band(tmp_path, make_video):
    """A low sound at the left and a high one at the right: each band keeps its own ILD within 0.5 dB."""
    low, high = noise(2.0, 1), noise(2.0, 2)
    frequency = np.fft.rfftfreq(len(low), 1 / RATE)

    def band(signal, from_hz, to_hz):
        return np.fft.irfft(np.fft.rfft(signal) * ((frequency > from_hz) & (frequency < to_hz)), len(signal))

    left, right = band(low, 200, 1000), band(high, 3000, 7000)
    audio_2N = np.stack([left + 0.3 * right, 0.3 * left + right]).astype(np.float32)
    source = make_video(tmp_path / "s.mp4", num_frames=50)
    media.mux_binaural(source, audio_2N, RATE, tmp_path / "o.mp4")
    coded_2N, _ = media.read_audio(tmp_path / "o.mp4")
    for limits in ((200, 1000), (3000, 7000)):
        before = ild_db(np.stack([band(ear, *limits) for ear in audio_2N]))
        after = ild_db(np.stack([band(ear, *limits) for ear in coded_2N]))
        assert abs(before) > 8
        assert abs(after - before) < ILD_TOLERANCE_DB


def test_a_silent_ear_stays_silent(tmp_path, make_video):
    audio_2N = np.stack([noise(1.0), np.zeros(RATE, np.float32)])
    source = make_video(tmp_path / "s.mp4")
    media.mux_binaural(source, audio_2N, RATE, tmp_path / "o.mp4")
    coded_2N, _ = media.read_audio(tmp_path / "o.mp4")
    assert ild_db(coded_2N + 1e-9) > 60


@pytest.mark.parametrize("rate", [22050, 24000, 48000, 43210])
def test_any_rate(tmp_path, make_video, rate):
    """Rates that AAC lacks are resampled to 48 kHz."""
    source = make_video(tmp_path / "s.mp4")
    tone = 0.3 * np.sin(2 * np.pi * 441 * np.arange(rate) / rate)
    media.mux_binaural(source, np.stack([tone, tone]).astype(np.float32), rate, tmp_path / "o.mp4")
    coded_2N, coded_rate = media.read_audio(tmp_path / "o.mp4")
    assert coded_rate == (48000 if rate == 43210 else rate)
    assert coded_2N.shape == (2, coded_rate)
    middle = coded_2N[0, coded_rate // 4 : -coded_rate // 4]
    peak = np.argmax(np.abs(np.fft.rfft(middle * np.hanning(len(middle)))))
    assert peak * coded_rate / len(middle) == pytest.approx(441, abs=2.1)


@pytest.mark.parametrize("seconds", [0.2, 3.0])
def test_sound_is_fitted_to_the_picture(tmp_path, make_video, seconds):
    source = make_video(tmp_path / "s.mp4")
    media.mux_binaural(source, binaural(seconds), RATE, tmp_path / "o.mp4")
    coded_2N, _ = media.read_audio(tmp_path / "o.mp4")
    assert coded_2N.shape[1] == RATE
    tail = np.abs(coded_2N[:, RATE // 2 :]).max()
    assert tail < 1e-3 if seconds == 0.2 else tail > 0.02


def test_bytes_depend_only_on_the_input(tmp_path, make_video):
    source = make_video(tmp_path / "s.mp4")
    audio_2N = binaural(1.0)
    media.mux_binaural(source, audio_2N, RATE, tmp_path / "a.mp4")
    media.mux_binaural(
        source, (audio_2N[:, i : i + 5000] for i in range(0, RATE, 5000)), RATE, tmp_path / "b.mp4"
    )
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


@pytest.mark.parametrize(("suffix", "rate"), [(".mp4", 48000), (".mp4", 22050), (".mkv", 44100)])
def test_lossless_sound_comes_back_to_24_bits(tmp_path, make_video, suffix, rate):
    source = make_plain(make_video, tmp_path)
    audio = np.random.default_rng(0).uniform(-1, 1, (2, rate)).astype(np.float32)
    output = tmp_path / f"out{suffix}"
    media.mux_binaural(source, audio, rate, output, lossless=True)
    decoded, read_rate = media.read_audio(output)
    assert read_rate == rate
    seconds = min(decoded.shape[1], rate)
    assert np.abs(decoded[:, :seconds] - audio[:, :seconds]).max() <= 2.0**-23
    assert_picture_untouched(make_video, source, output)


def test_a_failure_leaves_the_old_output(tmp_path, make_video):
    source = make_video(tmp_path / "s.mp4")
    output = tmp_path / "o.mp4"
    output.write_bytes(b"old")

    def breaks():
        yield binaural(0.5)
        raise RuntimeError("the network failed")

    with pytest.raises(RuntimeError, match="the network failed"):
        media.mux_binaural(source, breaks(), RATE, output)
    assert output.read_bytes() == b"old"
    assert {p.name for p in tmp_path.iterdir()} == {"s.mp4", "o.mp4"}


def test_a_container_that_cannot_hold_the_picture(tmp_path, make_video):
    source = make_webm(make_video, tmp_path)
    with pytest.raises(UserError, match="cannot hold vp8; use .webm"):
        media.mux_binaural(source, binaural(1.0), RATE, tmp_path / "o.mp4")
    assert {p.name for p in tmp_path.iterdir()} == {"s.webm"}


def test_one_channel_is_not_binaural(tmp_path, make_video):
    with pytest.raises(ValueError, match="1 channels, expected 2"):
        media.mux_binaural(
            make_video(tmp_path / "s.mp4"), np.zeros((1, 9), np.float32), RATE, tmp_path / "o.mp4"
        )


@pytest.mark.parametrize(
    ("codec", "name", "suffix", "tag"),
    [
        ("libx265", "hevc", ".mkv", "hvc1"),  # Apple's players refuse hev1
        ("libsvtav1", "av1", ".mkv", "av01"),
        ("mpeg4", "mpeg4", ".avi", "mp4v"),  # states no length of its last frame
    ],
)
def test_other_codecs_go_into_mp4(tmp_path, make_video, codec, name, suffix, tag):
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    source = make_video(
        tmp_path / f"s{suffix}",
        num_frames=12,
        codec=codec,
        options={"preset": "ultrafast"} if codec == "libx265" else {},
        size=(128, 96),
    )
    assert media.probe(source).video_codec == name
    assert media.output_container_for(source) == ".mp4"
    media.mux_binaural(source, binaural(0.5), RATE, tmp_path / "o.mp4")
    assert_picture_untouched(make_video, source, tmp_path / "o.mp4")
    assert media.probe(tmp_path / "o.mp4").duration_s == pytest.approx(0.48, abs=1e-3)
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert container.streams.video[0].codec_context.codec_tag == tag
