from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from visaudio.encoders.clip import ClipConfig
from visaudio.training.cells import grid_targets
from visaudio.training.clip_stage import ClipStageConfig, multi_positive_loss, train_clip
from visaudio.training.pictures import JitterConfig, apply_window, jitter_colours, random_window
from visaudio.training.truth import project


@pytest.mark.parametrize("hfov_deg", [50.0, 90.0, 110.0])
def test_projection_of_centre_edges_and_behind(hfov_deg):
    x, y = project(np.array([0, hfov_deg / 2, -hfov_deg / 2]), np.zeros(3), hfov_deg, 16 / 9)
    assert x == pytest.approx([0.5, 0.0, 1.0]) and y == pytest.approx([0.5] * 3)
    top = np.degrees(np.arctan(np.tan(np.radians(hfov_deg / 2)) * 9 / 16))
    assert project(np.array(0.0), np.array(top), hfov_deg, 16 / 9)[1] == pytest.approx(0.0)
    assert np.isnan(project(np.array(180.0), np.array(0.0), hfov_deg, 1.0)[0])


def boxes(x, y, half=0.01, label=0, visible=True, active=True) -> dict[str, np.ndarray]:
    values = {"x": x, "y": y, "half_width": half, "half_height": half}
    out = {name: np.array([[value]], dtype=np.float64) for name, value in values.items()}
    return out | {
        "label": np.array([[label]]),
        "visible": np.array([[visible]]),
        "active": np.array([[active]]),
    }


def test_small_source_is_in_the_cell_of_its_centre():
    targets = grid_targets(boxes(0.70, 0.30, label=1), rows=8, columns=8, classes=3)
    assert targets.presence.nonzero().tolist() == [[0, 2, 5, 1]]
    assert targets.has_centre.nonzero().tolist() == [[0, 2, 5]]
    # 0.70 is 5.6 cells, the centre of cell 5 is 5.5; 0.30 is 2.4, its cell's centre 2.5
    assert targets.offset[0, 2, 5].tolist() == pytest.approx([0.1, -0.1], abs=1e-6)
    assert targets.active[0, 2, 5] == 1


def test_wide_source_covers_more_cells_and_unseen_none():
    wide = grid_targets(boxes(0.5, 0.5, half=0.25), 8, 8, 1)
    assert 16 <= int(wide.covered.sum()) <= 36
    for hidden in (boxes(0.5, 0.5, visible=False), boxes(1.2, 0.5), boxes(0.5, 0.5, label=-1)):
        assert not grid_targets(hidden, 8, 8, 1).covered.any()


def test_window_moves_pixels_and_truth_alike():
    rng = np.random.default_rng(3)
    pictures = torch.zeros(16, 3, 64, 64)
    x, y = rng.uniform(0.3, 0.7, (16, 1)), rng.uniform(0.3, 0.7, (16, 1))
    for i in range(16):
        pictures[i, :, int(y[i, 0] * 64), int(x[i, 0] * 64)] = 1
    window = random_window(rng, 16, (0.8, 1.0))
    assert window.mirror.any() and not window.mirror.all()
    moved = apply_window(pictures, window)[:, 0]
    columns, rows = moved.sum(dim=1), moved.sum(dim=2)
    place = (torch.arange(64) + 0.5) / 64
    at = (np.floor(x * 64) + 0.5) / 64, (np.floor(y * 64) + 0.5) / 64
    assert (columns @ place / columns.sum(1)).numpy() == pytest.approx(window.move_x(at[0])[:, 0], abs=0.02)
    assert (rows @ place / rows.sum(1)).numpy() == pytest.approx(window.move_y(at[1])[:, 0], abs=0.02)


def test_jitter_off_is_identity_and_bytes_equal_floats():
    pictures = torch.randint(0, 256, (2, 3, 3, 16, 16), dtype=torch.uint8)
    off = JitterConfig(0, 0, 0, 0, 0, 0)
    out = jitter_colours(pictures, np.random.default_rng(0), off)
    assert torch.allclose(out, pictures.float() / 255, atol=1e-5)
    from_bytes = jitter_colours(pictures, np.random.default_rng(1), JitterConfig())
    from_floats = jitter_colours(pictures.float() / 255, np.random.default_rng(1), JitterConfig())
    assert torch.allclose(from_bytes, from_floats, atol=1e-4)
    assert (from_bytes - out).abs().mean() > 0.02


def test_one_positive_each_is_clips_loss():
    logits = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    index = torch.arange(5)
    expected = 0.5 * (F.cross_entropy(logits, index) + F.cross_entropy(logits.T, index))
    assert torch.allclose(multi_positive_loss(logits, torch.eye(5, dtype=torch.bool)), expected)


def test_equal_captions_are_no_negatives_of_each_other():
    positive = torch.block_diag(torch.ones(2, 2), torch.ones(2, 2)).bool()
    perfect = torch.where(positive, 50.0, 0.0)
    assert float(multi_positive_loss(perfect, positive)) == pytest.approx(np.log(2), abs=1e-3)
    assert float(multi_positive_loss(perfect, torch.eye(4, dtype=torch.bool))) == pytest.approx(
        np.log(2), abs=1e-3
    )
    assert float(multi_positive_loss(torch.zeros(4, 4), positive)) == pytest.approx(np.log(4), abs=1e-3)


def test_stage_writes_weights_that_it_reads_again(fake_biaudio, tmp_path):
    model = ClipConfig(
        image_size=32, patch_size=8, width=32, layers=1, embed_dim=16, text_layers=1, grid_columns=4
    )
    config = replace(
        ClipStageConfig(), pictures=4, validation_clips=1,
        loop=replace(ClipStageConfig().loop, steps=2, warmup_steps=1),
    )  # fmt: skip
    arguments = (fake_biaudio, model, config, tmp_path / "clip")
    encoder, figures = train_clip(*arguments, duration_s=2.0, workers=1, progress=False)
    assert 0 <= figures["column"] <= 1 and figures["x_error"] > 0
    again, same = train_clip(*arguments, duration_s=2.0, workers=1, progress=False)
    assert same == figures
    frames = torch.rand(1, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(encoder.encode_images(frames)[1], again.encode_images(frames)[1])
