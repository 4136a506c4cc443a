"""Extraction: resumed, on several processes, refused."""

import dataclasses
import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from small_parts import extract, make_parts

from bi_audio_dataset.schema import UserError
from visaudio.data import features
from visaudio.data.dataset import open_dataset
from visaudio.data.feature_store import INDEX, FeatureDataset, read_shard, shard_path
from visaudio.data.features import Parts, cut

ROOT = Path(__file__).parents[3]


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("features-*.arrow"))}


@pytest.fixture
def encoded(monkeypatch) -> list[str]:
    """Captions of the clips that are encoded."""
    seen: list[str] = []
    encode = Parts.stored_batch
    monkeypatch.setattr(
        Parts, "stored_batch", lambda self, clips, texts: seen.extend(texts) or encode(self, clips, texts)
    )
    return seen


def test_features_are_those_of_the_parts(folder, fake_biaudio, parts):
    data = FeatureDataset(folder, "train")
    rows = {row["id"]: row for row in open_dataset(fake_biaudio)}
    one = data.get(1)
    truth = parts.encode(rows[one["id"]])
    for name in ("latents", "clip", "sync", "text"):
        assert torch.allclose(one[name].float(), truth[name].float(), atol=2e-3), name
    step = (truth["grid"].amax((0, 1)) - truth["grid"].amin((0, 1))) / 255
    assert ((one["grid"] - truth["grid"]).abs() <= 0.51 * step + 1e-4).all()
    assert data.hrir_symmetric == [rows[name]["hrir_symmetric"] for name in data.ids]
    assert [list(names) for names in data.classes] == [
        [source["class_name"] for source in rows[name]["truth"]["sources"]] for name in data.ids
    ]


def test_lengths_follow_the_sequence(folder, parts):
    one, sequence = FeatureDataset(folder).get(0), parts.sequence
    assert one["latents"].shape == (2, sequence.num_frames, 32)
    assert one["clip"].shape == (sequence.num_clip_frames, 16)
    assert one["grid"].shape == (sequence.num_clip_frames, 2 * 4, 32)
    assert one["sync"].shape == (sequence.num_sync_tokens, 16)


def test_a_set_is_cut_by_its_number_of_rows_alone():
    assert [len(rows) for rows in cut(5)] == [1] * 5
    assert cut(40)[0] == range(3) and len(cut(40)) == 14
    paper = cut(97_000)
    assert len(paper) == 1516 and {len(rows) for rows in paper[:-1]} == {64}
    assert [index for rows in cut(1000) for index in rows] == list(range(1000))


def test_what_is_there_and_whole_is_kept(folder, fake_biaudio, parts, tmp_path, encoded):
    copy = shutil.copytree(folder, tmp_path / "copy")
    extract(fake_biaudio, copy, parts)
    assert encoded == []
    second, third = (shard_path(copy, number, 4) for number in (1, 2))
    second.unlink()
    third.write_bytes(third.read_bytes()[:1000])
    extract(fake_biaudio, copy, parts)
    assert len(encoded) == 2 and shards(copy) == shards(folder)


def test_worker_processes_and_batches_of_clips_give_the_same(
    folder, fake_biaudio, parts, tmp_path, monkeypatch
):
    monkeypatch.setattr(features, "LEAST_SHARDS", 2)
    for workers, batch_size in ((0, 2), (1, 2)):
        output = tmp_path / str(workers)
        extract(fake_biaudio, output, parts, workers=workers, batch_size=batch_size)
    assert shards(tmp_path / "0") == shards(tmp_path / "1") and len(shards(tmp_path / "0")) == 2
    one, other = FeatureDataset(tmp_path / "1", None), FeatureDataset(folder, None)
    assert one.ids == other.ids
    for index in range(4):
        for name in ("latents", "sync", "clip_mirror"):
            apart = one.tensor(index, name).float() - other.tensor(index, name).float()
            assert apart.abs().max() < 2e-3, name


def test_splits_are_extracted_alone(fake_biaudio, parts, tmp_path):
    assert FeatureDataset(extract(fake_biaudio, tmp_path, parts, splits=["validation"]), None).ids == [
        "fake-003"
    ]


def test_rows_without_truth_and_lens(fake_biaudio, parts, tmp_path):
    (tmp_path / "set").mkdir()
    table = pq.read_table(next((fake_biaudio / "data").glob("validation-*.parquet")))
    place, kind = table.column_names.index("hfov_deg"), table.schema.field("hfov_deg").type
    table = table.set_column(place, "hfov_deg", [[None] * len(table)]).drop_columns(["truth"])
    table = table.cast(table.schema.set(place, table.schema.field("hfov_deg").with_type(kind)))
    pq.write_table(table, tmp_path / "set" / "validation-0.parquet")
    data = FeatureDataset(extract(tmp_path / "set", tmp_path / "out", parts), None)
    assert data.classes == [()] and np.isnan(data.get(0)["hfov_rad"])


