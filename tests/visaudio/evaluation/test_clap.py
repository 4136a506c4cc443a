"""CLAP scores with a small random ClapModel of transformers in a folder."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bi_audio_dataset.schema import UserError
from visaudio import hub_access
from visaudio.evaluation import clap, measures
from visaudio.evaluation.clap import Clap
from visaudio.evaluation.measures import Scene, Settings, Sound, Unavailable

RATE = 48000
WORDS = ("<s>", "<pad>", "</s>", "<unk>", "a", "small", "bell", "drum")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    text = {
        "vocab_size": len(WORDS),
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 40,
        "pad_token_id": 1,
    }
    audio = {
        "depths": [1, 1],
        "num_attention_heads": [1, 2],
        "patch_embeds_hidden_size": 8,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "window_size": 8,
        "enable_fusion": False,
    }
    config = ClapConfig(text_config=text, audio_config=audio, projection_dim=12)
    made = tmp_path_factory.mktemp("clap")
    ClapModel(config).eval().save_pretrained(made)
    ClapFeatureExtractor(truncation="rand_trunc").save_pretrained(made)
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=30, **names).save_pretrained(made)
    return made


@pytest.fixture(scope="module")
def measure(folder):
    return measures.make("clap", Settings({"clap": str(folder)}))


def tone(hz, seconds=4.0, gains=(1.0, 1.0), rate=RATE):
    time = np.arange(round(seconds * rate)) / rate
    wave = np.sign(np.sin(2 * np.pi * hz * time)) * np.exp(-time % 0.5)
    return Sound((0.2 * wave * np.array(gains)[:, None]).astype(np.float32), rate)


def test_scores_are_cosines_of_transformers_embeddings(measure, folder):
    """transformers' own path from sound and words to embeddings, without anything of ours."""
    from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

    model = ClapModel.from_pretrained(folder).eval()
    reader, tokenizer = ClapFeatureExtractor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ours, theirs = tone(300, gains=(1.0, 0.2)), tone(900)
    mix = ours.audio.mean(axis=0)
    with torch.no_grad():
        words = dict(tokenizer(["a small bell"], return_tensors="pt"))
        words.pop("token_type_ids", None)
        joint = model(**reader(mix, sampling_rate=RATE, return_tensors="pt"), **words)
        other = model(**reader(theirs.audio[0], sampling_rate=RATE, return_tensors="pt"), **words)
    scene = Scene("a", 4.0, "a small bell")
    row = measure.compare(measure.hear(ours, scene), measure.hear(theirs, scene), scene)
    cosine = torch.nn.functional.cosine_similarity
    assert row["clap_text"] == pytest.approx(cosine(joint.audio_embeds, joint.text_embeds).item(), abs=1e-5)
    expected = cosine(other.audio_embeds, other.text_embeds).item()
    assert row["clap_text_reference"] == pytest.approx(expected, abs=1e-5)
    expected = cosine(joint.audio_embeds, other.audio_embeds).item()
    assert row["clap_audio"] == pytest.approx(expected, abs=1e-5)


def test_ears_and_mix_are_heard_apart(measure):
    sound = Sound(np.stack([tone(300).audio[0], tone(1200).audio[0]]), RATE)
    scene = Scene("a", 4.0, "a drum")
    heard = measure.hear(sound, scene)["embedding"]
    assert heard.shape == (3, 12) and np.allclose(np.linalg.norm(heard, axis=1), 1, atol=1e-5)
    alone = [measure.hear(tone(hz), scene)["embedding"][0] for hz in (300, 1200)]
    assert np.allclose(heard[1:], alone, atol=1e-5)
    assert np.abs(heard[0] - heard[1]).max() > 1e-4
    row = measure.compare({"embedding": heard}, None, scene)
    left, right = (measure.compare({"embedding": np.stack([e] * 3)}, None, scene) for e in alone)
    assert row["clap_text_ears"] == pytest.approx((left["clap_text"] + right["clap_text"]) / 2)


def test_the_same_sound_at_another_rate_is_near(measure):
    scene = Scene("a", 4.0)
    heard = [measure.hear(s, scene) for s in (tone(300), Sound(tone(300).at(44100), 44100), tone(2000))]
    same, other = (measure.compare(heard[0], h, scene)["clap_audio"] for h in heard[1:])
    assert same > 0.999 and other < same
    assert np.isnan(measure.compare(heard[0], heard[1], scene)["clap_text"])  # there is no caption
    assert np.isnan(list(measure.compare(heard[0], None, scene).values())).all()


