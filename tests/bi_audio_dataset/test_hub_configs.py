"""A published repository with several configurations, as `datasets` and our reader find them; torchcodec is
never imported."""

import sys

import datasets
import fake_clips
import fake_sets
import numpy as np
import pytest
from datasets import Audio, Video

from bi_audio_dataset import card, card_command, schema
from bi_audio_dataset.__main__ import main
from bi_audio_dataset.schema import UserError
from visaudio.data import dataset as reader
from visaudio.data.dataset import open_dataset, read_clip

IDS = {
    "default": ["c0-0", "c1-0", "c2-0"],
    "features": ["c0-0", "c1-0", "c2-0"],
    "synth": ["s0-0", "s1-0"],
    "benchmark": ["synth-7000-000000", "synth-7000-000001"],
}
SPLITS = {"synth": ["train", "validation"], "benchmark": ["test"]}


def benchmark_rows() -> list:
    names = IDS["benchmark"]
    return [fake_clips.row(name, split="test", source_name="BiAudio-Synth", left=0.3) for name in names]


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repository") / "set"
    clips = fake_sets.rows(3, truth={"rate_hz": 25.0, "sources": [fake_clips.truth_source()]})
    fake_sets.make_set(folder, clips)
    synth = [
        fake_clips.row(f"s{n}-0", split=split, source_name="BiAudio-Synth", left=0.3)
        for n, split in enumerate(("train", "validation"))
    ]
    fake_sets.make_set(folder / "synth", synth, "BiAudio-Synth")
    fake_sets.make_set(folder / "benchmark", benchmark_rows(), "BiAudio-Synth")
    fake_sets.features(folder, clips)
    assert main(["card", str(folder)]) == 0
    return folder


@pytest.fixture(autouse=True)
def without_torchcodec(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec", None)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("config", [*IDS, None])
def test_each_configuration_holds_its_rows_and_no_others(repository, tmp_path, config, streaming):
    sets = datasets.load_dataset(str(repository), config, streaming=streaming, cache_dir=str(tmp_path))
    splits = SPLITS.get(config, ["train", "test"])
    other = splits[-1]
    assert sorted(sets) == sorted(splits)
    ids = [row["id"] for split in splits for row in sets[split]]
    assert ids == IDS[config or "default"]
    row = next(iter(sets[other]))
    if config == "features":
        assert row == {"id": "c2-0", "sync_features": [4.0] * 4}
    else:
        assert row["video"]["bytes"][4:8] == b"ftyp" and row["audio"]["bytes"][:4] == b"fLaC"
        assert sets[other].features["video"] == Video(decode=False)
        assert sets[other].features["audio"] == schema.features()["audio"]


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_of_a_configuration_are_decoded_by_our_reader(repository, tmp_path, streaming):
    rows = datasets.load_dataset(
        str(repository), "synth", split="train", streaming=streaming, cache_dir=str(tmp_path)
    )
    # as where a published card types them for decoding
    rows = rows.cast_column("audio", Audio(decode=False)).cast_column("video", Video(decode=False))
    clip = read_clip(next(iter(rows)), times_s=np.array([0.0, 0.4]), sample_rate=22050)
    assert clip.frames.shape == (2, 36, 64, 3)
    assert clip.frames[1].mean() - clip.frames[0].mean() == pytest.approx(
        80, abs=6
    )  # 10 frames of 8 grey values
    levels = np.sqrt((clip.audio**2).mean(axis=1))
    assert levels[0] / levels[1] == pytest.approx(3.0, rel=0.02)  # left 0.3, right 0.1


def test_our_reader_opens_configurations_of_a_folder(repository):
    assert sorted(open_dataset(repository)["id"]) == IDS["default"]
    assert sorted(open_dataset(repository, config="synth")["id"]) == IDS["synth"]
    assert sorted(open_dataset(repository / "synth")["id"]) == IDS["synth"]
    assert open_dataset(repository, ["validation"], config="synth")["id"][:] == ["s1-0"]
    with pytest.raises(UserError, match="expected default, synth or benchmark"):
        open_dataset(repository, config="features")


def test_a_set_that_is_the_benchmark_itself_is_that_configuration(tmp_path, monkeypatch):
    fake_sets.make_set(tmp_path / "set", benchmark_rows(), "BiAudio-Synth")
    assert main(["card", str(tmp_path / "set")]) == 0
    with pytest.raises(UserError, match="holds no 'benchmark' clips"):  # two are not all of them
        open_dataset(tmp_path / "set", config="benchmark")
    for module in (card, reader):
        monkeypatch.setattr(module, "BENCHMARK_CLIPS", 2)
    assert main(["card", str(tmp_path / "set")]) == 0
    assert sorted(open_dataset(tmp_path / "set", config="benchmark")["id"]) == IDS["benchmark"]
    sets = datasets.load_dataset(str(tmp_path / "set"), "benchmark", cache_dir=str(tmp_path / "cache"))
    assert sets["test"]["id"][:] == IDS["benchmark"]


def test_a_set_that_is_synthetic_itself_is_both(repository, tmp_path):
    rows = datasets.load_dataset(str(repository / "synth"), "synth", split="train", cache_dir=str(tmp_path))
    assert rows["id"][:] == ["s0-0"]
    assert sorted(open_dataset(repository / "synth", config="synth")["id"]) == IDS["synth"]


def test_what_a_build_has_at_work_is_not_read(tmp_path):
    clips = fake_sets.rows(1)
    folder = fake_sets.make_set(tmp_path / "set", clips)
    fake_clips.write(folder / ".work/parts/c0.parquet", clips)
    assert open_dataset(folder)["id"][:] == ["c0-0"]
    with pytest.raises(UserError, match="holds no 'synth' clips: expected synth/data"):
        open_dataset(folder, config="synth")


def test_a_copy_that_lacks_rows_is_refused(repository, tmp_path):
    import shutil

    copy = shutil.copytree(repository, tmp_path / "copy")
    (copy / "data/train-00001-of-00002.parquet").unlink()
    with pytest.raises(datasets.exceptions.NonMatchingSplitsSizesError):
        datasets.load_dataset(str(copy), cache_dir=str(tmp_path / "cache"))


def test_card_is_written_anew_from_what_lies_there(repository, tmp_path, capsys):
    folder = fake_sets.make_set(tmp_path / "set", fake_sets.rows(2))
    before = fake_sets.digests(folder)
    assert main(["card", str(folder)]) == 0
    assert "card of 2 clips; configurations: default" in capsys.readouterr().out
    assert fake_sets.digests(folder) == before
    (folder / "build.json").unlink()  # as of a copy from the Hub
    (folder / "manifest.jsonl").unlink()
    card_command.remake(folder)
    text = (folder / "README.md").read_text()
    assert "# BiAudio: fake\n" in text and "## Settings" not in text
    assert main(["card", str(tmp_path)]) == 2
    assert "holds no data/*.parquet" in capsys.readouterr().err
