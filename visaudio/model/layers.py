"""The small parts of the network: channel-last convolution, gated MLPs, attention, time embedding.

Legend: B batch, N tokens, D width, H heads, K kernel. Weights keep MMAudio's shapes and orders, so
that its checkpoints load by name (see warm_start.py).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from visaudio.attention import attention
from visaudio.model.rope import Rotation, rotate

NORM_EPS = torch.finfo(torch.float32).eps  # MMAudio's RMSNorm default, fixed here so that bf16 has it too


def neighbours(x: Tensor, kernel_size: int) -> Tensor:
    """(B, N, D) -> (B, N, K D): each token beside its K-1 neighbours, zeros beyond the ends.

    A convolution over time is then one matrix product, which on CPU in bf16 is half again as fast as
    conv1d with its two transpositions.
    """
    if kernel_size == 1:
        return x
    reach = kernel_size // 2
    padded = F.pad(x, (0, 0, reach, reach))
    return torch.cat([padded[:, k : k + x.shape[1]] for k in range(kernel_size)], dim=-1)


def flat_kernel(weight: Tensor) -> Tensor:
    """(out, in, K) -> (out, K in), the order of `neighbours`; a linear (out, in) passes through."""
    return weight if weight.ndim == 2 else weight.transpose(1, 2).flatten(1)


class ChannelLastConv1d(nn.Conv1d):
    """Same-length convolution over the tokens of (B, N, D); odd kernel.

    A torch convolution in its weights and its arguments, so that adapters (training/lora.py) know it.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        kernel_size: int | tuple[int],
        stride: int | tuple[int] = 1,
        padding: int | tuple[int] | None = None,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        (size,) = kernel_size if isinstance(kernel_size, tuple) else (kernel_size,)
        if size % 2 == 0:
            raise ValueError(f"kernel_size must be odd to keep the length, got {size}")
        kept = {"stride": (stride, 1), "padding": (padding, size // 2), "groups": (groups, 1)}
        for name, (given, only) in kept.items():
            if given not in (None, only, (only,)):
                raise ValueError(f"{name} must be {only} to keep the length, got {given}")
        super().__init__(in_dim, out_dim, size, padding=size // 2, bias=bias)

    def reset_parameters(self) -> None:
        bound = 1 / math.sqrt(self.in_channels * self.kernel_size[0])
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(neighbours(x, self.kernel_size[0]), flat_kernel(self.weight), self.bias)


def _layer(in_dim: int, out_dim: int, kernel_size: int) -> nn.Module:
    if kernel_size == 1:
        return nn.Linear(in_dim, out_dim, bias=False)
    return ChannelLastConv1d(in_dim, out_dim, kernel_size, bias=False)


class GatedMLP(nn.Module):
    """w2(silu(w1 x) * w3 x); each of the three a convolution over time if kernel_size > 1.

    The inner width is two thirds of ratio x dim, rounded up to `multiple_of` (256 in MMAudio).
    """

    def __init__(self, dim: int, ratio: float = 4.0, multiple_of: int = 256, kernel_size: int = 1) -> None:
        super().__init__()
        inner = multiple_of * math.ceil(int(2 * int(dim * ratio) / 3) / multiple_of)
        self.kernel_size = kernel_size
        self.w1 = _layer(dim, inner, kernel_size)
        self.w2 = _layer(inner, dim, kernel_size)
        self.w3 = _layer(dim, inner, kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        if not all(isinstance(layer, (nn.Linear, ChannelLastConv1d)) for layer in (self.w1, self.w3)):
            # wrapped, by an adapter
            return self.w2(F.silu(self.w1(x)) * self.w3(x))
        around = neighbours(x, self.kernel_size)  # gathered once for both products
        gate = F.linear(around, flat_kernel(self.w1.weight))
        return self.w2(F.silu(gate) * F.linear(around, flat_kernel(self.w3.weight)))


class SelfAttention(nn.Module):
    """The projections of multi-head attention with RMS-normalised queries and keys.

    `qkv` has MMAudio's row order (head, dimension, q|k|v) with rotary pairs side by side. Splitting
    its output in that order would be strided; its rows are re-ordered instead (a small copy) to
    (q|k|v, head, even dimensions then odd). Queries and keys share the order, so products are equal.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"{num_heads} heads do not divide the width {dim}")
        self.num_heads = num_heads
        head_dim = dim // num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.q_norm = nn.RMSNorm(head_dim)
        self.k_norm = nn.RMSNorm(head_dim)
        halves = torch.cat([torch.arange(0, head_dim, 2), torch.arange(1, head_dim, 2)])
        rows = rearrange(torch.arange(3 * dim), "(h d j) -> j h d", h=num_heads, j=3)
        order = torch.stack([rows[0][:, halves], rows[1][:, halves], rows[2]]).flatten()
        self.register_buffer("halves", halves, persistent=False)
        self.register_buffer("order", order, persistent=False)

    def forward(self, x: Tensor, rot: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N, D) -> queries, keys, values (B, H, N, D / H), rotated where rot is given."""
        if isinstance(self.qkv, nn.Linear):
            qkv = F.linear(x, self.qkv.weight[self.order], self.qkv.bias[self.order])
        else:  # wrapped, by an adapter
            qkv = self.qkv(x)[..., self.order]
        q, k, v = rearrange(qkv, "b n (j h d) -> j b h n d", j=3, h=self.num_heads).unbind(0)
        q = _rms_norm(q, self.q_norm.weight[self.halves])
        k = _rms_norm(k, self.k_norm.weight[self.halves])
        if rot is not None:
            rot = Rotation(rot.cos.to(q.dtype), rot.sin.to(q.dtype))
            q, k = rotate(q, rot), rotate(k, rot)
        return q, k, v


def _rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], weight.to(x.dtype), NORM_EPS)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot-product attention, heads merged: (B, H, N, d) x3 -> (B, N, H d)."""
    return rearrange(attention(q, k, v), "b h n d -> b n (h d)")


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer-normalise without affine terms, then scale and shift (adaLN)."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:]), 1 + scale)


class TimeEmbedding(nn.Module):
    """t (B,) -> (B, D): cosines and sines of `scale` t at geometric frequencies, then a small MLP.

    MMAudio: frequency_dim 256 and scale 1 (v1); frequency_dim = width and scale 10000 (v2).
    """

    def __init__(self, dim: int, frequency_dim: int, scale: float) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(frequency_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        exponents = torch.arange(0, frequency_dim, 2, dtype=torch.float32) / frequency_dim
        self.register_buffer("frequencies", scale / 10000**exponents, persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        angles = t.float()[:, None] * self.frequencies
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=-1))
