"""The optimisers of all stages: AdamW, or Muon for the hidden matrices with AdamW for everything else.

Muon (Jordan et al. 2024) makes each matrix's momentum orthogonal before it steps, scaled here to AdamW's
usual size of a step (Liu et al. 2025, arXiv 2502.16982), so that one learning rate serves both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bi_audio_dataset.schema import UserError
from visaudio.training.processes import share_of

OPTIMIZERS = ("adamw", "muon")
LEAST_SIDE = 32  # of a matrix that Muon takes: a read-out of few rows has no spectrum to speak of
MOMENTUM = 0.95


class MuonAdamW(torch.optim.Optimizer):
    """Two optimisers that step, save and load as one; `param_groups` are both's: a schedule reaches all."""

    def __init__(self, matrices: Sequence[Tensor], rest: list[dict], lr: float, **settings: Any) -> None:
        decay = settings.pop("matrix_decay")
        self.parts: dict[str, torch.optim.Optimizer] = {
            "muon": torch.optim.Muon(
                list(matrices),
                lr=lr,
                weight_decay=decay,
                momentum=MOMENTUM,
                adjust_lr_fn="match_rms_adamw",
            ),
            "adamw": torch.optim.AdamW(rest, lr=lr, **settings),
        }
        groups = [group for part in self.parts.values() for group in part.param_groups]
        super().__init__(groups, defaults={"lr": lr})
        self._share_groups()

    def _share_groups(self) -> None:
        self.param_groups = [group for part in self.parts.values() for group in part.param_groups]

    @torch.no_grad()
    def step(self, closure=None):
        loss = None if closure is None else torch.enable_grad()(closure)()
        for part in self.parts.values():
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, part in self.parts.items():
            part.load_state_dict(state_dict[name])
        self._share_groups()


def hidden_matrices(module: nn.Module) -> dict[str, nn.Parameter]:
    """Weights that map a width to a width: those of linear layers and of attention's joint projections."""
    found = {}
    for path, child in module.named_modules():
        names = {nn.Linear: "weight", nn.MultiheadAttention: "in_proj_weight"}
        own = [name for kind, name in names.items() if isinstance(child, kind)]
        for name in own:
            weight = getattr(child, name)
            if weight is not None and weight.requires_grad and min(weight.shape) >= LEAST_SIDE:
                found[f"{path}.{name}" if path else name] = weight
    return found


def check_optimizer(kind: str, shared_out: bool = False) -> None:
    """UserError for an unknown kind, and for one that cannot work on weights that are shared out (FSDP2)."""
    if kind not in OPTIMIZERS:
        raise UserError(f"optimizer is '{kind}', expected one of {', '.join(OPTIMIZERS)}")
    if shared_out and kind == "muon":
        raise UserError("muon needs whole matrices, which FSDP2 shares out: set flow.loop.optimizer=adamw")


def make_optimizer(
    module: nn.Module, kind: str, lr: float, betas: tuple[float, float], weight_decay: float
) -> torch.optim.Optimizer:
    """Biases, norms, gains and scalars are not decayed. Raises UserError for an unknown kind."""
    check_optimizer(kind)
    trainable = {name: p for name, p in module.named_parameters() if p.requires_grad}
    matrices = hidden_matrices(module) if kind == "muon" else {}
    taken = {id(p) for p in matrices.values()}
    rest = [p for p in trainable.values() if id(p) not in taken]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if not matrices:
        fused = True if all(p.is_cuda for group in groups for p in group["params"]) else None
        return torch.optim.AdamW(groups, lr=lr, betas=tuple(betas), fused=fused)
    return MuonAdamW(list(matrices.values()), groups, lr, betas=tuple(betas), matrix_decay=weight_decay)


# --- states, whole on disk, perhaps shared out over processes in memory ---

HOW_IT_STEPS = ("fused", "foreach", "capturable", "differentiable")  # of this machine, not of the run


def unwrapped(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer inside Accelerate's."""
    return getattr(optimizer, "optimizer", optimizer)


def load_whole_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a state of whole tensors into an optimizer whose parameters may be shares (FSDP2), of any number
    of processes. Raises UserError where it is another optimizer's.
    """
    optimizer = unwrapped(optimizer)
    parts = optimizer.parts if isinstance(optimizer, MuonAdamW) else {"": optimizer}
    try:
        shared = {name: _shared_out(part, state[name] if name else state) for name, part in parts.items()}
        optimizer.load_state_dict(shared if "" not in shared else shared[""])
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(
            f"the checkpoint's optimizer state is that of another optimizer or network ({error}); choose "
            "another output folder, or remove this one"
        ) from error


def _shared_out(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    moments = {
        index: {name: _own(value, parameters[index]) for name, value in own.items()}
        for index, own in state["state"].items()
    }
    groups = [
        {**saved, **{key: group[key] for key in HOW_IT_STEPS if key in group}}
        for saved, group in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    return {"state": moments, "param_groups": groups}


def _own(value: Any, parameter: Tensor) -> Any:
    """A copy, because what was read may be a mapped file that goes away."""
    if not isinstance(value, Tensor):
        return value
    return share_of(value, parameter).clone() if value.shape == parameter.shape else value.clone()
