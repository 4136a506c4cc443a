import pytest
import torch

from visaudio.guidance import guided
from visaudio.solver import solve, time_grid


class CountingModel:
    """v = condition - x t, and a record of the batches it was called with."""

    def __init__(self):
        self.batches = []

    def __call__(self, x, t, condition):
        self.batches.append((x.shape[0], tuple(t.shape)))
        return condition - x * t[:, None]


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 4.5])
def test_formula_holds(scale):
    model, x, t = CountingModel(), torch.randn(3, 4), torch.tensor(0.3)
    cond, null = torch.randn(3, 4), torch.randn(3, 4)
    v_cond, v_null = (model(x, t.expand(3), c) for c in (cond, null))
    torch.testing.assert_close(guided(model, cond, null, scale)(t, x), v_null + scale * (v_cond - v_null))


def test_scale_one_never_computes_the_null():
    model = CountingModel()
    guided(model, torch.ones(3, 4), None, 1.0)(torch.tensor(0.5), torch.zeros(3, 4))
    assert model.batches == [(3, (3,))]


def test_other_scales_make_one_call_of_twice_the_batch():
    model = CountingModel()
    solve(guided(model, torch.ones(3, 4), torch.zeros(3, 4), 2.0), torch.zeros(3, 4), time_grid(5))
    assert model.batches == [(6, (6,))] * 5


def test_equal_conditions_make_the_scale_irrelevant():
    x, condition = torch.randn(2, 4), torch.randn(2, 4)
    model, t = CountingModel(), torch.tensor(0.7)
    torch.testing.assert_close(
        guided(model, condition, condition, 7.0)(t, x), guided(model, condition, condition, 1.0)(t, x)
    )
