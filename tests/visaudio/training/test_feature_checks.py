"""Features of another encoder, rate or length are refused before a training starts."""

import dataclasses

import pytest
import torch
from micro import micro_components, micro_preset

from bi_audio_dataset.schema import UserError
from visaudio.data.feature_store import FeatureDataset
from visaudio.data.features import extract_features
from visaudio.data.parts import Parts
from visaudio.training.feature_checks import check_features, check_weights
from visaudio.training.flow_stage import FlowStageConfig, train_flow

MODEL = micro_preset()


@pytest.fixture(scope="module")
def parts() -> Parts:
    model = micro_components()
    return Parts(model.codec, model.clip, model.synchformer, MODEL.sequence)


@pytest.fixture(scope="module")
def data(parts, fake_biaudio, tmp_path_factory) -> FeatureDataset:
    output = tmp_path_factory.mktemp("features")
    extract_features(fake_biaudio, output, parts, workers=0, progress=False)
    return FeatureDataset(output)


def test_a_presets_own_features_are_taken(data, parts):
    check_features(data, MODEL.sequence, MODEL.network)
    check_weights(data, parts)
    check_features(None, MODEL.sequence, MODEL.network)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"clip_dim": 20}, "of another encoder: clip has 12 dimensions, this model takes 20"),
        ({"spatial_columns": 4}, "grid has 2 x 16 dimensions, this model takes 4 x 16"),
        ({"token_dim": 24}, "latents has 6 dimensions, this model takes 12"),
    ],
)
def test_other_widths_are_refused(data, change, said):
    network = dataclasses.replace(MODEL.network, **change)
    with pytest.raises(UserError, match=said) as caught:
        check_features(data, MODEL.sequence, network)
    assert str(data.folder) in str(caught.value) and "\n" not in str(caught.value)
    assert "python -m visaudio.data.features" in str(caught.value)


def test_another_rate_is_refused_where_the_training_starts(data, tmp_path):
    for name, value in (("clip_fps", 4.0), ("duration_s", 2.0)):
        sequence = dataclasses.replace(MODEL.sequence, **{name: value})
        with pytest.raises(
            UserError, match=rf"of another rate or length: {name} .*, this model's is {value}"
        ):
            train_flow(data, None, MODEL.network, sequence, FlowStageConfig(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_features_of_other_weights_are_refused(data, parts):
    other = micro_components(seed=1)
    with pytest.raises(UserError, match="other weights or settings of codec, clip, synchformer than"):
        check_weights(data, Parts(other.codec, other.clip, other.synchformer, MODEL.sequence))
    changed = dataclasses.replace(parts, codec=other.codec)
    with pytest.raises(UserError, match="other weights or settings of codec than this training's"):
        check_weights(data, changed)

    class Spatial(torch.nn.Linear):
        config = None

    with pytest.raises(UserError, match="settings of spatial than"):
        check_weights(data, dataclasses.replace(parts, spatial=Spatial(2, 2)))


def test_precision_alone_is_no_reason(data, parts):
    check_weights(data, dataclasses.replace(parts, bf16=not parts.bf16))
