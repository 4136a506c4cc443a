"""The filters' models as transformers loads them: tiny random AST, CLIP and CLAP out of a folder."""

import numpy as np
import pytest
from fake_source import FakeSource, tiny_config

from bi_audio_dataset import plugins
from bi_audio_dataset.clip import ClipMaker
from bi_audio_dataset.filters import MatchFilter, SelectionConfig, SpeechFilter
from bi_audio_dataset.plugins import MatchPlugin, SpeechPlugin
from bi_audio_dataset.schema import UserError

pytestmark = pytest.mark.slow

SMALL = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
RNG = np.random.default_rng(0)
FRAMES = RNG.integers(0, 255, (16, 36, 64, 3)).astype(np.uint8)
LONG = RNG.uniform(-0.5, 0.5, (2, 12 * 44100)).astype(np.float32)
EARS = LONG[:, : 2 * 44100]


def byte_vocabulary(*special) -> dict[str, int]:
    from tokenizers import pre_tokenizers

    signs = sorted(pre_tokenizers.ByteLevel.alphabet())
    return {sign: i for i, sign in enumerate([*special, *signs, *(sign + "</w>" for sign in signs)])}


@pytest.fixture(scope="module")
def ast(tmp_path_factory):
    from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, set_seed

    set_seed(0)
    folder = tmp_path_factory.mktemp("ast")
    labels = ["Music", "Speech", "Conversation", "Dog", "Rain"]
    config = ASTConfig(**SMALL, max_length=1024, id2label=dict(enumerate(labels)))
    ASTForAudioClassification(config).save_pretrained(folder)
    ASTFeatureExtractor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer, set_seed

    set_seed(1)
    folder = tmp_path_factory.mktemp("clip")
    vocabulary = byte_vocabulary("<|startoftext|>", "<|endoftext|>")
    text = {**SMALL, "vocab_size": len(vocabulary), "max_position_embeddings": 77}
    text |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    vision = {**SMALL, "image_size": 32, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(folder)
    CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clap(tmp_path_factory):
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, RobertaTokenizer, set_seed

    set_seed(2)
    folder = tmp_path_factory.mktemp("clap")
    vocabulary = byte_vocabulary("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    text = {**SMALL, "vocab_size": len(vocabulary), "max_position_embeddings": 80, "pad_token_id": 1}
    sound = {
        "hidden_size": 32,
        "patch_embeds_hidden_size": 8,
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
    }
    sound |= {"projection_dim": 16, "num_classes": 4, "hidden_size": 16, "num_hidden_layers": 2}
    config = ClapConfig(text_config={**text, "projection_dim": 16}, audio_config=sound, projection_dim=16)
    ClapModel(config).save_pretrained(folder)
    RobertaTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    extractor = ClapFeatureExtractor(truncation="rand_trunc", padding="repeatpad")
    extractor.save_pretrained(folder)
    return folder


def test_speech_classes_have_probabilities_of_their_own(ast):
    """Sigmoids of the model's own logits for the log-mel features, the larger one of the two classes."""
    import torch
    from transformers import ASTFeatureExtractor, ASTForAudioClassification

    plugin = SpeechPlugin(SpeechFilter(model=str(ast), action="mark"))
    found = plugin.judge(FRAMES, EARS, 44100)
    (sound,) = plugins.parts(EARS, 44100, 16000)
    inputs = ASTFeatureExtractor.from_pretrained(ast)(sound, sampling_rate=16000, return_tensors="pt")
    with torch.inference_mode():
        logits = ASTForAudioClassification.from_pretrained(ast)(**inputs).logits[0]
    assert found.measures["probability"] == pytest.approx(float(logits.sigmoid()[1:3].max()), abs=1e-5)
    assert found.measures["probability"] != pytest.approx(float(logits.softmax(-1)[1:3].max()), abs=1e-3)


def test_match_of_real_pipelines_is_the_same_each_time(clip, clap):
    """12 s are more than CLAP takes: left whole, it would hear a random part of them."""
    plugin = MatchPlugin(MatchFilter(image_model=str(clip), audio_model=str(clap), action="mark"))
    np.random.seed(0)
    first = plugin.judge(FRAMES, LONG, 44100).measures["score"]
    np.random.seed(1)
    assert plugin.judge(FRAMES, LONG, 44100).measures["score"] == first
    assert 0 < first <= 1
    other = plugin.judge(255 - FRAMES, LONG[:, ::-1] * np.linspace(0, 1, LONG.shape[1]), 44100)
    assert other.measures["score"] != first


def test_builder_with_all_three(ast, clip, clap, tmp_path):
    speech = SpeechFilter(model=str(ast), max_probability=0.0, action="reject")
    match = MatchFilter(image_model=str(clip), audio_model=str(clap), action="mark", min_score=1.01)
    marked = SelectionConfig.measured()
    config = tiny_config(selection=SelectionConfig(**{**vars(marked), "speech": speech, "av_match": match}))
    made = ClipMaker(config).make(FakeSource().fetch("fake-0", tmp_path), "fake", "train")
    (row,) = made.clips
    assert made.records == [] and list(row["reasons"]) == ["speech"] and "av_match" in row["marks"]
    assert 0 < row["measures"]["speech.probability"] < 1 and 0 < row["measures"]["av_match.score"] <= 1


def test_models_that_cannot_be_used_are_one_line(ast, tmp_path):
    for file in ast.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    lines = {}
    for name, model, task, device in (
        ("cut", tmp_path, "audio-classification", "cpu"),
        ("other", ast, "zero-shot-image-classification", "cpu"),
        ("device", ast, "audio-classification", "cuda:99"),
        ("none", tmp_path / "gone", "audio-classification", "cpu"),
    ):
        with pytest.raises(UserError, match="cannot be loaded for") as caught:
            plugins.load_pipeline(task, str(model), device)
        lines[name] = str(caught.value)
    assert not any("\n" in line for line in lines.values())
    assert "afetensor" in lines["cut"] or "header" in lines["cut"].lower(), lines["cut"]
    assert "cuda:99" in lines["device"]
