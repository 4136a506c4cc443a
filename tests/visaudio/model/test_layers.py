import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from visaudio.model.layers import ChannelLastConv1d, GatedMLP, SelfAttention, TimeEmbedding, attend, modulate
from visaudio.model.rope import rotation


@pytest.mark.parametrize("kernel_size", [1, 3, 7])
def test_convolution_equals_torchs(kernel_size):
    conv = ChannelLastConv1d(5, 6, kernel_size)
    nn.init.normal_(conv.bias)
    x = torch.randn(2, 11, 5)
    expected = F.conv1d(x.transpose(1, 2), conv.weight, conv.bias, padding=kernel_size // 2).transpose(1, 2)
    torch.testing.assert_close(conv(x), expected, atol=1e-5, rtol=1e-5)


def test_convolution_gradients_equal_torchs():
    conv, x = (
        ChannelLastConv1d(4, 3, 3).double(),
        torch.randn(2, 6, 4, dtype=torch.float64, requires_grad=True),
    )
    ours = torch.autograd.grad(conv(x).square().sum(), [x, conv.weight])
    y = F.conv1d(x.transpose(1, 2), conv.weight, conv.bias, padding=1)
    theirs = torch.autograd.grad(y.square().sum(), [x, conv.weight])
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("dim", "ratio", "multiple", "inner"), [(64, 4.0, 256, 256), (448, 4.0, 256, 1280), (128, 3.0, 128, 256)]
)
def test_gated_mlp_width(dim, ratio, multiple, inner):
    """448 -> 1280 is the shape of MMAudio small's checkpoint."""
    assert GatedMLP(dim, ratio, multiple).w1.weight.shape == (inner, dim)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_gated_mlp_formula(kernel_size):
    mlp, x = GatedMLP(8, 4.0, 16, kernel_size), torch.randn(2, 5, 8)
    torch.testing.assert_close(mlp(x), mlp.w2(F.silu(mlp.w1(x)) * mlp.w3(x)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("grad", [True, False])
def test_attention_equals_torchs_multihead(grad):
    """With the norms' effect undone: queries and keys of unit RMS go in, so RMSNorm leaves them alone."""
    heads, dim = 2, 16
    q, k, v = (torch.randn(3, 5, dim, requires_grad=grad) for _ in range(3))
    reference = nn.MultiheadAttention(dim, heads, bias=False, batch_first=True)
    with torch.no_grad():
        reference.in_proj_weight.copy_(torch.eye(dim).repeat(3, 1))
        reference.out_proj.weight.copy_(torch.eye(dim))

    def split(x):
        return x.view(3, 5, heads, dim // heads).transpose(1, 2)

    torch.testing.assert_close(
        attend(split(q), split(k), split(v)), reference(q, k, v)[0], atol=1e-5, rtol=1e-5
    )


def test_projections_equal_mmaudios_order():
    """Rows of qkv are (head, dimension, q|k|v); neighbours are rotary pairs. Scores must agree."""
    heads, dim, n = 2, 16, 9
    attention = SelfAttention(dim, heads)
    for norm in (attention.q_norm, attention.k_norm):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
    x = torch.randn(1, n, dim)
    q, k, v = attention(x, rotation(n, dim // heads))

    head_dim = dim // heads
    raw = attention.qkv(x).view(1, n, heads, head_dim, 3).permute(4, 0, 2, 1, 3)
    frequencies = 10000.0 ** (-torch.arange(0, head_dim, 2) / head_dim)
    turn = torch.polar(torch.ones(n, head_dim // 2), torch.arange(n)[:, None] * frequencies)

    def reference(a, norm):
        a = norm.weight * a / (a.square().mean(-1, keepdim=True) + 1.2e-7).sqrt()
        pairs = torch.view_as_complex(a.reshape(*a.shape[:-1], -1, 2).contiguous())
        return torch.view_as_real(pairs * turn).flatten(-2)

    expected = reference(raw[0], attention.q_norm) @ reference(raw[1], attention.k_norm).transpose(-1, -2)
    torch.testing.assert_close(q @ k.transpose(-1, -2), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(v, raw[2])


def test_modulation_without_shift_and_scale_is_layer_norm():
    x, zero = torch.randn(2, 3, 8), torch.zeros(2, 1, 8)
    torch.testing.assert_close(modulate(x, zero, zero), nn.LayerNorm(8, elementwise_affine=False)(x))
    torch.testing.assert_close(modulate(x, zero + 3, zero - 1), torch.full_like(x, 3.0))


def test_time_embedding_frequencies():
    embed = TimeEmbedding(8, 4, scale=10.0)
    embed.mlp = nn.Identity()
    t = 0.3
    expected = [math.cos(3.0), math.cos(0.03), math.sin(3.0), math.sin(0.03)]
    assert embed(torch.tensor([t]))[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_errors():
    with pytest.raises(ValueError, match="odd.*got 4"):
        ChannelLastConv1d(2, 2, 4)
    with pytest.raises(ValueError, match="3 heads do not divide the width 8"):
        SelfAttention(8, 3)
