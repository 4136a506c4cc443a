"""benchmarks/overfit.py end to end, with a network that is too small to learn anything."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from scripts import load_script

overfit = load_script(Path(__file__).parents[3] / "benchmarks" / "overfit.py")
SIZES = {"hidden_dim": 64, "num_heads": 1, "joint_blocks": 1, "branch_blocks": 1, "spatial_width": 16}
SIZES |= dict.fromkeys(("clip_dim", "sync_dim", "text_dim", "spatial_dim"), 16)
SIZES |= {"text_tokens": 4, "token_dim": 8, "mlp_multiple_of": 32}


def _preset() -> SimpleNamespace:
    """The two parts of a preset that are read, with widths that its encoders would refuse."""
    small = overfit.presets.get_preset("small")
    return SimpleNamespace(network=replace(small.network, **SIZES), sequence=small.sequence)


@pytest.mark.slow
def test_trains_goes_on_reports_and_draws(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(overfit.presets, "load_preset", lambda name, overrides: _preset())
    common = ["--output", str(tmp_path), "--clips", "3", "--batch", "3", "--duration-s", "0.3"]
    common += ["--precision", "fp32", "--every", "2", "--peak", "1e-2", "--sampling-steps", "2"]
    common += ["--keep-input", "--warmup", "1"]
    overfit.main([*common, "--steps", "4"])
    overfit.main([*common, "--steps", "6", "--plot", str(tmp_path / "curve.png")])
    curve = overfit.read_curve(tmp_path / "curve.jsonl")
    assert [line["step"] for line in curve] == [0, 2, 4, 6]
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["step"] == 6
    assert figures["raw"]["losses"] == pytest.approx(curve[-1]["raw"], rel=1e-5)
    assert figures["averaged"]["losses"] == pytest.approx(curve[-1]["averaged"], rel=1e-5)
    assert figures["raw"]["of_start"] < 1
    assert figures["times"] == pytest.approx([0.217, 0.372, 0.5, 0.628, 0.783], abs=1e-3)
    assert (tmp_path / "curve.png").stat().st_size < 100_000
    assert "% |" in capsys.readouterr().out
    assert overfit.main([*common, "--steps", "6", "--report"]) == 0


def test_clips_are_smooth_and_of_unit_variance_and_the_ears_differ():
    clips = overfit.SmoothClips(overfit.presets.get_preset("small"), 4.0, count=2)
    latents = clips.get(0, mirror=False)["latents"]
    assert latents.std().item() == pytest.approx(1.0, abs=0.05)
    neighbours = (latents[:, 1:] * latents[:, :-1]).mean().item()
    assert neighbours == pytest.approx(2.718281828 ** (-1 / 16), abs=0.05)  # of a Gaussian of 2 tokens
    assert (latents[0] * latents[1]).mean().item() == pytest.approx(overfit.EAR_CORRELATION, abs=0.05)
    assert not clips.rows[1]["latents"].equal(latents)
