"""IB-score's arithmetic with a module in ImageBind's place that has its documented interface."""

import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

from bi_audio_dataset.media import write_video
from bi_audio_dataset.schema import UserError
from visaudio.evaluation import imagebind, measures
from visaudio.evaluation.imagebind import picture_input, sound_input
from visaudio.evaluation.measures import Scene, Settings, Sound, Unavailable

FPS, RATE = 25, 44100


class FakeImageBind(nn.Module):
    """Inputs by modality, of several clips each, whose embeddings are averaged.

    Embeddings: how bright each colour is, how loud each third of the bands is, through a matrix.
    """

    def __init__(self):
        super().__init__()
        self.vision, self.audio = nn.Linear(3, 4, bias=False), nn.Linear(3, 4, bias=False)
        self.calls = []

    def forward(self, inputs):
        found = {}
        for name, value in inputs.items():
            self.calls.append((name, tuple(value.shape)))
            batch, clips = value.shape[:2]
            assert value.ndim >= 5
            each = value.flatten(0, 1)
            if name == "vision":
                assert each.shape[1:] == (3, 2, 224, 224)
                embedding = self.vision(each.mean(dim=(2, 3, 4)))
            else:
                assert each.shape[1:] == (1, 128, 204)
                bands = torch.stack([part.mean(dim=(1, 2, 3)) for part in each.tensor_split(3, dim=2)], 1)
                embedding = 20 * nn.functional.normalize(self.audio(bands), dim=-1)
            found[name] = embedding.view(batch, clips, -1).mean(dim=1)
        return found


@pytest.fixture
def package(monkeypatch):
    """`imagebind` as it can be imported; its own downloader must not be asked."""

    def imagebind_huge(pretrained=False):
        assert not pretrained
        return FakeImageBind()

    modules = [types.ModuleType(name) for name in ("imagebind", "imagebind.models", imagebind.PACKAGE)]
    modules[-1].imagebind_huge = imagebind_huge
    for module in modules:
        monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    torch.save(FakeImageBind().state_dict(), tmp_path / "imagebind_huge.pth")
    return str(tmp_path / "imagebind_huge.pth")


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """8 s, 448 x 224: red for 2 s, then green, blue, white; its left quarter always black."""
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    frames = []
    for colour in colours:
        picture = np.zeros((224, 448, 3), np.uint8)
        picture[:, 112:] = colour
        frames += [picture] * (2 * FPS)
    path = tmp_path_factory.mktemp("film") / "colours.mp4"
    write_video(path, frames, FPS)
    return path


def noise(seconds=8.0, gains=(1.0, 1.0), seed=0):
    audio = np.random.default_rng(seed).standard_normal((2, round(seconds * RATE)))
    return Sound((0.1 * audio * np.array(gains)[:, None]).astype(np.float32), RATE)


def test_pictures_are_pairs_of_moments_in_three_crops(film):
    seen = picture_input(film, 8.0)
    assert seen.shape == (9, 3, 2, 224, 224)
    mean, std = (torch.tensor(v) for v in (imagebind.MEAN, imagebind.STD))
    # crop, pair, colour, moment; back to [0, 1]
    bright = seen.view(3, 3, 3, 2, 224, 224)[..., 112:, :].mean(dim=(-1, -2)) * std[:, None] + mean[:, None]
    shown = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]])
    for pair in range(3):
        for moment in range(2):
            wanted = shown[pair + moment]
            assert torch.allclose(bright[2, pair, :, moment], wanted, atol=0.1)  # the right square
            assert torch.allclose(bright[0, pair, :, moment], wanted / 2, atol=0.1)  # half of it is black
    assert torch.allclose(bright[1], bright[2], atol=0.1)  # the middle begins where the black ends


def test_an_upright_picture_is_cropped_from_top_to_bottom(tmp_path):
    picture = np.zeros((400, 100, 3), np.uint8)
    picture[200:] = 255
    write_video(tmp_path / "tall.mp4", [picture] * 100, FPS)
    seen = picture_input(tmp_path / "tall.mp4", 4.0)
    assert seen.shape == (3, 3, 2, 224, 224)
    top, middle, bottom = seen[:, 0].mean(dim=(1, 2, 3)).tolist()
    assert top < middle < bottom and top + bottom == pytest.approx(2 * middle, abs=0.05)


@pytest.mark.parametrize(("seconds", "clips"), [(8.0, 9), (5.9, 3), (3.9, 3), (1.0, 3)])
def test_short_clips_have_fewer_pairs(film, seconds, clips):
    assert len(picture_input(film, seconds)) == clips


