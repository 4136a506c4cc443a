"""Test rows, training features and a model too small to sound like anything."""

from dataclasses import replace
from pathlib import Path

import pytest
from micro import micro_components

from visaudio import hub


@pytest.fixture(scope="session")
def heldout(fake_biaudio, tmp_path_factory) -> Path:
    """Three of the fake rows in the test split, in two row groups' worth of files."""
    from bi_audio_dataset.schema import ClipRecord
    from bi_audio_dataset.shards import read_rows, write_rows

    folder = tmp_path_factory.mktemp("heldout")
    (folder / "data").mkdir()
    rows = [row for path in sorted(fake_biaudio.rglob("*.parquet")) for row in read_rows(path)][:3]
    records = [replace(ClipRecord.from_row(row), split="test") for row in rows]
    write_rows(folder / "data" / "test-00000-of-00002.parquet", records[:2])
    write_rows(folder / "data" / "test-00001-of-00002.parquet", records[2:])
    return folder


@pytest.fixture(scope="session")
def micro_model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "micro"
    return hub.save_pretrained(folder, micro_components(num_steps=1))


@pytest.fixture(scope="session")
def features_of(micro_model, tmp_path_factory):
    """A function: the features of a dataset, by the micro model."""
    from visaudio.data.features import extract_features
    from visaudio.data.parts import Parts

    model = hub.load_pretrained(micro_model)
    parts = Parts(model.codec, model.clip, model.synchformer, model.preset.sequence)

    def make(dataset) -> Path:
        folder = tmp_path_factory.mktemp("features") / "features"
        extract_features(dataset, folder, parts, workers=0, progress=False)
        return folder

    return make


@pytest.fixture(scope="session")
def micro_features(fake_biaudio, features_of) -> Path:
    return features_of(fake_biaudio)


@pytest.fixture(scope="session")
def spatialiser(fake_biaudio, micro_features, tmp_path_factory) -> Path:
    """A head after a few steps on the fake training clips."""
    from visaudio.evaluation.baselines import head_training
    from visaudio.evaluation.baselines.head_settings import TrainConfig

    folder = tmp_path_factory.mktemp("spatialiser")
    settings = TrainConfig(steps=4, batch_size=2, crop_s=0.5)
    head_training.run(fake_biaudio, micro_features, folder, settings, lambda *_: None, {"width": 16})
    return folder
