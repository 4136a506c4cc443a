import numpy as np
import pytest
import scipy.linalg

from visaudio.evaluation.frechet import ClipSums, GaussianSums, frechet_distance, rows_gaussian


def rotation(dims: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(dims, dims)))[0]


def random_gaussian(dims: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(dims, dims))
    return rng.normal(size=dims), factor @ factor.T / dims


def by_sqrtm(mean_a, cov_a, mean_b, cov_b) -> float:
    """The formula as the reference scripts of FID compute it."""
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    return float(((mean_a - mean_b) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root))


def test_one_dimension_is_the_closed_form():
    # N(1, 2^2) and N(4, 5^2): (1 - 4)^2 + (2 - 5)^2
    assert frechet_distance([1.0], [[4.0]], [4.0], [[25.0]]) == pytest.approx(18.0, abs=1e-12)


def test_commuting_covariances_in_any_orientation():
    a, b = np.array([4.0, 1.0, 0.25, 0.0]), np.array([1.0, 9.0, 0.25, 16.0])
    expected = 3.0 + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()  # 3: the means' distance below
    mean = np.array([1.0, 1.0, 1.0, 0.0])
    for turn in (np.eye(4), rotation(4, 1)):
        got = frechet_distance(turn @ mean, turn * a @ turn.T, np.zeros(4), turn * b @ turn.T)
        # of singular covariances: where rounding leaves 1e-16 of an eigenvalue of 0, its root is 1e-8
        assert got == pytest.approx(expected, rel=1e-7)


def test_rotated_plane_gaussian_by_hand():
    # S_a = diag(9, 1), S_b = the same turned by 90 degrees: S_a S_b = 9 I, tr of its root is 6
    assert frechet_distance([0, 0], np.diag([9.0, 1.0]), [0, 0], np.diag([1.0, 9.0])) == pytest.approx(8.0)
    # by 45 degrees S_b = [[5, 4], [4, 5]]: tr root = sqrt(tr(P) + 2 sqrt(det P)), P = S_a S_b
    cov_a, cov_b = np.diag([9.0, 1.0]), np.array([[5.0, 4.0], [4.0, 5.0]])
    product = cov_a @ cov_b
    root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    assert frechet_distance([0, 0], cov_a, [0, 0], cov_b) == pytest.approx(20 - 2 * root, rel=1e-12)


@pytest.mark.parametrize("dims", [3, 40, 128])
def test_agrees_with_the_matrix_square_root(dims):
    a, b = random_gaussian(dims, 2), random_gaussian(dims, 3)
    assert frechet_distance(*a, *b) == pytest.approx(by_sqrtm(*a, *b), rel=1e-9)
    assert frechet_distance(*a, *b) == pytest.approx(frechet_distance(*b, *a), rel=1e-12)


@pytest.mark.parametrize("dims", [24, 128])
def test_agrees_with_pytorch_fid(dims):
    fid_score = pytest.importorskip("pytorch_fid.fid_score")
    a, b = random_gaussian(dims, 8), random_gaussian(dims, 9)
    expected = fid_score.calculate_frechet_distance(*a, *b)
    assert frechet_distance(*a, *b) == pytest.approx(expected, rel=1e-9)


def test_identical_is_zero_and_singular_is_stable():
    mean, cov = random_gaussian(30, 4)
    assert frechet_distance(mean, cov, mean, cov) < 1e-10
    # rank 5 of 200: the common formula's sqrtm warns or turns complex here
    rng = np.random.default_rng(5)
    few_a, few_b = rng.normal(size=(6, 200)), rng.normal(size=(6, 200))
    cov_a, cov_b = np.cov(few_a.T), np.cov(few_b.T)
    assert frechet_distance(np.zeros(200), cov_a, np.zeros(200), cov_a) < 1e-8
    # the root's trace by the small Gram matrix: nuclear norm of centred A B^T / (n - 1)
    gram = (few_a - few_a.mean(axis=0)) @ (few_b - few_b.mean(axis=0)).T / 5
    expected = np.trace(cov_a) + np.trace(cov_b) - 2 * np.linalg.svd(gram, compute_uv=False).sum()
    assert frechet_distance(np.zeros(200), cov_a, np.zeros(200), cov_b) == pytest.approx(expected, rel=1e-9)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="expected means"):
        frechet_distance(np.zeros(2), np.eye(2), np.zeros(3), np.eye(3))
    with pytest.raises(ValueError, match="finite"):
        frechet_distance([0.0], [[np.nan]], [0.0], [[1.0]])


def test_sums_over_clips_equal_numpy_and_resampling_repeats_rows():
    rng = np.random.default_rng(6)
    clips = [rng.normal(loc=50.0, size=(n, 4)) for n in (3, 0, 7, 5)]
    origin = np.full(4, 50.0)
    sums = ClipSums.of(clips, origin)
    index = np.array([0, 2, 2, 3, 1])
    rows = np.concatenate([clips[i] for i in index])
    drawn = sums.draw(index)
    assert drawn.count == len(rows)
    np.testing.assert_allclose(drawn.mean(), rows.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(drawn.covariance(), np.cov(rows.T), rtol=1e-10, atol=1e-12)
    added = GaussianSums.of(clips[0], origin) + GaussianSums.of(clips[2], origin)
    np.testing.assert_allclose(added.covariance(), np.cov(np.concatenate([clips[0], clips[2]]).T), rtol=1e-10)


def test_weighted_rows_equal_repeated_rows():
    rng = np.random.default_rng(7)
    rows, weight = rng.normal(size=(9, 5)), np.array([0, 1, 3, 0, 2, 1, 1, 0, 4])
    mean, covariance = rows_gaussian(rows, weight)
    repeated = np.repeat(rows, weight, axis=0)
    np.testing.assert_allclose(mean, repeated.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(repeated.T), rtol=1e-10, atol=1e-13)


def test_too_few_for_a_covariance():
    with pytest.raises(ValueError, match="two embeddings"):
        GaussianSums.of(np.zeros((1, 3))).covariance()
    with pytest.raises(ValueError, match="two embeddings"):
        rows_gaussian(np.zeros((3, 2)), np.array([0, 1, 0]))
