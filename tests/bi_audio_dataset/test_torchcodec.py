"""Where torchcodec is installed, `datasets` decodes the columns once they are cast; without it this skips.

Its wheel needs FFmpeg's shared libraries (apt: ffmpeg) and a torch of the right version.
"""

import io

import datasets
import fake_sets
import numpy as np
import pytest
import soundfile
from datasets import Audio, Video

from bi_audio_dataset import media
from bi_audio_dataset.__main__ import main
from visaudio.data.dataset import read_clip

try:
    import torchcodec.decoders
except (ImportError, OSError, RuntimeError) as error:  # the last ones: no FFmpeg, another torch
    pytest.skip(f"torchcodec cannot be used: {str(error).splitlines()[0]}", allow_module_level=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set") / "set"
    fake_sets.make_set(folder, fake_sets.rows(2, left=0.3))
    assert main(["card", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("streaming", [False, True])
def test_columns_are_decoded_once_they_are_cast(folder, tmp_path, streaming):
    rows = datasets.load_dataset(str(folder), split="train", streaming=streaming, cache_dir=str(tmp_path))
    plain = next(iter(rows))
    assert plain["audio"]["bytes"][:4] == b"fLaC" and plain["video"]["bytes"][4:8] == b"ftyp"
    row = next(iter(rows.cast_column("audio", Audio()).cast_column("video", Video())))
    assert row["id"] == plain["id"]

    stored, rate = soundfile.read(io.BytesIO(plain["audio"]["bytes"]), dtype="float32", always_2d=True)
    assert isinstance(row["audio"], torchcodec.decoders.AudioDecoder)
    samples = row["audio"].get_all_samples()
    assert samples.sample_rate == rate == 44100 and samples.data.shape[0] == 2
    np.testing.assert_array_equal(samples.data.numpy().T, stored)
    levels = samples.data.square().mean(dim=1).sqrt()
    assert float(levels[0] / levels[1]) != pytest.approx(1.0, abs=0.1)  # the ears were not mixed

    film = tmp_path / "clip.mp4"
    film.write_bytes(plain["video"]["bytes"])
    shown = media.read_frames(film, [0.0, 0.4])
    assert isinstance(row["video"], torchcodec.decoders.VideoDecoder)
    frames = row["video"].get_frames_played_at([0.0, 0.4]).data.permute(0, 2, 3, 1).numpy()
    assert frames.shape == shown.shape
    assert np.abs(frames.astype(int) - shown).mean() < 3
    assert abs(int(shown[1].mean()) - int(shown[0].mean())) > 20  # or the times would not matter


def test_our_reader_is_the_same_beside_it(folder, tmp_path):
    rows = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path))
    clip = read_clip(rows[0], times_s=np.array([0.0, 0.4]), sample_rate=44100)
    stored, _ = soundfile.read(io.BytesIO(rows[0]["audio"]["bytes"]), dtype="float32", always_2d=True)
    np.testing.assert_allclose(clip.audio, stored.T, atol=1e-6)
