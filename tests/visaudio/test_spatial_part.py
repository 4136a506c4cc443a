"""A model whose spatial grid comes from a Perception Encoder: features, sampling, folders, training."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from micro import micro_preset, moving_square

from bi_audio_dataset import media
from bi_audio_dataset.schema import UserError
from visaudio import hub
from visaudio.config import from_dict, to_dict
from visaudio.data.features import Parts
from visaudio.encoders.perception import PerceptionConfig
from visaudio.pipeline import ViSAudioPipeline
from visaudio.presets import Preset, load_preset, spatial_sizes
from visaudio.sampling import encode_conditions
from visaudio.training.full_run import FullRun
from visaudio.training.parts import published
from visaudio.training.recipe import TrainConfig

PE = PerceptionConfig(
    "vit_pe_spatial_tiny_patch16_512",
    None,
    grid_rows=2,
    grid_columns=4,
    image_size=48,
    patch_size=8,
    width=24,
    depth=1,
    heads=2,
)


def preset() -> Preset:
    micro = micro_preset()
    return replace(micro, spatial=PE, network=replace(micro.network, **spatial_sizes(micro.clip, PE)))


@pytest.fixture(scope="module")
def components() -> hub.Components:
    torch.manual_seed(0)
    made = hub.build_components(preset())
    with torch.no_grad():
        for parameter in made.network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return made


@pytest.fixture
def video(tmp_path):
    data = media.encode_video_bytes(moving_square(25, 56, 36), 25)  # small: decoded as it is
    (tmp_path / "v.mp4").write_bytes(data)
    return data


def test_the_grid_is_the_perception_encoders_in_features_and_in_sampling(components, video, tmp_path):
    media.write_audio(tmp_path / "a.flac", np.zeros((2, 44100)), 44100)
    row = {
        "schema_version": 1, "id": "a", "split": "train", "caption": "", "duration_s": 1.0, "hfov_deg": 90.0,
        "width": 56, "height": 36, "hrir_symmetric": True, "truth": {"rate_hz": 25.0, "sources": []},
        "video": {"bytes": video}, "audio": {"bytes": (tmp_path / "a.flac").read_bytes()},
    }  # fmt: skip
    sequence = components.preset.sequence
    frames = media.read_frames(tmp_path / "v.mp4", np.arange(sequence.num_clip_frames) / sequence.clip_fps)
    pictures = components.spatial.prepare(frames)[None]
    straight = components.spatial.encode_grid(pictures)[0]
    flipped = components.spatial.encode_grid(pictures.flip(-1))[0]
    parts = Parts(
        components.codec, components.clip, components.synchformer, sequence, spatial=components.spatial
    )
    trained = parts.encode(row)
    (found,) = encode_conditions(components, tmp_path / "v.mp4")
    assert straight.shape == (sequence.num_clip_frames, 8, 24) and straight.std() > 0.1
    assert (found.spatial_features[0] - straight).abs().max() < 1e-5
    assert (trained["grid"].float() - straight).abs().max() < 2e-3
    assert (trained["grid_mirror"].float() - flipped).abs().max() < 2e-3
    assert (straight - flipped).abs().max() > 0.05
    without = Parts(components.codec, components.clip, components.synchformer, sequence)
    assert torch.equal(without.encode(row)["clip"], trained["clip"])


def test_the_spatial_part_lives_in_the_model_folder(components, tmp_path):
    pipe = ViSAudioPipeline(components)
    folder = pipe.save_pretrained(tmp_path / "model")
    assert (folder / "spatial.safetensors").is_file()
    again = ViSAudioPipeline.from_pretrained(folder, device="cpu")
    assert again.components.preset == components.preset

    def sound(pipe):
        return pipe(
            moving_square(25), fps=25.0, num_inference_steps=2, generator=torch.Generator().manual_seed(0)
        )

    assert np.array_equal(sound(pipe).audio, sound(again).audio)
    # the part may be replaced like any other, and is heard
    other = hub.build_components(preset())
    other_folder = hub.save_pretrained(tmp_path / "other", other)
    changed = ViSAudioPipeline.from_pretrained(folder, overrides={"spatial": other_folder}, device="cpu")
    assert not np.array_equal(sound(pipe).audio, sound(changed).audio)
    (folder / "spatial.safetensors").unlink()
    with pytest.raises(UserError, match="lacks spatial.safetensors, so it is no whole model"):
        hub.load_pretrained(folder)


def test_models_of_earlier_versions_have_none(tmp_path):
    values = json.loads(json.dumps(to_dict(micro_preset())))
    assert values.pop("spatial") is None
    assert from_dict(Preset, values) == micro_preset()
    assert hub.parts_of(micro_preset()) == hub.PARTS and hub.parts_of(preset()) == (*hub.PARTS, "spatial")


def test_the_networks_spatial_sizes_follow_or_are_held_against_it():
    made = load_preset("small", ["spatial.model_name=vit_pe_spatial_base_patch16_512", "spatial.grid_rows=3"])
    assert (made.network.spatial_dim, made.network.spatial_rows, made.network.spatial_columns) == (768, 3, 8)
    assert published(made)["spatial"].endswith("timm/vit_pe_spatial_base_patch16_512.fb:model.safetensors")
    with pytest.raises(UserError, match="network.spatial_dim is 5, but that of spatial is 1024"):
        load_preset("small", ["spatial.resize=squash", "network.spatial_dim=5"])
    with pytest.raises(ValueError, match="spatial_columns is 2, but spatial.grid_columns is 4"):
        replace(micro_preset(), spatial=PE, network=replace(micro_preset().network, spatial_rows=2))


def test_a_training_exports_the_spatial_part_that_it_was_given(components, tmp_path, monkeypatch):
    torch.save(components.spatial.model.state_dict(), tmp_path / "pe.pt")
    model = replace(preset(), spatial=replace(PE, weights=str(tmp_path / "pe.pt")))
    run = FullRun(TrainConfig(output=str(tmp_path / "run"), model=model))
    trained = (components.codec, components.clip, components.synchformer)
    monkeypatch.setattr(FullRun, "parts", lambda _: trained)
    monkeypatch.setattr(FullRun, "network", lambda _: components.network)
    monkeypatch.setattr(FullRun, "info", lambda _: hub.ModelInfo())
    run.export(run.root / "export")
    (tmp_path / "pe.pt").unlink()  # the folder stands alone
    loaded = hub.load_pretrained(run.model_folder)
    assert loaded.preset.spatial == PE
    theirs = loaded.spatial.model.state_dict()
    for name, value in components.spatial.model.state_dict().items():
        assert torch.allclose(theirs[name], value, atol=1e-3), name
