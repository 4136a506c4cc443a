"""Boxes that are known: of a row's truth, and of a detector whose last layer was set by hand."""

import binaural_scene as scene
import numpy as np
import pytest
import torch

from bi_audio_dataset.schema import UserError
from visaudio.evaluation.detectors import TransformersDetector, truth_boxes
from visaudio.evaluation.lens import column_of
from visaudio.evaluation.measures import Scene, Unavailable


def test_columns_of_a_rectilinear_picture():
    angles = np.array([0.0, 45.0, -45.0, np.degrees(np.arctan(0.5)), 60.0])
    expected = [0.5, 0.0, 1.0, 0.25, 0.5 - np.sqrt(3) / 2]
    np.testing.assert_allclose(column_of(angles, 90.0), expected, atol=1e-12)
    np.testing.assert_allclose(column_of(np.array([30.0]), 60.0), [0.0], atol=1e-12)
    assert column_of(np.array([90.0, -90.0, 170.0, -135.0, 270.0]), 90.0).tolist() == [
        -np.inf, np.inf, -np.inf, np.inf, np.inf,
    ]  # fmt: skip


def test_truth_boxes_are_where_and_as_wide_as_the_source():
    azimuth = np.where(np.arange(50) < 25, 20.0, -40.0)
    boxes = truth_boxes(Scene("a", 2.0, truth=scene.clip_of(azimuth, size_deg=10.0)))
    assert boxes[:, 0].tolist() == list(range(8))
    tangent = np.tan(np.radians([25.0, 15.0]))
    np.testing.assert_allclose(boxes[0, 1:], 0.5 - tangent / 2, atol=1e-9)
    assert boxes[7, 1:].tolist() == pytest.approx([0.5 + np.tan(np.radians(35)) / 2, 1.0])  # cut at the edge


def test_what_is_not_in_view_has_no_box():
    assert truth_boxes(Scene("a", 2.0, truth=scene.clip_of(np.zeros(50), visible=False))).shape == (0, 3)


@pytest.fixture(scope="module")
def detector_folder(tmp_path_factory):
    """YOLOS, tiny: every token finds `cat` at 0.6 of the width, 0.2 wide, whatever it sees."""
    from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessor

    torch.manual_seed(0)
    config = YolosConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=[32, 32],
        patch_size=16, num_detection_tokens=2, id2label={0: "person", 1: "cat"},
        use_mid_position_embeddings=False,
    )  # fmt: skip
    model = YolosForObjectDetection(config)
    with torch.no_grad():
        for head in (model.class_labels_classifier, model.bbox_predictor):
            head.layers[-1].weight.zero_()
        model.class_labels_classifier.layers[-1].bias.copy_(torch.tensor([0.0, 5.0, 0.0]))
        wanted = torch.tensor([0.6, 0.5, 0.2, 0.4])
        model.bbox_predictor.layers[-1].bias.copy_(torch.logit(wanted))
    folder = tmp_path_factory.mktemp("detector")
    model.save_pretrained(folder)
    YolosImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def test_a_detector_of_transformers_gives_its_boxes_as_columns(detector_folder, tmp_path):
    video = scene.blob_video(tmp_path / "a.mp4", np.zeros(25))
    boxes = TransformersDetector(str(detector_folder))(Scene("a", 1.0, video=video))
    assert boxes.shape == (4 * 2, 3)  # four pictures, two tokens each
    np.testing.assert_allclose(boxes[:, 1:], [[0.5, 0.7]] * 8, atol=1e-5)
    assert boxes[:, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_only_the_labels_asked_for(detector_folder):
    pictures = np.zeros((1, 40, 60, 3), np.uint8)
    assert len(TransformersDetector(str(detector_folder), ["person"]).boxes(pictures)) == 0
    assert len(TransformersDetector(str(detector_folder), ["cat"]).boxes(pictures)) == 2
    with pytest.raises(UserError, match="dog"):
        TransformersDetector(str(detector_folder), ["dog"])


def test_a_detector_that_is_not_there(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="expected truth, a folder"):
        TransformersDetector("nowhere")
    with pytest.raises(Unavailable, match="no object detector"):
        TransformersDetector(str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(Unavailable, match="give the folder"):
        TransformersDetector("nobody/no-detector")


def test_pickled_weights_are_refused(detector_folder, tmp_path):
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_text((detector_folder / name).read_text())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(Unavailable, match="no object detector"):
        TransformersDetector(str(tmp_path))
