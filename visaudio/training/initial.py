"""Start the network from another model's weights (`init_from`): what came over, tensor by tensor.

A source is MMAudio's checkpoint, a file of this repository's own network, or a model folder (train.py's
export, a download of one), whose network is taken and whose licence counts.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from bi_audio_dataset.schema import UserError
from visaudio import part_files, weight_files
from visaudio.model import own_start, warm_start
from visaudio.model.network import DualBranchNetwork
from visaudio.model.warm_start import WarmStartReport
from visaudio.training.progress import say

REPORT = "init.json"


@dataclass(frozen=True)
class Origin:
    """What a network started from: as it was given, whose it is in words, its licence ("": nothing says)."""

    source: str
    whose: str
    licence: str


def origin(source: str) -> Origin:
    """Of the weights that `source` names. Raises UserError where they cannot be read."""
    return _read(source)[1]


def recorded_origin(report: Path) -> Origin:
    """What a run's init.json says. Raises UserError for one that is damaged."""
    try:
        found = json.loads(report.read_text())
        # before there was any other start, the file said no more than the source
        return Origin(
            found["source"], found.get("whose", "MMAudio"), found.get("licence", warm_start.LICENCE)
        )
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{report} cannot be read ({error}): what the network started from, its licence too, is lost"
        ) from error


def _read(source: str) -> tuple[dict[str, Tensor], Origin]:
    folder = Path(source)
    if folder.is_dir():
        licence = _licence_of(folder)
        return part_files.read(folder, "network"), Origin(source, "another model", licence)
    state = weight_files.read_state(source, "a network to start from")
    if own_start.is_own(state):
        return state, Origin(source, "another model", "")
    return state, Origin(source, "MMAudio", warm_start.LICENCE)


def _licence_of(folder: Path) -> str:
    try:
        return str(json.loads((folder / "config.json").read_text())["info"]["licence"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"init_from={folder}: expected a model folder, whose config.json names the licence ({error})"
        ) from error


def load(network: DualBranchNetwork, source: str) -> WarmStartReport:
    """As `initialise`, without a report on the disk; on the meta device it says what would fit."""
    return _load(network, source, _read(source)[0])


def _load(network: DualBranchNetwork, source: str, state: dict[str, Tensor]) -> WarmStartReport:
    own = own_start.is_own(state)
    try:
        copy = own_start.load_own_state_dict if own else warm_start.load_mmaudio_state_dict
        report = copy(network, state)
    except ValueError as error:
        raise UserError(f"init_from={source}: {error}") from error
    if not report.loaded:
        raise UserError(f"init_from={source}: nothing of it fits; is it one of MMAudio's networks, or ours?")
    return report


def initialise(network: DualBranchNetwork, source: str, folder: Path) -> WarmStartReport:
    """Load the weights of `source` into an untrained network.

    The report goes to folder/init.json: for each tensor whether it was loaded, given to both ears, left at
    its initialisation, or ignored. Raises UserError for a checkpoint of another model or size.
    """
    state, start = _read(source)
    report = _load(network, source, state)
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f"{REPORT}.tmp"
    beside.write_text(json.dumps({**asdict(start), **asdict(report)}, indent=1) + "\n")
    os.replace(beside, folder / REPORT)
    say(f"flow: started from {source}: {report}; {folder / REPORT} names them")
    return report
