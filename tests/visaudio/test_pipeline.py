import numpy as np
import pytest
import torch
from micro import micro_components, write_clip

from bi_audio_dataset import media
from bi_audio_dataset.schema import UserError
from visaudio import hub
from visaudio.pipeline import ViSAudioPipeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return hub.save_pretrained(tmp_path_factory.mktemp("model") / "micro", micro_components())


@pytest.fixture(scope="module")
def pipe(folder):
    return ViSAudioPipeline.from_pretrained(folder, device="cpu")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("video") / "v.mp4", 0.6, width=56, height=36)


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def test_a_video_gives_two_ears_of_its_length(pipe, video):
    sound = pipe(video, generator=seeded())
    assert sound.sample_rate == 44100 and sound.audio.shape == (2, round(0.6 * 44100))
    assert sound.audio.dtype == np.float32
    assert np.array_equal(sound.audio, pipe(video, generator=seeded()).audio)
    assert not np.allclose(sound.audio, pipe(video, generator=seeded(1)).audio, atol=1e-4)
    assert not np.allclose(sound.audio[0], sound.audio[1], atol=1e-4)


def test_frames_are_as_good_as_the_file(pipe, video):
    frames = media.read_frames(video, np.arange(15) / 25)
    from_frames = pipe(frames, fps=25, generator=seeded())
    assert np.allclose(from_frames.audio, pipe(video, generator=seeded()).audio, atol=1e-4)
    with pytest.raises(UserError, match="save as .flac or .wav"):
        from_frames.save(video.with_name("w.mp4"))


def test_arguments_reach_the_model(pipe, video):
    plain = pipe(video, generator=seeded()).audio
    for change in (
        {"prompt": "a bell"},
        {"negative_prompt": "a bell"},
        {"num_inference_steps": 3},
        {"guidance_scale": 1.0},
        {"mask_away_clip": True},
        {"hfov_deg": 50.0},
    ):
        assert not np.allclose(plain, pipe(video, generator=seeded(), **change).audio, atol=1e-6), change
    assert pipe(video, duration=2.3).audio.shape == (2, round(2.3 * 44100))
    assert pipe(video, duration=0.05).audio.shape == (2, round(0.05 * 44100))


def test_saving_as_sound_or_with_the_picture(pipe, video, tmp_path):
    sound = pipe(video, generator=seeded())
    sound.save(tmp_path / "s.flac")
    read, rate = media.read_audio(tmp_path / "s.flac")
    assert rate == 44100 and np.abs(read - sound.audio).max() <= 2**-23
    sound.save(tmp_path / "s.mp4")
    info = media.probe(tmp_path / "s.mp4")
    assert (info.num_frames, info.audio_channels, info.audio_rate) == (15, 2, 44100)


def test_a_saved_pipeline_makes_the_same_sound(pipe, video, tmp_path):
    again = ViSAudioPipeline.from_pretrained(pipe.save_pretrained(tmp_path / "again"), device="cpu")
    assert np.array_equal(again(video, generator=seeded()).audio, pipe(video, generator=seeded()).audio)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hfov_deg": 180.0}, "between 0 and 180"),
        ({"num_inference_steps": 0}, "at least 1"),
        ({"guidance_scale": float("nan")}, "finite"),
        ({"duration": -1.0}, "positive"),
    ],
)
def test_wrong_values_are_named(pipe, video, options, message):
    with pytest.raises(UserError, match=message):
        pipe(video, **options)


def test_damaged_weights_do_not_make_noise_files(pipe, video):
    broken = ViSAudioPipeline(micro_components())
    broken.components.codec.decoder.head.weight.data[:] = float("nan")
    with pytest.raises(UserError, match="not finite"):
        broken(video)


def test_the_packaged_model_is_found():
    pipe = ViSAudioPipeline.from_pretrained(device="cpu")
    assert pipe.components.preset.name == "tiny" and pipe.components.info.limits
    size = sum(f.stat().st_size for f in hub.find_model("tiny").iterdir())
    assert size <= 25e6
