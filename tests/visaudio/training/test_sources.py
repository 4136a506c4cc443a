"""The datasets of a mixed training, from the configuration to the clips."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bi_audio_dataset.schema import MONO_EARS, UserError
from bi_audio_dataset.shards import read_rows, write_rows
from visaudio.cli.train import main
from visaudio.data.feature_store import FeatureDataset
from visaudio.training import full_run
from visaudio.training.recipe import TrainConfig, load_train_config
from visaudio.training.sources import SourceConfig, describe, extractions, open_features

ROOT = Path(__file__).parents[3]
MIXED = ROOT / "configs" / "mixed.yaml"


def test_the_example_names_its_sources_and_each_can_be_changed():
    config = load_train_config(MIXED, ["data.1.path=elsewhere/fairplay", "data.2.weight=0.5"])
    assert [(s.label, s.path, s.weight, s.mono) for s in config.sources] == [
        ("biaudio", "data/biaudio", 6.0, False),
        ("fairplay", "elsewhere/fairplay", 1.0, False),
        ("films", "data/films", 0.5, True),
    ]
    assert describe(config.sources) == (
        "biaudio (80.0% of the samples); fairplay (13.3% of the samples); films (mono, 6.7% of the samples)"
    )
    assert load_train_config().sources == ()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=[]"], "data is an empty list"),
        (["data=[{path: a/x}, {path: b/x}]"], "two sources of data are named 'x'"),
        (["data=[{weight: 2}]"], "each source of data needs a path"),
        (["data=[{path: x, weight: 0}]"], "weight of source x is 0, expected above 0"),
        (["data=[{path: x, name: a/b}]"], "source name 'a/b'"),
        (["data=[{path: x, wieght: 2}]"], "unknown key 'data[0].wieght'"),
        (["data=3"], "data: expected"),
        (["--config", str(MIXED), "data.path=x"], "a list takes numbers, as in data.0.path=FOLDER"),
        (["--config", str(MIXED), "data.5.path=x"], "list index out of range"),
        (["data=[{path: /nope}]"], "no dataset at '/nope'"),
    ],
)
def test_mistakes_are_one_line(capsys, tmp_path, overrides, message):
    assert main([f"output={tmp_path}", *overrides]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1


def test_other_weights_ask_for_another_flow_but_not_for_other_features(tmp_path):
    data = (SourceConfig("a/x", weight=2.0), SourceConfig("a/y", mono=True))
    small = replace(load_train_config(None, ["preset=small"]), output=str(tmp_path))
    first = full_run.plan(replace(small, data=data))
    second = full_run.plan(replace(small, data=(replace(data[0], weight=5.0), data[1])))
    third = full_run.plan(replace(small, data=(data[0], replace(data[1], mono=False))))
    assert first.fingerprint("features") == second.fingerprint("features")
    assert first.fingerprint("flow") != second.fingerprint("flow")
    assert first.fingerprint("features") != third.fingerprint("features")
    assert first.stages["data"].title == "a/x, a/y"


# -------------------- from rows to samples


def rewrite(dataset: Path, folder: Path, **changes) -> Path:
    """A copy of a dataset with other values in its rows."""
    from bi_audio_dataset.schema import ClipRecord

    (folder / "data").mkdir(parents=True)
    for shard in (dataset / "data").glob("*.parquet"):
        records = [replace(ClipRecord.from_row(row), **changes) for row in read_rows(shard)]
        write_rows(folder / "data" / shard.name, records)
    return folder


@pytest.fixture(scope="module")
def run(fake_biaudio, tmp_path_factory):
    """Two sources with their features, by the real extraction: one as it is, one as mono."""
    from micro import micro_components

    from visaudio.data.features import extract_features
    from visaudio.data.parts import Parts
    from visaudio.precision import use_bf16

    made, folder = micro_components(), tmp_path_factory.mktemp("mixed")
    sequence = made.preset.sequence
    parts = Parts(made.codec, made.clip, made.synchformer, sequence, bf16=use_bf16("auto"))
    shutil.copytree(fake_biaudio, folder / "films")
    sources = (
        SourceConfig(str(fake_biaudio), name="biaudio", weight=3.0),
        SourceConfig(str(folder / "films"), mono=True),
    )

    for dataset, output, mono in extractions(sources, "", folder / "features"):
        extract_features(dataset, output, replace(parts, mono=mono), workers=0, progress=False)
    return sources, folder / "features", parts


def test_sources_become_one_set_with_equal_ears_for_mono(run, fake_biaudio):
    sources, folder, parts = run
    train, held_out = open_features(sources, folder, parts)
    assert (
        len(train.ids) == 6 and train.ids[0].startswith("biaudio/") and train.mono == [False] * 3 + [True] * 3
    )
    assert held_out.ids == ["biaudio/fake-003"]  # mono clips are not what validation asks about
    left, right = train.get(4, mirror=False)["latents"]
    assert torch.equal(left, right)
    # the mean of the two channels, not one of them
    films = FeatureDataset(folder / "films", "train")
    (row,) = [
        row
        for shard in (fake_biaudio / "data").glob("train*")
        for row in read_rows(shard)
        if row["id"] == films.ids[0]
    ]
    from visaudio.data.dataset import read_clip

    sequence = parts.sequence
    heard = read_clip(row, sample_rate=sequence.sample_rate).audio.mean(axis=0)
    sound = torch.from_numpy(np.tile(heard[: sequence.num_samples], (1, 2, 1)))
    with torch.inference_mode():
        latents = parts.codec.encode_binaural(sound)[0]
    frames = min(latents.shape[1], films.tensor(0, "latents").shape[1])
    assert torch.allclose(films.tensor(0, "latents")[0, :frames].float(), latents[0, :frames], atol=5e-3)


def test_the_benchmark_of_coupled_noise_measures_a_features_folder(run, capsys):
    from scripts import load_script

    script = load_script(ROOT / "benchmarks" / "ot_coupling.py")
    folder = str(run[1] / "biaudio")
    assert script.main(["--features", folder, "--groups", "3"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["group"] == 3 and 0.5 < row["distance, coupled / plain"] <= 1.0
    assert script.main(["--features", folder, "--groups", "8"]) == 2
    assert "3 clips, expected at least 8" in capsys.readouterr().err


def test_features_of_other_parts_or_rates_are_refused(run, tmp_path):
    from micro import micro_components

    sources, folder, parts = run
    other = replace(parts, clip=micro_components(seed=1).clip)
    with pytest.raises(UserError, match="were made by other weights or settings of clip than this training"):
        open_features(sources, folder, other)
    shutil.copytree(folder, tmp_path / "features")
    index = tmp_path / "features" / "films" / "features.json"
    said = json.loads(index.read_text())
    said["made_from"]["sequence"]["sample_rate"] = 16000
    index.write_text(json.dumps(said))
    with pytest.raises(UserError, match="films' are of another rate or length: sample_rate 16000"):
        open_features(sources, tmp_path / "features", parts)


def test_missing_features_and_a_wrong_declaration_are_refused(run, tmp_path):
    sources, folder, parts = run
    with pytest.raises(UserError, match="holds no features"):
        open_features(sources, tmp_path, parts)
    with pytest.raises(UserError, match="source films: both ears of its clips are one sound"):
        open_features((sources[0], replace(sources[1], mono=False)), folder, parts)


def test_features_that_were_made_as_mono_are_not_taken_for_others(run, fake_biaudio):
    from visaudio.data.features import extract_features

    _, folder, parts = run
    with pytest.raises(UserError, match="holds features of sound that was mono"):
        extract_features(fake_biaudio, folder / "films", parts, workers=0, progress=False)


def test_rows_that_say_mono_must_be_declared_so(fake_biaudio, tmp_path):
    dataset = rewrite(fake_biaudio, tmp_path / "films", hrir_set=MONO_EARS)
    with pytest.raises(UserError, match="source films: 4 of its 4 rows say 'recorded: mono'.*mono: true"):
        extractions([SourceConfig(str(dataset))], "", tmp_path)
    (one,) = extractions([SourceConfig(str(dataset), mono=True)], "", tmp_path)
    assert one == (str(dataset), tmp_path / "films", True)
    assert extractions((), "elsewhere", tmp_path) == [("elsewhere", tmp_path, False)]


def test_a_mixed_run_goes_from_datasets_to_a_model_folder(run, tmp_path):
    """The stages themselves, on random parts: features, flow with validation, export of the best."""
    from micro import micro_preset
    from safetensors.torch import save_file

    from visaudio.training.flow_stage import FlowStageConfig
    from visaudio.training.loop import FlowLoopConfig
    from visaudio.training.validation import ValidationConfig

    sources, made, parts = run
    shutil.copytree(made, tmp_path / "features")  # which the stage finds finished, and its own
    for name in ("codec", "clip", "synchformer"):
        (tmp_path / name).mkdir()
        save_file(getattr(parts, name).state_dict(), tmp_path / name / "model.safetensors")
    loop = FlowLoopConfig(steps=4, batch_size=4, precision="fp32", validate_every=2, ot_group=2)
    validation = ValidationConfig(loss_clips=1, audio_clips=1, num_steps=1)
    flow = FlowStageConfig(loop=loop, validation=validation, export="best")
    config = TrainConfig(output=str(tmp_path), model=micro_preset(), data=sources, flow=flow, workers=1)
    stages = full_run.FullRun(config)
    for name in ("features", "flow", "export"):
        assert getattr(stages, name)(tmp_path / name)
    said = json.loads((tmp_path / "model" / "config.json").read_text())["info"]["training"]
    assert (
        said["data"]
        == f"{Path(sources[0].path).name} (75.0% of the samples); films (mono, 25.0% of the samples)"
    )
    assert said["weights"].startswith("of the best validation, loss ") and said["flow steps"] in (2, 4)
    record = json.loads((tmp_path / "flow" / "best" / "figures.json").read_text())
    assert set(record["figures"]) >= {"loss", "level_error_db"} and record["step"] == said["flow steps"]
