"""A folder of 360-degree films: whose channel order is known, and everything that is refused, in one line."""

import copy
import pickle

import cv2
import numpy as np
import pytest
import soundfile
from fake_source import tiny_config
from foa_films import insert_box, panorama, sa3d, signals, st3d, sv3d, write_film

from bi_audio_dataset import ambisonics, media
from bi_audio_dataset.channels import AMBIX, FUMA
from bi_audio_dataset.clip import ClipMaker, Unusable
from bi_audio_dataset.filters import ProjectionFilter, SelectionConfig
from bi_audio_dataset.picture import look_at
from bi_audio_dataset.schema import UserError
from bi_audio_dataset.sources.base import Recording, Source, read_sound
from bi_audio_dataset.sources.folder import FolderSource

RATE = 48000


def write_foa(path, azimuth_deg=60.0, order="ambix", seconds=0.6, rate=RATE):
    """A sound file of one plane wave, in AmbiX or FuMa."""
    mono = signals(1, seconds, rate)[0]
    foa = ambisonics.encode(mono, np.radians(azimuth_deg), 0.2)
    if order == "fuma":
        foa = foa[[0, 3, 1, 2]] * np.array([[0.5**0.5], [1], [1], [1]], np.float32)
    media.write_audio(path, foa, rate, "PCM_24")
    return path


def azimuth_of(recording):
    return np.degrees(ambisonics.max_energy_direction(read_sound(recording, RATE), RATE)[0])


def fetch(folder, name="a", **options):
    return FolderSource(folder, **options).fetch(name, folder)


def test_it_is_a_source(tmp_path):
    source = FolderSource(tmp_path, channels="fuma")
    assert isinstance(source, Source)
    assert pickle.loads(pickle.dumps(source)) == source
    assert source.settings["channels"] == "fuma"


def test_the_order_in_the_file_is_followed(tmp_path):
    """A track stored as W, X, Y, Z whose SA3D box says so."""
    foa = ambisonics.encode(signals(1, 1.0, RATE)[0], np.radians(60.0), 0.0)
    path = write_film(tmp_path / "a.mp4", foa[[0, 3, 1, 2]], RATE, "aac")
    insert_box(path, b"mp4a", sa3d((0, 2, 3, 1)))
    assert azimuth_of(fetch(tmp_path)) == pytest.approx(60.0, abs=1.0)


def test_opus_ambisonics_say_themselves(tmp_path):
    foa = ambisonics.encode(signals(1, 1.0, RATE)[0], np.radians(-100.0), 0.0)
    write_film(tmp_path / "a.mkv", foa, RATE, "libopus", "ambisonic 1", {"mapping_family": "2"})
    recording = fetch(tmp_path)
    assert recording.channels == AMBIX
    assert azimuth_of(recording) == pytest.approx(-100.0, abs=1.0)


def test_fuma_on_request(tmp_path):
    write_film(tmp_path / "a.mp4", seconds=0.6)
    write_foa(tmp_path / "a.wav", 60.0, "fuma")
    recording = fetch(tmp_path, channels="fuma")
    assert recording.channels == FUMA
    assert azimuth_of(recording) == pytest.approx(60.0, abs=1.0)
    expected = media.read_audio(write_foa(tmp_path / "b.wav", 60.0))[0]
    np.testing.assert_allclose(read_sound(recording, RATE), expected, atol=3e-7)


def test_an_unstated_order_is_refused(tmp_path):
    write_film(tmp_path / "a.mp4", seconds=0.6)
    write_foa(tmp_path / "a.flac")
    with pytest.raises(UserError, match="'a.flac' does not say in which order") as caught:
        fetch(tmp_path)
    assert '{"channels": "ambix"}' in str(caught.value)
    assert fetch(tmp_path, channels="ambix").channels == AMBIX


@pytest.mark.parametrize("name", ["a.json", "ambisonics.json"])
def test_a_sidecar_states_it(tmp_path, name):
    write_film(tmp_path / "a.mp4", seconds=0.6)
    write_foa(tmp_path / "a.wav", -30.0, "fuma")
    (tmp_path / name).write_text('{"ordering": "FuMa", "normalisation": "MaxN"}')
    assert azimuth_of(fetch(tmp_path)) == pytest.approx(-30.0, abs=1.0)


