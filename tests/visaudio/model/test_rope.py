import math

import pytest
import torch

from visaudio.model.rope import rotate, rotation


def test_products_depend_on_the_distance_alone():
    q, k = torch.randn(1, 16), torch.randn(1, 16)
    rot = rotation(60, 16)
    queries, keys = rotate(q.expand(60, 16), rot), rotate(k.expand(60, 16), rot)
    scores = queries @ keys.T
    for offset in (-20, -1, 0, 7):
        diagonal = scores.diagonal(offset)
        assert diagonal.std() < 1e-4
    assert (scores.diagonal(0)[0] - scores.diagonal(7)[0]).abs() > 1e-3


def test_equal_times_have_equal_positions_whatever_the_rate():
    """345 latent tokens and 64 video frames of the same 8 s: frame 16 (2 s) lies at token 86.25."""
    clip = rotation(64, 32, 345 / 64)
    fine = rotation(4 * 345, 32, 0.25)
    torch.testing.assert_close(clip.cos[16], fine.cos[345], atol=1e-4, rtol=0)
    torch.testing.assert_close(clip.sin[16], fine.sin[345], atol=1e-4, rtol=0)


def test_the_first_pair_turns_by_one_radian_a_step():
    x = torch.zeros(4, 8)
    x[:, 0] = 1.0
    turned = rotate(x, rotation(4, 8))
    angles = torch.atan2(turned[:, 4], turned[:, 0])
    torch.testing.assert_close(angles, torch.tensor([0.0, 1.0, 2.0, 3.0]), atol=1e-5, rtol=0)
    slow = rotation(2, 8).sin[1, -1].item()
    assert slow == pytest.approx(math.sin(10000 ** (-6 / 8)), rel=1e-5)


def test_rotation_keeps_lengths_and_position_zero():
    x = torch.randn(2, 3, 50, 16)
    y = rotate(x, rotation(50, 16, 1.7))
    torch.testing.assert_close(y.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(y[..., 0, :], x[..., 0, :])


def test_a_table_made_while_sampling_can_train():
    with torch.inference_mode():
        rotation(37, 8, 0.123)
    x = torch.ones(37, 8, requires_grad=True)
    rotate(x, rotation(37, 8, 0.123)).sum().backward()
    assert x.grad.abs().max() > 0


def test_odd_head_dimension_is_refused():
    with pytest.raises(ValueError, match="even.*got 7"):
        rotation(4, 7)
