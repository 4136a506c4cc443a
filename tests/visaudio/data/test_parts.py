import dataclasses

import pytest
import torch
from small_parts import make_parts

from visaudio.codec.spectral import SpectralCodec
from visaudio.data.dataset import open_dataset, read_clip
from visaudio.data.parts import digest
from visaudio.encoders.grid import pool_grid


def rows(fake_biaudio):
    return {row["id"]: row for row in open_dataset(fake_biaudio)}


def test_a_batch_is_each_clip_alone(fake_biaudio, parts):
    two = list(rows(fake_biaudio).values())[:2]
    decoded = [parts.decoder(row) for row in two]
    batch = parts.encode_batch(
        {name: torch.stack([one[name] for one in decoded]) for name in decoded[0]},
        [row["caption"] for row in two],
    )
    for index, row in enumerate(two):
        alone = parts.encode(row)
        assert alone.keys() == batch.keys()
        for name, value in alone.items():
            assert torch.allclose(batch[name][index].float(), value.float(), atol=2e-3), name
    assert not torch.allclose(batch["grid"][0], batch["grid"][1], atol=0.05)


def test_bfloat16_features_are_those_of_float32_within_a_per_cent(fake_biaudio, parts):
    row = open_dataset(fake_biaudio)[0]
    plain = dataclasses.replace(parts, bf16=False).encode(row)
    half = dataclasses.replace(parts, bf16=True).encode(row)
    assert torch.equal(half["latents"], plain["latents"])
    for name in ("clip", "grid", "sync", "sync_mirror"):
        apart = (half[name].float() - plain[name].float()).norm() / plain[name].float().norm()
        assert 0 < apart < 0.02, name


def test_the_mirror_is_of_flipped_frames(fake_biaudio, parts):
    row = open_dataset(fake_biaudio)[0]
    found = parts.encode(row)
    frames = parts.decoder(row)["clip"][None]
    with torch.no_grad():
        _, flipped = parts.clip.encode_images(frames.flip(-1))
    assert torch.allclose(found["grid_mirror"], flipped[0], atol=1e-5)
    assert not torch.allclose(found["grid"], flipped[0], atol=0.05)


def test_a_spatial_encoder_takes_the_grids_place(fake_biaudio, parts):
    class Colours(torch.nn.Module):
        """The picture's own colours in 1 x 2 cells."""

        image_size = 20
        config = dataclasses.make_dataclass("Config", [("resize", str, "squash")])()

        def encode_grid(self, frames):
            return pool_grid(frames.float().permute(0, 1, 3, 4, 2), 1, 2)

    row = open_dataset(fake_biaudio, ["train"])[0]  # a red square on the left
    found = dataclasses.replace(parts, spatial=Colours()).encode(row)
    assert found["grid"].shape == (16, 2, 3)
    left, right = found["grid"][0]
    assert left[0] > right[0] + 1 and torch.allclose(found["grid_mirror"][0, 1], left, atol=0.01)
    assert torch.equal(found["clip"], parts.encode(row)["clip"])


def test_rows_of_real_recordings_have_no_truth(fake_biaudio, parts):
    row = open_dataset(fake_biaudio)[0]
    whole = parts.encode(row)
    for truth in (None, {"rate_hz": 25.0, "sources": []}):
        assert torch.equal(parts.encode({**row, "truth": truth})["sync"], whole["sync"])
    del row["truth"]
    assert read_clip({**row, "hfov_deg": None}).sources == ()


def test_digests_tell_weights_and_settings_apart_but_not_their_precision():
    one, other = make_parts(), make_parts(seed=1)
    assert digest(one.clip) == digest(make_parts().clip)
    assert digest(one.clip) != digest(other.clip)
    changed = make_parts()
    changed.clip.config = dataclasses.replace(changed.clip.config, resize="crop")
    assert digest(changed.clip) != digest(one.clip)
    moved = make_parts()
    moved.clip.config = dataclasses.replace(moved.clip.config, weights="elsewhere.pt", max_batch=3)
    assert digest(moved.clip) == digest(one.clip)
    stored = SpectralCodec(one.codec.config)
    stored.load_state_dict({name: value.half().float() for name, value in one.codec.state_dict().items()})
    assert digest(stored) == digest(one.codec)


def test_what_was_made_from_is_said(parts):
    said = parts.made_from()
    assert said["sequence"]["clip_fps"] == 8.0 and set(said["weights"]) == {"codec", "clip", "synchformer"}
    assert make_parts(clip_fps=4.0).made_from()["sequence"]["clip_fps"] == pytest.approx(4.0)
