"""Post-hoc EMA of the network's weights (Karras et al. 2024, arXiv 2312.02696), by `ema-pytorch`.

Two power-function averages are tracked, and snapshots of both are kept on disk; after the run an average
of any relative width ``sigma_rel`` is put together from the snapshots. The widths are relative to the
length of the run, so one setting serves a run of an hour and one of a week, and no decay has to be tuned
beforehand.

Two traps of the library are stepped around here: buffers and frozen parameters are left out of the
averages (the solved snapshot weights do not sum to exactly one, which would scale constants such as the
latent statistics), and snapshots are float32 (the solved weights are large and alternate in sign, which
magnifies float16 rounding).
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from ema_pytorch import PostHocEMA
from torch import Tensor, nn


@dataclass(frozen=True)
class EmaConfig:
    """sigma_rels: the two tracked widths. output_sigma_rel: of the weights that are exported.
    snapshots: about how many of each are kept over the whole run (disk: snapshots x 2 x 4 bytes x
    parameters).
    """

    sigma_rels: tuple[float, ...] = (0.05, 0.15)
    output_sigma_rel: float = 0.1
    snapshots: int = 20


def constants(network: nn.Module) -> set[str]:
    """Names of what training does not change: buffers, and frozen parameters (under adapters)."""
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    return frozen | {name for name, _ in network.named_buffers()}


class TrackedEma:
    """The tracked averages of one network. Every process keeps its own (equal) copy; one writes the
    snapshots.
    """

    def __init__(self, network: nn.Module, config: EmaConfig, folder: Path):
        self.config = config
        self.folder = Path(folder)
        self.network = network
        self._ema = PostHocEMA(
            network,
            sigma_rels=tuple(config.sigma_rels),
            checkpoint_every_num_steps="manual",
            checkpoint_folder=str(self.folder),
            checkpoint_dtype=torch.float32,
            update_every=1,
            param_or_buffer_names_no_ema=constants(network),
        )

    @property
    def step(self) -> int:
        """Updates made so far."""
        return int(self._ema.step)

    @property
    def averaged(self) -> nn.Module:
        """The narrowest tracked average as a network; what validation looks at during the run."""
        return self._ema.ema_models[0].ema_model

    def update(self) -> None:
        self._ema.update()

    def snapshot(self) -> None:
        """Keep the averages as they are now for :meth:`synthesize`. Call on one process only."""
        self._ema.checkpoint()

    def state_dict(self) -> dict[str, Tensor]:
        return self._ema.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._ema.load_state_dict(state)

    def forget_after(self, step: int) -> None:
        """Remove snapshots later than ``step``: a resumed run writes them again, and they must not count
        twice.
        """
        for path in self.folder.glob("*.pt"):
            if int(path.stem.split(".")[1]) > step:
                path.unlink()

    def synthesize(self, sigma_rel: float | None = None) -> dict[str, Tensor]:
        """State dict of the network's average of width ``sigma_rel`` (default: the configured output
        width) up to the newest snapshot. Without snapshots (a run shorter than one interval): the
        narrowest tracked average.
        """
        if not any(self.folder.glob("*.pt")):
            return {name: value.clone() for name, value in self.averaged.state_dict().items()}
        average = self._ema.synthesize_ema_model(sigma_rel=sigma_rel or self.config.output_sigma_rel)
        return {name: value.clone() for name, value in average.ema_model.state_dict().items()}