def test_sound_is_three_windows_of_kaldis_frames():
    """Written out: 25 ms every 10 ms, mean out, pre-emphasis, Hann, power, mel triangles in mel."""
    signal = np.random.default_rng(0).standard_normal(7 * 16000) * np.linspace(1, 0.01, 7 * 16000) + 0.1
    found = sound_input(signal.astype(np.float32)).numpy()
    assert found.shape == (3, 1, 128, 204)
    mel = lambda hz: 1127 * np.log(1 + hz / 700)  # noqa: E731
    edges = np.linspace(mel(20), mel(8000), 130)
    place = mel(np.arange(257) * 16000 / 512)[:, None]
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    triangles = np.maximum(0, np.minimum((place - low) / (centre - low), (high - place) / (high - centre)))
    for number, start_s in enumerate((0.0, 2.5, 5.0)):
        begin = int(start_s * 16000)
        window = signal[begin : begin + 32000]
        window = window - window.mean()
        for frame in (0, 50, 197):
            cut = window[frame * 160 : frame * 160 + 400]
            cut = cut - cut.mean()
            cut = np.append(cut[0] * 0.03, cut[1:] - 0.97 * cut[:-1])
            cut = cut * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399))
            power = np.abs(np.fft.rfft(cut, 512)) ** 2
            expected = (np.log(np.maximum(power @ triangles, 1.1920929e-07)) + 4.268) / 9.138
            assert np.allclose(found[number, 0, :, frame], expected, atol=1e-3)
        assert np.allclose(found[number, 0, :, 198:], 4.268 / 9.138)


def test_short_sounds_are_filled_up():
    assert np.isfinite(sound_input(np.ones(100, np.float32))).all()
    half = sound_input(np.random.default_rng(0).standard_normal(16000).astype(np.float32))
    assert np.allclose(half[0], half[2]) and np.allclose(half[0, 0, :, 98:], 4.268 / 9.138)


def test_score_is_the_cosine_of_averaged_embeddings(package, weights, film):
    measure = measures.make("imagebind", Settings({"imagebind": weights}))
    scene = Scene("a", 8.0, video=film)
    ours, theirs = noise(gains=(1.0, 0.1)), noise(seed=1)
    row = measure.compare(measure.hear(ours, scene), measure.hear(theirs, scene), scene)
    kinds = [name for name, _ in measure.model.calls]
    assert kinds == ["audio", "vision", "audio"]  # the picture is seen once
    assert measure.model.calls[0][1] == (3, 3, 1, 128, 204)

    state = torch.load(weights, weights_only=True)
    picture = picture_input(film, 8.0).mean(dim=(0, 2, 3, 4)) @ state["vision.weight"].T

    def cosine(signal):
        each = sound_input(signal)
        bands = torch.stack([part.mean(dim=(1, 2, 3)) for part in each.tensor_split(3, dim=2)], 1)
        embedding = nn.functional.normalize(bands @ state["audio.weight"].T, dim=-1).mean(0)
        return nn.functional.cosine_similarity(embedding, picture, dim=0).item()

    left, right = ours.at(16000)
    assert row["ib_score"] == pytest.approx(cosine((left + right) / 2), abs=1e-5)
    assert row["ib_score_ears"] == pytest.approx((cosine(left) + cosine(right)) / 2, abs=1e-5)
    assert row["ib_score_reference"] == pytest.approx(cosine(theirs.at(16000).mean(0)), abs=1e-5)
    assert np.isnan(measure.compare(measure.hear(ours, scene), None, scene)["ib_score_reference"])


def test_the_package_and_its_weights_may_be_missing(monkeypatch, tmp_path, package, weights):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Unavailable, match=r"no weights at .checkpoints/imagebind_huge.pth; fetch .*CC BY-NC"):
        measures.make("imagebind", Settings())
    (tmp_path / ".checkpoints").mkdir()
    (tmp_path / "imagebind_huge.pth").rename(tmp_path / ".checkpoints" / "imagebind_huge.pth")
    assert measures.make("imagebind", Settings()).key.startswith("imagebind-1-")
    monkeypatch.setitem(sys.modules, imagebind.PACKAGE, None)
    with pytest.raises(Unavailable, match="the package imagebind cannot be imported") as error:
        measures.make("imagebind", Settings({"imagebind": weights}))
    assert "\n" not in str(error.value)


def test_bad_weights_are_one_line(package, weights, tmp_path):
    torch.save({"audio.weight": torch.zeros(4, 3)}, tmp_path / "part.pth")
    with pytest.raises(
        UserError, match=r"not the weights of ImageBind \(huge\): missing \['vision.weight'\]"
    ):
        measures.make("imagebind", Settings({"imagebind": str(tmp_path / "part.pth")}))
    whole = (tmp_path / "imagebind_huge.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cut.pth: cannot be read as weights of ImageBind"):
        measures.make("imagebind", Settings({"imagebind": str(tmp_path / "cut.pth")}))
    torch.save({"audio.weight": Code()}, tmp_path / "code.pth")
    with pytest.raises(UserError, match="more than tensors"):
        measures.make("imagebind", Settings({"imagebind": str(tmp_path / "code.pth")}))
    with pytest.raises(UserError, match="no weights of ImageBind at .*nothing.pth"):
        measures.make("imagebind", Settings({"imagebind": str(tmp_path / "nothing.pth")}))


class Code:
    def __reduce__(self):
        return exec, ("raise SystemExit('code of a pickle was run')",)


def test_importing_the_measure_imports_no_imagebind():
    assert imagebind.PACKAGE not in sys.modules or sys.modules[imagebind.PACKAGE] is None
