"""The transformer blocks: joint (latents, video and text attend together), branch (one ear), inter-ear.

Legend: B batch (joint blocks: samples x ears), N latent tokens, D width. A condition is passed after
its SiLU, which all blocks share: (B, 1, D) where it holds for the clip, (B, N, D) frame by frame.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from visaudio.model.layers import ChannelLastConv1d, GatedMLP, SelfAttention, attend, modulate
from visaudio.model.rope import Rotation


class Modulation(NamedTuple):
    """What adaLN adds after the attention: the attention's gate, and shift, scale, gate of the MLP."""

    attention_gate: Tensor
    mlp_shift: Tensor
    mlp_scale: Tensor
    mlp_gate: Tensor


class StreamBlock(nn.Module):
    """One stream's part of a block: projections before the attention, residual updates after it.

    kernel_size 3 (MMAudio's) makes its output projection and MLP convolutions over time; pre_only streams
    give keys and values for the last time and are not updated.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float,
        multiple_of: int,
        kernel_size: int,
        pre_only: bool = False,
    ) -> None:
        super().__init__()
        self.pre_only = pre_only
        self.attn = SelfAttention(dim, num_heads)
        self.modulation = nn.Linear(dim, (2 if pre_only else 6) * dim)
        if not pre_only:
            projection = nn.Linear(dim, dim) if kernel_size == 1 else ChannelLastConv1d(dim, dim, kernel_size)
            self.linear1 = projection
            self.ffn = GatedMLP(dim, mlp_ratio, multiple_of, kernel_size)

    def before(
        self, x: Tensor, condition: Tensor, rot: Rotation | None
    ) -> tuple[tuple[Tensor, Tensor, Tensor], Modulation | None]:
        """Queries, keys and values of x (B, N, D), and what `after` will need."""
        shift, scale, *rest = self.modulation(condition).chunk(2 if self.pre_only else 6, dim=-1)
        return self.attn(modulate(x, shift, scale), rot), None if self.pre_only else Modulation(*rest)

    def after(self, x: Tensor, attended: Tensor, m: Modulation) -> Tensor:
        x = torch.addcmul(x, self.linear1(attended), m.attention_gate)
        return torch.addcmul(x, self.ffn(modulate(x, m.mlp_shift, m.mlp_scale)), m.mlp_gate)

    def forward(self, x: Tensor, condition: Tensor, rot: Rotation | None) -> Tensor:
        """The stream attends to itself alone: a branch block."""
        qkv, modulation = self.before(x, condition, rot)
        return self.after(x, attend(*qkv), modulation)


class BranchBlock(StreamBlock):
    """A stream block by itself, as the branches hold them; a class of its own so that sharding, activation
    checkpointing and compilation can name what is called as a whole (a joint block's streams are not).
    """


class JointBlock(nn.Module):
    """Latents, video and text tokens attend to each other; each stream has its own weights.

    ears = 1: each ear with its own copies of video and text (batch = samples x ears throughout).
    ears = 2: the two ears of a sample and one shared copy of video and text attend together; latents
    then have batch samples x 2, video and text batch samples.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float,
        multiple_of: int,
        kernel_size: int = 3,
        pre_only: bool = False,
    ) -> None:
        super().__init__()
        self.pre_only = pre_only
        self.latent_block = StreamBlock(dim, num_heads, mlp_ratio, multiple_of, kernel_size)
        self.clip_block = StreamBlock(dim, num_heads, mlp_ratio, multiple_of, kernel_size, pre_only)
        self.text_block = StreamBlock(dim, num_heads, mlp_ratio, multiple_of, 1, pre_only)

    def forward(
        self,
        latents: Tensor,
        clip: Tensor,
        text: Tensor,
        clip_condition: Tensor,
        frame_condition: Tensor,
        latent_rot: Rotation,
        clip_rot: Rotation,
        ears: int = 1,
    ) -> tuple[Tensor, Tensor, Tensor]:
        latent_qkv, latent_mod = self.latent_block.before(latents, frame_condition, latent_rot)
        clip_qkv, clip_mod = self.clip_block.before(clip, clip_condition, clip_rot)
        text_qkv, text_mod = self.text_block.before(text, clip_condition, None)
        if ears == 2:
            latent_qkv = tuple(rearrange(a, "(b e) h n d -> b h (e n) d", e=2) for a in latent_qkv)

        joined = (torch.cat(parts, dim=2) for parts in zip(latent_qkv, clip_qkv, text_qkv, strict=True))
        lengths = (latent_qkv[0].shape[2], clip.shape[1], text.shape[1])
        to_latents, to_clip, to_text = attend(*joined).split(lengths, dim=1)

        if ears == 2:
            to_latents = rearrange(to_latents, "b (e n) d -> (b e) n d", e=2)
        latents = self.latent_block.after(latents, to_latents, latent_mod)
        if not self.pre_only:
            clip = self.clip_block.after(clip, to_clip, clip_mod)
            text = self.text_block.after(text, to_text, text_mod)
        return latents, clip, text


class InterEarAttention(nn.Module):
    """Each ear looks at the other: queries from one, keys and values from the other.

    Weights are shared by the two directions, so that swapping the ears swaps the result. The gate
    starts at zero: at first the ears are independent, as MMAudio's checkpoint expects.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.attn = SelfAttention(dim, num_heads)
        self.out = nn.Linear(dim, dim)
        self.gate = nn.Parameter(torch.zeros(dim))

    def forward(self, ears: list[Tensor], rot: Rotation) -> list[Tensor]:
        """[left (B, N, D), right (B, N, D)] -> the same, each updated by the other."""
        (q_l, k_l, v_l), (q_r, k_r, v_r) = (self.attn(F.layer_norm(x, x.shape[-1:]), rot) for x in ears)
        gate = self.gate.to(q_l.dtype)
        return [
            ears[0] + gate * self.out(attend(q_l, k_r, v_r)),
            ears[1] + gate * self.out(attend(q_r, k_l, v_l)),
        ]


class FinalLayer(nn.Module):
    """adaLN by the clip-wide condition, then a convolution to the token dimension (zero at first)."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(dim, 2 * dim)
        self.conv = ChannelLastConv1d(dim, out_dim, 7)

    def forward(self, x: Tensor, clip_condition: Tensor) -> Tensor:
        shift, scale = self.modulation(clip_condition).chunk(2, dim=-1)
        return self.conv(modulate(x, shift, scale))


def for_each_ear(x: Tensor) -> Tensor:
    """(B, ...) -> (2 B, ...), each sample twice in a row: the order of ears folded into the batch."""
    return repeat(x, "b ... -> (b e) ...", e=2)
