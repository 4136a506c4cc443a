import dataclasses
import json

import numpy as np
import pytest
import torch

from bi_audio_dataset.schema import UserError
from visaudio.codec.spectral import SpectralCodec, SpectralCodecConfig
from visaudio.data import features
from visaudio.data.dataset import open_dataset
from visaudio.data.features import FeatureDataset, Parts, extract_features, latent_statistics
from visaudio.encoders.clip import ClipConfig, ClipEncoder
from visaudio.encoders.synchformer import SynchformerConfig, SynchformerEncoder
from visaudio.precision import use_bf16
from visaudio.sequence import SequenceConfig


@pytest.fixture(scope="module")
def parts() -> Parts:
    torch.manual_seed(0)
    codec = SpectralCodec(SpectralCodecConfig(latent_dim=32, encoder_width=16, decoder_width=16))
    clip = ClipEncoder(
        ClipConfig(
            image_size=32, patch_size=8, width=32, layers=1, embed_dim=16, text_layers=1, grid_columns=4
        )
    )
    sync = SynchformerEncoder(SynchformerConfig(image_size=32, width=16, depth=1, heads=2))
    sequence = SequenceConfig(duration_s=2.0, sample_rate=22050)
    return Parts(codec.eval(), clip.eval(), sync.eval(), sequence)


def extract(dataset, output, parts, **more):
    settings = {"workers": 1, "progress": False, **more}
    return extract_features(
        dataset, output, parts.codec, parts.clip, parts.synchformer, parts.sequence, **settings
    )


@pytest.fixture(scope="module")
def folder(fake_biaudio, tmp_path_factory, parts):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "SHARD_CLIPS", 2)
        yield extract(fake_biaudio, tmp_path_factory.mktemp("features"), parts)


def test_features_are_those_of_the_parts(folder, fake_biaudio, parts):
    data = FeatureDataset(folder, "train")
    assert sorted(data.ids) == ["fake-000", "fake-001", "fake-002"]
    rows = {row["id"]: row for row in open_dataset(fake_biaudio)}
    one = data.get(1)
    truth = dataclasses.replace(parts, bf16=use_bf16("auto")).encode(rows[one["id"]])
    for name in ("latents", "clip", "grid", "sync"):
        assert torch.equal(one[name], truth[name]), name
    text = parts.clip.encode_text([rows[one["id"]]["caption"]])[0]
    assert torch.allclose(one["text"].float(), text, atol=2e-3)
    assert one["hfov_rad"] == pytest.approx(np.pi / 2)
    assert data.hrir_symmetric == [rows[name]["hrir_symmetric"] for name in data.ids]


def test_bfloat16_features_are_those_of_float32_within_a_per_cent(fake_biaudio, parts):
    row = open_dataset(fake_biaudio)[0]
    plain = dataclasses.replace(parts, bf16=False).encode(row)
    half = dataclasses.replace(parts, bf16=True).encode(row)
    assert torch.equal(half["latents"], plain["latents"])
    for name in ("clip", "grid", "sync", "sync_mirror"):
        apart = (half[name].float() - plain[name].float()).norm() / plain[name].float().norm()
        assert 0 < apart < 0.02, name


def test_lengths_follow_the_sequence(folder, parts):
    one, sequence = FeatureDataset(folder).get(0), parts.sequence
    assert one["latents"].shape == (2, sequence.num_frames, 32)
    assert one["clip"].shape == (sequence.num_clip_frames, 16)
    assert one["grid"].shape == (sequence.num_clip_frames, 2 * 4, 32)
    assert one["sync"].shape == (sequence.num_sync_tokens, 16)


def test_mirror_is_vision_of_flipped_frames(folder, parts, fake_biaudio):
    data = FeatureDataset(folder)
    plain, mirrored = data.get(0), data.get(0, mirror=True)
    assert torch.equal(plain["latents"], mirrored["latents"])
    assert not torch.equal(plain["grid"], mirrored["grid"])
    row = {row["id"]: row for row in open_dataset(fake_biaudio)}[data.ids[0]]
    frames = features.read_clip(row, times_s=np.arange(16) / 8).frames
    with torch.no_grad():
        flipped = parts.clip.prepare(np.ascontiguousarray(frames[:, :, ::-1]))
        _, grid = parts.clip.encode_images(flipped[None])
    # resizing before or after the flip differs by the rounding of a byte
    assert (mirrored["grid"].float() - grid[0]).abs().mean() < 0.02
    assert (plain["grid"].float() - grid[0]).abs().mean() > 0.05


def test_preloaded_equals_memory_mapped(folder):
    mapped, loaded = FeatureDataset(folder), FeatureDataset(folder, preload=True)
    one, other = mapped.get(2, True), loaded.get(2, True)
    for name in ("latents", "clip", "grid", "sync", "text"):
        assert torch.equal(one[name], other[name]), name


def test_latent_statistics_are_of_the_train_split(folder):
    data = FeatureDataset(folder, "train")
    latents = torch.stack([data.tensor(i, "latents") for i in range(len(data))]).double().flatten(0, 2)
    mean, std = latent_statistics(folder)
    assert torch.allclose(mean.double(), latents.mean(0), atol=1e-5)
    assert torch.allclose(std.double(), latents.std(0, correction=0), rtol=1e-3)


def test_interrupted_extraction_makes_only_what_is_missing(folder, fake_biaudio, parts, monkeypatch):
    shard = sorted(folder.glob("features-*.arrow"))[1]
    before = FeatureDataset(folder, None).get(3)
    shard.unlink()
    index = json.loads((folder / features.INDEX).read_text())
    (folder / features.INDEX).write_text(json.dumps({"key": index["key"]}))
    with pytest.raises(UserError, match="no complete features"):
        FeatureDataset(folder)
    encoded = []
    encode = Parts.encode
    monkeypatch.setattr(Parts, "encode", lambda self, row: encoded.append(row["id"]) or encode(self, row))
    monkeypatch.setattr(features, "SHARD_CLIPS", 2)
    extract(fake_biaudio, folder, parts)
    assert len(encoded) == 2
    assert torch.equal(FeatureDataset(folder, None).get(3)["sync"], before["sync"])
    extract(fake_biaudio, folder, parts)
    assert len(encoded) == 2


def test_shards_open_with_datasets(folder):
    from datasets import Dataset

    table = Dataset.from_file(str(sorted(folder.glob("features-*.arrow"))[0]))
    assert len(table) == 2 and len(table[0]["clip"]) == 16 * 16 * 2


def test_command_line_refuses_in_one_line(tmp_path, capsys):
    assert features.main(["--dataset", str(tmp_path / "no"), "--output", str(tmp_path / "o"),
                          "--weights", str(tmp_path)]) == 2  # fmt: skip
    assert capsys.readouterr().err.count("\n") == 1
