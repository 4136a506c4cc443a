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
from visaudio.training import checks, heartbeat, trackers
from visaudio.training.checks import check_config, check_flow, check_weights
from visaudio.training.full_run import FullRun, synthetic_splits
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
        (["init_from=lost.pth"], "no weights of a network to start from at lost.pth"),
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


FSDP = {"WORLD_SIZE": "2", "ACCELERATE_USE_FSDP": "true"}


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["flow.loop.trackers=[tensorbored]"], {}, "trackers: 'tensorbored' is unknown"),
        ([], FSDP, "muon needs whole matrices, which FSDP2 shares out: set flow.loop.optimizer=adamw"),
        ([], {"WORLD_SIZE": "3"}, "batch_size 32 does not divide by 3 processes x 1 accumulation rounds"),
        (["flow.loop.accumulation=5"], {}, "does not divide by 1 processes x 5 accumulation rounds"),
        (["flow.loop.ot_group=5"], {}, "takes 32 clips at a time, which do not divide into groups of ot_gro"),
        (["flow.loop.ot_group=32"], {"WORLD_SIZE": "2"}, "each process takes 16 clips at a time"),
        (["flow.export=best", "data.clips=9"], {}, "the data have no validation split to choose by"),
        (["flow.lora.rank=2", "flow.lora.targets=[qvk]", "init_from=x.pth"], {}, "no layer is called qvk"),
    ],
)
def test_what_the_flow_stage_refuses_is_refused_at_once(
    arguments, environment, message, tmp_path, monkeypatch, capsys
):
    if any("lora" in argument for argument in arguments):
        pytest.importorskip("peft")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert train.main([f"output={tmp_path / 'run'}", *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said and said.startswith("error: ") and said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_missing_compiler_is_known_at_once(tmp_path, monkeypatch, capsys):
    def finds_none():
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", finds_none)
    assert train.main([f"output={tmp_path / 'run'}", "flow.loop.compile=true"]) == 2
    assert "compile=true needs a C++ compiler" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_other_stages_do_not_ask_for_what_flow_needs(tmp_path, monkeypatch):
    """Features on three processes, or on a machine without the tracker."""
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(FullRun, "data", lambda *_: True)
    assert train.main([f"output={tmp_path / 'run'}", "--stages", "data"]) == 0


def test_a_folders_rows_say_whether_there_is_a_validation_split(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    config = load_train_config(None, ["flow.export=best", f"data.path={tmp_path}"])
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table({"split": ["train", "test"]}), tmp_path / "data" / "one.parquet")
    with pytest.raises(UserError, match="no validation split"):
        check_flow(config, STAGES)
    check_flow(config, ("flow",))  # the features are there and say it themselves
    pq.write_table(pa.table({"split": ["train", "validation"]}), tmp_path / "data" / "two.parquet")
    check_flow(config, STAGES)
    check_flow(load_train_config(None, ["flow.export=best", "data.path=owner/name"]), STAGES)
    ten = load_train_config(None, ["flow.export=best", "data.clips=10"])
    check_flow(ten, STAGES, synthetic_splits(ten))


def test_of_several_processes_the_first_checks_under_its_beat(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"

    def lost(*_):
        assert (folder / heartbeat.NAME).read_text().split()[-1] == "checking"
        raise UserError("no such weights")

    monkeypatch.setattr(checks, "check_weights", lost)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert train.main([f"output={folder}"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "error: no such weights"
    assert (folder / heartbeat.NAME).read_text().split()[-1] == "failed"
    assert not (folder / "data").exists()


@pytest.mark.parametrize(
    ("gpus", "rank", "device"), [(4, "2", "cuda:2"), (1, "3", "cuda:0"), (0, "1", "cpu")]
)
def test_each_process_has_its_own_gpu(tmp_path, monkeypatch, gpus, rank, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setenv("LOCAL_RANK", rank)
    assert FullRun(TrainConfig(output=str(tmp_path))).device == device
