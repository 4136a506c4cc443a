import pytest
import torch

from visaudio.solver import METHODS, solve, time_grid


@pytest.mark.parametrize(
    ("method", "tolerance"), [("euler", 0.04), ("midpoint", 4e-4), ("heun", 4e-4), ("dopri5", 1e-4)]
)
def test_integrates_3t2_to_t3(method, tolerance):
    x = solve(lambda t, x: 3 * t**2 * torch.ones_like(x), torch.zeros(2, 3), time_grid(40), method)
    assert (x - 1).abs().max().item() < tolerance


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2)])
def test_order_of_convergence_on_exponential_growth(method, order):
    def error(steps):
        x = solve(lambda t, x: x, torch.ones(1, dtype=torch.float64), time_grid(steps).double(), method)
        return abs(x.item() - torch.e)

    assert error(16) / error(32) == pytest.approx(2**order, rel=0.1)


@pytest.mark.parametrize(("method", "per_step"), [("euler", 1), ("midpoint", 2), ("heun", 2)])
def test_number_of_evaluations(method, per_step):
    times = []
    solve(lambda t, x: times.append(float(t)) or x, torch.ones(1), time_grid(5), method)
    assert len(times) == 5 * per_step
    assert min(times) == 0 and max(times) <= 1


def test_euler_follows_an_uneven_grid():
    grid = torch.tensor([0.0, 0.5, 0.6, 1.0])
    x = solve(lambda t, x: t.expand_as(x), torch.zeros(1), grid, "euler")
    assert x.item() == pytest.approx(0.0 * 0.5 + 0.5 * 0.1 + 0.6 * 0.4)


def test_a_straight_flow_is_exact_in_one_step():
    noise, data = torch.randn(2, 2, 4, 3), torch.randn(2, 2, 4, 3)
    for method in METHODS:
        x = solve(lambda t, x: data - noise, noise, time_grid(1), method)
        torch.testing.assert_close(x, data, atol=1e-5, rtol=0)


def test_reverse_brings_the_noise_back():
    noise = torch.randn(4)
    x = solve(lambda t, x: -x * t, noise, time_grid(8), "dopri5", rtol=1e-6, atol=1e-6)
    back = solve(lambda t, x: -x * t, x, time_grid(8).flip(0), "dopri5", rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(back, noise, atol=1e-4, rtol=0)


def test_errors_name_the_choices():
    with pytest.raises(ValueError, match="rk9.*euler, midpoint, heun, dopri5"):
        solve(lambda t, x: x, torch.ones(1), time_grid(2), "rk9")
    with pytest.raises(ValueError, match="at least 1, got 0"):
        time_grid(0)
    with pytest.raises(ValueError, match="two times"):
        solve(lambda t, x: x, torch.ones(1), torch.zeros(1))
