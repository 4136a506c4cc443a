"""The dual-branch network: velocity of both ears' latents, given time and conditions.

Legend: B samples, 2 ears (0 = left), N latent tokens of D dimensions, Tc video frames, Ts sync tokens,
L text tokens, R x C grid cells. Ears fold into the batch as (b e). Lengths may differ from call to call.

    latents, time ----> joint blocks (latents x video x text, weights shared by the ears)
    sync, spacetime -->      |
        (adaLN)         branch blocks, one set per ear, with inter-ear attention --> velocity
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from visaudio.model.blocks import (
    BranchBlock,
    FinalLayer,
    InterEarAttention,
    JointBlock,
    StreamBlock,
    for_each_ear,
)
from visaudio.model.conditions import Conditions, PreparedConditions
from visaudio.model.guess import ConditionGuess, straight_guess
from visaudio.model.layers import ChannelLastConv1d, GatedMLP, TimeEmbedding
from visaudio.model.rope import Rotation, rotation
from visaudio.model.spacetime import SpacetimeModule
from visaudio.model.timing import interpolate_at, kept, sync_track_index, token_positions
from visaudio.sequence import SequenceConfig

OPEN_GATE = 2.0  # before its SiLU: there its slope is near one
SIDE_TAPS = 0.2  # of their size as drawn


@kept
def nearest_index(source: int, target: int) -> Tensor:
    """For each of `target` positions the index of the nearest of `source`, (target,).

    Left to torch's own "nearest-exact", in float32 on the CPU: MMAudio's ties (345 tokens from 192) fall
    by its rounding, and exact integers would take another token at two places.
    """
    indices = torch.arange(source, dtype=torch.float32)
    return F.interpolate(indices[None, None], size=target, mode="nearest-exact")[0, 0].long()


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes and switches; the defaults are the paper-scale inputs at MMAudio's small width."""

    token_dim: int = 144
    clip_dim: int = 1024
    sync_dim: int = 768
    text_dim: int = 1024
    text_tokens: int = 77
    spatial_dim: int = 1280
    spatial_rows: int = 2
    spatial_columns: int = 8
    spatial_width: int = 256
    spatial_queries: int = 4
    sync_tokens_per_segment: int = 8
    hidden_dim: int = 448
    num_heads: int = 7
    joint_blocks: int = 4
    branch_blocks: int = 8
    mlp_ratio: float = 4.0
    mlp_multiple_of: int = 256
    input_kernel: int = 7  # of the latents' input MLP
    block_kernel: int = 3  # of the blocks' MLPs over latents and video frames; 1 is a plain transformer's
    projections: Literal["v1", "v2"] = "v2"  # MMAudio's two generations of input projections
    time_frequencies: int = 256
    time_scale: float = 1000.0
    # "index": every stream is stretched over the latent tokens, as MMAudio does it and its weights expect.
    # "time": every stream lies where its rate puts it (timing.py); a preset takes the rates from its sequence
    condition_times: Literal["index", "time"] = "index"
    token_rate_hz: float = 44100 / 1024  # latent tokens
    clip_fps: float = 8.0
    sync_slot_hz: float = 12.5  # Synchformer's tokens within a segment: 25 fps, 2 frames each
    sync_segment_hop: int = 4  # from the start of a segment to that of the next, in its tokens
    # switches for ablations
    dual_branch: bool = True  # off: both ears go through one set of branch blocks
    spacetime: bool = True
    spacetime_in_joint: bool = True  # the spacetime feature also modulates the joint blocks' latents
    inter_ear_attention: bool = True
    cross_ear_input: bool = False  # each ear's tokens also see the other ear's latents, through a zero weight
    # 0: latents are scaled per dimension. Above: what differs between the ears is scaled up as well, to unit
    # deviation at 1 (_ear_scales): by estimate an ILD of 3 dB is one per cent of a latent's variance
    interaural_whitening: float = 0.0
    # on: the network gives what the best linear guess of the velocity from x_t leaves over (guess.py)
    straight_guess: bool = False
    # on: the conditions also reach the latents' input directly, and say where the data lie (ConditionGuess)
    condition_guess: bool = False
    shared_video_tokens: bool = False  # on: one copy of video and text, the ears mix in the joint blocks

    def __post_init__(self) -> None:
        if self.condition_times not in ("index", "time"):
            raise ValueError(f'condition_times must be "index" or "time", got {self.condition_times!r}')
        if self.condition_guess and not self.straight_guess:
            raise ValueError("condition_guess is a part of the straight guess: set straight_guess as well")
        for name in ("token_rate_hz", "clip_fps", "sync_slot_hz"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.condition_times == "time" and not 1 <= self.sync_segment_hop <= self.sync_tokens_per_segment:
            raise ValueError(
                f"sync_segment_hop must be 1 to {self.sync_tokens_per_segment} (the tokens of a segment), "
                f"got {self.sync_segment_hop}"
            )


class DualBranchNetwork(nn.Module):
    """See the head of the file. `forward` does everything; sampling prepares the conditions once."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = c = config
        dim, v2 = c.hidden_dim, c.projections == "v2"

        def mlp(kernel_size: int) -> GatedMLP:
            return GatedMLP(dim, c.mlp_ratio, c.mlp_multiple_of, kernel_size)

        activation = nn.SiLU if v2 else nn.SELU
        between = [nn.SiLU()] if v2 else []  # v1 has none between the linear projection and its MLP
        self.audio_input_proj = nn.Sequential(
            ChannelLastConv1d(c.token_dim, dim, 7), activation(), mlp(c.input_kernel)
        )
        self.clip_input_proj = nn.Sequential(nn.Linear(c.clip_dim, dim), *between, mlp(3))
        self.sync_input_proj = nn.Sequential(ChannelLastConv1d(c.sync_dim, dim, 7), activation(), mlp(3))
        self.text_input_proj = nn.Sequential(nn.Linear(c.text_dim, dim), *between, mlp(1))
        self.clip_cond_proj = nn.Linear(dim, dim)
        self.text_cond_proj = nn.Linear(dim, dim)
        self.global_cond_mlp = mlp(1)
        self.sync_pos_emb = nn.Parameter(torch.zeros(c.sync_tokens_per_segment, c.sync_dim))
        self.t_embed = TimeEmbedding(dim, c.time_frequencies, c.time_scale)

        sizes = (dim, c.num_heads, c.mlp_ratio, c.mlp_multiple_of)
        last = c.joint_blocks - 1
        self.joint_blocks = nn.ModuleList(
            JointBlock(*sizes, c.block_kernel, pre_only=i == last) for i in range(c.joint_blocks)
        )
        self.branches = nn.ModuleList(
            nn.ModuleList(BranchBlock(*sizes, c.block_kernel) for _ in range(c.branch_blocks))
            for _ in range(2 if c.dual_branch else 1)
        )
        self.inter_ear = nn.ModuleList(
            InterEarAttention(dim, c.num_heads)
            for _ in range(c.branch_blocks if c.inter_ear_attention else 0)
        )
        self.spacetime = None
        if c.spacetime:
            grid = (c.spatial_dim, c.spatial_rows, c.spatial_columns)
            self.spacetime = SpacetimeModule(
                *grid, dim, c.spatial_width, c.spatial_queries, c.mlp_multiple_of
            )
        self.final_layer = FinalLayer(dim, c.token_dim)

        self.empty_clip_feat = nn.Parameter(torch.zeros(1, c.clip_dim))
        self.empty_sync_feat = nn.Parameter(torch.zeros(1, c.sync_dim))
        # for the spacetime module alone: without a gradient, a trainable one stops several processes
        self.empty_spatial_feat = nn.Parameter(torch.zeros(1, c.spatial_dim), requires_grad=c.spacetime)
        # the text encoder's features of "", so that an empty prompt and a dropped one are the same thing
        self.register_buffer("empty_text_feat", torch.zeros(c.text_tokens, c.text_dim))
        self.register_buffer("latent_mean", torch.zeros(c.token_dim))
        self.register_buffer("latent_std", torch.ones(c.token_dim))
        if c.interaural_whitening:
            self.register_buffer("latent_side_std", torch.ones(c.token_dim))
        self.condition_guess = self.condition_in = None
        if c.condition_guess:
            self.condition_guess = ConditionGuess(dim, c.token_dim, c.mlp_multiple_of, len(self.branches))
            self.condition_in = nn.Linear(dim, dim, bias=False)
        self.cross_ear_proj = None
        if c.cross_ear_input:
            self.cross_ear_proj = nn.Linear(c.token_dim, dim, bias=False)
        self._initialise()

    def _initialise(self) -> None:
        """DiT's: Xavier linears; modulations and the output at zero, so that training starts gently."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for layer in (self.t_embed.mlp[0], self.t_embed.mlp[2]):
            nn.init.normal_(layer.weight, std=0.02)
        for module in self.modules():
            if isinstance(module, (StreamBlock, FinalLayer)):
                nn.init.zeros_(module.modulation.weight)
        nn.init.zeros_(self.final_layer.conv.weight)
        if self.spacetime is not None:
            self.spacetime.zero_output()
        if self.condition_guess is not None:
            self.condition_guess.zero_output()
        if self.cross_ear_proj is not None:
            nn.init.zeros_(self.cross_ear_proj.weight)
        if self.config.dual_branch:  # the ears begin alike; what they see and hear sets them apart
            self.branches[1].load_state_dict(self.branches[0].state_dict())
            if self.condition_guess is not None:
                self.condition_guess.start_alike()

    @torch.no_grad()
    def let_latents_through(self) -> None:
        """For random weights: make the latents' input projection a mostly linear map of its input.

        Its GatedMLP has neither bias nor residual: near zero it squares what it is given, and a tenth of
        its output changes sign with the latents (docs/decisions.md). Here unit 0 of the convolution becomes
        a constant that opens every gate, and each kernel's power moves to its middle tap.
        """
        conv, activation, gated = self.audio_input_proj
        for layer in (conv, gated.w1, gated.w3, gated.w2):
            if layer.weight.ndim == 3:
                _towards_middle(layer.weight)
        for weight in (conv.weight[:1], gated.w1.weight[:, 0], gated.w3.weight[:, 0]):
            nn.init.zeros_(weight)
        conv.bias[0] = 1.0
        of_unit = gated.w1.weight[:, 0]  # (inner,) or (inner, K)
        middle = of_unit if of_unit.ndim == 1 else of_unit[:, of_unit.shape[1] // 2]
        middle.fill_(OPEN_GATE / activation(conv.bias[0]).item())

    # --- latent statistics and null conditions ---

    @torch.no_grad()
    def set_latent_stats(self, mean: Tensor, std: Tensor, side_std: Tensor | None = None) -> None:
        """Per-dimension statistics of a token, (D,) each, over both ears of the training set.

        side_std: deviation of (left - right) / sqrt 2, which interaural_whitening needs.
        """
        expected = (self.config.token_dim,)
        if mean.numel() != expected[0] or std.numel() != expected[0]:
            raise ValueError(
                f"expected mean and std of {expected}, got {tuple(mean.shape)}, {tuple(std.shape)}"
            )
        self.latent_mean.copy_(mean.reshape(-1))
        self.latent_std.copy_(std.reshape(-1))
        if self.config.interaural_whitening:
            if side_std is None:
                raise ValueError(
                    "interaural_whitening needs side_std, the deviation of (left - right) / sqrt 2"
                )
            self.latent_side_std.copy_(side_std.reshape(-1))

    @torch.no_grad()
    def set_empty_text(self, features: Tensor) -> None:
        """The text encoder's features of the empty string, (L, Dt)."""
        self.empty_text_feat.copy_(features)

    def normalize(self, tokens: Tensor) -> Tensor:
        """Codec tokens (..., D), or (..., 2, N, D) with interaural whitening -> the space of the flow."""
        if self.config.interaural_whitening:
            middle, side = self._ear_scales()
            return _scale_ears(tokens - self.latent_mean, 1 / middle, 1 / side)
        return (tokens - self.latent_mean) / self.latent_std

    def unnormalize(self, tokens: Tensor) -> Tensor:
        if self.config.interaural_whitening:
            return _scale_ears(tokens, *self._ear_scales()) + self.latent_mean
        return tokens * self.latent_std + self.latent_mean

    def _ear_scales(self) -> tuple[Tensor, Tensor]:
        """Scales (D,) of the ears' sum and of their difference.

        The difference's lies between the sum's (whitening 0) and its own deviation (1), geometrically.
        """
        own = self.latent_side_std.clamp_min(0.02 * self.latent_std)
        middle = (
            (2 * self.latent_std.square() - own.square()).clamp_min(0.1 * self.latent_std.square()).sqrt()
        )
        return middle, middle * (own / middle) ** self.config.interaural_whitening

    def null_conditions(self, batch: int, sequence: SequenceConfig) -> Conditions:
        """Conditions in which every modality is absent, of the lengths that `sequence` asks for."""
        c, device = self.config, self.latent_mean.device
        cells = c.spatial_rows * c.spatial_columns

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(batch, *shape, device=device)

        return Conditions(
            clip_features=zeros(sequence.num_clip_frames, c.clip_dim),
            sync_features=zeros(sequence.num_sync_tokens, c.sync_dim),
            text_features=zeros(c.text_tokens, c.text_dim),
            spatial_features=zeros(sequence.num_clip_frames, cells, c.spatial_dim),
            hfov_rad=torch.full((batch,), float("nan"), device=device),
            present=torch.zeros(batch, 4, dtype=torch.bool, device=device),
        )

    # --- the network ---

    def preprocess_conditions(self, conditions: Conditions, num_tokens: int) -> PreparedConditions:
        """All that depends on neither latents nor time, for latents of num_tokens tokens."""
        c = self.config
        clip_f, sync_f, text_f, spatial_f = self._with_nulls(conditions)
        if sync_f.shape[1] % c.sync_tokens_per_segment:
            raise ValueError(
                f"sync_features: {sync_f.shape[1]} tokens, not a multiple of {c.sync_tokens_per_segment}"
            )
        positions = self.sync_pos_emb.repeat(sync_f.shape[1] // c.sync_tokens_per_segment, 1)
        clip = self.clip_input_proj(clip_f)
        text = self.text_input_proj(text_f)
        sync = self._sync(sync_f + positions.to(sync_f.dtype), num_tokens)
        pooled = self.clip_cond_proj(clip.mean(dim=1)) + self.text_cond_proj(text.mean(dim=1))

        spatial = None
        if self.spacetime is not None:
            by_time = c.condition_times == "time"
            frames_per_token = c.clip_fps / c.token_rate_hz if by_time else None
            spatial = self.spacetime(spatial_f, conditions.hfov_rad, num_tokens, frames_per_token)
        pooled = self.global_cond_mlp(pooled)
        hidden = mean = None
        if self.condition_guess is not None:
            hidden, mean = self.condition_guess(sync, spatial, pooled)
            hidden = self.condition_in(F.layer_norm(hidden, hidden.shape[-1:]))
        return PreparedConditions(clip, text, sync, pooled, spatial, hidden, mean)

    def _sync(self, tokens: Tensor, length: int) -> Tensor:
        """Sync tokens (B, Ts, sync_dim), positions added -> one for each latent token, (B, length, width).

        By time, the overlapping segments become one track before the convolutions, whose neighbours are then
        neighbours in time. Between slots (80 ms) linear: else a latent token (23 or 46 ms) would be up to
        half a slot off, by an amount that changes from token to token and that nothing tells the network.
        """
        c = self.config
        if c.condition_times == "index":
            sync = self.sync_input_proj(tokens)
            return sync[:, nearest_index(sync.shape[1], length, device=sync.device)]
        segments = tokens.shape[1] // c.sync_tokens_per_segment
        there = tokens.device
        track = sync_track_index(segments, c.sync_tokens_per_segment, c.sync_segment_hop, device=there)
        sync = self.sync_input_proj(tokens[:, track])
        ratio = c.sync_slot_hz / c.token_rate_hz
        return interpolate_at(sync, token_positions(length, ratio, 0.5, len(track) - 1, device=there))

    def predict_velocity(self, latents: Tensor, t: Tensor, prepared: PreparedConditions) -> Tensor:
        """Normalised latents (B, 2, N, D), t (B,) -> velocity (B, 2, N, D)."""
        c = self.config
        if latents.ndim != 4 or latents.shape[1] != 2 or latents.shape[3] != c.token_dim:
            raise ValueError(f"expected latents (B, 2, N, {c.token_dim}), got {tuple(latents.shape)}")
        if prepared.sync.shape[1] != latents.shape[2]:
            raise ValueError(
                f"conditions prepared for {prepared.sync.shape[1]} tokens, latents have {latents.shape[2]}"
            )
        x = self.audio_input_proj(rearrange(latents, "b e n d -> (b e) n d"))
        if self.cross_ear_proj is not None:
            x = x + self.cross_ear_proj(rearrange(latents.flip(1), "b e n d -> (b e) n d"))
        if prepared.hidden is not None:
            x = x + prepared.hidden.flatten(0, 1)
        latent_rot, clip_rot = self._rotations(latents.shape[2], prepared.clip.shape[1], x)

        clip_wide = (self.t_embed(t).to(x.dtype) + prepared.pooled)[:, None]  # (B, 1, width)
        frames = clip_wide + prepared.sync  # (B, N, width)
        with_space = for_each_ear(frames)
        if prepared.spatial is not None:
            with_space = with_space + prepared.spatial.flatten(0, 1)
        frame_condition = F.silu(with_space)
        joint_condition = frame_condition if c.spacetime_in_joint else for_each_ear(F.silu(frames))
        clip_condition = F.silu(clip_wide)

        x = self._joint(x, prepared, clip_condition, joint_condition, latent_rot, clip_rot)
        x = self._branches(x, frame_condition, latent_rot)
        velocity = self.final_layer(x, for_each_ear(clip_condition))
        velocity = rearrange(velocity, "(b e) n d -> b e n d", e=2)
        return straight_guess(latents, t, velocity, prepared.mean) if c.straight_guess else velocity

    def forward(self, latents: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        """Normalised latents (B, 2, N, D), t (B,), conditions of B samples -> velocity (B, 2, N, D)."""
        return self.predict_velocity(latents, t, self.preprocess_conditions(conditions, latents.shape[2]))

    def _with_nulls(self, conditions: Conditions) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The four features, with the learned null feature where a modality is absent."""
        features = (
            conditions.clip_features,
            conditions.sync_features,
            conditions.text_features,
            conditions.spatial_features,
        )
        if conditions.present is None:
            return features
        empties = (self.empty_clip_feat, self.empty_sync_feat, self.empty_text_feat, self.empty_spatial_feat)
        flags = conditions.present.unbind(dim=1)
        return tuple(
            torch.where(flag.view(-1, *([1] * (f.ndim - 1))), f, empty.to(f.dtype))
            for flag, f, empty in zip(flags, features, empties, strict=True)
        )

    def _rotations(self, tokens: int, clip_frames: int, like: Tensor) -> tuple[Rotation, Rotation]:
        head_dim = self.config.hidden_dim // self.config.num_heads
        where = (like.device, like.dtype)
        c = self.config
        by_time = c.condition_times == "time"
        # video frame 0 counts as token 0: the constant half token between them is for the weights to learn
        step = c.token_rate_hz / c.clip_fps if by_time else tokens / clip_frames
        return rotation(tokens, head_dim, 1.0, *where), rotation(clip_frames, head_dim, step, *where)

    def _joint(
        self,
        x: Tensor,
        prepared: PreparedConditions,
        clip_condition: Tensor,
        frame_condition: Tensor,
        latent_rot: Rotation,
        clip_rot: Rotation,
    ) -> Tensor:
        clip, text, shared = prepared.clip, prepared.text, self.config.shared_video_tokens
        if not shared:
            clip, text, clip_condition = for_each_ear(clip), for_each_ear(text), for_each_ear(clip_condition)
        for block in self.joint_blocks:
            x, clip, text = block(
                x, clip, text, clip_condition, frame_condition, latent_rot, clip_rot, ears=2 if shared else 1
            )
        return x

    def _branches(self, x: Tensor, frame_condition: Tensor, rot: Rotation) -> Tensor:
        ears = list(rearrange(x, "(b e) n d -> e b n d", e=2))
        conditions = list(rearrange(frame_condition, "(b e) n d -> e b n d", e=2))
        per_ear = (self.branches[0], self.branches[-1])
        for i in range(self.config.branch_blocks):
            ears = [per_ear[e][i](ears[e], conditions[e], rot) for e in (0, 1)]
            if self.config.inter_ear_attention:
                ears = self.inter_ear[i](ears, rot)
        return rearrange(torch.stack(ears, dim=1), "b e n d -> (b e) n d")


def _towards_middle(kernels: Tensor) -> None:
    """(out, in, K), in place: taps beside the middle shrink, the middle one grows, expected power kept."""
    taps = kernels.shape[-1]
    middle = kernels[..., taps // 2].clone()
    kernels.mul_(SIDE_TAPS)
    kernels[..., taps // 2] = middle * (taps - (taps - 1) * SIDE_TAPS**2) ** 0.5


def _scale_ears(tokens: Tensor, middle: Tensor, side: Tensor) -> Tensor:
    """(..., 2, N, D): the ears' sum times `middle`, their difference times `side`."""
    left, right = tokens.unbind(dim=-3)
    total, apart = 0.5 * (left + right) * middle, 0.5 * (left - right) * side
    return torch.stack([total + apart, total - apart], dim=-3)
