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

    def classify(sound, top_k):
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
    fake.pipeline = lambda task, model, device: asked.append((task, model, device)) or (lambda *a, **k: [])
    monkeypatch.setitem(sys.modules, "transformers", fake)
    config = SelectionConfig().with_actions({"speech": "reject", "av_match": "mark"})
    assert [plugin.name for plugin in plugins.load_plugins(config)] == ["speech", "av_match"]
    assert asked == [
        ("audio-classification", config.speech.model, -1),
        ("zero-shot-image-classification", config.av_match.image_model, -1),
        ("zero-shot-audio-classification", config.av_match.audio_model, -1),
    ]
    assert plugins.load_plugins(SelectionConfig()) == []


def test_model_that_cannot_be_had_is_one_line(monkeypatch):
    def refuse(task, model, device):
        raise OSError("no such model\nat all")

    fake = types.ModuleType("transformers")
    fake.pipeline = refuse
    monkeypatch.setitem(sys.modules, "transformers", fake)
    with pytest.raises(
        UserError, match="'x/y' cannot be loaded for audio-classification: no such model at all"
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
