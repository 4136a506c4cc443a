import json
import multiprocessing
import os
import pickle
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bi_audio_dataset.schema import UserError
from visaudio.data import feature_store
from visaudio.data.eight_bits import from_bytes
from visaudio.data.feature_store import INDEX, FeatureDataset, finish, read_shard, shard_path, write_shard

ROOT = Path(__file__).parents[3]
ONE = {"split": "train", "caption": "a bell", "hfov_deg": None, "hrir_symmetric": True, "hrir_set": "",
       "source_name": "", "classes": []}  # fmt: skip


def write(folder, shards: int, clips: int, numbers: int):
    """Shards of latents (2, numbers, 8) alone, random."""
    paths = [shard_path(folder, shard, shards) for shard in range(shards)]
    for shard, path in enumerate(paths):
        random = np.random.default_rng(shard)
        latents = random.integers(-99, 99, (clips, 2, numbers, 8)).astype(np.float16)
        write_shard(path, [{**ONE, "id": f"{shard}-{i}"} for i in range(clips)], {"latents": latents})
    finish(folder, {"made_from": {"rows": "x", "sequence": {}, "weights": {}}}, paths)
    return paths


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    return shutil.copytree(folder, tmp_path / "copy")


def test_datasets_opens_the_folder_with_typed_columns_and_the_right_values(folder, parts):
    from datasets import Array2D, Array3D, load_from_disk

    table, data = load_from_disk(str(folder)), FeatureDataset(folder, None)
    sequence = parts.sequence
    assert table.features["latents"] == Array3D((2, sequence.num_frames, 32), "float16")
    assert table.features["sync_mirror"] == Array2D((sequence.num_sync_tokens, 16), "float16")
    assert table.features["grid"] == Array3D((16, 8, 32), "uint8")
    assert table["id"][:] == data.ids
    assert table["classes"][1] == list(data.classes[1])
    for index, row in enumerate(table.with_format("numpy")):
        assert row["id"] == data.ids[index]
        for name in ("latents", "clip", "sync_mirror", "text"):
            assert np.array_equal(row[name], data.tensor(index, name).numpy()), name
        grid = row["grid_range"][0] + row["grid_range"][1] * row["grid"]
        assert np.allclose(grid, data.tensor(index, "grid").numpy(), atol=1e-6)


def test_datasets_opens_one_shard_memory_mapped(folder):
    from datasets import Dataset, load_dataset

    path = sorted(folder.glob("features-*.arrow"))[1]
    table = Dataset.from_file(str(path))
    assert [Path(file["filename"]) for file in table.cache_files] == [path]
    loaded = load_dataset("arrow", data_files=str(path), split="train")
    assert np.array_equal(loaded[0]["clip"], table[0]["clip"]) and np.std(table[0]["clip"]) > 0.1


def test_get_is_what_the_shards_hold(folder):
    data = FeatureDataset(folder, "train")
    one, mirrored = data.get(2), data.get(2, mirror=True)
    (meta,), columns = read_shard(sorted(folder.glob("features-*.arrow"))[data._where[2][0]])
    assert one["id"] == meta["id"] == data.ids[2]
    assert np.array_equal(
        mirrored["grid"], from_bytes(columns["grid_mirror"][0], columns["grid_range_mirror"][0])
    )
    assert np.array_equal(mirrored["sync"], columns["sync_mirror"][0])
    assert torch.equal(one["latents"], mirrored["latents"]) and not torch.equal(one["grid"], mirrored["grid"])
    assert one["hfov_rad"] == pytest.approx(np.pi / 2) and data.shapes["text"] == one["text"].shape
    one["latents"].zero_()  # a copy: the next reader finds what was written
    assert data.get(2)["latents"].abs().max() > 0


def test_splits_are_chosen(folder):
    assert sorted(FeatureDataset(folder).ids) == ["fake-000", "fake-001", "fake-002"]
    assert FeatureDataset(folder, "validation").ids == ["fake-003"]
    assert sorted(FeatureDataset(folder, None).splits) == ["train"] * 3 + ["validation"]


