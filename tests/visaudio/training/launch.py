"""Starts small training scripts on one process or, by torchrun and gloo, on several."""

import os
import socket
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
FSDP2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}  # what `accelerate launch` makes of fsdp2.yaml

HEAD = f"""
import dataclasses, json, sys
from pathlib import Path
sys.path[:0] = [{str(HERE)!r}, {str(HERE.parents[1])!r}]
import torch
from fakes import FakeNetwork, FakeSamples, MicroSamples
from micro import micro_preset
from visaudio.model.network import DualBranchNetwork
from visaudio.training.loop import FlowLoopConfig, train
from visaudio.training.schedule import ScheduleConfig

folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
torch.manual_seed(0)
sizes = micro_preset().network
network = DualBranchNetwork(sizes)
with torch.no_grad():  # zeros at first: what is behind a zero gate would learn nothing
    for parameter in network.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
config = FlowLoopConfig(**{{
    "steps": 6, "batch_size": 8, "precision": "fp32", "log_every": 1, "validate_every": 0,
    "schedule": ScheduleConfig(peak=1e-3, warmup_steps=2, decay="constant"), **settings,
}})
samples = MicroSamples(sizes)
"""


def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launch(
    script: Path, *arguments: str, processes: int = 1, timeout_s: float = 120, **environment: str
) -> subprocess.CompletedProcess:
    """Run a script; its output and exit status are in what is returned."""
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
        launcher += ["--master_addr", "127.0.0.1", "--master_port", str(port())]
    surroundings = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("ACCELERATE", "FSDP"))},
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        **environment,
    }
    return subprocess.run(
        [*launcher, str(script), *arguments],
        env=surroundings,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
