"""Runs that are killed, for real: SIGKILL at a random step and in the midst of saving, on one process, on
two, and on another number of processes than before. The kills are drawn from a seed that a failure prints;
VISAUDIO_KILL_SEED repeats them.
"""

import contextlib
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest
import torch

from visaudio.training.checkpoint import list_checkpoints, load_checkpoint
from visaudio.training.losses import read_losses

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
ROOT = HERE.parents[2]
STEPS = 50
PATIENCE_S = 600  # of a run that takes 5 s where nothing else runs
LAST_KILL = STEPS - 14  # leaves saves enough for one that is killed in
TOLERANCE = 1e-5  # between numbers of processes: the same means, summed in another order


class Run:
    """A training folder, on which one process after the other works."""

    def __init__(self, folder: Path, *settings: str):
        self.folder, self.seen, self.settings = folder, folder / "seen", settings
        self._log = folder / "log.txt"
        folder.mkdir(parents=True)

    def start(self, world: int = 1, **settings: float) -> subprocess.Popen:
        """world 2 is torchrun's (`accelerate launch --cpu --num_processes 2` runs ONE process)."""
        for old in self.seen.glob("*.pid"):
            old.unlink()
        launcher = [
            "-m",
            "torch.distributed.run",
            "--nproc_per_node",
            str(world),
            "--monitor-interval",
            "0.1",
        ]
        launcher += ["--master_addr", "127.0.0.1", "--master_port", str(_free_port())]
        command = [sys.executable, *(launcher if world > 1 else ()), str(HERE / "resume_run.py")]
        command += [str(self.folder), "--steps", str(STEPS), "--seen", str(self.seen), *self.settings]
        # other first weights where a checkpoint must take their place
        command += ["--init-seed", "99" if self.newest() else "0"]
        command += [part for key, value in settings.items() for part in (f"--{key}", str(value))]
        paths = [ROOT, HERE, HERE.parents[1]]
        environment = {
            **os.environ,
            "ACCELERATE_USE_CPU": "true",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
        }
        with self._log.open("a") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    def finish(self, world: int = 1, **settings: int) -> "Run":
        process = self.start(world, **settings)
        try:
            assert process.wait(timeout=PATIENCE_S) == 0, self._log.read_text()[-3000:]
        finally:
            self.kill(process, world)
        return self

    def kill_at(self, step: int, wait_s: float, world: int = 1) -> None:
        """SIGKILL to all its processes, `wait_s` after the first one has begun ``step``."""
        process = self.start(world, **{"hold-at": STEPS - 1})
        try:
            deadline = time.monotonic() + PATIENCE_S
            while self.last_step() < step:
                assert process.poll() is None and time.monotonic() < deadline, self._log.read_text()[-3000:]
                time.sleep(0.002)
            time.sleep(wait_s)
        finally:
            self.kill(process, world)
        assert process.returncode == -signal.SIGKILL

    def kill_in_save(self, operation: int, world: int = 1) -> None:
        """The process that saves kills itself in the midst of it; torchrun then ends the others."""
        # saved as often as the loop looks, lest a fast machine reach the hold before the operation
        settings = {"hold-at": STEPS - 1, "die-at": operation, "save-every-s": 0}
        process = self.start(world, **settings)
        try:
            code = process.wait(timeout=PATIENCE_S)
        finally:
            self.kill(process, world)
        assert code == (-signal.SIGKILL if world == 1 else 1), self._log.read_text()[-3000:]

    def kill(self, process: subprocess.Popen, world: int) -> None:
        """The launcher's group; torchrun's workers have sessions, and so groups, of their own."""
        workers = [self.seen / f"{rank}.pid" for rank in range(world if world > 1 else 0)]
        groups = [process.pid, *(int(path.read_text()) for path in workers if path.is_file())]
        for group in groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        process.wait()
        for group in groups[1:]:  # no child of ours: gone once nothing answers to its number
            while _alive(group):
                time.sleep(0.01)

    def last_step(self) -> int:
        """The latest step that the first of the processes which run now has begun."""
        pid, lines = self.seen / "0.pid", _lines(self.seen / "0.jsonl")
        began = lines and pid.is_file() and str(lines[-1]["pid"]) == pid.read_text()
        return lines[-1]["step"] if began else -1

    def ids(self) -> dict[int, tuple[str, ...]]:
        """Step -> the clips of all processes and rounds, in order. A step that was done twice, on whatever
        number of processes, must have had the same ones.
        """
        shares = defaultdict(dict)
        for path in sorted(self.seen.glob("*.jsonl")):
            for line in _lines(path):
                key = (line["step"], line["world"])
                place = (line["round"], int(path.stem))
                assert shares[key].setdefault(place, line["ids"]) == line["ids"], line
        found: dict[int, tuple[str, ...]] = {}
        for (step, world), parts in shares.items():
            if len(parts) % world:  # killed before the other process began this step
                continue
            ids = tuple(name for place in sorted(parts) for name in parts[place])
            assert found.setdefault(step, ids) == ids, step
        return found

    def newest(self) -> int:
        found = list_checkpoints(self.folder / "checkpoints")
        return int(found[-1].name.split("_")[1]) if found else 0

    def final(self):
        return load_checkpoint(list_checkpoints(self.folder / "checkpoints")[-1])


