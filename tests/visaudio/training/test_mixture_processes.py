"""A mixture with coupled noise and validation over two processes (torchrun, gloo): DDP and FSDP2."""

import json

import pytest
import torch
from launch import FSDP2, HEAD, launch

from visaudio.training.best import load_best
from visaudio.training.checkpoint import list_checkpoints, load_checkpoint

SCRIPT = (
    HEAD
    + """
from visaudio.training.best import BestWeights, KeepBest
from visaudio.training.mixture import MixedSamples, Part
from visaudio.training.validation import FlowValidation, ValidationConfig

mixed = MixedSamples([Part("rooms", samples, 3.0), Part("films", MicroSamples(sizes), 1.0, mono=True)])
held_out = FlowValidation(samples, ValidationConfig(loss_clips=4, time_bins=2), seed=0)
validate = KeepBest(held_out, BestWeights(folder / "best", "loss", higher=False))
train(network, mixed, config, folder, validate=validate)
"""
)


@pytest.mark.slow
def test_pairs_order_and_best_are_those_of_one_process(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    settings = json.dumps({"ot_group": 2, "validate_every": 2})
    weights, best = {}, {}
    for name, processes, more in (("one", 1, {}), ("ddp", 2, {}), ("fsdp2", 2, FSDP2)):
        done = launch(script, str(tmp_path / name), settings, processes=processes, timeout_s=300, **more)
        assert done.returncode == 0, (name, done.stderr[-6000:])
        weights[name] = load_checkpoint(list_checkpoints(tmp_path / name / "checkpoints")[-1]).network
        best[name] = load_best(tmp_path / name / "best")
    for name in ("ddp", "fsdp2"):
        for key, weight in weights["one"].items():  # means of parts, summed in another order
            assert torch.allclose(weight, weights[name][key], rtol=0, atol=1e-5), (name, key)
        ours, theirs = best["one"], best[name]
        assert ours[1].step == theirs[1].step
        assert ours[1].figures == pytest.approx(theirs[1].figures, abs=1e-4)
        assert ours[0].keys() == theirs[0].keys()
        assert all(torch.allclose(ours[0][key], theirs[0][key], atol=1e-5) for key in ours[0])
