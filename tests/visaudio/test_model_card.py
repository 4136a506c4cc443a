"""The card of a model folder: its header as the Hub reads it, its results as an evaluation wrote them."""

import json
import shutil
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard
from micro import micro_components

from bi_audio_dataset.schema import UserError
from visaudio import hub, model_card, model_folder
from visaudio.references import Reference

REPORT = {
    "clips_of_row": {"model": 137},
    "rows": {
        "model": {
            "side": [0.75, 0.7, 0.8],
            "ild_error_db": [1.5, None, None],
            "itd_gcc_us": [None, None, None],
        },
        "truth": {"side": [1.0, 1.0, 1.0]},
    },
    "made": {"command": "python benchmarks/synth_quality.py", "commit": "abc1234", "seed": 0},
}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    made = micro_components(seed=1)
    training = {"steps": 7, "loss": 0.125, "minutes": {"flow": 3.0}}
    made.info = hub.ModelInfo("cc-by-nc-4.0", "made in a test", "knows nothing", training)
    return hub.save_pretrained(tmp_path_factory.mktemp("model") / "micro", made)


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "m")


def header_and_text(folder):
    card = ModelCard.load(folder / "README.md")
    return card.data.to_dict(), card.text


def test_it_says_licence_limits_training_and_no_results(folder):
    header, text = header_and_text(folder)
    assert header["license"] == "cc-by-nc-4.0" and header["library_name"] == "visaudio"
    assert header["pipeline_tag"] == "any-to-any" and "binaural-audio" in header["tags"]
    assert "model-index" not in header and "datasets" not in header and "## Results" not in text
    for line in ("knows nothing", "made in a test", "- steps: 7", "- loss: 0.125", "  - flow: 3", "4000 Hz"):
        assert line in text
    counts = json.loads((folder / "config.json").read_text())["parameters"]
    network = micro_components().network
    assert counts["network"] == sum(p.numel() for p in network.parameters())
    assert f"| network | {counts['network']:,} | here |" in text


def test_results_of_a_report_are_told_with_their_origin(folder, tmp_path):
    report = tmp_path / "report.json"
    report.write_text(json.dumps(REPORT))
    before = (folder / "network.safetensors").read_bytes()
    words = ["--results", str(report), "--measured-on", "BiAudio-Synth, held out"]
    assert hub.main(["card", str(folder), *words, "--dataset", "org/BiAudio"]) == 0
    header, text = header_and_text(folder)
    assert header["datasets"] == ["org/BiAudio"] and "Data: org/BiAudio." in text
    (model,) = header["model-index"]
    found = {m["type"]: m["value"] for r in model["results"] for m in r["metrics"]}
    assert found == {"side": 0.75, "ild_error_db": 1.5}  # what was not measured is not there
    assert {r["dataset"]["name"] for r in model["results"]} == {"BiAudio-Synth, held out"}
    for line in (
        "On BiAudio-Synth, held out, 137 clips, by `python benchmarks/synth_quality.py` at commit `abc1234`.",
        "| side correct (more is better) | 0.75 | 0.7 to 0.8 |",
        "| ILD error, dB (less is better) | 1.5 |  |",
    ):
        assert line in text
    assert (folder / "network.safetensors").read_bytes() == before
    loaded = hub.load_pretrained(folder)
    assert (
        loaded.info.results["figures"]["side"] == [0.75, 0.7, 0.8] and loaded.info.limits == "knows nothing"
    )
    hub.main(["card", str(folder), "--dataset", "org/Other"])  # the results stay
    header, text = header_and_text(folder)
    assert header["datasets"] == ["org/Other"] and "0.7 to 0.8" in text


def test_plain_numbers_will_do(folder, tmp_path):
    (tmp_path / "figures.json").write_text('{"validation loss": 1.25, "made": {"commit": "abc"}}')
    model_folder.describe(folder, tmp_path / "figures.json", "the validation split")
    assert "On the validation split at commit `abc`." in (folder / "README.md").read_text()
    assert "| validation loss | 1.25 |  |" in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "expected a report.json of benchmarks/synth_quality.py, or names and numbers"),
        ('{"side": "good"}', "'good' is no number"),
        ('{"side": true}', "True is no number"),
        ('{"side": null}', "holds no figure"),
        ("[1]", "expected a report.json"),
    ],
)
def test_what_are_no_results_is_refused(folder, tmp_path, text, message):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(UserError, match=message):
        model_folder.describe(folder, tmp_path / "r.json", "somewhere")


def test_a_report_of_another_model_is_refused(folder, tmp_path):
    report = {**REPORT, "made": {**REPORT["made"], "weights_sha256": model_card.weights_digest(folder)}}
    (tmp_path / "r.json").write_text(json.dumps(report))
    model_folder.describe(folder, tmp_path / "r.json", "somewhere")
    model_folder.describe(folder, tmp_path / "r.json", "somewhere")  # a card does not make another model
    other = hub.save_pretrained(tmp_path / "other", micro_components(seed=2))
    with pytest.raises(UserError, match="is a report of other weights"):
        model_folder.describe(other, tmp_path / "r.json", "somewhere")


def test_figures_need_their_data(folder, tmp_path, capsys):
    (tmp_path / "r.json").write_text("{}")
    assert hub.main(["card", str(folder), "--results", str(tmp_path / "r.json")]) == 2
    assert "--results and --measured-on belong together" in capsys.readouterr().err
    assert hub.main(["card", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_licences_of_references_stand_in_the_card(folder):
    model = model_folder.read_model(folder)
    one = Reference("weights", "pub/clip", "ab" * 20, {"w.bin": "0" * 64}, "apple-amlr")
    text = model_card.model_card(replace(model, references={"clip": (one,)}))
    assert "license: other\nlicense_name: apple-amlr-and-cc-by-nc-4.0" in text
    assert "Licence: apple-amlr AND cc-by-nc-4.0." in text and "Stored here: cc-by-nc-4.0." in text
    assert f"[pub/clip](https://huggingface.co/pub/clip/tree/{'ab' * 20})" in text
    assert "| clip | 17,481 |" in text


def test_the_packaged_model_keeps_its_name():
    """docs/results.md names these digits: reports of the shipped weights stay theirs."""
    assert model_card.weights_digest(hub.find_model("tiny")) == "d03c2ba5cf212f52"
