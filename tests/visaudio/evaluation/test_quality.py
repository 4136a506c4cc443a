"""FD, KL and IS by PANNs, PaSST and VGGish: as measures, on small networks with weights by formula."""

import pickle

import numpy as np
import pytest
import small_audio_networks as small
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from bi_audio_dataset.schema import UserError
from visaudio.evaluation import measures, quality
from visaudio.evaluation.audio_networks import cnn14, passt, vggish
from visaudio.evaluation.distributions import inception_score
from visaudio.evaluation.measures import ClipSet, Scene, Settings, Sound, Unavailable

NAMES = ("panns", "passt", "vggish")
RATE = 22_050


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Published forms of small networks: name -> file; and the classes that load them made small."""
    networks = {"panns": small.cnn14(), "passt": small.passt(window_s=1.2), "vggish": small.vggish()}
    monkeypatch.setitem(cnn14.PUBLISHED, 257, networks["panns"].config)
    monkeypatch.setattr(passt, "PasstConfig", lambda: networks["passt"].config)
    monkeypatch.setattr(vggish, "VggishConfig", lambda: networks["vggish"].config)
    paths = {name: tmp_path / f"{name}.pth" for name in NAMES}
    for name, network in networks.items():
        state = network.state_dict()
        whole = {"model": state, "iteration": 1, "sampler": {"indexes": np.arange(3)}}
        torch.save(whole if name == "panns" else state, paths[name])
    return {name: str(path) for name, path in paths.items()}


def made(name: str, files: dict) -> measures.Measure:
    return measures.make(name, Settings(weights=files))


def noise(seed: int, seconds: float = 1.2, level: float = 0.2) -> Sound:
    rng = np.random.default_rng(seed)
    tone = np.sin(rng.uniform(0.02, 0.5) * np.arange(round(seconds * RATE)))
    audio = level * (tone + 0.5 * rng.normal(size=(2, tone.size)))
    return Sound(audio.astype(np.float32), RATE)


SCENE = Scene("clip", 1.2)


def clip_set(measure, generated, reference) -> ClipSet:
    heard = [measure.hear(sound, SCENE) for sound in generated]
    known = [None if sound is None else measure.hear(sound, SCENE) for sound in reference]
    rows = [measure.compare(a, b, SCENE) for a, b in zip(heard, known, strict=True)]
    names = {name for row in rows for name in row}
    table = {name: np.array([row.get(name, np.nan) for row in rows]) for name in names}
    return ClipSet(tuple(map(str, range(len(heard)))), table, heard, known)


@pytest.mark.parametrize("name", NAMES)
def test_views_are_left_right_and_the_mean_of_both(name, files):
    measure, sound = made(name, files), noise(0)
    heard = measure.hear(sound, SCENE)
    left, right = (Sound(sound.audio[[ear, ear]], RATE, 1) for ear in (0, 1))
    mix = Sound(np.repeat(sound.audio.mean(axis=0, keepdims=True), 2, axis=0), RATE, 1)
    for view, alone in enumerate((left, right, mix)):
        for key, values in measure.hear(alone, SCENE).items():
            assert np.array_equal(values[0], values[1]) and values.dtype == np.float32
            np.testing.assert_allclose(heard[key][view], values[0], rtol=1e-3, atol=1e-4)
    assert np.abs(heard["embeddings"][0] - heard["embeddings"][1]).max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_a_constant_offset_is_not_heard(name, files):
    measure, sound = made(name, files), noise(1)
    moved = Sound(sound.audio + np.float32(0.1), RATE)
    for key, values in measure.hear(sound, SCENE).items():
        np.testing.assert_allclose(measure.hear(moved, SCENE)[key], values, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_figures_are_those_of_the_formulas(name, files):
    measure = made(name, files)
    assert measure.parallel is False and measure.keeps_heard
    clips = clip_set(measure, [noise(i) for i in range(12)], [noise(i, level=0.1) for i in range(50, 62)])
    found = measure.summarise(clips, np.arange(12))
    assert set(found) == {figure.name for figure in measure.figures}
    suffix = measure.part.suffix
    ears = {}
    for view, ear in enumerate(("left", "right", "mix")):
        a, b = (
            np.concatenate([x["embeddings"][view] for x in part])
            for part in (clips.generated, clips.reference)
        )
        moments = [(x.astype(float).mean(0), np.cov(x.astype(float), rowvar=False)) for x in (a, b)]
        eigenvalues = np.linalg.eigvals(moments[0][1] @ moments[1][1])
        root = np.sqrt(np.maximum(eigenvalues.real, 0)).sum()
        ears[ear] = (
            ((moments[0][0] - moments[1][0]) ** 2).sum() + sum(np.trace(m[1]) for m in moments) - 2 * root
        )
        assert found[f"fd_{suffix}_{ear}"] == pytest.approx(ears[ear], rel=1e-3)
    assert found[f"fd_{suffix}_avg"] == pytest.approx((ears["left"] + ears["right"]) / 2, rel=1e-3)
    assert found[f"n_{suffix}"] == 12  # VGGish: an example each
    if name != "vggish":
        log_p = [x["log_probabilities"][2] for x in clips.generated]
        log_r = [x["log_probabilities"][2] for x in clips.reference]
        kl = [np.sum(np.exp(r) * (r - g)) for r, g in zip(log_r, log_p, strict=True)]
        np.testing.assert_allclose(clips.rows[f"kl_{suffix}_mix"], kl, rtol=1e-3, atol=1e-6)
        assert found[f"kl_{suffix}_mix"] == pytest.approx(np.mean(kl), rel=1e-3) and np.mean(kl) > 1e-4
        assert found[f"is_{suffix}_mix"] == pytest.approx(inception_score(np.stack(log_p)), rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_against_itself_is_no_distance(name, files):
    measure = made(name, files)
    sounds = [noise(i) for i in range(4)]
    clips = clip_set(measure, sounds, sounds)
    found = measure.summarise(clips, np.arange(4))
    suffix = measure.part.suffix
    assert found[f"fd_{suffix}_avg"] == pytest.approx(0, abs=1e-6)
    if measure.part.classifies:
        assert found[f"kl_{suffix}_avg"] == 0
    assert measure.remarks(clips) and "\n" not in measure.remarks(clips)[0]


@pytest.mark.parametrize("name", NAMES)
def test_without_any_reference_is_is_what_is_left(name, files):
    measure = made(name, files)
    clips = clip_set(measure, [noise(i) for i in range(3)], [None] * 3)
    found = measure.summarise(clips, np.arange(3))
    there = {figure for figure, value in found.items() if np.isfinite(value)}
    expected = {f"is_{name}_{view}" for view in quality.COLUMNS} if name != "vggish" else set()
    assert there == expected | {f"n_{measure.part.suffix}"}
    assert measure.remarks(clips) == ()


def test_fd_is_of_the_clips_that_have_a_reference(files):
    measure = made("panns", files)
    generated, reference = [noise(i) for i in range(5)], [noise(i) for i in range(20, 25)]
    fewer = clip_set(measure, generated[:3], reference[:3])
    partly = clip_set(measure, generated, [*reference[:3], None, None])
    found = measure.summarise(partly, np.arange(5))
    assert found["fd_panns_mix"] == pytest.approx(measure.summarise(fewer, np.arange(3))["fd_panns_mix"])
    assert found["n_panns"] == 3
    assert found["kl_panns_mix"] == pytest.approx(np.nanmean(partly.rows["kl_panns_mix"]))


def test_one_clip_has_no_fd_by_one_embedding_and_fd_by_several(files):
    one = [noise(0, 3.0)]
    for name, finite in (("panns", False), ("vggish", True)):
        measure = made(name, files)
        clips = clip_set(measure, one, [noise(1, 3.0)])
        found = measure.summarise(clips, np.arange(1))
        assert np.isfinite(found[f"fd_{measure.part.suffix}_mix"]) == finite


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seconds", [0.1, 1.2])
def test_silence_and_very_short_sounds_have_defined_values(name, seconds, files):
    measure = made(name, files)
    silent = Sound(np.zeros((2, round(seconds * RATE)), np.float32), RATE)
    clips = clip_set(measure, [silent, noise(1, seconds)], [noise(2, seconds), silent])
    assert all(np.isfinite(x).all() for heard in clips.generated for x in heard.values())
    assert all(np.isfinite(value) for value in measure.summarise(clips, np.arange(2)).values())


def test_a_resample_is_its_clips_taken_so_often(files):
    measure = made("passt", files)
    generated, reference = [noise(i) for i in range(4)], [noise(i) for i in range(20, 24)]
    index = np.array([0, 0, 3, 1])
    found = measure.summarise(clip_set(measure, generated, reference), index)
    again = clip_set(measure, [generated[i] for i in index], [reference[i] for i in index])
    for figure, value in measure.summarise(again, np.arange(4)).items():
        assert found[figure] == pytest.approx(value, rel=1e-5, abs=1e-7), figure


def test_sets_too_large_for_resamples_have_the_value_alone(files, monkeypatch):
    measure = made("panns", files)
    monkeypatch.setattr(measure, "widest_resampled", 2)
    clips = clip_set(measure, [noise(i) for i in range(4)], [noise(i) for i in range(20, 24)])
    assert measure.summarise(clips, np.arange(4))["fd_panns_mix"] > 0
    resampled = measure.summarise(clips, np.array([0, 1, 2, 2]))
    assert np.isnan(resampled["fd_panns_mix"]) and np.isfinite(resampled["kl_panns_mix"])


def test_the_key_is_of_the_weights(files, tmp_path):
    first = made("vggish", files).key
    state = torch.load(files["vggish"], weights_only=True)
    state["embeddings.4.bias"] += 1
    torch.save(state, tmp_path / "other.pth")
    second = made("vggish", {"vggish": str(tmp_path / "other.pth")}).key
    assert first == made("vggish", files).key != second
    assert all(key.replace("-", "").isalnum() for key in (first, second))


def test_weights_as_safetensors_serve_too(files, tmp_path):
    save_file(torch.load(files["vggish"], weights_only=True), tmp_path / "vggish.safetensors")
    other = made("vggish", {"vggish": str(tmp_path / "vggish.safetensors")})
    heard = other.hear(noise(0), SCENE)["embeddings"]
    np.testing.assert_array_equal(heard, made("vggish", files).hear(noise(0), SCENE)["embeddings"])


def test_the_published_file_of_32_khz_serves_too(files, tmp_path, monkeypatch):
    network = small.cnn14(32_000)
    monkeypatch.setitem(cnn14.PUBLISHED, 513, network.config)
    torch.save({"model": network.state_dict()}, tmp_path / "32.pth")
    measure = made("panns", {"panns": str(tmp_path / "32.pth")})
    assert measure.network.sample_rate == 32_000
    assert measure.hear(noise(0), SCENE)["embeddings"].shape == (3, 1, small.CHANNELS[-1])


# -------------------- bad weights


class Code:
    def __reduce__(self):
        return exec, ("raise SystemExit('it ran')",)


def one_line(name: str, path) -> str:
    with pytest.raises(UserError) as caught:
        made(name, {name: str(path)})
    said = str(caught.value)
    assert not isinstance(caught.value, Unavailable) and str(path) in said and "\n" not in said
    return said


@pytest.mark.parametrize("name", NAMES)
def test_bad_files_are_one_line(name, files, tmp_path):
    other = files["vggish" if name != "vggish" else "panns"]
    assert f"not the weights of {quality.PARTS[name].what}" in one_line(name, other)
    whole = open(files[name], "rb").read()
    cut = tmp_path / "cut.pth"
    cut.write_bytes(whole[: len(whole) // 2])
    assert "cannot be read as weights" in one_line(name, cut)
    code = tmp_path / "code.pth"
    code.write_bytes(pickle.dumps({"model": Code()}))
    assert "refused" in one_line(name, code)
    assert "no weights of" in one_line(name, tmp_path / "absent.pth")


@pytest.mark.parametrize("name", NAMES)
def test_published_weights_that_cannot_be_had_are_unavailable(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Unavailable) as caught:
        made(name, {})
    said = str(caught.value)
    source = quality.PARTS[name].source.partition("#")[0]
    assert source in said and f"--weights {name}=FILE" in said and "\n" not in said


def test_convolutions_on_an_accelerator_are_of_full_precision():
    with quality._full_precision("cuda"):
        assert not torch.backends.cudnn.allow_tf32 and torch.backends.cudnn.enabled
    assert torch.backends.cudnn.allow_tf32
