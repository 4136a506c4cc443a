"""FD, KL and IS against closed forms and against other people's formulas."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
import torch.nn.functional as F
from small_audio_networks import embeddings

from visaudio.evaluation import distributions
from visaudio.evaluation.distributions import frechet_of_rows, inception_score, kl_divergence, log_softmax

REFERENCE = json.loads((Path(__file__).parent / "audio_networks" / "reference_outputs.json").read_text())


def direct(a, b) -> float:
    """The formula of the field's scripts: numpy.cov, and scipy's square root of the product."""
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root))


def ones(rows) -> np.ndarray:
    return np.ones(len(rows), int)


def exact(rng, count, dims, mean, scale) -> np.ndarray:
    """Rows whose sample mean and covariance are exactly `mean` and diag(scale^2)."""
    white = rng.normal(size=(count, dims))
    white = np.linalg.qr(white - white.mean(axis=0))[0] * np.sqrt(count - 1)
    return mean + white * scale


def test_the_closed_form_of_two_gaussians():
    rng = np.random.default_rng(0)
    scale_a, scale_b = np.array([1.0, 2.0, 0.5]), np.array([3.0, 0.1, 0.5])
    a, b = exact(rng, 40, 3, 1.0, scale_a), exact(rng, 90, 3, -1.0, scale_b)
    expected = 3 * 4.0 + ((scale_a - scale_b) ** 2).sum()
    assert frechet_of_rows(a, ones(a), b, ones(b)) == pytest.approx(expected, rel=1e-9)


def test_few_rows_in_many_dimensions_by_closed_form():
    # each set varies along one direction: S = v v^T s^2, and tr (S_a S_b)^(1/2) = s_a s_b |v_a . v_b|
    u = np.zeros((2, 500))
    u[0, 0], u[1, 0], u[1, 1] = 1.0, 0.6, 0.8
    steps = np.array([-1.0, 0.0, 1.0])[:, None]  # a variance of 1
    a, b = 2 * steps * u[0], 5 * steps * u[1] + 1.0
    expected = 500 + 4 + 25 - 2 * 10 * 0.6
    assert frechet_of_rows(a, ones(a), b, ones(b)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("count_a", "count_b"), [(12, 12), (12, 20), (30, 12), (60, 50)])
def test_both_ways_equal_the_direct_formula(count_a, count_b):
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(count_a, 24)), rng.normal(0.3, 1.5, size=(count_b, 24))
    # sqrtm of a singular product is good to about the root of the precision
    assert frechet_of_rows(a, ones(a), b, ones(b)) == pytest.approx(direct(a, b), rel=1e-5)


@pytest.mark.parametrize("dims", [6, 90])
def test_against_torch_fidelity_and_torchmetrics(dims):
    scores = REFERENCE[f"scores_{dims}"]
    a, b = embeddings(dims)
    assert frechet_of_rows(a, ones(a), b, ones(b)) == pytest.approx(scores["fid_torchmetrics"], rel=1e-4)
    assert frechet_of_rows(a, ones(a), b, ones(b)) == pytest.approx(scores["fid_torch_fidelity"], rel=1e-4)
    assert inception_score(log_softmax(a)) == pytest.approx(scores["isc_torch_fidelity"], rel=1e-6)
    kl = kl_divergence(log_softmax(a), log_softmax(b)).mean()
    assert kl == pytest.approx(scores["kl_torchmetrics"], rel=1e-6)


@pytest.mark.parametrize("dims", [8, 64])
def test_weights_are_repeated_rows(dims):
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(20, dims)), rng.normal(1, 2, size=(20, dims))
    index = rng.integers(0, 20, 20)
    weight = np.bincount(index, minlength=20)
    got = frechet_of_rows(a, weight, b, weight)
    assert got == pytest.approx(frechet_of_rows(a[index], ones(index), b[index], ones(index)), rel=1e-9)
    assert got == pytest.approx(direct(a[index], b[index]), rel=1e-5)


def test_the_same_set_is_at_no_distance_and_one_row_has_none():
    a = np.random.default_rng(3).normal(size=(10, 50))
    assert frechet_of_rows(a, ones(a), a, ones(a)) == pytest.approx(0.0, abs=1e-9)
    assert np.isnan(frechet_of_rows(a[:1], ones(a[:1]), a, ones(a)))


def test_kl_by_hand_and_by_torch():
    reference, generated = np.log([[0.5, 0.5]]), np.log([[0.75, 0.25]])
    assert kl_divergence(reference, generated)[0] == pytest.approx(0.5 * np.log(4 / 3), rel=1e-12)
    logits = torch.randn(2, 6, 527, generator=torch.manual_seed(0), dtype=torch.float64) * 5
    got = kl_divergence(log_softmax(logits[0].numpy()), log_softmax(logits[1].numpy()))
    # torch's first argument is the second distribution
    torch_kl = F.kl_div(
        logits[1].log_softmax(-1), logits[0].log_softmax(-1), reduction="none", log_target=True
    )
    np.testing.assert_allclose(got, torch_kl.sum(-1).numpy(), rtol=1e-10)
    np.testing.assert_array_equal(kl_divergence(reference, reference), 0)


def test_large_logits_do_not_overflow():
    log_p = log_softmax(np.array([[1000.0, 0.0, -1000.0]]))
    np.testing.assert_allclose(log_p, [[0.0, -1000.0, -2000.0]])
    assert kl_divergence(log_p, log_p)[0] == 0


def test_inception_score_of_classes_apart_and_of_one():
    # 40 clips, each sure of one of 4 classes: a split of 4 holds every class or fewer
    hard = np.full((40, 4), -np.inf)
    hard[np.arange(40), np.arange(40) % 4] = 0.0
    with np.errstate(invalid="ignore"):
        assert inception_score(np.maximum(hard, -700)) <= 4.0
    assert inception_score(np.zeros((40, 1))) == pytest.approx(1.0)
    assert inception_score(np.log(np.full((40, 4), 0.25))) == pytest.approx(1.0)
    assert inception_score(np.maximum(hard[:4], -700)) == pytest.approx(4.0)  # one split
    assert inception_score(np.maximum(hard[:1], -700)) == pytest.approx(1.0)
    assert np.isnan(inception_score(np.zeros((0, 4))))


def test_inception_score_by_torch_fidelitys_definition():
    logits = torch.randn(57, 20, generator=torch.manual_seed(1), dtype=torch.float64) * 3
    order = np.random.RandomState(distributions.SHUFFLE_SEED).permutation(57)
    parts = [logits[order][i * 57 // 10 : (i + 1) * 57 // 10] for i in range(10)]
    scores = []
    for part in parts:
        p = part.softmax(1)
        mean = p.mean(0, keepdim=True).expand_as(p)
        scores.append(F.kl_div(mean.log(), p, reduction="none").sum(1).mean().exp())
    assert inception_score(log_softmax(logits.numpy())) == pytest.approx(float(np.mean(scores)), rel=1e-10)


def test_repeated_and_fewer_clips_move_fd_up_and_is_down():
    rng = np.random.default_rng(4)
    a = rng.normal(size=(80, 20))
    b = a + rng.normal(size=a.shape)
    whole = frechet_of_rows(a, ones(a), b, ones(b))
    drawn = [np.bincount(rng.integers(0, 80, 80), minlength=80) for _ in range(20)]
    assert min(frechet_of_rows(a, weight, b, weight) for weight in drawn) > whole
    assert frechet_of_rows(a[:40], ones(a[:40]), b[:40], ones(b[:40])) > whole
    log_p = log_softmax(2 * a)
    repeated = [inception_score(log_p[rng.integers(0, 80, 80)]) for _ in range(20)]
    assert np.mean(repeated) < inception_score(log_p)
