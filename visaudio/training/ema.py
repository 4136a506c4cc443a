"""Post-hoc EMA of the network's weights (Karras et al. 2024, arXiv 2312.02696), by `ema-pytorch`.

Two power-function averages are tracked, and snapshots of both are kept on disk; after the run an average
of any relative width ``sigma_rel`` is put together from the snapshots. The widths are relative to the
length of the run, so one setting serves a run of an hour and one of a week, and no decay has to be tuned
beforehand.

Two traps of the library are stepped around here: buffers and frozen parameters are left out of the
averages (the solved snapshot weights do not sum to exactly one, which would scale constants such as the
latent statistics), and snapshots are float32 (the solved weights are large and alternate in sign, which
magnifies float16 rounding). Its update goes tensor by tensor and asks a tensor for its step; ours is the
same sum over all tensors at once.

Where the network is shared out over processes (FSDP2), so are the averages: each process averages its share,
and files hold the wholes.
"""

import copy
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from ema_pytorch import PostHocEMA
from torch import Tensor, nn

from bi_audio_dataset.schema import UserError, reason_of
from visaudio.training.processes import is_share, local, on_first, put_together, share_of


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
    """The tracked averages of one network. Under DDP every process keeps its own (equal) copy; the first one
    writes the snapshots.
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
        self._begun, self._step = False, 0
        self._whole: nn.Module | None = None
        self._collect()

    def _collect(self) -> None:
        """This process's tensors of the network and of each average, in one order. What is frozen was copied
        with the network.
        """
        online = dict(self.network.named_parameters())
        floats = [name for name, p in online.items() if p.is_floating_point() and p.requires_grad]
        self._online = [local(online[name]) for name in floats]
        self._online_buffers = [b for _, b in self.network.named_buffers() if b.is_floating_point()]
        self._averages, self._buffers = [], []
        for karras in self._ema.ema_models:
            own = dict(karras.ema_model.named_parameters())
            self._averages.append([local(own[name]) for name in floats])
            self._buffers.append([b for _, b in karras.ema_model.named_buffers() if b.is_floating_point()])

    def follow(self, main: bool = True) -> None:
        """Call once the network is prepared for its processes: share the averages out as its weights are.

        main: this process looks at the averages, and keeps room for a whole one.
        """
        online = dict(self.network.named_parameters())
        if any(is_share(p) for p in online.values()):
            if main:
                self._whole = copy.deepcopy(self._ema.ema_models[0].ema_model)
            for karras in self._ema.ema_models:
                for name, average in list(karras.ema_model.named_parameters()):
                    share = nn.Parameter(share_of(average.detach(), online[name]), requires_grad=False)
                    owner, _, leaf = name.rpartition(".")
                    setattr(karras.ema_model.get_submodule(owner), leaf, share)
        self._collect()

    @property
    def step(self) -> int:
        """Updates made so far."""
        return self._step

    @property
    def averaged(self) -> nn.Module | None:
        """The narrowest tracked average as a network; what validation looks at during the run. Where it is
        shared out, all processes must ask, and the first one gets it.
        """
        tracked = self._ema.ema_models[0].ema_model
        if not any(is_share(p) for p in tracked.parameters()):
            return tracked
        room = {} if self._whole is None else self._whole.state_dict()
        for name, share in tracked.state_dict().items():
            value = share.full_tensor() if is_share(share) else share
            if name in room:
                room[name].copy_(value)
        return self._whole

    @torch.no_grad()
    def update(self) -> None:
        self._step += 1
        for karras, averages, buffers in zip(
            self._ema.ema_models, self._averages, self._buffers, strict=True
        ):
            if not self._begun:
                torch._foreach_copy_(averages, self._online)
            weight = 1.0 - (1.0 - 1.0 / (self._step + 1.0)) ** (1.0 + karras.gamma)
            torch._foreach_lerp_(averages, self._online, weight)
            if buffers:
                torch._foreach_copy_(buffers, self._online_buffers)
        self._begun = True

    def snapshot(self, accelerator: Accelerator | None = None) -> None:
        """Keep the averages as they are now for :meth:`synthesize`. All processes call it, the first one
        writes; a file is whole or absent. Raises UserError where it cannot be written.
        """
        self._note_step()
        for number, karras in enumerate(self._ema.ema_models):
            path = self.folder / f"{number}.{self._step}.pt"
            if accelerator is None:
                _write(path, put_together(karras.state_dict()))
            else:
                whole = put_together(karras.state_dict(), keep=accelerator.is_main_process)
                on_first(accelerator, _write, path, whole)

    def _note_step(self) -> None:
        for karras in self._ema.ema_models:
            karras.step.fill_(self._step)
            karras.initted.fill_(self._begun)

    def state_dict(self) -> dict[str, Tensor]:
        self._note_step()
        return self._ema.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Whole tensors; before :meth:`follow`."""
        self._ema.load_state_dict(state)
        self._step = int(self._ema.step)
        self._begun = bool(self._ema.ema_models[0].initted)

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
        narrowest tracked average. Of a network that is not shared out.
        """
        if not any(self.folder.glob("*.pt")):
            return {name: value.clone() for name, value in self.averaged.state_dict().items()}
        average = self._ema.synthesize_ema_model(sigma_rel=sigma_rel or self.config.output_sigma_rel)
        return {name: value.clone() for name, value in average.ema_model.state_dict().items()}


def _write(path: Path, state: dict[str, Tensor]) -> None:
    beside = path.with_suffix(".part")
    try:
        with open(beside, "wb") as file:
            torch.save({name: value.float() for name, value in state.items()}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except (OSError, RuntimeError) as error:  # torch makes a RuntimeError of a full disk
        said = getattr(error, "strerror", None) or reason_of(error)
        size = sum(value.numel() for value in state.values()) * 4
        raise UserError(
            f"average {path} cannot be written ({said}); the checkpoints are as they were. Make room for "
            f"{size / 1e9:.2g} GB (or set flow.loop.ema.snapshots lower) and run the same command again"
        ) from error
    finally:
        beside.unlink(missing_ok=True)
