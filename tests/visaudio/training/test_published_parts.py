"""A training that stands on published weights and starts from MMAudio's network, in small."""

import json
from dataclasses import replace

import pytest
import torch
from fakes import FakeSamples
from small_mmaudio import SMALL, mmaudios_names, write_files

from bi_audio_dataset.schema import UserError
from visaudio.model.network import DualBranchNetwork
from visaudio.presets import get_preset
from visaudio.training import full_run
from visaudio.training.flow_stage import FlowStageConfig, new_network
from visaudio.training.initial import initialise
from visaudio.training.parts import load_parts, published
from visaudio.training.recipe import DataConfig, ExportConfig, TrainConfig, load_train_config


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def model(files):
    codec = replace(SMALL.codec, weights=str(files["codec"]), vocoder_weights=str(files["vocoder"]))
    synchformer = replace(SMALL.synchformer, weights=str(files["synchformer"]))
    small = replace(SMALL, codec=codec, synchformer=synchformer)
    return replace(small, clip=replace(SMALL.clip, weights=str(files["clip"]))).preset


def test_only_what_is_not_published_is_trained(model, tmp_path):
    run = full_run.plan(TrainConfig(preset="small", output=str(tmp_path), model=model))
    assert list(run.stages) == ["data", "features", "flow", "export"]
    assert run.stages["features"].after == ("data",)
    half = replace(model, clip=SMALL.clip)
    run = full_run.plan(TrainConfig(preset="small", output=str(tmp_path), model=half))
    assert list(run.stages) == ["data", "clip", "features", "flow", "export"]
    assert run.stages["features"].after == ("data", "clip")


def test_paper_presets_are_published_and_tiny_is_not(tmp_path):
    assert published(get_preset("tiny")) == {}
    for name in ("small", "medium", "large"):
        found = published(get_preset(name))
        assert found["codec"] == "descript/dac_44khz" and "dfn5b" in found["clip"]
        assert found["synchformer"].endswith("synchformer_state_dict.pth")
        config = load_train_config(None, [f"preset={name}", f"output={tmp_path}"])
        assert list(full_run.plan(config).stages) == ["data", "features", "flow", "export"]


def test_a_published_dac_with_a_pca_has_a_stage_that_fits_it(tmp_path):
    config = load_train_config(None, ["preset=small", "model.codec.latents=continuous", f"output={tmp_path}"])
    run = full_run.plan(config)
    assert list(run.stages) == ["data", "codec", "features", "flow", "export"]
    assert run.stages["features"].after == ("data", "codec")
    assert published(config.model)["codec"] == "descript/dac_44khz"  # its origin is still said


def test_parts_come_from_their_files(model, files, tmp_path):
    codec, clip, synchformer = load_parts(model, tmp_path)
    state = torch.load(files["codec"])
    assert torch.equal(codec.vae.state_dict()["encoder.conv_in.weight"], state["encoder.conv_in.weight"])
    assert not any(p.requires_grad for part in (codec, clip, synchformer) for p in part.parameters())
    with pytest.raises(UserError, match="--stages clip"):
        load_parts(replace(model, clip=SMALL.clip), tmp_path)


def test_the_network_starts_from_mmaudios(model, files, tmp_path, capsys):
    samples = FakeSamples(frames=8, dim=6)
    network = new_network(model.network, samples, None, 0, str(files["network"]), tmp_path)
    theirs = torch.load(files["network"])
    for ear in (0, 1):
        name = "linear1.weight" if "fused_blocks.0.linear1.weight" in theirs else None
        name = name or next(n for n in theirs if n.startswith("fused_blocks.0.")).split(".", 2)[2]
        ours = network.state_dict()[f"branches.{ear}.0.{name.replace('adaLN_modulation.1', 'modulation')}"]
        assert torch.equal(ours, theirs[f"fused_blocks.0.{name}"])
    assert torch.equal(network.latent_mean, theirs["latent_mean"])
    report = json.loads((tmp_path / "init.json").read_text())
    assert report["source"] == str(files["network"]) and report["ignored"] == []
    assert set(report["loaded"]) | set(report["new"]) == set(network.state_dict())
    assert "init.json names them" in capsys.readouterr().err


def test_another_models_checkpoint_is_one_line(model, files, tmp_path):
    network = DualBranchNetwork(model.network)
    wide = DualBranchNetwork(replace(model.network, hidden_dim=64))
    torch.save(mmaudios_names(wide), tmp_path / "wide.pth")
    with pytest.raises(UserError, match="init_from=.*wide.pth: this MMAudio checkpoint does not fit"):
        initialise(network, str(tmp_path / "wide.pth"), tmp_path)
    with pytest.raises(UserError, match="init_from=.*codec.*: is no MMAudio network .none of its names"):
        initialise(network, str(files["codec"]), tmp_path)
    with pytest.raises(UserError, match="no weights of a network to start from at nowhere.pth"):
        initialise(network, "nowhere.pth", tmp_path)
    extra = {**mmaudios_names(network), "a": torch.ones(1)}
    torch.save(extra, tmp_path / "extra.pth")
    with pytest.raises(UserError, match="does not fit the network's config: a: the network has no a"):
        initialise(network, str(tmp_path / "extra.pth"), tmp_path)
    assert not (tmp_path / "init.json").exists()


def test_the_licence_of_what_entered_is_kept(model, files, tmp_path, monkeypatch):
    monkeypatch.setattr(full_run.FullRun, "summary", lambda _: {"data": "BiAudio, 3 recordings, seed 0"})
    config = TrainConfig(output=str(tmp_path), model=model, flow=FlowStageConfig())
    info = full_run.FullRun(config).info()
    assert info.licence == "apache-2.0" and "codec from " in info.provenance and info.limits == ""
    info = full_run.FullRun(replace(config, init_from=str(files["network"]))).info()
    assert info.licence == "cc-by-nc-4.0" and "started from MMAudio (network.pth)" in info.provenance
    # where files lay on this machine is nobody's business
    assert "codec from codec.pth" in info.provenance and str(files["codec"].parent) not in info.provenance
    stated = replace(config, export=ExportConfig(licence="cc-by-nc-sa-4.0"), init_from=str(files["network"]))
    assert full_run.FullRun(stated).info().licence == "cc-by-nc-sa-4.0"
    assert info.datasets == ()
    public = replace(config, data=DataConfig(path="org/BiAudio"))
    assert full_run.FullRun(public).info().datasets == ("org/BiAudio",)


def test_what_a_run_started_from_outlives_its_configuration(model, files, tmp_path, monkeypatch):
    """A later export without init_from must not give MMAudio's weights another licence."""
    monkeypatch.setattr(full_run.FullRun, "summary", lambda _: {"data": "BiAudio, 3 recordings, seed 0"})
    run = full_run.FullRun(TrainConfig(output=str(tmp_path), model=model))
    assert run.info().licence == "apache-2.0"
    initialise(DualBranchNetwork(model.network), str(files["network"]), tmp_path / "flow")
    assert run.info().licence == "cc-by-nc-4.0" and "started from MMAudio" in run.info().provenance
    (tmp_path / "flow" / "init.json").write_text("{")
    with pytest.raises(UserError, match="its licence too, is lost"):
        run.info()