def test_an_unknown_lens_is_nan(tmp_path):
    write(tmp_path, 1, 2, 4)
    assert np.isnan(FeatureDataset(tmp_path).hfov_deg).all()


@pytest.mark.slow
def test_another_process_gets_the_files_not_their_content(tmp_path):
    write(tmp_path, 2, 4, 20_000)
    data = FeatureDataset(tmp_path)
    assert len(pickle.dumps(data)) < 5_000
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(_sum, (data, 5))
    assert there == float(data.tensor(5, "latents").double().sum())


def _sum(data: FeatureDataset, index: int) -> float:
    return float(data.tensor(index, "latents").double().sum())


MEMORY = """
import os, re, sys
import numpy as np
from visaudio.data.feature_store import FeatureDataset

def private_kb():
    return int(re.search(r"RssAnon:\\s+(\\d+) kB", open("/proc/self/status").read())[1])

import pyarrow.ipc
files = len(os.listdir("/proc/self/fd"))
data = FeatureDataset(sys.argv[1])
data.tensor(0, "latents")
before = private_kb()
for index in np.random.default_rng(0).permutation(len(data)):
    data.tensor(int(index), "latents")
print(private_kb() - before, len(os.listdir("/proc/self/fd")) - files)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux's /proc")
def test_reading_all_takes_no_memory_of_its_own(tmp_path):
    """100 MB of features, every clip read in random order: less than 4 MB more of private memory."""
    paths = write(tmp_path, 5, 40, 16_000)
    assert sum(path.stat().st_size for path in paths) > 100e6
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    private_kb, files = map(int, done.stdout.split())
    assert private_kb < 4000
    assert files <= 1  # mapped, not open: 97,000 clips are more shards than a process may have open


# -------------------- what is not as it should be


def test_a_shard_cut_short_is_one_clear_line(copy):
    path = sorted(copy.glob("features-*.arrow"))[1]
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        UserError, match=rf"{path.name} has .* bytes, expected {len(whole):,}: remove it"
    ) as caught:
        FeatureDataset(copy)
    assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(UserError, match=f"{path.name} is missing"):
        FeatureDataset(copy)


@pytest.mark.parametrize("kept", [0, 10, 700, 0.5, 0.99])
def test_no_part_of_a_shard_is_taken_for_one(folder, tmp_path, kept):
    whole = next(folder.glob("features-*.arrow")).read_bytes()
    path = tmp_path / "x.arrow"
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(UserError, match="x.arrow is cut short or no features") as caught:
        read_shard(path)
    assert "\n" not in str(caught.value)


def test_features_of_the_earlier_layout_are_to_be_extracted_again(tmp_path):
    (tmp_path / INDEX).write_text(json.dumps({"key": {}, "clips": 4, "latent_mean": [0.0]}))
    with pytest.raises(UserError, match="layout 1, this program reads 2: remove the folder"):
        FeatureDataset(tmp_path)


def test_a_folder_without_features_and_one_unfinished(copy, tmp_path):
    with pytest.raises(UserError, match="holds no features"):
        FeatureDataset(tmp_path)
    index = json.loads((copy / INDEX).read_text())
    del index["shards"]
    (copy / INDEX).write_text(json.dumps(index))
    with pytest.raises(UserError, match="unfinished: python -m visaudio.data.features goes on"):
        FeatureDataset(copy)


def test_a_full_disk_leaves_no_half_written_shard(tmp_path):
    paths = write(tmp_path, 1, 2, 2000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(UserError, match="b.arrow cannot be written .*: the shards before it are whole"):
            latents = np.zeros((2, 2, 2000, 8), np.float16)
            write_shard(tmp_path / "b.arrow", [{**ONE, "id": str(i)} for i in range(2)], {"latents": latents})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".json") == [paths[0].name]
    assert len(FeatureDataset(tmp_path)) == 2


def test_meta_is_what_the_docstring_says():
    assert set(feature_store.META) == {"id", *ONE}
