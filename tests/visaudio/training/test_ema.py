import pytest
import torch
from torch import nn

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
