import errno
import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from visaudio.cli.train import could_not_write, main
from visaudio.training.recipe import TrainConfig, load_train_config

ROOT = Path(__file__).parents[1]


def test_an_unknown_key_is_one_line_with_the_near_ones_and_exit_2(capsys):
    assert main(["flow.loop.stesp=3"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: unknown key 'flow.loop.stesp'") and "did you mean steps" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["flow.loop.steps=many"], "flow.loop.steps: expected int"),
        (["steps"], "not of the form key=value"),
        (["preset=huge"], "unknown preset 'huge'"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--stages", "data,flwo"], "unknown stage 'flwo'"),
        (["flow.loop.precision=fp8"], "precision"),
        (["flow.loop.optimizer=sgd"], "optimizer is 'sgd', expected one of adamw, muon"),
        (["codec.loop.optimizer=sgd"], "optimizer is 'sgd'"),
        (["model.network.num_heads=3"], "model.network cannot be built: 3 heads do not divide the width 128"),
        (["model.network.num_heads=0"], "num_heads is 0"),
        (["model.network.hidden_dim=-8"], "model.network cannot be built"),
        (["flow.loop.schedule.peak=nan"], "peak is nan"),
        (["codec.loop.learning_rate=.inf"], "learning_rate is inf"),
        (["flow.loop.clip_norm=nan"], "flow.loop.clip_norm is nan, expected a finite number"),
        (["flow.validation.best_metric=fad"], "flow.validation: best_metric is 'fad', which this validation"),
        (["flow.validation.best_metric=side", "flow.validation.audio_clips=0"], "set audio_clips above 0"),
        (["flow.export=newest"], "export is 'newest', expected one of average, best"),
        (["flow.loop.ot_group=-2"], "ot_group is -2"),
        (["workers=-1"], "workers is -1"),
        (["threads=-3"], "threads is -3"),
        (["seed=-1"], "seed is -1"),
        (["data.clips=0"], "clips is 0"),
        (["data.seed=-1"], "seed is -1"),
        (["data.path=/nope"], "no dataset at '/nope'"),
        (["output=/proc/x/y"], "output=/proc/x/y cannot be made a folder"),
    ],
)
def test_mistakes_are_told_in_one_line(capsys, arguments, message, tmp_path):
    assert main([f"output={tmp_path}", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1


def test_values_and_options_may_come_in_any_order(tmp_path, capsys):
    arguments = ["flow.loop.steps=7", "--show-config", f"output={tmp_path}", "--adopt", "seed=3"]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    values = json.loads(shown)
    assert values["flow"]["loop"]["steps"] == 7 and values["seed"] == 3


def test_the_output_may_not_be_a_file(capsys, tmp_path):
    (tmp_path / "file").touch()
    assert main([f"output={tmp_path / 'file'}"]) == 2
    assert capsys.readouterr().err == f"error: output={tmp_path / 'file'} is a file, expected a folder\n"


@pytest.mark.parametrize("flags", [["--bogus"], ["--dry"], ["--conf", "x.yaml"]])
def test_a_wrong_or_shortened_flag_is_one_line(capsys, flags):
    with pytest.raises(SystemExit) as caught:
        main(flags)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), 2),
        (FloatingPointError("the loss is not finite for clip-3"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_what_ends_a_stage_is_one_line(capsys, tmp_path, monkeypatch, error, code):
    from visaudio.training import full_run

    def fails(*_):
        raise error

    monkeypatch.setattr(full_run.FullRun, "data", fails)
    assert main([f"output={tmp_path / 'run'}", "--stages", "data"]) == code
    said = capsys.readouterr().err.splitlines()[-1]
    assert any(part in said for part in ("runs/x: No space left", "not finite for clip-3", "stopped; "))
    assert json.loads((tmp_path / "run" / "data" / "stage.json").read_text())["finished"] is False


def test_a_full_disk_is_known_by_what_the_writers_say(tmp_path):
    from safetensors.torch import save_file

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for write in (torch.save, save_file):
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
        try:
            with pytest.raises(Exception) as caught:  # noqa: B017 (each has its own kind)
                write({"x": torch.zeros(100_000)}, tmp_path / "x")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert isinstance(caught.value, OSError) or could_not_write(caught.value), caught.value
    assert not could_not_write(RuntimeError("shapes differ"))


def test_the_card_names_the_dataset_and_not_where_it_lay(tmp_path):
    from visaudio.training.full_run import dataset_name

    folder = tmp_path / "somebody" / "set"
    folder.mkdir(parents=True)
    assert dataset_name(str(folder)) == "set"
    record = {"source": {"name": "BiAudio-Synth", "recordings": 12}, "config": {"seed": 3}}
    (folder / "build.json").write_text(json.dumps(record))
    assert dataset_name(str(folder)) == "BiAudio-Synth, 12 clips, seed 3"
    (folder / "build.json").write_text("[]")
    assert dataset_name(str(folder)) == "set"


def test_the_plan_has_all_stages_and_fits_four_hours(capsys, tmp_path):
    assert main(["--dry-run", f"output={tmp_path / 'run'}"]) == 0
    lines = capsys.readouterr().err.splitlines()
    names = [line.split()[0] for line in lines[1:-1]]
    assert names == ["data", "codec", "clip", "synchformer", "features", "flow", "export"]
    hours, minutes = lines[-1].split("about ")[1].split(" h ")
    assert int(hours) * 60 + int(minutes.split()[0]) <= 240
    assert not (tmp_path / "run").exists()


def test_a_stage_made_with_other_settings_is_refused_unless_adopted(capsys, tmp_path):
    folder = tmp_path / "codec"
    folder.mkdir()
    stage = {"fingerprint": "0", "finished": True, "minutes": 1.0, "settings": {}}
    (folder / "stage.json").write_text(json.dumps(stage))
    command = ["--dry-run", f"output={tmp_path}"]
    assert main(command) == 2
    assert "codec was made with other settings" in capsys.readouterr().err
    assert main([*command, "--adopt"]) == 0
    assert "codec        done" in capsys.readouterr().err


def test_overrides_reach_the_dataclasses(capsys):
    arguments = ["model.network.inter_ear_attention=false", "flow.loop.schedule.peak=1e-3", "data.clips=7"]
    assert main(["--show-config", *arguments]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["model"]["network"]["inter_ear_attention"] is False
    assert shown["flow"]["loop"]["schedule"]["peak"] == 1e-3
    assert shown["data"]["clips"] == 7


def test_the_default_file_says_what_the_dataclasses_say():
    assert load_train_config(ROOT / "configs" / "tiny.yaml") == TrainConfig() == load_train_config()


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("train_*.yaml")), ids=lambda p: p.stem)
def test_every_training_file_loads_and_differs(path):
    assert load_train_config(path) != TrainConfig()


def test_help_does_not_wait_for_torch():
    code = (
        "import sys; from visaudio.cli.train import parse\n"
        "try: parse(['--help'])\nexcept SystemExit: pass\nsys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True).returncode == 0
