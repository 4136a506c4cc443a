"""The benchmark of the spatial measures: its clips, its figures of a command, its table."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scripts import load_script

from bi_audio_dataset import media
from visaudio import tables
from visaudio.evaluation.measures import Scene, Sound
from visaudio.evaluation.space import SpaceMeasure

ROOT = Path(__file__).parents[3]
benchmark = load_script(ROOT / "benchmarks" / "evaluation_speed.py")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return benchmark.make_clips(tmp_path_factory.mktemp("speed"), pairs=2, rate=16000, suffix="wav")


def test_clips_are_lateral_sounds_of_their_own(clips):
    """8 s each, not silent, to the sides, no two files alike; generated and reference are of one scene."""
    measure, scene = SpaceMeasure(), Scene("clip", 8.0)
    assert len({path.read_bytes() for place in clips for path in place.iterdir()}) == 4
    for number in (0, 1):
        pair = [media.read_audio(place / f"clip{number:05d}.wav") for place in clips]
        generated, reference = (measure.hear(Sound(*sound), scene) for sound in pair)
        assert pair[0][0].shape == (2, 8 * 16000)
        assert reference["silent"].mean() < 0.5 and np.abs(reference["ild_db"]).max() > 3
        assert measure.compare(generated, reference, scene)["ild_r"] > 0.3


def test_the_watcher_tells_what_a_command_used(tmp_path):
    """A command that fills 200 MB and works for a while; and one that fails."""
    found = tmp_path / "used.json"
    work = "b = bytearray(200 << 20); s = sum(i * i for i in range(2_000_000))"
    subprocess.run([sys.executable, "-c", benchmark.WATCH, found, sys.executable, "-c", work], check=True)
    used = benchmark.json.loads(found.read_text())
    assert used["code"] == 0 and used["peak_mb"] > 200 and 0 < used["cpu_s"] <= used["wall_s"] * 1.5
    fails = [sys.executable, "-c", "raise SystemExit(3)"]
    subprocess.run([sys.executable, "-c", benchmark.WATCH, found, *fails], check=True)
    assert benchmark.json.loads(found.read_text())["code"] == 3


def test_costs_of_steps(clips):
    costs = benchmark.step_costs(*(place / "clip00000.wav" for place in clips), rounds=2)
    assert list(costs)[0] == "read" and all(ms > 0 for ms in costs.values())


def test_the_table(monkeypatch):
    monkeypatch.setattr(tables, "commit", lambda folder: "abc1234")
    timings = [benchmark.Timing(200, 10.0, 16.0, 120.4), benchmark.Timing(1000, 40.0, 72.0, 121.6)]
    text = benchmark.report("python x.py", timings, {"read": 5.84}, "8 s stereo")
    assert "| 1,000 | 40.0 | 72.0 | 36 | 1.80 | 122 |" in text
    assert "| read | 5.8 |" in text and "`abc1234`" in text


def test_the_results_page_has_the_marks():
    begin, end = tables.marks(benchmark.MARK)
    text = (ROOT / "docs" / "results.md").read_text()
    assert text.index(begin) < text.index(end)
