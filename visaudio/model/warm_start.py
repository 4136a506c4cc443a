"""Start from an MMAudio checkpoint: the trunk as it is, its fused blocks copied into both ears' branches.

MMAudio's names (v1 and v2; `small` to `large`) map to ours:

    fused_blocks.i.*            branches.0.i.* and branches.1.i.*
    *.adaLN_modulation.1.*      *.modulation.*
    empty_string_feat           empty_text_feat

Inter-ear attention and the spacetime module are new; their zero gates and output leave each ear's
velocity equal to MMAudio's. Tensors that depend on the codec (input, output, statistics) are used only
where their shapes agree: MMAudio's 44.1 kHz latents have 40 dimensions, DAC's tokens 144.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from visaudio.model.network import DualBranchNetwork

REPOSITORY = "hkchengrex/MMAudio"  # of the public checkpoints, on the Hub
LICENCE = "cc-by-nc-4.0"  # of the checkpoints, and so of what is made from them
CODEC_DEPENDENT = ("audio_input_proj.0.", "final_layer.conv.", "latent_mean", "latent_std")
NOT_WEIGHTS = ("t_embed.freqs", "latent_rot", "clip_rot")  # buffers that early checkpoints carry


@dataclass(frozen=True)
class WarmStartReport:
    """Names: `loaded` and `new` are ours, `duplicated` and `ignored` the checkpoint's."""

    loaded: tuple[str, ...]
    duplicated: tuple[str, ...]  # given to both ears
    new: tuple[str, ...]  # left at their initialisation
    ignored: tuple[str, ...]  # of another codec, or no weights

    def __str__(self) -> str:
        counts = (len(self.loaded), len(self.duplicated), len(self.new), len(self.ignored))
        return "{} loaded ({} of them from tensors given to both ears), {} new, {} ignored".format(*counts)


def our_names(name: str, num_branches: int = 2) -> tuple[str, ...]:
    """Where the MMAudio tensor `name` goes; two names for a block that both ears copy."""
    name = name.replace("adaLN_modulation.1.", "modulation.").replace("empty_string_feat", "empty_text_feat")
    if name.startswith("fused_blocks."):
        rest = name.removeprefix("fused_blocks.")
        return tuple(f"branches.{ear}.{rest}" for ear in range(num_branches))
    return (name,)


@torch.no_grad()
def load_mmaudio_state_dict(network: DualBranchNetwork, state_dict: Mapping[str, Tensor]) -> WarmStartReport:
    """Copy an MMAudio state dict into `network`; raises ValueError for other widths, or another model."""
    ours = network.state_dict()
    if not any(name in NOT_WEIGHTS or ours.keys() & set(our_names(name)) for name in state_dict):
        raise ValueError("is no MMAudio network (none of its names is MMAudio's)")
    loaded, duplicated, ignored, wrong = [], [], [], []
    for name, value in state_dict.items():
        if name in NOT_WEIGHTS:
            ignored.append(name)
            continue
        targets = our_names(name, len(network.branches))
        for target in targets:
            if target not in ours:
                wrong.append(f"{name}: the network has no {target}")
            elif ours[target].numel() == value.numel() and _same_shape(ours[target], value):
                ours[target].copy_(value.reshape(ours[target].shape))
                loaded.append(target)
            elif name.startswith(CODEC_DEPENDENT):
                ignored.append(name)
            else:
                wrong.append(f"{name}: {tuple(value.shape)}, expected {tuple(ours[target].shape)}")
        if len(targets) > 1:
            duplicated.append(name)
    if wrong:
        shown = "; ".join(wrong[:4]) + (f"; and {len(wrong) - 4} more" if len(wrong) > 4 else "")
        raise ValueError(f"this MMAudio checkpoint does not fit the network's config: {shown}")
    new = tuple(name for name in ours if name not in set(loaded))
    return WarmStartReport(tuple(loaded), tuple(duplicated), new, tuple(ignored))


def _same_shape(ours: Tensor, theirs: Tensor) -> bool:
    """Equal up to leading ones, which MMAudio keeps on its statistics and positions."""
    return tuple(s for s in theirs.shape if s != 1) == tuple(s for s in ours.shape if s != 1)
