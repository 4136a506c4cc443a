import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[3]
SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
from fakes import FakeNetwork, FakeSamples
from visaudio.training.loop import FlowLoopConfig, train
from visaudio.training.schedule import ScheduleConfig

torch.manual_seed(0)
config = FlowLoopConfig(
    steps=6, batch_size=8, precision="fp32", log_every=2, validate_every=0,
    schedule=ScheduleConfig(peak=1e-2, warmup_steps=2),
)
train(FakeNetwork(), FakeSamples(), config, Path(sys.argv[1]))
"""


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path):
    """By torchrun: `accelerate launch --cpu --num_processes 2` runs ONE process."""
    from visaudio.training.checkpoint import list_checkpoints, load_checkpoint

    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent)))
    environment = {
        **os.environ,
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    launcher = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"),
        *("--master_addr", "127.0.0.1", "--master_port", str(_port())),
    ]
    finals = []
    for command, name in (([sys.executable], "one"), (launcher, "two")):
        done = subprocess.run(
            [*command, str(script), str(tmp_path / name)], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]
        finals.append(load_checkpoint(list_checkpoints(tmp_path / name / "checkpoints")[-1]))
    one, two = finals
    assert json.dumps(one.state["config"]) == json.dumps(two.state["config"])
    for name, weight in one.network.items():
        # means of two halves, summed in another order
        assert torch.allclose(weight, two.network[name], rtol=0, atol=2e-6), name
    assert all(torch.allclose(one.ema[n], two.ema[n], rtol=0, atol=2e-6) for n in one.ema)
