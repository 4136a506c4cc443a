import os

import pytest
import torch

from bi_audio_dataset.schema import UserError
from visaudio.training import checkpoint as module
from visaudio.training.checkpoint import Checkpoint, list_checkpoints, load_checkpoint, save_checkpoint


def _checkpoint(step: int) -> Checkpoint:
    weights = {"a": torch.full((3,), float(step)), "b": torch.arange(6.0).view(2, 3).t()}
    optimizer = {
        "state": {0: {"step": torch.tensor(float(step)), "exp_avg": torch.ones(3)}},
        "param_groups": [],
    }
    return Checkpoint(weights, {"ema": torch.zeros(2)}, optimizer, {"step": step, "seed": 7})


def test_round_trip_is_exact(tmp_path):
    path = save_checkpoint(tmp_path, _checkpoint(12))
    loaded = load_checkpoint(path)
    assert path.name == "step_00000012"
    assert loaded.state == {"step": 12, "seed": 7}
    assert torch.equal(loaded.network["b"], torch.arange(6.0).view(2, 3).t())
    assert torch.equal(loaded.optimizer["state"][0]["exp_avg"], torch.ones(3))


def test_only_the_newest_are_kept_and_sorted_by_step(tmp_path):
    for step in (5, 100, 20000, 300000):
        save_checkpoint(tmp_path, _checkpoint(step), keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_00020000", "step_00300000"]


def test_a_kill_before_the_rename_leaves_the_one_before(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, _checkpoint(1))

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, _checkpoint(2))
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_00000001"]


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    class Harmful:
        def __reduce__(self):
            return os.system, ("touch " + str(tmp_path / "ran"),)

    path = save_checkpoint(tmp_path, _checkpoint(3))
    torch.save({"state": Harmful()}, path / "optimizer.pt")
    with pytest.raises(UserError, match="step_00000003 cannot be read"):
        load_checkpoint(path)
    assert not (tmp_path / "ran").exists()


def test_a_damaged_file_is_a_user_error(tmp_path):
    path = save_checkpoint(tmp_path, _checkpoint(3))
    (path / "network.safetensors").write_bytes(b"short")
    with pytest.raises(UserError, match="remove that folder"):
        load_checkpoint(path)