def test_long_sounds_are_heard_whole_and_always_the_same(measure):
    """CLAP's own reader takes 10 s at random places of a longer sound."""
    first, second = tone(300, 10.0).audio, tone(1500, 10.0).audio
    scene = Scene("a", 20.0)
    parts = [measure.hear(Sound(audio, RATE), scene)["embedding"][0] for audio in (first, second)]
    both = Sound(np.concatenate([first, second], axis=1), RATE)
    heard = [measure.hear(both, scene)["embedding"][0] for _ in range(2)]
    assert np.array_equal(*heard)
    mean = sum(parts) / np.linalg.norm(sum(parts))
    assert np.allclose(heard[0], mean, atol=1e-5)


@pytest.mark.parametrize(("length", "starts"), [(7, [0]), (10, [0]), (20, [0, 10]), (23, [0, 10, 13])])
def test_windows_cover_the_sound(length, starts):
    signal = np.arange(length)
    windows = list(clap._windows(signal, 10))
    assert [w[0] for w in windows] == starts and windows[-1][-1] == length - 1
    assert all(len(w) == min(length, 10) for w in windows)


def test_the_key_follows_the_weights(measure, folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    state = load_file(other / "model.safetensors")
    state["logit_scale_a"] += 1
    save_file(state, other / "model.safetensors", {"format": "pt"})
    changed = measures.make("clap", Settings({"clap": str(other)}))
    assert changed.key != measure.key == measures.make("clap", Settings({"clap": str(folder)})).key
    assert measure.key.startswith("clap-1-") and len(measure.key) == 19


def copied(folder, to, change):
    shutil.copytree(folder, to)
    change(to)
    return str(to)


def test_bad_folders_are_one_line(folder, tmp_path):
    def lacking(to):
        state = load_file(to / "model.safetensors")
        del state["audio_projection.linear1.weight"]
        save_file(state, to / "model.safetensors", {"format": "pt"})

    def cut(to):
        data = (to / "model.safetensors").read_bytes()
        (to / "model.safetensors").write_bytes(data[: len(data) // 2])

    def other_kind(to):
        (to / "config.json").write_text('{"model_type": "clip"}')

    cases = {
        "lacking": (lacking, r"not the weights of a CLAP: missing \['audio_projection.linear1.weight'\]"),
        "cut": (cut, "cannot load a CLAP from .*--weights clap=FOLDER"),
        "other_kind": (other_kind, "is a model of type 'clip', expected 'clap'"),
        "empty": (lambda to: (to / "model.safetensors").unlink(), "holds no config.json with model.safet"),
    }
    for name, (change, message) in cases.items():
        given = copied(folder, tmp_path / name, change)
        with pytest.raises(UserError, match=message) as error:
            measures.make("clap", Settings({"clap": given}))
        assert "\n" not in str(error.value) and not isinstance(error.value, Unavailable)
    with pytest.raises(UserError, match="no CLAP at .*nowhere"):
        measures.make("clap", Settings({"clap": str(tmp_path / "nowhere")}))


class Code:
    def __reduce__(self):
        return exec, ("raise SystemExit('code of a pickle was run')",)


def test_code_in_a_pickle_is_not_run(folder, tmp_path):
    def poison(to):
        (to / "model.safetensors").unlink()
        torch.save({"logit_scale_a": Code()}, to / "pytorch_model.bin")

    with pytest.raises(UserError, match="cannot load a CLAP"):
        measures.make("clap", Settings({"clap": copied(folder, tmp_path / "poisoned", poison)}))


def test_a_repositorys_files_are_of_one_commit(folder, tmp_path, monkeypatch):
    """The default: config first, then all else of the commit that it came from."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "snapshots" / commit
    asked = []

    def fetch_file(repository, path, revision=None, *, what, **_):
        asked.append((repository, path, revision))
        source = folder / path
        if not source.is_file() and path not in clap.BESIDE:
            raise UserError(f"{what}: the repository holds no such file")
        snapshot.mkdir(parents=True, exist_ok=True)
        if source.is_file():
            shutil.copy(source, snapshot / path)
        return snapshot / path

    monkeypatch.setattr(hub_access, "fetch_file", fetch_file)
    made = measures.make("clap", Settings())
    assert isinstance(made, Clap)
    assert asked[0] == (clap.WEIGHTS, "config.json", None)
    assert {revision for _, _, revision in asked[1:]} == {commit}
    assert {path for _, path, _ in asked} == {"config.json", "model.safetensors", *clap.BESIDE}


def test_without_the_default_it_is_unavailable_in_one_line(monkeypatch):
    monkeypatch.setattr(clap, "WEIGHTS", "nobody/no-clap")
    with pytest.raises(Unavailable, match="no CLAP: CLAP's config.json of nobody/no-clap.*clap=FOLDER") as e:
        measures.make("clap", Settings())
    assert "\n" not in str(e.value)
