"""The filters that need models, with models that answer by script; the wiring through transformers too."""

import sys
import types

import numpy as np
import pytest
from fake_source import FakeSource, tiny_config

from bi_audio_dataset import plugins
from bi_audio_dataset.clip import ClipMaker
from bi_audio_dataset.filters import Finding, MatchFilter, SelectionConfig, SpeechFilter
from bi_audio_dataset.plugins import MATCH_LABELS, MatchPlugin, SpeechPlugin
from bi_audio_dataset.schema import UserError

FRAMES = np.arange(16, dtype=np.uint8)[:, None, None, None] * np.ones((16, 8, 8, 3), np.uint8)
EARS = np.stack([np.full(44100, 0.25, np.float32), np.full(44100, 0.75, np.float32)])


@pytest.mark.parametrize(("score", "failed"), [(0.7, True), (0.4, False)])
def test_speech_is_the_best_speech_class(score, failed):
    heard = []

    def classify(sound, top_k, function_to_apply):
        assert top_k > 527 and function_to_apply == "sigmoid"
        heard.append(sound)
        return [
            {"label": "Music", "score": 0.9},
            {"label": "Conversation", "score": score},
            {"label": "Speech", "score": 0.1},
        ]

    finding = SpeechPlugin(SpeechFilter(action="reject"), classify).judge(FRAMES, EARS, 44100)
    assert finding.failed is failed and finding.measures == {"probability": score}
    assert heard[0]["sampling_rate"] == 16000 and len(heard[0]["raw"]) == 16000
    assert heard[0]["raw"][8000] == pytest.approx(0.5, abs=1e-3)  # both ears, averaged


def test_long_sound_is_heard_in_equal_parts(monkeypatch):
    ears = np.random.default_rng(0).uniform(-1, 1, (2, 25 * 16000)).astype(np.float32)
    found = plugins.parts(ears, 16000, 16000)
    assert [len(part) for part in found] == [133334, 133333, 133333]
    np.testing.assert_allclose(np.concatenate(found), ears.mean(axis=0), atol=1e-6)
    assert [len(part) for part in plugins.parts(ears[:, :160000], 16000, 16000)] == [160000]
    scores = iter([0.1, 0.8, 0.3])
    plugin = SpeechPlugin(
        SpeechFilter(), lambda sound, **_: [{"label": "Conversation", "score": next(scores)}]
    )
    assert plugin.judge(FRAMES, ears, 16000).measures == {"probability": 0.8}
    halves = iter(["dog", "rain", "rain"])
    plugin = MatchPlugin(
        MatchFilter(),
        lambda image, candidate_labels: answers(dog=1.0),
        lambda sound, candidate_labels: answers(**{next(halves): 1.0}),
    )
    score = plugin.judge(FRAMES, ears, 16000).measures["score"]
    assert score == pytest.approx((1 / 3) / np.hypot(1 / 3, 2 / 3))


def test_a_full_gpu_is_not_the_recordings_fault():
    def full(sound, **_):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    with pytest.raises(MemoryError, match="a filter's model: CUDA out of memory"):
        SpeechPlugin(SpeechFilter(), full).judge(FRAMES, EARS, 44100)


def answers(**scores) -> list[dict]:
    return [{"label": label, "score": scores.get(label.split()[-1], 0.0)} for label in reversed(MATCH_LABELS)]


@pytest.mark.parametrize(
    ("seen", "heard", "score"),
    [
        ({"dog": 1.0}, {"dog": 0.5}, 1.0),
        ({"dog": 1.0}, {"rain": 1.0}, 0.0),
        ({"dog": 0.6, "rain": 0.8}, {"rain": 1}, 0.8),
    ],
)
def test_match_is_the_cosine_over_labels(seen, heard, score):
    looked = []

    def see(image, candidate_labels):
        looked.append(int(np.asarray(image)[0, 0, 0]))
        return answers(**seen)

    plugin = MatchPlugin(MatchFilter(action="mark"), see, lambda sound, candidate_labels: answers(**heard))
    finding = plugin.judge(FRAMES, EARS, 44100)
    assert finding.measures["score"] == pytest.approx(score)
    assert finding.failed is (score < 0.15) and finding.action == "mark"
    assert looked == [0, 5, 10, 15]


def test_models_are_loaded_through_transformers_pipelines(monkeypatch):
    asked = []
    fake = types.ModuleType("transformers")
    pipeline = types.SimpleNamespace(model=types.SimpleNamespace(config=types.SimpleNamespace(id2label={})))
    fake.pipeline = lambda task, model, device: asked.append((task, model, device)) or pipeline
    monkeypatch.setitem(sys.modules, "transformers", fake)
    config = SelectionConfig(av_match=MatchFilter(device="cuda:1"))
    config = config.with_actions({"speech": "reject", "av_match": "mark"})
    with pytest.raises(UserError, match="none of AudioSet's classes of speech"):
        plugins.load_plugins(config)
    asked.clear()
    pipeline.model.config.id2label = {0: "Music", 1: "Speech"}
    assert [plugin.name for plugin in plugins.load_plugins(config)] == ["speech", "av_match"]
    assert asked == [
        ("audio-classification", config.speech.model, "cpu"),
        ("zero-shot-image-classification", config.av_match.image_model, "cuda:1"),
        ("zero-shot-audio-classification", config.av_match.audio_model, "cuda:1"),
    ]
    assert plugins.load_plugins(SelectionConfig()) == []


def test_model_that_cannot_be_had_is_one_line(monkeypatch):
    def refuse(task, model, device):
        raise OSError("no such model\nat all")

    fake = types.ModuleType("transformers")
    fake.pipeline = refuse
    monkeypatch.setitem(sys.modules, "transformers", fake)
    with pytest.raises(
        UserError, match="'x/y' cannot be loaded for audio-classification on cpu: no such model at all"
    ):
        plugins.load_pipeline("audio-classification", "x/y")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match="needs transformers"):
        plugins.load_pipeline("audio-classification", "x/y")


def test_builder_asks_its_plugins_about_the_finished_clip(tmp_path):
    class Loud:
        name = "speech"

        def judge(self, frames, audio, sample_rate):
            assert frames.shape == (2, 36, 64, 3) and audio.shape == (2, 35280) and sample_rate == 44100
            return Finding("speech", "reject", True, {"probability": 0.9}, "somebody talks")

    maker = ClipMaker(tiny_config())
    maker.plugins.append(Loud())
    made = maker.make(FakeSource().fetch("fake-0", tmp_path), "fake", "train")
    assert made.records == []
    assert made.clips[0]["reasons"] == {"speech": "somebody talks"}
    assert made.clips[0]["measures"]["speech.probability"] == 0.9
