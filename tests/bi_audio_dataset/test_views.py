"""Several views of one recording, ready pairs, and what the manifest says of both."""

import copy
import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fake_source import FakeSource, scene, still_camera, ticks, tiny_config

from bi_audio_dataset import media
from bi_audio_dataset.clip import ClipMaker, Unusable
from bi_audio_dataset.filters import SelectionConfig
from bi_audio_dataset.picture import PictureProbe
from bi_audio_dataset.schema import AUDIO_RATE_HZ, MONO_EARS, UserError, validate_row
from bi_audio_dataset.sound import window_starts
from bi_audio_dataset.sources.base import Recording
from bi_audio_dataset.views import film_size, render_views, sampled


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Recording:
    return FakeSource().fetch("fake-0", tmp_path_factory.mktemp("recording"))


@pytest.fixture(scope="module")
def maker_of():
    """ClipMakers of tiny configs, which share the filters of one head: these take the longest."""
    made = ClipMaker(tiny_config())

    def maker(**changes) -> ClipMaker:
        other = copy.copy(made)
        other.config = tiny_config(**changes)
        return other

    return maker


def test_views_of_one_pass_are_those_of_single_passes(recording):
    config = tiny_config()
    times_s = np.arange(config.num_frames) / config.fps
    ahead, left = np.tile(np.eye(3), (20, 1, 1)), np.tile([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], (20, 1, 1))
    cameras = [(ahead, 90.0), (left, 60.0)]

    def probe():
        return PictureProbe(config.selection, len(sampled(20, 25.0, 2.0)))

    both = render_views(recording.video_path, times_s, cameras, config, probe())
    single = [render_views(recording.video_path, times_s, [c], config, probe())[0] for c in cameras]
    assert both == single and both[0] != both[1]


def test_encoder_that_fails_ends_the_pass(recording, monkeypatch):
    config = tiny_config()
    times_s = np.arange(20) / 25.0
    ahead = np.tile(np.eye(3), (20, 1, 1))

    def refuse(frames, *_, **__):
        next(frames)
        raise UserError("no space left")

    monkeypatch.setattr(media, "encode_video_bytes", refuse)
    with pytest.raises(UserError, match="no space left"):
        render_views(
            recording.video_path, times_s, [(ahead, 90.0)] * 3, config, PictureProbe(config.selection, 2)
        )


def test_several_views_have_paths_of_their_own_and_the_first_stays(maker_of, recording):
    one = maker_of().make(recording, "fake", "train")
    made = maker_of(views_per_recording=3).make(recording, "fake", "train")
    assert [record.id for record in made.records] == ["fake-0-v0", "fake-0-v1", "fake-0-v2"]
    assert len({record.camera for record in made.records}) == 3
    assert made.records[0].camera == one.records[0].camera
    assert made.records[0].video == one.records[0].video and made.records[0].audio == one.records[0].audio
    assert [row["draw"]["view"] for row in made.clips] == [0, 1, 2]
    assert all(validate_row(record.to_row()) == [] for record in made.records)


def test_manifest_row_holds_the_whole_path_and_the_media(maker_of, recording):
    (record,), row = (made := maker_of().make(recording, "fake", "test")).records, made.clips[0]
    np.testing.assert_allclose(row["camera"]["yaw_deg"], record.camera.yaw_deg, atol=5e-4)
    assert len(row["camera"]["roll_deg"]) == 20
    assert row["video"]["bytes"] == len(record.video) and row["direction"]["azimuth_deg"] == pytest.approx(
        30, abs=1
    )
    assert row["draw"] == {"seed": 0, "window": 0, "view": 0, "render": 0}
    # the scene stands still and has no height; in 0.8 s too few pictures are compared to call it static
    assert row["marks"].keys() == {"planar", "weak_cue"}
    assert row["measures"]["weak_cue.lr_difference"] == pytest.approx(record.filters.lr_difference, rel=1e-4)
    assert (made.recording["windows"], made.recording["input"].keys()) == (1, {"video", "audio"})


def test_another_rendering_is_another_path(maker_of, recording):
    maker = maker_of()
    first, again, other = (
        maker.make(recording, "fake", "train", renders).records[0]
        for renders in ({}, {"fake-0": 1}, {"fake-1": 1})
    )
    assert again.camera != first.camera and other.camera == first.camera


def test_weak_cue_is_dropped_after_rendering(maker_of, recording):
    maker = maker_of(trajectory=still_camera(), random_yaw_probability=0.0, selection=SelectionConfig())
    made = maker.make(recording, "fake", "train")  # looks straight at the only source
    assert made.records == []
    assert list(made.clips[0]["reasons"]) == ["weak_cue"]
    assert len(made.clips[0]["camera"]["yaw_deg"]) == 20  # what was tried stands in the manifest


def changed(recording: Recording, tmp_path: Path, audio: np.ndarray) -> Recording:
    media_path = tmp_path / "changed.wav"
    soundfile.write(media_path, audio.T, AUDIO_RATE_HZ, subtype="FLOAT")
    return dataclasses.replace(recording, audio_path=media_path)


