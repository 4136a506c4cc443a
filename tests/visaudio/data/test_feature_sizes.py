from pathlib import Path

import numpy as np
import pytest
from micro import micro_preset

from visaudio.data.feature_sizes import PAPER_BYTES, PAPER_CLIPS, bytes_per_clip, feature_shapes
from visaudio.data.feature_store import write_shard
from visaudio.presets import PRESETS, get_preset
from visaudio.training.recipe import load_train_config


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "tiny"])
def test_the_papers_set_fits_its_disk_with_the_mirror(name):
    sizes = bytes_per_clip(get_preset(name))
    assert PAPER_BYTES == 400e9 and PAPER_CLIPS == 97_000
    assert 0.9 * PAPER_BYTES < PAPER_CLIPS * sum(sizes.values()) < PAPER_BYTES
    assert all(sizes[f"{part}_mirror"] == sizes[part] for part in ("clip", "sync", "grid", "grid_range"))
    # 64 pictures of 2 x 8 cells of 1280 dimensions, a byte each, and Arrow's offsets
    assert sizes["grid"] == 64 * 16 * 1280 + 4 * (1 + 64 + 64 * 16)
    assert sizes["latents"] == 2 * 690 * 72 * 2 + 4 * (1 + 2 + 2 * 690)


ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", [path.stem for path in (ROOT / "configs").glob("ablation-*.yaml")])
def test_the_ablations_fit_too(name):
    model = load_train_config(ROOT / "configs" / f"{name}.yaml").model
    assert sum(bytes_per_clip(model).values()) * PAPER_CLIPS < PAPER_BYTES


def test_a_shard_takes_what_is_computed(tmp_path):
    model, clips = micro_preset(), 50
    tensors = {n: np.zeros((clips, *shape), dtype) for n, (shape, dtype) in feature_shapes(model).items()}
    meta = [
        {"id": str(i), "split": "train", "caption": "a bell", "hfov_deg": 90.0, "hrir_symmetric": True,
         "hrir_set": "", "source_name": "", "classes": []} for i in range(clips)
    ]  # fmt: skip
    write_shard(tmp_path / "shard.arrow", meta, tensors)
    computed = clips * sum(bytes_per_clip(model).values())
    assert computed <= (tmp_path / "shard.arrow").stat().st_size < computed + 1000 * clips
