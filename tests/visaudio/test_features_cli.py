import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from micro import micro_components
from small_mmaudio import SMALL, write_files

from bi_audio_dataset.schema import UserError
from visaudio import hub
from visaudio.cli import features as cli
from visaudio.cli.features import load, main
from visaudio.config import to_dict
from visaudio.data.feature_store import FeatureDataset
from visaudio.data.parts import digest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return hub.save_pretrained(tmp_path_factory.mktemp("model") / "m", micro_components(), torch.float16)


def command(model, output, dataset, *more) -> list[str]:
    return [
        "--dataset",
        str(dataset),
        "--output",
        str(output),
        "--preset",
        str(model),
        "--workers",
        "0",
        *more,
    ]


def test_a_model_folder_extracts_what_its_training_takes(model, tmp_path, fake_biaudio, capsys):
    more = ("--splits", "train,validation", "--batch-size", "2", "--precision", "fp32")
    assert main(command(model, tmp_path / "out", fake_biaudio, *more)) == 0
    assert "4 clips in " in capsys.readouterr().err
    data = FeatureDataset(tmp_path / "out", None)
    assert len(data) == 4 and data.made_from["bf16"] is False
    parts = micro_components()  # in full precision
    assert data.made_from["weights"]["clip"] == digest(parts.clip)
    assert data.made_from["sequence"] == to_dict(parts.preset.sequence)


def test_parts_come_from_other_files_and_models(model, tmp_path):
    other = hub.save_pretrained(tmp_path / "other", micro_components(seed=1))
    mixed = load(str(model), weights={"clip": str(other / "clip.safetensors"), "codec": str(other)})
    first, second = load(str(model)), load(str(other))
    assert digest(mixed.clip) == digest(second.clip) and digest(mixed.codec) == digest(second.codec)
    assert digest(mixed.synchformer) == digest(first.synchformer) != digest(second.synchformer)


def test_published_parts_take_files(tmp_path, monkeypatch):
    """A preset whose configs name sources, in small: each from the file that is given instead."""
    files = write_files(tmp_path)
    codec = replace(SMALL.codec, weights="nowhere.pth", vocoder_weights=str(files["vocoder"]))
    small = replace(SMALL, codec=codec, synchformer=replace(SMALL.synchformer, weights="nowhere.pth"))
    small = replace(small, clip=replace(SMALL.clip, weights="nowhere.pt")).preset
    weights = {name: str(files[name]) for name in ("codec", "clip", "synchformer")}
    parts = cli._published(small, weights, tmp_path)
    state = torch.load(files["codec"])["encoder.conv_in.weight"]
    assert torch.equal(parts.codec.vae.state_dict()["encoder.conv_in.weight"], state)
    assert parts.sequence == small.sequence
    with pytest.raises(UserError, match="no weights of CLIP at nowhere.pt: expected a file"):
        cli._published(small, {"codec": str(files["codec"])}, tmp_path)
    with pytest.raises(UserError, match="network=x: this preset has no network that takes a file"):
        cli._published(small, {"network": "x"}, tmp_path)


def test_a_trainings_configuration_names_the_parts(tmp_path, monkeypatch):
    config = tmp_path / "train.yaml"
    config.write_text(f"preset: tiny\noutput: {tmp_path / 'run'}\n")
    with pytest.raises(UserError, match="codec/model.safetensors does not exist; run the stage"):
        load("tiny", config)
    config.write_text("preset: small\nmodel:\n  codec:\n    weights: nowhere.pth\n")
    with pytest.raises(UserError, match="no DAC weights at nowhere.pth"):
        load("tiny", config)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--dataset", "/nope"], "no dataset at '/nope'"),
        (["--preset", "huge"], "no model 'huge'"),
        (["--weights", "clip=nowhere.safetensors"], "nowhere.safetensors"),
        (["--weights", "ears=x.safetensors"], "unknown part 'ears'"),
        (["--splits", "tset"], "has no rows in splits tset"),
        (["--output", "/proc/x"], "/proc/x cannot be made a folder"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(model, fake_biaudio, tmp_path, capsys, flags, said):
    assert main([*command(model, tmp_path / "out", fake_biaudio), *flags]) == 2
    error = capsys.readouterr().err
    assert said in error and error.startswith("error: ") and error.count("\n") == 1


@pytest.mark.parametrize(
    "flags",
    [["--workers", "-1"], ["--batch-size", "0"], ["--weights", "x"], ["--precision", "fp8"], ["--pre"]],
)
def test_wrong_flags_are_one_line(flags, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--dataset", "a", "--output", "b", *flags])
    assert caught.value.code == 2 and capsys.readouterr().err.count("\n") == 1


def test_the_module_runs_and_help_does_not_wait_for_torch():
    code = (
        "import sys; from visaudio.cli.features import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\nsys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True).returncode == 0
    done = subprocess.run(
        [sys.executable, "-m", "visaudio.data.features", "--dataset", "/nope", "--output", "x"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stderr.startswith("error: no dataset at '/nope'")
