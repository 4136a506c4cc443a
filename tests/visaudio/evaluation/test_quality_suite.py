"""The quality measures in a whole evaluation: folders in, figures, intervals and remarks out."""

import numpy as np
import pytest
import small_audio_networks as small
import soundfile
import torch

from visaudio.evaluation import measures
from visaudio.evaluation.audio_networks import vggish
from visaudio.evaluation.results import Results
from visaudio.evaluation.runner import Options, evaluate


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A published form of a small VGGish, and VGGish alone in the suite."""
    network = small.vggish()
    monkeypatch.setattr(vggish, "VggishConfig", lambda: network.config)
    monkeypatch.setattr(measures, "REGISTRY", {"vggish": measures.REGISTRY["vggish"]})
    torch.save(network.state_dict(), tmp_path / "vggish.pth")
    return {"vggish": str(tmp_path / "vggish.pth")}


def folder(path, seed: int, clips: int = 5):
    path.mkdir()
    rng = np.random.default_rng(seed)
    for clip in range(clips):
        tone = np.sin(rng.uniform(0.02, 0.5) * np.arange(16_000 * 2))[:, None]
        soundfile.write(path / f"{clip}.wav", 0.2 * tone + 0.05 * rng.normal(size=(len(tone), 2)), 16_000)
    return path


def test_figures_intervals_and_remarks(tmp_path, weights):
    systems = {"a": folder(tmp_path / "a", 0), "b": folder(tmp_path / "b", 1)}
    reference = folder(tmp_path / "r", 2)
    options = Options(weights=weights, progress=False)
    results = evaluate(systems, reference, tmp_path / "out", options)
    for system in systems:
        figure = results.figures[system]["fd_vgg_avg"]
        assert 0 < figure.low < figure.value < figure.high or figure.low <= 0 < figure.value < figure.high
        assert results.figures[system]["n_vgg"].value == 10  # two examples each
    remarks = [problem for problem in results.problems if problem.kind == "remark"]
    assert {problem.system for problem in remarks} == {"a", "b"} and not remarks[0].serious
    assert "10 embeddings in 16 dimensions" in remarks[0].details[0]
    (difference,) = [c for c in results.comparisons if c.figure == "fd_vgg_mix"]
    assert difference.difference.low < difference.difference.value < difference.difference.high
    assert Results.from_json(results.to_json()).specs["fd_vgg_avg"].recentred
    again = evaluate({"a": reference}, reference, tmp_path / "same", options)
    assert again.figures["a"]["fd_vgg_avg"].value == pytest.approx(0, abs=1e-6)


def test_without_a_reference_there_is_no_distance(tmp_path, weights):
    options = Options(weights=weights, progress=False)
    results = evaluate({"a": folder(tmp_path / "a", 0)}, None, tmp_path / "out", options)
    assert np.isnan(results.figures["a"]["fd_vgg_avg"].value)
