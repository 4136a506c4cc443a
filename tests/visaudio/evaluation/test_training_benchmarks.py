"""The benchmarks of training from command to table, on a network too small to learn anything."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from micro import micro_preset
from scripts import load_script

from visaudio import tables
from visaudio.presets import PRESETS
from visaudio.training.cost import Gpu

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def micro(monkeypatch):
    monkeypatch.setitem(PRESETS, "micro", micro_preset())


@pytest.fixture(scope="module")
def training_cost():
    return load_script(ROOT / "benchmarks" / "training_cost.py")


@pytest.fixture(scope="module")
def training_step():
    return load_script(ROOT / "benchmarks" / "training_step.py")


def document(folder: Path, name: str) -> Path:
    path = folder / "results.md"
    path.write_text("before\n{}\nfrom before\n{}\nafter\n".format(*tables.marks(name)))
    return path


def test_costs_go_between_the_marks(training_cost, tmp_path):
    path, output = document(tmp_path, "training_cost"), tmp_path / "cost.json"
    words = ["--presets", "micro", "--check-gb", "0", "--mfu", "0.5", "--steps", "1000", "--batch-size", "64"]
    assert training_cost.main([*words, "--write-to", str(path), "--output", str(output)]) == 0
    text, figures = path.read_text(), json.loads(output.read_text())
    assert text.startswith("before\n") and text.endswith("after\n") and "from before" not in text
    assert "50% of the peak" in text and "1,000 steps of 64 clips" in text and "| micro |" in text
    assert str(tmp_path) not in text  # no path of this machine
    found = figures["presets"]["micro"]
    assert found["checkpointed"]["kept"]["16"] < found["plain"]["kept"]["16"]
    assert found["plain"]["kept"]["16"] > 8 * found["plain"]["kept_each"]


def test_what_does_not_fit_is_not_checked(training_cost):
    weights = {"adamw": {"weights": 3e9}, "plain": {"kept": {"1": 1e9, "8": 2e9, "16": 3e9}}}
    assert training_cost.checks("micro", weights, most_gb=6.9) == []


def test_measuring_is_the_same_on_a_cpu(training_cost, monkeypatch):
    """The path of --measure, device cpu: steps, sampling, shares, and MFU where a peak is known."""
    preset = micro_preset()
    options = training_cost.parse(["--measure", "--measure-batch", "2", "--measure-steps", "1"])
    monkeypatch.setattr(training_cost, "known_gpu", lambda device: Gpu("slow", 1e-3, 1.0))
    rows = training_cost.measure("micro", preset.network, preset.sequence, "cpu", options)
    steps = [row for row in rows if "sampling_s" not in row]
    assert [(row["batch"], row["checkpointed"]) for row in steps] == [(2, False), (2, True)]
    for row in steps:
        assert row["samples_per_second"] == pytest.approx(row["batch"] / row["seconds_per_step"])
        assert len(row["top"]) == 5 and 0 < sum(share for _, share in row["top"]) <= 1
        assert 0 < row["mfu"] and row["peak_bytes"] is None
    assert [row["batch"] for row in rows if "sampling_s" in row] == [1, 8]
    text = training_cost.cost_report.measured_table({"measured": rows, "device": "a CPU"})
    assert "| micro | 2 | yes |" in text and "| micro | 8 |" in text


def test_measuring_without_a_gpu_is_said(training_cost, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert training_cost.main(["--presets", "micro", "--check-gb", "0", "--measure"]) == 2
    assert "no CUDA device" in capsys.readouterr().err


def test_an_impossible_share_is_refused(training_cost):
    with pytest.raises(SystemExit):
        training_cost.parse(["--mfu", "1.5"])


@pytest.mark.slow
def test_a_real_step_needs_what_is_computed(training_cost):
    """tiny, 16 clips: the process grows by what is followed on fake tensors, and libraries' 0.1 GB or so."""
    words = [
        sys.executable,
        ROOT / "benchmarks" / "training_cost.py",
        "--child",
        "tiny",
        "--child-batch",
        "16",
    ]
    child = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=True, timeout=300,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"},
    )  # fmt: skip
    preset = PRESETS["tiny"]
    kept = training_cost.kept_memory.kept_bytes(preset.network, preset.sequence, 16, "cpu")
    computed = kept.peak + 4 * training_cost.counted(preset.network, preset.sequence)["parameters"]["total"]
    assert 1.0 < json.loads(child.stdout)["measured"] / computed < 1.35


def test_the_step_of_the_real_loop_on_real_shards(training_step, tmp_path):
    path, output = document(tmp_path, "training_step"), tmp_path / "step.json"
    words = ["--runs", "micro:2:1", "--steps", "4", "--clips", "6"]
    assert training_step.main([*words, "--write-to", str(path), "--output", str(output)]) == 0
    (figures,) = json.loads(output.read_text())
    assert figures["steps"] == 4 and figures["batch"] == 2
    assert sum(figures["shares"].values()) == pytest.approx(1)
    assert figures["gpu_waits_of_forward"] == []
    assert figures["loader_cpu_s"] > 0
    text = path.read_text()
    assert "| waiting for the loader |" in text and "micro, 2 clips of 1 s" in text


def test_a_run_is_named_in_three_parts(training_step):
    assert training_step.Run.parse("micro:2:1") == training_step.Run("micro", 2, 1.0)
    for wrong in ("micro", "micro:0:1", "huge:1:1", "micro:1:-1"):
        with pytest.raises(SystemExit):
            training_step.parse(["--runs", wrong])


def test_a_file_without_marks_is_refused(tmp_path):
    (tmp_path / "a.md").write_text("nothing")
    with pytest.raises(tables.UserError, match="holds no"):
        tables.check_part(tmp_path / "a.md", "training_cost")
