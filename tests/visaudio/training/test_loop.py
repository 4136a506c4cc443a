import json
import os
import signal
import threading

import pytest
import torch
from fakes import FakeNetwork, FakeSamples

from bi_audio_dataset.schema import UserError
from visaudio.training.checkpoint import list_checkpoints, load_checkpoint
from visaudio.training.loop import FlowLoopConfig, train
from visaudio.training.schedule import ScheduleConfig

SCHEDULE = ScheduleConfig(peak=1e-2, warmup_steps=3, decay="cosine", decay_start=0.0)
CONFIG = FlowLoopConfig(
    steps=12, batch_size=4, precision="fp32", log_every=4, validate_every=0, schedule=SCHEDULE
)


def _network(seed: int = 0) -> FakeNetwork:
    torch.manual_seed(seed)
    return FakeNetwork()


def _final(folder):
    return load_checkpoint(list_checkpoints(folder / "checkpoints")[-1])


class _KilledAfter(FakeSamples):
    """Asks for a stop, as a signal would, when a later sample is read."""

    def __init__(self, reads: int):
        super().__init__()
        self.left = reads

    def get(self, index, mirror):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().get(index, mirror)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_killed_and_resumed_equals_straight_bit_for_bit(tmp_path, accumulation):
    config = FlowLoopConfig(**{**vars(CONFIG), "accumulation": accumulation})
    straight = train(_network(), FakeSamples(), config, tmp_path / "straight")
    first = train(_network(), _KilledAfter(20), config, tmp_path / "resumed")
    assert not first.finished and 0 < first.step < 12
    second = train(_network(seed=99), FakeSamples(), config, tmp_path / "resumed")
    assert straight.finished and second.finished and second.step == 12
    a, b = _final(tmp_path / "straight"), _final(tmp_path / "resumed")
    for one, other in ((a.network, b.network), (a.ema, b.ema)):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    moments = [c.optimizer["state"][0]["exp_avg_sq"] for c in (a, b)]
    assert torch.equal(*moments)
    snapshots = [{p.name for p in (tmp_path / run / "ema").iterdir()} for run in ("straight", "resumed")]
    assert snapshots[0] == snapshots[1]


def test_a_second_training_in_one_process_has_a_precision_of_its_own(tmp_path):
    for precision in ("bf16", "fp32"):
        config = FlowLoopConfig(**{**vars(CONFIG), "steps": 1, "precision": precision})
        assert train(_network(), FakeSamples(), config, tmp_path / precision).finished


class _WithMatrix(FakeNetwork):
    """Has a hidden matrix for Muon to take."""

    def __init__(self):
        super().__init__(width=32)
        self.hidden = torch.nn.Linear(32, 32)

    def forward(self, *arguments):
        outer, self.outer = self.outer, torch.nn.Sequential(self.hidden, self.outer)
        try:
            return super().forward(*arguments)
        finally:
            self.outer = outer


def test_muon_resumes_bit_for_bit_too(tmp_path):
    config = FlowLoopConfig(**{**vars(CONFIG), "optimizer": "muon"})
    runs = {}
    for run in ("straight", "resumed"):
        torch.manual_seed(0)
        samples = FakeSamples() if run == "straight" else _KilledAfter(20)
        runs[run] = train(_WithMatrix(), samples, config, tmp_path / run)
    assert runs["straight"].finished and not runs["resumed"].finished
    assert train(_WithMatrix(), FakeSamples(), config, tmp_path / "resumed").finished
    a, b = _final(tmp_path / "straight"), _final(tmp_path / "resumed")
    assert all(torch.equal(a.network[name], b.network[name]) for name in a.network)
    momenta = [c.optimizer["muon"]["state"][0]["momentum_buffer"] for c in (a, b)]
    assert torch.equal(*momenta) and momenta[0].abs().max() > 0


def test_training_learns_and_the_loss_is_the_flow_matching_loss(tmp_path):
    config = FlowLoopConfig(
        steps=300,
        batch_size=12,
        precision="fp32",
        validate_every=0,
        schedule=ScheduleConfig(peak=2e-2, warmup_steps=10, decay="cosine"),
    )
    untrained = train(
        _network(), FakeSamples(), FlowLoopConfig(**{**vars(CONFIG), "steps": 1}), tmp_path / "a"
    )
    trained = train(_network(), FakeSamples(), config, tmp_path / "b")
    # normalised unit-variance latents: a network that knows nothing scores about 2 ears x (1 + 1)
    assert 3.2 < untrained.loss < 5.5
    assert trained.loss < 0.45 * untrained.loss


def test_a_loss_that_is_not_finite_names_the_clip_and_saves_nothing(tmp_path):
    samples = FakeSamples()
    samples.rows[7]["latents"] = torch.full_like(samples.rows[7]["latents"], float("nan"))
    with pytest.raises(FloatingPointError, match=r"clip007 \(step \d+, loss nan\)"):
        train(_network(), samples, CONFIG, tmp_path)
    assert list_checkpoints(tmp_path / "checkpoints") == []


def test_another_runs_folder_is_refused(tmp_path):
    train(_network(), FakeSamples(), CONFIG, tmp_path)
    with pytest.raises(UserError, match=r"other settings \(batch_size, seed\)"):
        train(
            _network(), FakeSamples(), FlowLoopConfig(**{**vars(CONFIG), "batch_size": 6}), tmp_path, seed=1
        )
    with pytest.raises(UserError, match="training clips"):
        train(_network(), FakeSamples(13), CONFIG, tmp_path)


def test_a_finished_run_is_not_trained_again_but_can_be_made_longer(tmp_path):
    train(_network(), FakeSamples(), CONFIG, tmp_path)
    before = _final(tmp_path).network
    again = train(_network(), FakeSamples(), CONFIG, tmp_path)
    assert again.finished and torch.equal(_final(tmp_path).network["inner.weight"], before["inner.weight"])
    longer = train(_network(), FakeSamples(), FlowLoopConfig(**{**vars(CONFIG), "steps": 16}), tmp_path)
    assert longer.step == 16 == _final(tmp_path).state["step"]


def test_a_time_budget_sets_the_length_once_and_stores_it(tmp_path, monkeypatch):
    now = [0.0]

    class Slow(FakeNetwork):  # a second a step; not the samples, which a thread reads ahead
        def forward(self, *arguments):
            now[0] += 1.0
            return super().forward(*arguments)

    monkeypatch.setattr("visaudio.training.run_state.time.monotonic", lambda: now[0])
    settings = {**vars(CONFIG), "steps": 10_000, "max_minutes": 1.0, "calibration_steps": 15}
    result = train(Slow(), FakeSamples(), FlowLoopConfig(**settings), tmp_path)
    assert 50 <= result.total_steps <= 60
    assert result.finished
    assert (
        json.loads((list_checkpoints(tmp_path / "checkpoints")[-1] / "state.json").read_text())["total_steps"]
        == result.total_steps
    )


def test_validation_sees_the_average_at_its_steps(tmp_path):
    seen = []
    config = FlowLoopConfig(**{**vars(CONFIG), "validate_every": 5})
    network = _network()

    def validate(averaged, step, writer):
        seen.append(step)
        assert averaged is not network
        assert threading.current_thread() is threading.main_thread()

    train(network, FakeSamples(), config, tmp_path, validate=validate)
    assert seen == [5, 10, 12]
