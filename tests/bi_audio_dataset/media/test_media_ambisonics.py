"""Four channels through every codec in exact order, parts of tracks, and what files state of their order."""

import inspect
import struct

import av
import numpy as np
import pytest
import soundfile
import soxr
from foa_films import insert_box, sa3d, signals, st3d, sv3d, write_film

from bi_audio_dataset import media
from bi_audio_dataset.schema import UserError

RATE = 48000
FAMILY_2 = {"mapping_family": "2"}
LOSSY = [
    (".mp4", "aac", "4.0", {}),
    (".mp4", "aac", "quad", {}),
    (".mkv", "aac", "4.0", {}),
    (".webm", "libopus", "quad", {}),
    (".mkv", "libopus", "quad", {"mapping_family": "255"}),
    (".webm", "libopus", "ambisonic 1", FAMILY_2),
    (".mp4", "libopus", "ambisonic 1", FAMILY_2),
]


def check_order(read, sent, least=0.99):
    """Each channel is itself, at the same time, and no other."""
    assert read.shape[0] == 4
    assert abs(read.shape[1] - sent.shape[1]) <= 2048
    count = min(read.shape[1], sent.shape[1])
    inner = slice(2048, count - 2048)  # codecs fade at the ends
    table = np.corrcoef(sent[:, inner], read[:, inner])[:4, 4:]
    expected = np.corrcoef(sent[:, inner])
    assert np.diag(table).min() > least
    np.testing.assert_allclose(table, expected, atol=0.05)


def container_video(path):
    # WebM takes no H.264: the film is then a Matroska file by another name
    return {".webm": ".mkv"}.get(path, path)


@pytest.mark.parametrize(("suffix", "codec", "layout", "options"), LOSSY)
def test_lossy_codecs_keep_the_order(tmp_path, suffix, codec, layout, options):
    sent = signals(4, 1.0, RATE)
    path = tmp_path / f"a{container_video(suffix)}"
    write_film(path, sent, RATE, codec, layout, options)
    read, rate = media.read_audio(path)
    assert rate == RATE
    check_order(read, sent)


def write_vorbis(path, sound, rate):
    # soundfile before 0.13 cannot ask for the best quality
    asked = "compression_level" in inspect.signature(soundfile.SoundFile.__init__).parameters
    best = {"compression_level": 0.0} if asked else {}
    with soundfile.SoundFile(path, "w", rate, len(sound), format="OGG", subtype="VORBIS", **best) as file:
        for start in range(0, sound.shape[1], 4096):  # libvorbis keeps a whole write on its stack
            file.write(np.ascontiguousarray(sound[:, start : start + 4096].T))
    return path


def remux(source, target):
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        stream = reader.streams.audio[0]
        copy = writer.add_stream_from_template(stream)
        for packet in reader.demux(stream):
            if packet.size:
                packet.stream = copy
                writer.mux(packet)
    return target


def test_vorbis_by_both_readers(tmp_path):
    sent = signals(4, 1.0, RATE)
    ogg = write_vorbis(tmp_path / "a.ogg", sent, RATE)
    check_order(media.read_audio(ogg)[0], sent)
    # copying packets moves them by part of a block: that much is the copy's doing, the order is not
    copied, _ = media.read_audio(remux(ogg, tmp_path / "a.mkv"))
    lag = lag_of(copied, sent)
    assert lag <= 1024
    check_order(copied[:, lag:], sent)


def lag_of(read, sent):
    """Samples by which the first channel comes late, by the largest correlation."""
    wanted = sent[0, 4096:12288]
    return int(np.argmax([np.dot(read[0, 4096 + k : 12288 + k], wanted) for k in range(2048)]))


@pytest.mark.parametrize("recording", ["eigenmike_rec1_foa_ambix", "bf4_orchestra_ambix"])
def test_real_recordings_through_the_codecs(tmp_path, shared_dir, recording):
    """Correlation over 0.99 in every channel that carries sound, in the same place."""
    foa, rate = media.read_audio(shared_dir / f"media/foa/{recording}.flac", duration_s=2.0)
    foa = np.ascontiguousarray(soxr.resample(foa.T, rate, RATE).T, dtype=np.float32)
    paths = [
        write_film(tmp_path / "a.mp4", foa, RATE, "aac", "4.0", {"aac_pns": "0"}),
        write_film(tmp_path / "b.mkv", foa, RATE, "libopus", "ambisonic 1", FAMILY_2),
        write_vorbis(tmp_path / "c.ogg", foa, RATE),
    ]
    for path in paths:
        check_order(media.read_audio(path)[0], foa)


