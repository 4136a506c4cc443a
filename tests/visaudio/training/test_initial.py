"""Where a network may start from, and what is known of that start afterwards."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import visaudio
from bi_audio_dataset.schema import UserError
from visaudio.model.network import DualBranchNetwork
from visaudio.presets import get_preset
from visaudio.training.initial import Origin, initialise, origin, recorded_origin

TINY = Path(visaudio.__file__).parent / "weights" / "tiny"


def test_a_model_folder_gives_its_network_and_its_licence(tmp_path):
    network = DualBranchNetwork(get_preset("tiny").network)
    report = initialise(network, str(TINY), tmp_path)
    assert report.new == report.ignored == ()
    stored = load_file(TINY / "network.safetensors")
    assert all(torch.equal(value, stored[name].float()) for name, value in network.state_dict().items())
    licence = json.loads((TINY / "config.json").read_text())["info"]["licence"]
    assert recorded_origin(tmp_path / "init.json") == Origin(str(TINY), "another model", licence)


def test_a_file_of_ours_has_no_licence_of_its_own(tmp_path):
    save_file(load_file(TINY / "network.safetensors"), tmp_path / "net.safetensors")
    assert origin(str(tmp_path / "net.safetensors")).licence == ""


def test_a_record_of_the_version_before_is_mmaudios(tmp_path):
    (tmp_path / "init.json").write_text('{"source": "mmaudio_small_44k.pth", "loaded": []}')
    assert recorded_origin(tmp_path / "init.json").licence == "cc-by-nc-4.0"


def test_a_folder_that_is_no_model_is_one_line(tmp_path):
    network = DualBranchNetwork(get_preset("tiny").network)
    with pytest.raises(UserError, match="expected a model folder, whose config.json names the licence"):
        initialise(network, str(tmp_path), tmp_path)
    (tmp_path / "config.json").write_text('{"info": {"licence": "cc0-1.0"}}')
    with pytest.raises(UserError, match="network.safetensors"):
        initialise(network, str(tmp_path), tmp_path)
    assert not (tmp_path / "init.json").exists()
