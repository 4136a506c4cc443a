"""Sums over frames, the correlations made of them, and angles."""

import math

import numpy as np
import pytest

from visaudio.evaluation import agreement, cues


def drawn(count: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(count)
    return x, 0.5 * x + rng.standard_normal(count)


def test_sums_give_the_mean_error_and_pearsons_r():
    x, y = drawn()
    total = agreement.sums(x, y)
    assert agreement.mean_error(total) == pytest.approx(np.abs(x - y).mean())
    assert agreement.correlation(total, 0.1) == pytest.approx(cues.pearson(x, y))


@pytest.mark.parametrize("unit", [1.0, 1e-4])
def test_sums_pool(unit):
    """Those of two clips are those of their frames put together; also in seconds of delay."""
    (x, y), (p, q) = drawn(80), drawn(50, seed=1)
    x, y, p, q = (unit * a for a in (x, y, p + 3, q + 3))
    both = {k: agreement.sums(x, y)[k] + agreement.sums(p, q)[k] for k in agreement.KEYS}
    xp, yq = np.concatenate([x, p]), np.concatenate([y, q])
    assert agreement.correlation(both, 0.1 * unit) == pytest.approx(np.corrcoef(xp, yq)[0, 1])
    assert agreement.mean_error(both) == pytest.approx(np.abs(xp - yq).mean())


def test_no_frames_and_one_frame():
    nothing = agreement.sums(np.zeros(0), np.zeros(0))
    assert math.isnan(agreement.mean_error(nothing)) and math.isnan(agreement.correlation(nothing, 0.1))
    one = agreement.sums(np.ones(1), np.zeros(1))
    assert agreement.mean_error(one) == 1.0 and math.isnan(agreement.correlation(one, 0.1))


def test_a_still_reference_says_nothing_and_a_still_answer_is_zero():
    x, y = drawn()
    assert math.isnan(agreement.correlation(agreement.sums(0.01 * x, y), least_spread=0.5))
    assert agreement.correlation(agreement.sums(x, np.full_like(x, 3.3)), least_spread=0.5) == 0.0


@pytest.mark.parametrize("angle", [-9.0, -np.pi, 0.0, 3.0, 3.2, 100.0])
def test_wrapped(angle):
    found = agreement.wrapped(np.array(angle))
    assert -np.pi <= found < np.pi
    assert np.exp(1j * found) == pytest.approx(np.exp(1j * angle))


def test_the_difference_of_angles_goes_the_short_way():
    assert agreement.wrapped(np.array(3.0 - (-3.0))) == pytest.approx(6.0 - 2 * np.pi)


def circular(x, y, counted=None, least=0.1):
    counted = np.ones(x.shape, bool) if counted is None else counted
    return agreement.circular_correlation(x, y, counted, least)


def test_circular_correlation():
    """1 for a constant off, also across the wrap; -1 for the mirror; about 0 for unrelated angles."""
    rng = np.random.default_rng(0)
    x = rng.normal(3.0, 0.4, (500, 2))
    assert circular(x, agreement.wrapped(x + 2.5)) == pytest.approx(1.0)
    assert circular(x, agreement.wrapped(0.7 - x)) == pytest.approx(-1.0)
    assert abs(circular(x, rng.normal(0.0, 0.4, (500, 2)))) < 0.08
    small = 1e-3 * rng.standard_normal((500, 1)), 1e-3 * rng.standard_normal((500, 1))
    assert circular(small[0], small[0] + small[1], least=1e-6) == pytest.approx(
        cues.pearson(small[0][:, 0], (small[0] + small[1])[:, 0]), abs=1e-3
    )  # small angles: Pearson's


def test_circular_correlation_is_the_mean_of_bands_that_say_something():
    rng = np.random.default_rng(1)
    x = rng.normal(0, 0.5, (300, 3))
    x[:, 2] = 0.3  # still
    y = np.stack([x[:, 0], -x[:, 1], x[:, 2]], axis=1)
    assert circular(x, y) == pytest.approx(0.0, abs=1e-9)  # 1 and -1
    counted = np.ones(x.shape, bool)
    counted[:, 1] = False
    assert circular(x, y, counted) == pytest.approx(1.0)
    assert circular(x, np.zeros_like(x)) == 0.0
    assert math.isnan(circular(x, y, np.zeros(x.shape, bool)))