def test_file_and_user_disagree(tmp_path):
    path = write_film(tmp_path / "a.mp4", signals(4, 0.6, RATE), RATE)
    insert_box(path, b"mp4a", sa3d())
    with pytest.raises(UserError, match="is WYZX SN3D by its SA3D box, but fuma .WXYZ MaxN. was asked"):
        fetch(tmp_path, channels="fuma")
    (tmp_path / "a.json").write_text('{"channels": "fuma"}')  # the nearest word counts
    assert fetch(tmp_path, channels="fuma").channels == FUMA


def test_head_locked_stereo_is_left_out(tmp_path):
    sound = signals(6, 0.8, RATE)
    path = write_film(tmp_path / "a.mov", sound, RATE, "pcm_s16le", "5.1")
    with pytest.raises(UserError, match="'a.mov' has 6 audio channels .5.1 surround"):
        fetch(tmp_path, channels="ambix")
    entry = b"sowt" if b"sowt" in path.read_bytes() else b"lpcm"
    insert_box(path, entry, sa3d(range(6), head_locked=True))
    foa = read_sound(fetch(tmp_path), RATE)
    np.testing.assert_allclose(foa, sound[:4], atol=2**-15)


def test_part_of_a_recording(tmp_path):
    write_film(tmp_path / "a.mp4", seconds=3.0)
    write_foa(tmp_path / "a.flac", seconds=3.0)
    recording = fetch(tmp_path, channels="ambix")
    whole = read_sound(recording, 44100)
    part = read_sound(recording, 44100, 1.5, 0.5)
    np.testing.assert_allclose(part, whole[:, 66150 : 66150 + 22050], atol=1e-5)


# everything below is refused: what writes it, and words of the reason


def silent(folder):
    write_film(folder / "a.mp4")


def truncated(folder):
    path = write_film(folder / "a.mp4", signals(4, 1.0, RATE), RATE)
    path.write_bytes(path.read_bytes()[:2000])  # the index stands at the end