@pytest.mark.parametrize(
    ("suffix", "codec", "scale"),
    [
        (".mkv", "pcm_s16le", 2**15),
        (".mkv", "pcm_s24le", 2**23),
        (".mkv", "flac", 2**15),
        (".mov", "pcm_s24le", 2**23),
    ],
)
def test_lossless_tracks_are_bit_exact(tmp_path, suffix, codec, scale):
    sent = (np.round(signals(4, 0.5, RATE) * scale) / scale).astype(np.float32)
    read, _ = media.read_audio(write_film(tmp_path / f"a{suffix}", sent, RATE, codec, "quad"))
    np.testing.assert_array_equal(read, sent)


@pytest.mark.parametrize(
    ("start_s", "duration_s"), [(0.0, 1.0), (2.5, 1.0), (3.0, None), (4.9, 3.0), (0.25, 0.5)]
)
def test_a_part_of_a_lossless_file_is_the_part_of_the_whole(tmp_path, start_s, duration_s):
    sent = (np.round(signals(4, 6.0, 8000) * 2**15) / 2**15).astype(np.float32)
    end = None if duration_s is None else round((start_s + duration_s) * 8000)
    expected = sent[:, round(start_s * 8000) : end]
    media.write_audio(tmp_path / "a.flac", sent, 8000)
    write_film(tmp_path / "a.mkv", sent, 8000, "pcm_s16le", "quad")
    write_film(tmp_path / "a.mov", sent, 8000, "pcm_s16le", "quad")
    for suffix in (".flac", ".mov", ".mkv"):
        read, _ = media.read_audio(tmp_path / f"a{suffix}", start_s=start_s, duration_s=duration_s)
        lag = 4 if suffix == ".mkv" else 0  # Matroska counts in ms
        assert abs(read.shape[1] - expected.shape[1]) <= lag
        shifts = [np.abs(_shifted(read, k) - _shifted(expected, 0)).max() for k in range(-lag, lag + 1)]
        assert min(shifts) == 0


def _shifted(audio, by):
    return audio[:, 8 + by : 3000 + by]


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "aac"), (".mkv", "libopus")])
def test_a_part_of_a_coded_track(tmp_path, suffix, codec):
    sent = signals(4, 5.0, RATE)
    path = write_film(tmp_path / f"a{suffix}", sent, RATE, codec, "quad")
    read, _ = media.read_audio(path, start_s=3.2, duration_s=1.5)
    assert read.shape == (4, round(1.5 * RATE))
    wanted = sent[:, round(3.2 * RATE) :]
    lags = range(-30, 31)
    match = [
        np.corrcoef(read[0, 100:40000], wanted[0, 100 + k : 40000 + k] if k >= -100 else 0)[0, 1]
        for k in lags
    ]
    best = lags[int(np.argmax(match))]
    assert abs(best) <= (0 if suffix == ".mp4" else 24)
    assert max(match) > 0.99


def test_a_resampled_part_lies_on_the_grid_of_the_whole(tmp_path):
    sent = signals(4, 6.0, RATE)
    media.write_audio(tmp_path / "a.wav", sent, RATE, "FLOAT")
    whole, _ = media.read_audio(tmp_path / "a.wav", 44100)
    part, _ = media.read_audio(tmp_path / "a.wav", 44100, start_s=2.3, duration_s=1.1)
    expected = whole[:, round(2.3 * 44100) : round(2.3 * 44100) + round(1.1 * 44100)]
    assert part.shape == expected.shape
    np.testing.assert_allclose(part, expected, atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_no_numbers(tmp_path, bad):
    sound = signals(4, 0.2, RATE)
    sound[2, 100:103] = bad
    soundfile.write(tmp_path / "a.wav", sound.T, RATE, subtype="FLOAT")
    with pytest.raises(UserError, match="NaN or infinity .3 samples"):
        media.read_audio(tmp_path / "a.wav")


def test_probe_audio_measures_what_is_there(tmp_path):
    path = write_film(tmp_path / "a.mp4", signals(4, 3.0, RATE), RATE, "aac", movflags="+faststart")
    info = media.probe_audio(path)
    assert (info.channels, info.rate, info.codec) == (4, RATE, "aac")
    assert info.duration_s == pytest.approx(3.0, abs=0.03)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])  # the header still promises 3 s
    assert media.probe_audio(path).duration_s < 2.5
    with pytest.raises(UserError, match="no audio track"):
        media.probe_audio(write_film(tmp_path / "silent.mp4"))


def test_sa3d_box(tmp_path):
    path = write_film(tmp_path / "a.mp4", signals(4, 0.3, RATE))
    assert media.ambisonic_tag(path) is None
    insert_box(path, b"mp4a", sa3d((0, 2, 3, 1)))
    tag = media.ambisonic_tag(path)
    assert (tag.ordering, tag.normalisation, tag.places, tag.extra) == ("acn", "sn3d", (0, 2, 3, 1), 0)
    assert media.read_audio(path)[0].shape[0] == 4  # and the file still plays


