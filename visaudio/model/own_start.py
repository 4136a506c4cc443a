"""Start from a network of this repository: of the same sizes, maybe with other switches.

A network with one set of branch blocks gives them to both ears' branches (and what else is the ears' own),
so that both ears begin as that one. What only one of the two has is new, or ignored. The other way, two
ears' branches into one set, there is no right one to take: that is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from visaudio.model.network import DualBranchNetwork
from visaudio.model.warm_start import CODEC_DEPENDENT, WarmStartReport

# weights that are the ears' own: of the right ear where there are two
RIGHT = re.compile(r"^(branches|condition_guess\.(?:enter|mlps|out))\.1\.")
# what a switch adds to a network, or takes away
SWITCHED = ("branches.1.", "inter_ear.", "spacetime.", "condition_guess.", "condition_in.", "cross_ear_proj.",
            "latent_side_std", "empty_spatial_feat")  # fmt: skip


def is_own(state: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a DualBranchNetwork, and not MMAudio's."""
    return any(name.startswith("branches.0.") for name in state)


@torch.no_grad()
def load_own_state_dict(network: DualBranchNetwork, state: Mapping[str, Tensor]) -> WarmStartReport:
    """Copy the weights of another DualBranchNetwork into `network`; ValueError where they do not fit.

    Tensors that depend on the codec (input, output, statistics) are ignored where their shapes differ.
    """
    ours = network.state_dict()
    one_sided = len(network.branches) == 1
    if one_sided and any(RIGHT.match(name) for name in state):
        raise ValueError("has branches of its own for each ear, and this network one set (dual_branch=false)")
    loaded, duplicated, ignored, wrong = [], [], [], []
    for name, target in ours.items():
        source = name if name in state else RIGHT.sub(r"\1.0.", name)
        if source not in state:
            if not name.startswith(SWITCHED):
                wrong.append(f"{name} is not in it")
            continue
        value = state[source]
        if value.shape != target.shape:
            if name.startswith(CODEC_DEPENDENT):
                ignored.append(source)
            else:
                wrong.append(f"{source}: {tuple(value.shape)}, expected {tuple(target.shape)}")
            continue
        target.copy_(value)
        loaded.append(name)
        if source != name:
            duplicated.append(source)
    for name in state:
        if name not in ours:
            (ignored if name.startswith(SWITCHED) else wrong).append(name)
    if wrong:
        shown = "; ".join(wrong[:4]) + (f"; and {len(wrong) - 4} more" if len(wrong) > 4 else "")
        raise ValueError(f"does not fit the network's config: {shown}")
    new = tuple(name for name in ours if name not in set(loaded))
    return WarmStartReport(tuple(loaded), tuple(duplicated), new, tuple(ignored))
