"""What a training will lack is said before it makes any data."""

from dataclasses import replace

import pytest
import torch
from small_mmaudio import SMALL, mmaudios_names, write_files

from bi_audio_dataset.schema import UserError
from visaudio.cli import train
from visaudio.encoders.clip import ClipEncoder
from visaudio.encoders.perception import PerceptionConfig, PerceptionEncoder
from visaudio.model.network import DualBranchNetwork
from visaudio.presets import get_preset
from visaudio.training.checks import check_config, check_weights
from visaudio.training.recipe import TrainConfig, load_train_config

STAGES = ("data", "features", "flow", "export")
PE = PerceptionConfig(
    "vit_pe_spatial_tiny_patch16_512", None, image_size=64, patch_size=8, width=16, depth=1, heads=2
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def config(files, tmp_path):
    parts = {
        "codec": replace(SMALL.codec, weights=str(files["codec"]), vocoder_weights=str(files["vocoder"])),
        "synchformer": replace(SMALL.synchformer, weights=str(files["synchformer"])),
        "clip": replace(SMALL.clip, weights=str(files["clip"])),
    }
    model = replace(SMALL, **parts).preset
    return TrainConfig(
        preset="small", output=str(tmp_path / "run"), model=model, init_from=str(files["network"])
    )


@pytest.mark.parametrize(
    ("more", "lacks"),
    [
        ([], "cannot load a DAC from 'descript/dac_44khz'"),
        (["--stages", "data,features"], "cannot load a DAC from 'descript/dac_44khz'"),
        (["init_from=hkchengrex/MMAudio:weights/mmaudio_small_44k.pth"], "mmaudio_small_44k.pth"),
        (["init_from=lost.pth"], "no weights of MMAudio's network at lost.pth"),
    ],
)
def test_without_the_public_weights_no_data_are_made(more, lacks, tmp_path, capsys):
    """No network in tests, and no cache: one line, and a folder in which nothing stands."""
    assert train.main(["preset=small", f"output={tmp_path / 'run'}", *more]) == 2
    said = capsys.readouterr().err.strip()
    assert lacks in said and said.startswith("error: ") and len(said.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_plan_alone_asks_for_no_weights(tmp_path, capsys):
    assert train.main(["preset=small", f"output={tmp_path / 'run'}", "--dry-run"]) == 0
    assert "features" in capsys.readouterr().err


def test_weights_that_fit_pass(config):
    check_weights(config, STAGES)


def test_only_what_is_still_to_be_done_is_asked_for(config):
    check_weights(replace(config, init_from="lost.pth"), ("data",))
    (config.folder / "flow" / "checkpoints").mkdir(parents=True)
    with pytest.raises(UserError, match="lost.pth"):
        check_weights(replace(config, init_from="lost.pth"), STAGES)


def test_a_networks_checkpoint_of_another_width_is_known_at_once(config, tmp_path):
    wide = DualBranchNetwork(replace(config.model.network, hidden_dim=64))
    torch.save(mmaudios_names(wide), tmp_path / "wide.pth")
    with pytest.raises(UserError, match="init_from=.*wide.pth: this MMAudio checkpoint does not fit"):
        check_weights(replace(config, init_from=str(tmp_path / "wide.pth")), STAGES)


def test_an_encoder_that_gives_another_width_is_known_at_once(config, tmp_path):
    """A named CLIP's widths are the weights' own, which the network's numbers cannot follow."""
    import json

    encoder = ClipEncoder(SMALL.clip)
    torch.save(encoder.model.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": encoder.described.sizes}))
    clip = replace(config.model.clip, model_name=f"local-dir:{tmp_path}", weights=None)
    named = replace(config, model=replace(config.model, clip=clip))
    check_weights(named, STAGES)
    network = replace(named.model.network, text_dim=77)
    with pytest.raises(
        UserError, match="model.network.text_dim is 77, but the weights of clip give 64: set it so"
    ):
        check_weights(replace(named, model=replace(named.model, network=network)), ("features",))


def test_the_perception_encoder_is_asked_for_as_well(config, tmp_path):
    torch.manual_seed(0)
    torch.save(PerceptionEncoder(PE).model.state_dict(), tmp_path / "pe.pt")
    network = replace(config.model.network, spatial_dim=16)

    def with_weights(source):
        return replace(
            config, model=replace(config.model, network=network, spatial=replace(PE, weights=source))
        )

    check_weights(with_weights(str(tmp_path / "pe.pt")), STAGES)
    with pytest.raises(UserError, match="no weights of the Perception Encoder at lost.pt"):
        check_weights(with_weights("lost.pt"), STAGES)
    with pytest.raises(UserError, match="no stage trains a Perception Encoder: expected public, a file"):
        check_config(with_weights(None))


def test_tiny_needs_none(tmp_path):
    config = load_train_config(None, [f"output={tmp_path}"])
    assert config.model == get_preset("tiny")
    check_weights(config, STAGES)
