"""Where a run's figures go: TensorBoard, Weights & Biases, Trackio, any of them together, by Accelerate.

Only the first process logs. What is missing is said before training, not at the first figure.
"""

import importlib.util
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import GeneralTracker, TensorBoardTracker, TrackioTracker, WandBTracker
from torch import Tensor

from bi_audio_dataset.schema import UserError

TRACKERS = ("tensorboard", "wandb", "trackio")
PROJECT = "visaudio"


def check_trackers(names: Sequence[str]) -> None:
    """UserError for a tracker that is unknown, not installed, or wants a login that there is not."""
    for name in names:
        if name not in TRACKERS:
            raise UserError(f"trackers: {name!r} is unknown, expected of {', '.join(TRACKERS)}")
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"trackers: {name} is not installed; pip install 'visaudio[{name}]', or leave it out of "
                "flow.loop.trackers"
            )
    if "wandb" in names and os.environ.get("WANDB_MODE", "online") in ("online", "shared"):
        _check_wandb_login()


def _check_wandb_login() -> None:
    import wandb

    try:
        known = wandb.login(prompt=False)
    except TypeError:  # older versions do not know `prompt`
        known = wandb.api.api_key
    if known:  # of the environment, of netrc or of its settings
        return
    raise UserError(
        "trackers: wandb has no login; run `wandb login`, set WANDB_API_KEY, or log to a folder with "
        "WANDB_MODE=offline"
    )


class Trackers:
    """The trackers of one run on the first process; on the others, and with none, everything is silent.

    `add_scalar` and `add_audio` are named as in TensorBoard's SummaryWriter, for what logs by itself.
    """

    def __init__(self, names: Sequence[str], folder: Path, step: int, config: dict[str, Any]) -> None:
        """step: what the run goes on from; figures beyond it, of a run that was killed, are forgotten where
        the tracker can.
        """
        self._trackers: dict[str, GeneralTracker] = {}
        for name in names:
            self._trackers[name] = _MAKERS[name](Path(folder), step)
            self._trackers[name].start()
            if name != "tensorboard":  # it would make a run of its own of them; they lie in config.json
                self._trackers[name].store_init_configuration(config)

    def log(self, figures: dict[str, float], step: int) -> None:
        for tracker in self._trackers.values():
            tracker.log(figures, step=step)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.log({name: value}, step)

    def add_audio(self, name: str, audio: Tensor, step: int, sample_rate: int) -> None:
        """audio (1, S) within -1 to 1. Trackio goes without."""
        if "tensorboard" in self._trackers:
            self._trackers["tensorboard"].tracker.add_audio(name, audio, step, sample_rate)
        if "wandb" in self._trackers:
            import wandb

            sound = wandb.Audio(audio[0].numpy(), sample_rate=sample_rate)
            self._trackers["wandb"].log({name: sound}, step=step)

    def close(self) -> None:
        for tracker in self._trackers.values():
            tracker.finish()


def open_trackers(
    accelerator: Accelerator, names: Sequence[str], folder: Path, step: int, config: dict[str, Any]
) -> Trackers:
    """On the first process the named trackers, on the others none."""
    return Trackers(names if accelerator.is_main_process else (), folder, step, config)


def _tensorboard(folder: Path, step: int) -> GeneralTracker:
    return TensorBoardTracker("tensorboard", str(folder), purge_step=step + 1)


def _wandb(folder: Path, step: int) -> GeneralTracker:
    """One wandb run for one folder, however often it is resumed."""
    return WandBTracker(PROJECT, id=_run_id(folder), name=folder.parent.name, dir=str(folder), resume="allow")


def _trackio(folder: Path, step: int) -> GeneralTracker:
    name = f"{folder.parent.name}-{_run_id(folder)}"
    return TrackioTracker(PROJECT, name=name, resume="allow")


_MAKERS = {"tensorboard": _tensorboard, "wandb": _wandb, "trackio": _trackio}


def _run_id(folder: Path) -> str:
    path = folder / "tracker_id"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(uuid.uuid4().hex[:8] + "\n")
    return path.read_text().strip()
