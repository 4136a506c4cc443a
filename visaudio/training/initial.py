"""Start the network from another model's weights (`init_from`): what came over, tensor by tensor."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from bi_audio_dataset.schema import UserError
from visaudio import weight_files
from visaudio.model.network import DualBranchNetwork
from visaudio.model.warm_start import WarmStartReport, load_mmaudio_state_dict
from visaudio.training.progress import say

REPORT = "init.json"


def load(network: DualBranchNetwork, source: str) -> WarmStartReport:
    """As `initialise`, without a report on the disk; on the meta device it says what would fit."""
    state = weight_files.read_state(source, "MMAudio's network")
    try:
        report = load_mmaudio_state_dict(network, state)
    except ValueError as error:
        raise UserError(f"init_from={source}: {error}") from error
    if not report.loaded:
        raise UserError(f"init_from={source}: nothing of it fits; is it one of MMAudio's networks?")
    return report


def initialise(network: DualBranchNetwork, source: str, folder: Path) -> WarmStartReport:
    """Load an MMAudio checkpoint (a file, or a Hub source as in weight_files.py) into an untrained network.

    The report goes to folder/init.json: for each tensor whether it was loaded, given to both ears, left at
    its initialisation, or ignored. Raises UserError for a checkpoint of another model or size.
    """
    report = load(network, source)
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f"{REPORT}.tmp"
    beside.write_text(json.dumps({"source": source, **asdict(report)}, indent=1) + "\n")
    os.replace(beside, folder / REPORT)
    say(f"flow: started from {source}: {report}; {folder / REPORT} names them")
    return report
