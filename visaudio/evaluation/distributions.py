"""Distances between sets of embeddings and between class distributions, as av-benchmark defines them.

    FD(a, b)  = |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))      of embeddings, covariances with n - 1
    KL(r, g)  = sum_k r_k ln(r_k / g_k)                                of one pair: the reference comes first
    IS        = exp(mean_i KL(p_i, mean_j p_j))                        of a set of class distributions

Legend: C clips, N embeddings, D dimensions, K classes.
"""

from __future__ import annotations

import numpy as np

from visaudio.evaluation.frechet import frechet_distance

SPLITS, SHUFFLE_SEED = 10, 2020  # of the inception score


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """(..., K) -> natural logs of probabilities (..., K), float64."""
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def kl_divergence(log_reference: np.ndarray, log_generated: np.ndarray) -> np.ndarray:
    """(..., K) logs of probabilities -> nats (...), at least 0; infinite where g excludes what r has."""
    log_reference, log_generated = (np.asarray(x, np.float64) for x in (log_reference, log_generated))
    return np.maximum((np.exp(log_reference) * (log_reference - log_generated)).sum(axis=-1), 0.0)


def inception_score(log_probabilities: np.ndarray) -> float:
    """(C, K) logs of probabilities -> 1 to K: the mean of 10 splits of the shuffled clips.

    As torch-fidelity and av-benchmark split them (seed 2020), so that it is at most the clips of a split.
    Fewer than 10 clips are one split. nan without clips.
    """
    count = len(log_probabilities)
    if not count:
        return float("nan")
    order = np.random.RandomState(SHUFFLE_SEED).permutation(count)
    splits = SPLITS if count >= SPLITS else 1
    edges = [i * count // splits for i in range(splits + 1)]
    log_p = np.asarray(log_probabilities, np.float64)[order]
    parts = [log_p[low:high] for low, high in zip(edges, edges[1:], strict=False)]
    return float(np.mean([_score(part) for part in parts]))


def _score(log_p: np.ndarray) -> float:
    p = np.exp(log_p)
    mean = p.mean(axis=0)
    whole = np.log(mean, out=np.zeros_like(mean), where=mean > 0)
    return float(np.exp((p * (log_p - whole)).sum(axis=1).mean()))


def frechet_of_rows(a: np.ndarray, weight_a: np.ndarray, b: np.ndarray, weight_b: np.ndarray) -> float:
    """a (N, D) with each row taken weight_a (N,) times, b (M, D) likewise -> FD; nan below two rows.

    With fewer rows than dimensions the covariances have few roots: tr (S_a S_b)^(1/2) is the sum of the
    singular values of X_a X_b^T, where X^T X = S, which has a side for each distinct row instead of D.
    """
    if min(weight_a.sum(), weight_b.sum()) < 2:
        return float("nan")
    mean_a, rows_a = _centred(a, weight_a)
    mean_b, rows_b = _centred(b, weight_b)
    if max(len(rows_a), len(rows_b)) >= a.shape[1]:
        return frechet_distance(mean_a, rows_a.T @ rows_a, mean_b, rows_b.T @ rows_b)
    root = np.linalg.svd(rows_a @ rows_b.T, compute_uv=False).sum()
    distance = ((mean_a - mean_b) ** 2).sum() + (rows_a**2).sum() + (rows_b**2).sum() - 2 * root
    return float(max(distance, 0.0))


def _centred(rows: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean (D,), and X with X^T X the covariance: a row for each distinct one."""
    taken = weight > 0
    rows, weight = np.asarray(rows[taken], np.float64), np.asarray(weight[taken], np.float64)
    mean = weight @ rows / weight.sum()
    return mean, (rows - mean) * np.sqrt(weight / (weight.sum() - 1))[:, None]