# -------------------- refused, in one line


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda: make_parts(clip_fps=4.0), r"another clip_fps \(8.0, now 4.0\)"),
        (
            lambda: dataclasses.replace(make_parts(), clip=make_parts(1).clip),
            "other weights or settings of clip",
        ),
        (lambda: dataclasses.replace(make_parts(), bf16=True), "another precision"),
    ],
)
def test_features_of_other_parts_are_not_mixed_nor_removed(folder, fake_biaudio, change, said):
    before = shards(folder)
    with pytest.raises(UserError, match=f"holds features of {said}: choose another folder") as caught:
        extract(fake_biaudio, folder, change())
    assert shards(folder) == before and "\n" not in str(caught.value)
    with pytest.raises(UserError, match="holds features of other clips"):
        extract(fake_biaudio, folder, make_parts(), splits=["train"])


def test_a_clip_that_cannot_be_decoded_is_named(fake_biaudio, parts, tmp_path):
    (tmp_path / "set").mkdir()
    path = next((fake_biaudio / "data").glob("train-*.parquet"))
    rows = pq.read_table(path).to_pylist()
    rows[1]["video"]["bytes"] = rows[1]["video"]["bytes"][:300]
    import pyarrow as pa

    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(path)), tmp_path / "set" / "train-0.parquet")
    with pytest.raises(UserError, match="clip fake-001 cannot be decoded") as caught:
        extract(tmp_path / "set", tmp_path / "out", parts)
    assert "\n" not in str(caught.value)


def test_features_that_are_not_finite_are_named(fake_biaudio, tmp_path):
    loud = make_parts()
    with torch.no_grad():
        loud.synchformer.spatial_attn_agg.linear2.bias.fill_(1e5)  # beyond float16
    with pytest.raises(UserError, match="the sync features of fake-00. are not finite"):
        extract(fake_biaudio, tmp_path, loud)
    with torch.no_grad():
        loud.clip.model.visual.ln_post.bias.fill_(torch.nan)
    with pytest.raises(UserError, match="not finite"):
        extract(fake_biaudio, tmp_path / "other", loud)


def test_a_full_disk_keeps_what_was_written(fake_biaudio, parts, tmp_path, folder):
    flush, flushed = os.fsync, []

    def full(number: int) -> None:  # from the second shard on; a limit on files would hit the decoder's too
        flushed.append(number)
        if len(flushed) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="written .No space left on device.: .*the same command goes on"):
            extract(fake_biaudio, tmp_path, parts)
    there = shards(tmp_path)
    assert len(there) == 1 and not list(tmp_path.glob(".*.part"))
    assert all(shards(folder)[name] == content for name, content in there.items())
    extract(fake_biaudio, tmp_path, parts)
    assert shards(tmp_path) == shards(folder)


# -------------------- processes

SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from small_parts import make_parts
from visaudio.data import features

workers, slow = int(sys.argv[3]), float(sys.argv[4])
if slow:
    import time
    encode = features.Parts.stored_batch
    def slowly(self, *batch):
        time.sleep(slow)
        return encode(self, *batch)
    features.Parts.stored_batch = slowly
if __name__ == "__main__":
    done = features.extract_features(sys.argv[1], Path(sys.argv[2]), make_parts(), workers=workers)
    print("encoded", done.clips, flush=True)
"""


def environment() -> dict[str, str]:
    # bits are the same at one number of threads
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    return {**os.environ, **threads, "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT)}


def torchrun() -> list[str]:
    """By torchrun: `accelerate launch --cpu --num_processes 2` runs ONE process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"),
        *("--master_addr", "127.0.0.1", "--master_port", str(port)),
    ]


@pytest.fixture
def script(tmp_path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT.format(here=str(Path(__file__).parent)))
    return path


@pytest.mark.slow
def test_two_processes_write_the_files_of_one(folder, fake_biaudio, script, tmp_path):
    output = tmp_path / "two"
    command = [*torchrun(), str(script), str(fake_biaudio), str(output), "0", "0"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("encoded 2") == 2  # of four clips
    assert shards(output) == shards(folder)
    assert json.loads((output / INDEX).read_text()) == json.loads((folder / INDEX).read_text())


@pytest.mark.slow
def test_killed_in_the_middle_and_resumed_equals(folder, fake_biaudio, script, tmp_path, parts, encoded):
    output = tmp_path / "killed"
    command = [sys.executable, str(script), str(fake_biaudio), str(output), "0", "1.0"]
    running = subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while len(list(output.glob("features-*.arrow"))) < 2:
            assert running.poll() is None and time.monotonic() < until
            time.sleep(0.02)
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait()
    there = len(shards(output))
    assert 2 <= there < 4
    with pytest.raises(UserError, match="unfinished"):
        FeatureDataset(output)
    assert all(len(read_shard(path)[0]) == 1 for path in output.glob("features-*.arrow"))
    extract(fake_biaudio, output, parts)
    assert len(encoded) == 4 - there and shards(output) == shards(folder)


def test_the_first_processs_mistake_ends_all_and_is_told_once(monkeypatch):
    import accelerate.utils

    def broadcast(found):
        found[:] = [None, "no room"]

    monkeypatch.setattr(accelerate.utils, "broadcast_object_list", broadcast)
    first, second = (types.SimpleNamespace(num_processes=2, is_main_process=first) for first in (True, False))
    with pytest.raises(UserError, match="no room"):
        features.on_main(first, lambda: 3)
    with pytest.raises(SystemExit) as caught:
        features.on_main(second, lambda: 3)
    assert caught.value.code == 2
