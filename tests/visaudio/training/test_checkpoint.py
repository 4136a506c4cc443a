import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

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


@pytest.mark.parametrize("where", ["network.safetensors", "optimizer.pt", "state.json"])
def test_a_full_disk_leaves_the_checkpoint_before_and_says_so(tmp_path, monkeypatch, where):
    save_checkpoint(tmp_path, _checkpoint(1))
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def refuses(*_, **__):
        raise full

    if where == "network.safetensors":  # what safetensors makes of it
        full = SafetensorError("I/O error: No space left on device (os error 28)")
        monkeypatch.setattr(module, "save_file", refuses)
    elif where == "optimizer.pt":
        monkeypatch.setattr(module.torch, "save", refuses)
    else:
        monkeypatch.setattr(type(tmp_path), "write_text", refuses)
    with pytest.raises(UserError, match="step_00000002 cannot be written .*No space left") as said:
        save_checkpoint(tmp_path, _checkpoint(2))
    assert "the one before, step_00000001, is whole" in str(said.value) and "\n" not in str(said.value)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]
    assert load_checkpoint(tmp_path / "step_00000001").state["step"] == 1


LIMITED = """
import resource, signal, sys
from pathlib import Path
import torch
from bi_audio_dataset.schema import UserError
from visaudio.training.checkpoint import Checkpoint, save_checkpoint

def checkpoint(step):
    state = {"state": {0: {"exp_avg": torch.ones(400_000)}}, "param_groups": []}
    return Checkpoint({"a": torch.full((3,), float(step))}, {"b": torch.zeros(2)}, state, {"step": step})

save_checkpoint(Path(sys.argv[1]), checkpoint(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    save_checkpoint(Path(sys.argv[1]), checkpoint(2))
except UserError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("limit", [100, 1_000_000])  # bytes: the weights' file, the moments' file
def test_a_file_that_the_system_cuts_off_leaves_the_checkpoint_before(tmp_path, limit):
    script = tmp_path / "script.py"
    script.write_text(LIMITED)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "run"), str(limit)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
    )
    assert "step_00000002 cannot be written" in done.stdout, done.stderr[-2000:]
    assert done.stdout.count("\n") == 1
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["step_00000001"]
    before = load_checkpoint(tmp_path / "run" / "step_00000001")
    assert before.optimizer["state"][0]["exp_avg"].sum() == 400_000


def test_what_a_killed_run_left_behind_goes(tmp_path):
    (tmp_path / ".step_00000004.77").mkdir()
    save_checkpoint(tmp_path, _checkpoint(5))
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000005"]