@pytest.fixture(scope="module")
def chance():
    seed = int(os.environ.get("VISAUDIO_KILL_SEED") or secrets.randbits(32))
    return seed, random.Random(seed)


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> Run:
    """One process, never killed."""
    return Run(tmp_path_factory.mktemp("straight") / "run").finish()


@pytest.fixture(scope="module")
def straight_two(tmp_path_factory) -> Run:
    return Run(tmp_path_factory.mktemp("straight_two") / "run").finish(world=2)


def test_killed_at_random_steps_and_while_saving_equals_the_straight_run(tmp_path, straight, chance):
    run = Run(tmp_path / "run")
    resumed_from = _kill_often(run, 1, chance, kills=2, saves=2)
    run.finish()
    _assert_equal(run, straight)
    assert max(resumed_from) > 0  # else nothing was resumed


def test_two_processes_killed_equal_two_that_were_not(tmp_path, straight_two, chance):
    run = Run(tmp_path / "run")
    resumed_from = _kill_often(run, 2, chance, kills=1, saves=1)
    run.finish(world=2)
    _assert_equal(run, straight_two)
    assert max(resumed_from) > 0


def test_another_number_of_processes_goes_on_with_the_same_clips(tmp_path, straight, chance):
    run = Run(tmp_path / "run")
    first, second = sorted(_draw(chance).sample(range(8, STEPS - 8), 2))
    run.kill_at(first, 0.0, world=1)
    run.kill_at(second, 0.0, world=2)
    assert run.newest() > 0
    run.finish(world=1)
    assert run.ids() == straight.ids()
    assert _furthest(read_losses(run.folder), read_losses(straight.folder)) < TOLERANCE


def test_two_processes_have_the_losses_of_one_that_accumulates_twice(tmp_path, straight_two):
    one = Run(tmp_path / "run", "--accumulation", "2").finish()
    ours, theirs = read_losses(one.folder), read_losses(straight_two.folder)
    assert len(ours) == len(theirs) == STEPS == 50
    assert one.ids() == straight_two.ids()
    assert _furthest(ours, theirs) < TOLERANCE
    assert max(ours.values()) - min(ours.values()) > 0.1  # it did learn, or differ from batch to batch


def _kill_often(run: Run, world: int, chance, kills: int, saves: int) -> list[int]:
    """Kill it so often, in random order; -> the steps from which it went on."""
    random_ = _draw(chance)
    kinds = ["step"] * kills + ["save"] * saves
    random_.shuffle(kinds)
    resumed_from = []
    for kind in kinds:
        if kind == "save":
            operation = random_.randint(1, 16)
            print(f"killed at file operation {operation} after step {run.newest()}")
            run.kill_in_save(operation, world)
        else:
            step = random_.randint(min(run.newest() + 5, LAST_KILL), LAST_KILL)
            wait_s = random_.uniform(0, 0.1)
            print(f"killed {wait_s:.3f} s after the start of step {step}, from step {run.newest()}")
            run.kill_at(step, wait_s, world)
        resumed_from.append(run.newest())
    return resumed_from


def _draw(chance) -> random.Random:
    seed, random_ = chance
    print(f"VISAUDIO_KILL_SEED={seed}")
    return random_


def _assert_equal(run: Run, straight: Run) -> None:
    """Losses, clips, weights, averages, moments and snapshots, bit for bit."""
    assert read_losses(run.folder) == read_losses(straight.folder)
    assert sorted(read_losses(run.folder)) == list(range(1, STEPS + 1))
    assert run.ids() == straight.ids()
    ours, theirs = run.final(), straight.final()
    assert ours.state["step"] == STEPS
    for part in ("network", "ema", "optimizer"):
        assert _differences(getattr(ours, part), getattr(theirs, part)) == []
    snapshots = [{p.name: torch.load(p) for p in (r.folder / "ema").iterdir()} for r in (run, straight)]
    assert _differences(*snapshots) == []


def _differences(a, b, at: str = "") -> list[str]:
    """Places at which two nested containers are not the same to the bit."""
    if isinstance(a, torch.Tensor):
        return [] if a.dtype == b.dtype and torch.equal(a, b) else [at]
    if isinstance(a, dict):
        if a.keys() != b.keys():
            return [f"{at}: keys"]
        return [place for key in a for place in _differences(a[key], b[key], f"{at}.{key}")]
    if isinstance(a, (list, tuple)):
        pairs = zip(a, b, strict=True)
        return [place for i, pair in enumerate(pairs) for place in _differences(*pair, f"{at}[{i}]")]
    return [] if a == b else [at]


def _furthest(ours: dict[int, float], theirs: dict[int, float]) -> float:
    assert ours.keys() == theirs.keys()
    return max(abs(ours[step] - theirs[step]) for step in ours)


def _lines(path: Path) -> list[dict]:
    """Whole lines: the last one may still be being written, or have been cut by a kill."""
    if not path.is_file():
        return []
    found = []
    for text in path.read_text().splitlines():
        with contextlib.suppress(ValueError):
            found.append(json.loads(text))
    return found


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
