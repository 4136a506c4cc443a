import pytest
import torch
from ema_pytorch import PostHocEMA
from torch import nn

from bi_audio_dataset.schema import UserError
from visaudio.training.ema import EmaConfig, TrackedEma


class Ramp(nn.Module):
    """One weight that is set to the step's number, and a constant that an average must not touch."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.register_buffer("latent_std", torch.tensor([3.75]))


def _run(folder, config: EmaConfig, steps: int = 400):
    network = Ramp()
    ema = TrackedEma(network, config, folder)
    for step in range(1, steps + 1):
        network.weight.data.fill_(step)
        ema.update()
        if step % (steps // config.snapshots) == 0:
            ema.snapshot()
    return ema


def _power_function_mean(gamma: float, steps: int) -> float:
    """Mean of t under Karras et al.'s profile (g + 1) t^g / T^(g + 1): T (g + 1) / (g + 2)."""
    return steps * (gamma + 1) / (gamma + 2)


@pytest.mark.parametrize("sigma_rel", [0.05, 0.1, 0.15, 0.2])
def test_synthesized_average_of_a_ramp_is_the_power_functions_mean(tmp_path, sigma_rel):
    from ema_pytorch.post_hoc_ema import sigma_rel_to_gamma

    ema = _run(tmp_path, EmaConfig(sigma_rels=(0.05, 0.2), snapshots=20))
    expected = _power_function_mean(sigma_rel_to_gamma(sigma_rel), 400)
    assert ema.synthesize(sigma_rel)["weight"].item() == pytest.approx(expected, rel=0.01)


def test_buffers_are_not_averaged(tmp_path):
    ema = _run(tmp_path, EmaConfig())
    assert ema.synthesize()["latent_std"].item() == 3.75
    assert ema.averaged.state_dict()["latent_std"].item() == 3.75


def test_snapshots_after_a_resumed_step_are_forgotten(tmp_path):
    ema = _run(tmp_path, EmaConfig(snapshots=10))
    ema.forget_after(200)
    assert max(int(path.stem.split(".")[1]) for path in tmp_path.glob("*.pt")) == 200
    assert ema.synthesize(0.05)["weight"].item() < 200


def test_without_snapshots_the_tracked_average_is_given(tmp_path):
    network = Ramp()
    ema = TrackedEma(network, EmaConfig(), tmp_path)
    network.weight.data.fill_(2.0)
    ema.update()
    assert ema.synthesize()["weight"].item() == 2.0


def test_the_update_is_the_librarys(tmp_path):
    """All tensors at once, bit for bit what ema-pytorch does one by one."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3))
    theirs = PostHocEMA(
        network, sigma_rels=(0.05, 0.15), checkpoint_every_num_steps="manual", update_every=1,
        checkpoint_folder=str(tmp_path / "theirs"),
    )  # fmt: skip
    ours = TrackedEma(network, EmaConfig(), tmp_path / "ours")
    for _ in range(20):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter))
        theirs.update()
        ours.update()
    expected, given = theirs.state_dict(), ours.state_dict()
    assert expected.keys() == given.keys()
    assert all(torch.equal(expected[name], given[name]) for name in expected)


def test_a_full_disk_leaves_no_half_snapshot(tmp_path, monkeypatch):
    ema = _run(tmp_path, EmaConfig(snapshots=2), steps=4)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert before == ["0.2.pt", "0.4.pt", "1.2.pt", "1.4.pt"]

    def full(*_):
        raise OSError(28, "No space left on device")

    ema.update()
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=r"average .*0\.5\.pt cannot be written \(No space left on device\)"):
        ema.snapshot()
    assert sorted(path.name for path in tmp_path.iterdir()) == before
