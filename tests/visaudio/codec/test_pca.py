import pytest
import torch

from bi_audio_dataset.schema import UserError
from visaudio.codec.pca import Pca, StreamingCovariance


def frames(count: int = 400, dims: int = 6, mean: float = 0.0) -> torch.Tensor:
    """Correlated frames whose variances fall by four from one direction to the next."""
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(dims, dims, generator=generator)).Q
    scale = 0.5 ** torch.arange(dims)
    return torch.randn(count, dims, generator=generator) * scale @ turn.T + mean


def fitted(data: torch.Tensor, dims: int) -> Pca:
    found = StreamingCovariance(data.shape[1])
    for part in data.split(37):
        found.add(part)
    pca = Pca(data.shape[1], dims)
    pca.fit(found)
    return pca


def test_streaming_equals_all_at_once_even_far_from_zero():
    data = frames(mean=1e3)
    found = StreamingCovariance(6)
    for part in data.split([1, 0, 399]):
        found.add(part)
    expected = torch.cov(data.double().T, correction=0)
    assert found.count == 400
    assert torch.allclose(found.covariance(), expected, rtol=0, atol=1e-9 * float(expected.max()))
    assert torch.allclose(found.mean, data.double().mean(dim=0), rtol=1e-12)


def test_all_dimensions_come_back_and_fewer_lose_what_kept_says():
    data = frames(mean=2.0)
    whole = fitted(data, 6)
    assert float(whole.kept) == pytest.approx(1.0, abs=1e-6)
    assert torch.allclose(whole.decode(whole.encode(data)), data, atol=1e-5)
    pca = fitted(data, 2)
    lost = (pca.decode(pca.encode(data)) - data).square().sum() / (data - data.mean(dim=0)).square().sum()
    assert float(lost) == pytest.approx(1 - float(pca.kept), abs=1e-5)
    assert 0.9 < float(pca.kept) < 0.99  # 1 + 1/4 of 1 + 1/4 + 1/16 + ...


def test_directions_are_orthonormal_uncorrelated_and_in_order():
    data = frames()
    pca = fitted(data, 4)
    assert torch.allclose(pca.basis.T @ pca.basis, torch.eye(4), atol=1e-5)
    covariance = torch.cov(pca.encode(data).T)
    variances = covariance.diag()
    assert (variances[:-1] > 2 * variances[1:]).all()
    assert (covariance - variances.diag()).abs().max() < 1e-4
    assert (pca.basis.gather(0, pca.basis.abs().argmax(dim=0, keepdim=True)) > 0).all()


def test_a_pca_that_was_not_fitted_refuses():
    pca = Pca(6, 3)
    for work, width in ((pca.encode, 6), (pca.decode, 3)):
        with pytest.raises(UserError, match="was not fitted"):
            work(torch.zeros(2, width))
    with pytest.raises(UserError, match="too few"):
        fitted(frames(3), 3)
    with pytest.raises(UserError, match="expected 1 to 6"):
        Pca(6, 7)