def half_a_film(folder):
    sound = signals(4, 4.0, RATE)
    path = write_film(folder / "a.mp4", sound, RATE, movflags="+faststart")
    write_foa(folder / "a.flac", seconds=4.0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


def empty(folder):
    (folder / "a.mp4").touch()


def text(folder):
    (folder / "a.mp4").write_text("no film\n" * 99)


def unreadable_sound(folder):
    write_film(folder / "a.mp4")
    (folder / "a.flac").write_bytes(np.random.default_rng(0).bytes(5000))


def channels_of(count):
    def write(folder):
        write_film(folder / "a.mp4", seconds=0.6)
        media.write_audio(folder / "a.wav", signals(count, 0.6, RATE), RATE)

    write.__name__ = f"channels_{count}"
    return write


def low_rate(folder):
    write_film(folder / "a.mp4", seconds=0.6)
    write_foa(folder / "a.flac", rate=8000)


def high_rate(folder):
    write_film(folder / "a.mp4", seconds=0.6)
    soundfile.write(folder / "a.wav", np.zeros((230_400, 4)), 384_000)


def no_numbers(folder):
    write_film(folder / "a.mp4", seconds=0.6)
    sound = signals(4, 0.6, RATE)
    sound[1, 1000] = np.nan
    soundfile.write(folder / "a.wav", sound.T, RATE, subtype="FLOAT")


def longer_sound(folder):
    write_film(folder / "a.mp4", seconds=0.6)
    write_foa(folder / "a.flac", seconds=2.0)


def flat_size(folder):
    write_film(folder / "a.mp4", signals(4, 0.6, RATE), RATE, picture=panorama((128, 72)))


def flat_picture(folder):
    row, column = np.mgrid[0:64, 0:128]
    ramp = np.uint8(np.clip(1.5 * column + row * np.sin(column / 9), 0, 255))
    write_film(folder / "a.mp4", signals(4, 0.6, RATE), RATE, picture=np.stack([ramp] * 3, axis=2))


def two_eyes_square(folder):
    write_film(folder / "a.mp4", signals(4, 0.6, RATE), RATE, picture=panorama((128, 128)))


def two_eyes_squeezed(folder):
    eye = panorama((128, 32))
    write_film(folder / "a.mp4", signals(4, 0.6, RATE), RATE, picture=np.concatenate([eye, eye]))


def two_eyes_beside(folder):
    eye = panorama((64, 64))
    write_film(folder / "a.mp4", signals(4, 0.6, RATE), RATE, picture=np.concatenate([eye, eye], axis=1))


def two_eyes_stated(folder):
    path = write_film(folder / "a.mp4", signals(4, 0.6, RATE), RATE)
    insert_box(path, b"avc1", st3d(1))


def two_eyes_stated_in_matroska(folder):
    write_film(folder / "a.mkv", signals(4, 0.6, RATE), RATE, metadata={"stereo_mode": "top_bottom"})


def cubemap(folder):
    path = write_film(folder / "a.mp4", signals(4, 0.6, RATE), RATE)
    insert_box(path, b"avc1", sv3d(b"cbmp"))


def turned(folder):
    path = write_film(folder / "a.mp4", signals(4, 0.6, RATE), RATE)
    insert_box(path, b"avc1", sv3d(yaw_deg=40.0))


def twice(folder):
    write_film(folder / "a.mp4")
    write_film(folder / "a.mkv")


# the name under which it is kept, and words of the reason
BAD = {
    silent: ("no_sound", "has no sound that can be decoded"),
    truncated: (None, "cut short"),
    half_a_film: ("length_mismatch", "is one cut short"),
    empty: (None, "the file is empty"),
    text: (None, "cannot be read as media"),
    unreadable_sound: (None, "its audio track cannot be decoded"),
    channels_of(1): ("channels", "'a.wav' has 1 audio channels .mono"),
    channels_of(2): ("channels", "'a.wav' has 2 audio channels .stereo"),
    channels_of(3): ("channels", "'a.wav' has 3 audio channels"),
    channels_of(6): ("channels", "'a.wav' has 6 audio channels .5.1"),
    low_rate: ("sample_rate", "'a.flac' has sound at 8000 Hz, expected 16000"),
    high_rate: ("sample_rate", "'a.wav' has sound at 384000 Hz"),
    no_numbers: ("not_finite", "holds NaN or infinity .1 samples"),
    longer_sound: ("length_mismatch", "'a': 2.00 s of sound and 0.60 s of picture"),
    flat_size: ("not_equirectangular", "is 128x72, expected an equirectangular one"),
    flat_picture: ("not_equirectangular", "left and right edges do not meet"),
    two_eyes_square: ("not_equirectangular", "128x128 .two eyes, top-bottom"),
    two_eyes_squeezed: ("not_equirectangular", "shows the same twice, top-bottom"),
    two_eyes_beside: ("not_equirectangular", "shows the same twice, side by side"),
    two_eyes_stated: ("stereo_360", "is stereo 360 .top-bottom"),
    two_eyes_stated_in_matroska: ("stereo_360", "is stereo 360 .top-bottom"),
    cubemap: ("projection", "is stored as cubemap"),
    turned: ("turned_sphere", "states a turn of its sphere .yaw 40"),
    twice: (None, "several videos named 'a' .a.mp4, a.mkv."),
}
MEASURED = {
    "channels_3": {"channels.count": 3},
    "low_rate": {"sample_rate.hz": 8000},
    "no_numbers": {"not_finite.samples": 1},
    "longer_sound": {"length_mismatch.audio_s": 2.0, "length_mismatch.video_s": 0.6},
    "flat_size": {"not_equirectangular.aspect": pytest.approx(128 / 72, abs=1e-5)},
    "two_eyes_squeezed": {"not_equirectangular.top_bottom": pytest.approx(1.0, abs=0.02)},
    "turned": {"turned_sphere.yaw_deg": 40.0},
}


@pytest.fixture(scope="module")
def makers():
    """ClipMakers of SelectionConfigs, all of one head."""
    made = ClipMaker(tiny_config(clip_s=0.5, selection=SelectionConfig()))

    def maker(selection: SelectionConfig) -> ClipMaker:
        other = copy.copy(made)
        other.config = tiny_config(clip_s=0.5, selection=selection)
        return other

    return maker


@pytest.mark.parametrize("write", BAD, ids=[write.__name__ for write in BAD])
def test_bad_recordings_are_put_aside_under_a_name(tmp_path, makers, write):
    write(tmp_path)
    source = FolderSource(tmp_path, channels="ambix")
    assert source.recording_ids() == ["a"]  # the builder asks for it, and puts it aside
    name, words = BAD[write]
    with pytest.raises(Unusable if name else UserError, match=words) as caught:
        makers(SelectionConfig()).make(source.fetch("a", tmp_path), "folder", "train")
    assert "\n" not in str(caught.value)
    if name:
        assert list(caught.value.reasons) == [name]
        for key, value in MEASURED.get(write.__name__, {}).items():
            assert caught.value.measures[key] == value


@pytest.mark.parametrize("action", ["mark", "off"])
@pytest.mark.parametrize("write", [longer_sound, flat_size, flat_picture, two_eyes_squeezed])
def test_marked_or_unlooked_at_they_are_built(tmp_path, makers, write, action):
    write(tmp_path)
    name = BAD[write][0]
    selection = SelectionConfig.measured().with_actions({name: action})
    recording = FolderSource(tmp_path, channels="ambix").fetch("a", tmp_path)
    made = makers(selection).make(recording, "folder", "train")
    assert len(made.records) == len(made.clips) == 1
    for row in [made.recording, *made.clips]:
        assert (name in row["marks"]) is (action == "mark")
        assert any(key.startswith(name) for key in row["measures"]) is (action == "mark")


def test_a_trusted_picture_is_marked_for_its_looks_but_not_for_its_size(tmp_path, makers):
    flat_picture(tmp_path)
    source = FolderSource(tmp_path, channels="ambix", trust_picture=True)
    off = {"static": "off", "weak_cue": "off", "duplicate": "off"}
    maker = makers(SelectionConfig().with_actions(off))
    made = maker.make(source.fetch("a", tmp_path), "folder", "train")
    assert len(made.records) == 1 and "not_equirectangular" in made.clips[0]["marks"]
    flat_size(tmp_path)
    with pytest.raises(Unusable, match="128x72"):
        maker.make(source.fetch("a", tmp_path), "folder", "train")


def test_good_pictures_are_not_mistaken(tmp_path):
    """Panoramas pass, also such as tempt the looks: fine texture, blocks, the same sky all around."""
    row = np.arange(64)[:, None]
    texture = np.random.default_rng(0).normal(0, 25, (64, 128))
    bands = np.where(row < 32, 200, 60) + 10 * np.sin(2 * np.pi * np.arange(128) / 128)
    blocks = np.kron(np.random.default_rng(1).uniform(20, 240, (4, 8)), np.ones((16, 16)))
    pictures = [panorama(seed=seed) for seed in range(3)]
    for grey in (bands, bands + texture, blocks):
        pictures.append(np.stack([grey] * 3, axis=2).clip(0, 255).astype(np.uint8))
    for picture in pictures:
        path = write_film(tmp_path / "a.mp4", signals(4, 0.6, RATE), RATE, picture=picture)
        found = look_at(path, media.probe(path), ProjectionFilter())
        assert not found.failed, found.measures


def test_flat_pictures_are_found_out(tmp_path, shared_dir):
    """Photographs cut to 2:1, as somebody might hand in a flat film by mistake."""
    for name in ("photo_elephant.jpg", "photo_cat_chelsea.png"):
        photo = cv2.imread(str(shared_dir / "media/images" / name))
        picture = cv2.resize(photo[: photo.shape[1] // 2], (128, 64), interpolation=cv2.INTER_AREA)
        path = write_film(tmp_path / "a.mp4", signals(4, 0.6, RATE), RATE, picture=picture)
        found = look_at(path, media.probe(path), ProjectionFilter())
        assert found.failed and found.action == "reject" and "edges do not meet" in found.why
        assert look_at(path, media.probe(path), ProjectionFilter(), trusted=True).action == "mark"


def test_wrong_settings(tmp_path):
    with pytest.raises(UserError, match="channel order 'b' is unknown"):
        FolderSource(tmp_path, channels="b")
    with pytest.raises(UserError, match="is not a folder"):
        FolderSource(tmp_path / "nowhere").recording_ids()
    with pytest.raises(UserError, match="holds no video"):
        FolderSource(tmp_path).recording_ids()
    with pytest.raises(ValueError, match="kind 'flat'"):
        Recording("a", tmp_path, tmp_path, "", "", kind="flat")
    with pytest.raises(ValueError, match="how its ears were recorded"):
        Recording("a", tmp_path, tmp_path, "", "", kind="pair")
    with pytest.raises(ValueError, match="stretches"):
        Recording("a", tmp_path, tmp_path, "", "", stretches=((3.0, 2.0),))
