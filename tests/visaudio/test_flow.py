import pytest
import torch

from visaudio.flow import (
    flow_matching_loss,
    interpolate,
    sample_timesteps,
    timesteps_from_normal,
    velocity_target,
)


def _pair(seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(3, 2, 5, 4, generator=g), torch.randn(3, 2, 5, 4, generator=g)


def test_time_zero_is_noise_and_time_one_is_data():
    x_0, x_1 = _pair()
    assert torch.equal(interpolate(x_0, x_1, torch.zeros(3)), x_0)
    assert torch.equal(interpolate(x_0, x_1, torch.ones(3)), x_1)


def test_velocity_is_the_derivative_of_the_path():
    x_0, x_1 = (x.double() for x in _pair())
    t, h = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64), 1e-6
    slope = (interpolate(x_0, x_1, t + h) - interpolate(x_0, x_1, t - h)) / (2 * h)
    torch.testing.assert_close(slope, velocity_target(x_0, x_1), atol=1e-8, rtol=0)


def test_times_differ_within_a_batch():
    x_0, x_1 = torch.zeros(2, 2, 3, 1), torch.ones(2, 2, 3, 1)
    x = interpolate(x_0, x_1, torch.tensor([0.25, 0.75]))
    assert x[0].unique().item() == 0.25 and x[1].unique().item() == 0.75


def test_loss_sums_the_ears_and_averages_the_rest():
    target = torch.zeros(2, 2, 7, 3)
    predicted = target.clone()
    predicted[0, 0] = 1.0  # sample 0: left ear wrong by 1
    predicted[1] = 2.0  # sample 1: both wrong by 2
    assert flow_matching_loss(predicted, target).tolist() == [1.0, 8.0]


def test_timesteps_are_logit_normal():
    t = sample_timesteps(40000, generator=torch.Generator().manual_seed(1), mean=-0.5, scale=1.5)
    logit = torch.logit(t.double())
    assert abs(logit.mean().item() + 0.5) < 0.03 and abs(logit.std().item() - 1.5) < 0.03
    assert 0 < t.min() and t.max() < 1
    quartiles = torch.sigmoid(torch.tensor([-0.5 - 1.5 * 0.6745, -0.5, -0.5 + 1.5 * 0.6745]))
    torch.testing.assert_close(t.quantile(torch.tensor([0.25, 0.5, 0.75])), quartiles, atol=0.015, rtol=0)


def test_timesteps_come_from_the_generator_alone():
    first = sample_timesteps(8, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(99)
    again = sample_timesteps(8, generator=torch.Generator().manual_seed(3))
    assert torch.equal(first, again)
    assert timesteps_from_normal(torch.zeros(1)).item() == 0.5


def test_wrong_shapes_are_named():
    x_0, x_1 = _pair()
    with pytest.raises(ValueError, match=r"\(3,\).*\(2,\)"):
        interpolate(x_0, x_1, torch.zeros(2))
    with pytest.raises(ValueError, match="B, 2, N, D"):
        flow_matching_loss(x_0, x_1[:, :1])