def test_sa3d_with_head_locked_stereo(tmp_path):
    path = write_film(tmp_path / "a.mp4", signals(6, 0.3, RATE), layout="5.1")
    insert_box(path, b"mp4a", sa3d(range(6), head_locked=True))
    assert (media.ambisonic_tag(path).places, media.ambisonic_tag(path).extra) == ((0, 1, 2, 3), 2)


@pytest.mark.parametrize(
    "wrong", [{"ordering": 1}, {"normalisation": 2}, {"order": 0}, {"order": 2}, {"count": 9}]
)
def test_sa3d_of_no_published_version(tmp_path, wrong):
    path = write_film(tmp_path / "a.mp4", signals(4, 0.3, RATE))
    insert_box(path, b"mp4a", sa3d(**wrong))
    with pytest.raises(UserError, match="its SA3D box"):
        media.ambisonic_tag(path)


def test_opus_families(tmp_path):
    sound = signals(4, 0.3, RATE)
    family_2 = write_film(tmp_path / "a.mkv", sound, RATE, "libopus", "ambisonic 1", FAMILY_2)
    assert media.ambisonic_tag(family_2).places == (0, 1, 2, 3)
    # families 1 and 255 say loudspeakers, or nothing
    assert media.ambisonic_tag(write_film(tmp_path / "b.mkv", sound, RATE, "libopus", "quad")) is None
    other = write_film(tmp_path / "c.mkv", sound, RATE, "libopus", "quad", {"mapping_family": "255"})
    assert media.ambisonic_tag(other) is None
    data = family_2.read_bytes()
    at = data.index(b"OpusHead") + 18
    (tmp_path / "d.mkv").write_bytes(data[:at] + b"\x03" + data[at + 1 :])
    for call in (media.ambisonic_tag, media.probe_audio, media.read_audio):
        with pytest.raises(UserError, match="Opus of channel mapping family 3, a mixture"):
            call(tmp_path / "d.mkv")


def test_b_format_wav(tmp_path):
    sound = np.zeros((4, 100), "<i2")
    guid = struct.pack("<I", 1) + bytes.fromhex("2107d3118644c8c1ca000000")
    head = struct.pack("<HHIIHHHHI", 0xFFFE, 4, RATE, RATE * 8, 8, 16, 22, 16, 0) + guid
    chunks = [
        b"fmt " + struct.pack("<I", len(head)) + head,
        b"data" + struct.pack("<I", 800) + sound.tobytes(),
    ]
    body = b"WAVE" + b"".join(chunks)
    (tmp_path / "a.amb").write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    tag = media.ambisonic_tag(tmp_path / "a.amb")
    assert (tag.ordering, tag.normalisation, tag.places) == ("fuma", "maxn", (0, 2, 3, 1))
    assert media.read_audio(tmp_path / "a.amb")[0].shape == (4, 100)
    media.write_audio(tmp_path / "plain.wav", np.zeros((4, 100), np.float32), RATE)
    assert media.ambisonic_tag(tmp_path / "plain.wav") is None


def test_pictures_of_the_sphere(tmp_path):
    plain = media.probe(write_film(tmp_path / "plain.mp4"))
    assert (plain.projection, plain.stereo, plain.pose_deg) == ("", "", (0, 0, 0))
    path = write_film(tmp_path / "a.mp4")
    insert_box(path, b"avc1", st3d(1) + sv3d(yaw_deg=30.0))
    info = media.probe(path)
    assert (info.projection, info.stereo, info.pose_deg) == ("equirectangular", "top-bottom", (30, 0, 0))
    path = write_film(tmp_path / "b.mp4")
    insert_box(path, b"avc1", st3d(2) + sv3d(b"cbmp"))
    assert (media.probe(path).projection, media.probe(path).stereo) == ("cubemap", "side-by-side")
    matroska = write_film(tmp_path / "c.mkv", metadata={"stereo_mode": "top_bottom"})
    assert media.probe(matroska).stereo == "top-bottom"


def test_boxes_of_a_damaged_file_end_the_search(tmp_path):
    path = write_film(tmp_path / "a.mp4", signals(4, 0.3, RATE))
    insert_box(path, b"mp4a", sa3d())
    data = bytearray(path.read_bytes())
    at = data.rindex(b"stsd") - 4
    data[at : at + 4] = struct.pack(">I", 3)  # smaller than its own header
    path.write_bytes(bytes(data))
    assert media.ambisonic_tag(path) is None
