"""Where the conditions lie in time, seen from the latent tokens.

Three streams with three clocks: latent token j spans [j, j + 1) / token_rate, video frame i shows its first
instant i / clip_fps, and Synchformer's tokens come in segments that overlap, so that in their order time runs
forth and back. Here they are gathered into one track of equal slots, slot u spans [u, u + 1) / slot_rate.

Legend: B samples, G segments of K tokens, one segment starts `hop` slots after the other (hop <= K),
U = hop (G - 1) + K slots, N latent tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps

import torch
from torch import Tensor


def kept(table: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A table of whole lengths, made on the CPU once for each place: `table(..., device=...)`.

    Sent anew it would make the host wait for an accelerator, at every step.
    """

    @lru_cache(maxsize=64)
    def made(device: torch.device, arguments: tuple) -> Tensor:
        with torch.inference_mode(False):  # sampling and training share it
            return table(*arguments).to(device)

    @wraps(table)
    def look_up(*arguments: float, device: torch.device | str = "cpu") -> Tensor:
        return made(torch.device(device), arguments)

    look_up.forget = made.cache_clear
    return look_up


@kept
def sync_track_index(segments: int, per_segment: int, hop: int) -> Tensor:
    """For each slot the token that tells of it, (U,): from the segment in whose middle the slot lies.

    A token in the middle of its segment has seen what comes before and after; one at the rim has not.
    """
    if segments < 1 or not 1 <= hop <= per_segment:
        raise ValueError(
            f"expected at least 1 segment and 1 <= hop <= {per_segment}; got {segments} segments, hop {hop}"
        )
    slots = torch.arange(hop * (segments - 1) + per_segment)
    rim = (per_segment - hop) // 2
    segment = torch.div(slots - rim, hop, rounding_mode="floor").clamp(0, segments - 1)
    return per_segment * segment + slots - hop * segment


@kept
def token_positions(length: int, ratio: float, offset: float, last: int) -> Tensor:
    """Centres of latent tokens 0 .. length - 1, (N,), in steps of another stream of `ratio` steps a token.

    offset: of that stream's step 0, in its steps: 0 where a step stands for its first instant, 1/2 where for
    its span. Held at steps 0 and `last`.
    """
    return ((torch.arange(length) + 0.5) * ratio - offset).clamp(0, last)


def interpolate_at(x: Tensor, positions: Tensor) -> Tensor:
    """x (B, T, S) between its steps, linear: positions (N,) in [0, T - 1] -> (B, N, S)."""
    low = positions.floor().long()
    weight = (positions - low).to(x.dtype)[:, None]
    return torch.lerp(x[:, low], x[:, (low + 1).clamp(max=x.shape[1] - 1)], weight.expand(-1, x.shape[2]))