def test_bad_sound_is_refused_or_dropped_by_name(maker_of, recording, tmp_path):
    foa, _ = media.read_audio(recording.audio_path)
    maker = maker_of(selection=SelectionConfig())
    broken = foa.copy()
    broken[2, 1000:1010] = np.nan
    with pytest.raises(UserError, match=r"NaN or infinity \(10 samples\)"):
        maker.make(changed(recording, tmp_path, broken), "fake", "train")
    dead = foa * np.array([[1], [1], [1], [0]], np.float32)
    with pytest.raises(Unusable, match="channel X more than 60 dB") as error:
        maker.make(changed(recording, tmp_path, dead), "fake", "train")
    assert error.value.measures["dead_channel.x_under_db"] > 60
    quiet = maker.make(changed(recording, tmp_path, foa * np.float32(1e-2)), "fake", "train")
    assert quiet.records == [] and list(quiet.clips[0]["reasons"]) == ["silent"]
    assert "camera" not in quiet.clips[0]  # nothing was rendered
    loud = maker.make(changed(recording, tmp_path, np.clip(foa * 100, -1, 1)), "fake", "train")
    assert "clipped" in loud.clips[0]["reasons"]


def test_windows_fill_the_stretches_that_may_be_used():
    assert window_starts((), 25.0, 8.0) == [0.0, 8.0, 16.0]
    assert window_starts((), 23.95, 8.0) == [0.0, 8.0, 16.0]  # an encoder dropped the end
    assert window_starts((), 23.8, 8.0) == [0.0, 8.0]
    assert window_starts(((3.0, 13.0), (20.0, 24.0), (30.0, 50.0)), 41.0, 8.0) == [3.0, 30.0]
    assert window_starts((), 7.0, 8.0) == []


def pair_of(folder: Path, ears: np.ndarray, **more) -> Recording:
    frames = scene(20.0, 0.8)[0][:, :, 20:148]  # 128 x 80
    frames = frames + (np.arange(20, dtype=np.uint8) * 5)[:, None, None, None]
    media.write_video(folder / "p.mp4", frames, fps=25, crf=10, preset="ultrafast")
    media.write_audio(folder / "p.flac", ears, AUDIO_RATE_HZ)
    return Recording(
        "p", folder / "p.mp4", folder / "p.flac", "CC0-1.0", "test", kind="pair", ears="recorded: x", **more
    )


def test_a_pair_keeps_its_own_picture_and_ears(maker_of, tmp_path):
    mono = ticks(round(0.8 * AUDIO_RATE_HZ), 3)
    ears = np.stack([mono, 0.5 * np.roll(mono, 20)])
    made = maker_of(selection=SelectionConfig(), views_per_recording=2).make(
        pair_of(tmp_path, ears, hfov_deg=70.0), "pairs", "test"
    )
    (record,) = made.records
    assert (record.id, record.hrir_set, record.hrir_symmetric) == ("p", "recorded: x", False)
    assert record.direction is None
    assert (record.width, record.height, record.hfov_deg) == (58, 36, 70.0)  # 128 x 80 inside 64 x 36
    assert set(record.camera.yaw_deg) == {0.0} and record.truth.sources == ()
    heard = soundfile.read(io.BytesIO(record.audio))[0].T
    gain = 10 ** (record.filters.level_gain_db / 20)
    np.testing.assert_allclose(heard, gain * ears, atol=2e-4)
    assert validate_row(record.to_row()) == []
    assert made.clips[0]["hfov_known"] is True and "planar.z_under_db" not in made.clips[0]["measures"]


def test_a_declared_mono_film_is_kept_with_equal_ears(maker_of, tmp_path):
    mono = ticks(round(0.8 * AUDIO_RATE_HZ), 3)
    film = dataclasses.replace(pair_of(tmp_path, mono[None]), ears=MONO_EARS)
    made = maker_of(selection=SelectionConfig()).make(film, "films", "train")
    (record,) = made.records  # though there is no cue at all in it
    assert (record.hrir_set, record.hrir_symmetric, record.filters.lr_difference) == (MONO_EARS, True, 0.0)
    heard = soundfile.read(io.BytesIO(record.audio))[0].T
    np.testing.assert_array_equal(heard[0], heard[1])
    np.testing.assert_allclose(heard[0], 10 ** (record.filters.level_gain_db / 20) * mono, atol=2e-4)
    assert validate_row(record.to_row()) == []


def test_a_pair_of_equal_ears_is_dropped_and_mono_refused(maker_of, tmp_path):
    mono = ticks(round(0.8 * AUDIO_RATE_HZ), 3)
    maker = maker_of(selection=SelectionConfig())
    same = maker.make(pair_of(tmp_path, np.stack([mono, mono])), "pairs", "test")
    assert same.records == [] and list(same.clips[0]["reasons"]) == ["weak_cue"]
    assert same.clips[0]["hfov_known"] is False
    with pytest.raises(UserError, match="1 audio channels"):
        maker.make(pair_of(tmp_path, mono[None]), "pairs", "test")


@pytest.mark.parametrize(
    ("film", "size"),
    [((1920, 1080), (256, 144)), ((1080, 1920), (80, 144)), ((128, 72), (128, 72)), ((640, 480), (192, 144))],
)
def test_films_keep_their_shape(film, size):
    assert film_size(*film, tiny_config(width=256, height=144)) == size


def test_pictures_are_sampled_at_their_rate():
    assert sampled(200, 25.0, 2.0) == [0, 12, 25, 37, 50, 62, 75, 87, 100, 112, 125, 137, 150, 162, 175, 187]
    assert sampled(3, 1.0, 2.0) == [0, 1, 2]
