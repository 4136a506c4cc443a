import json
import subprocess
import sys
from pathlib import Path

import pytest

from visaudio.cli.train import main
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
        (["preset=medium"], "published"),
    ],
)
def test_mistakes_are_told_in_one_line(capsys, arguments, message, tmp_path):
    assert main([*arguments, f"output={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1


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
