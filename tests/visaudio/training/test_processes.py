"""Two processes (torchrun, gloo) beside one. `accelerate launch --cpu --num_processes 2` runs ONE process."""

import json
import re

import pytest
import torch
from launch import HEAD, launch

from visaudio.training.batches import Positions
from visaudio.training.checkpoint import list_checkpoints, load_checkpoint

SMALL = (
    HEAD
    + """
network, samples = FakeNetwork(), FakeSamples()
torch.manual_seed(0)
for parameter in network.parameters():
    torch.nn.init.normal_(parameter, std=0.3)
"""
)
TRAINS = SMALL + "train(network, samples, config, folder)\n"


def _final(folder):
    return load_checkpoint(list_checkpoints(folder / "checkpoints")[-1])


@pytest.mark.slow
def test_two_processes_train_what_one_does_and_go_on_from_its_checkpoint(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(TRAINS)

    def run(name: str, processes: int, **settings: object) -> str:
        done = launch(script, str(tmp_path / name), json.dumps(settings), processes=processes)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stderr

    run("one", 1, accumulation=2)
    run("two", 2, steps=3)
    said = run("two", 1, accumulation=4)
    assert "processes 2 -> 1, accumulation 1 -> 4: every step sees the samples" in said
    one, two = _final(tmp_path / "one"), _final(tmp_path / "two")
    assert one.state["arithmetic"]["accumulation"] == 2 and two.state["step"] == 6
    for name, weight in one.network.items():
        # means of parts, summed in another order
        assert torch.allclose(weight, two.network[name], rtol=0, atol=2e-6), name
    assert all(torch.allclose(one.ema[n], two.ema[n], rtol=0, atol=2e-6) for n in one.ema)


FAILS = (
    SMALL
    + """
from visaudio.training import checkpoint as module
from bi_audio_dataset.schema import UserError

bad, full_from = sys.argv[3], int(sys.argv[4])
for row in samples.rows:
    if row["id"] == bad:
        row["latents"] = torch.full_like(row["latents"], float("nan"))
saves = 0
save_file = module.save_file

def fills_up(*arguments):
    global saves
    saves += 1
    if saves > full_from:
        raise OSError(28, "No space left on device")
    save_file(*arguments)

module.save_file = fills_up
try:
    train(network, samples, config, folder)
except (UserError, FloatingPointError) as error:
    print("error:", error)
    raise SystemExit(2)
"""
)


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["a bad clip", "a full disk"])
def test_where_one_process_cannot_go_on_all_end_and_the_checkpoint_before_is_whole(tmp_path, trouble):
    script = tmp_path / "script.py"
    script.write_text(FAILS)
    settings = {"batch_size": 4, "checkpoint_minutes": 0}  # a checkpoint at every step
    bad = f"clip{Positions(12, 0)[4 + 2][1]:03d}"  # in the share of the second process, at the second step
    arguments = (bad, "99") if trouble == "a bad clip" else ("none", "2")  # two files a checkpoint
    done = launch(script, str(tmp_path / "run"), json.dumps(settings), *arguments, processes=2, timeout_s=60)
    assert done.returncode != 0
    lines = [line for line in done.stdout.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, done.stdout + done.stderr[-2000:]
    if trouble == "a bad clip":
        assert lines[0].startswith(f"error: the loss is not finite for {bad} (step 1, loss nan);")
    else:
        assert "step_00000002 cannot be written (No space left on device); the one before" in lines[0]
    # both ended by themselves: torchrun names their status, or stopped what was ending
    assert set(re.findall(r"exitcode\s*: (-?\d+)", done.stderr)) <= {"2", "-15"}
    assert "2" in re.findall(r"exitcode\s*: (-?\d+)", done.stderr)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step_00000001"]
    assert _final(tmp_path / "run").state["step"] == 1
