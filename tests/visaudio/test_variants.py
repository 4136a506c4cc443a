"""MMAudio's public weights as a model: small random files of the same names and forms."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_mmaudio import SMALL, mmaudios_names, write_files

from bi_audio_dataset.schema import UserError
from visaudio import variants
from visaudio.model.network import DualBranchNetwork
from visaudio.pipeline import ViSAudioPipeline


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("weights"))


def test_both_ears_get_one_sound(files):
    components = variants.load_variant(SMALL, files)
    assert components.preset.network.token_dim == 6 and components.preset.sequence.frames_per_token == 1
    assert components.info.licence == "cc-by-nc-4.0" and "same sound" in components.info.limits
    frames = np.random.default_rng(0).integers(0, 256, (25, 48, 80, 3), np.uint8)
    sound = ViSAudioPipeline(components)(frames, prompt="a dog barks", num_inference_steps=2, fps=25.0)
    assert sound.audio.shape == (2, 44100)
    assert np.abs(sound.audio).max() > 1e-3
    np.testing.assert_allclose(sound.audio[0], sound.audio[1], atol=1e-5)


def test_prompts_are_taken_as_they_are(files, monkeypatch):
    from visaudio.sampling import encode_prompts

    components, asked = variants.load_variant(SMALL, files), []
    encode = components.clip.encode_text
    monkeypatch.setattr(components.clip, "encode_text", lambda texts: asked.extend(texts) or encode(texts))
    encode_prompts(components, [" a dog barks ", None])
    assert asked == ["a dog barks"]


def test_a_variant_becomes_a_model_folder_and_comes_back(files, tmp_path):
    components = variants.load_variant(SMALL, files)
    ViSAudioPipeline(components).save_pretrained(tmp_path / "model")
    again = ViSAudioPipeline.from_pretrained(tmp_path / "model", device="cpu").components
    assert again.info == components.info and again.sampling == components.sampling
    assert json.loads((tmp_path / "model/config.json").read_text())["info"]["licence"] == "cc-by-nc-4.0"
    name = "vae.encoder.conv_in.weight"
    assert torch.equal(again.codec.state_dict()[name], components.codec.state_dict()[name])


def test_what_does_not_fit_is_one_line(files, tmp_path):
    with pytest.raises(UserError, match="unknown variant 'mmaudio-huge'; choose one of mmaudio-small-44k"):
        variants.load_variant("mmaudio-huge")
    with pytest.raises(UserError, match="unknown part 'ears' .* network, codec, vocoder, clip, synchformer"):
        variants.load_variant(SMALL, {**files, "ears": "x.pth"})
    with pytest.raises(UserError, match="no weights of the network of mmaudio-small-test at nowhere.pth"):
        variants.load_variant(SMALL, {k: v for k, v in files.items() if k != "network"})
    other = DualBranchNetwork(replace(SMALL.preset.network, hidden_dim=64))
    torch.save(mmaudios_names(other), tmp_path / "other.pth")
    with pytest.raises(UserError, match="other.pth: this MMAudio checkpoint does not fit"):
        variants.load_variant(SMALL, {**files, "network": tmp_path / "other.pth"})
    state = torch.load(files["network"])
    del state["clip_cond_proj.weight"]
    torch.save(state, tmp_path / "lacking.pth")
    with pytest.raises(UserError, match="lacks clip_cond_proj.weight"):
        variants.load_variant(SMALL, {**files, "network": tmp_path / "lacking.pth"})


def test_offline_it_says_which_file_is_wanted(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="large_44k_v2.*not in the local cache.*give the path"):
        ViSAudioPipeline.from_pretrained("mmaudio-large-44k-v2")
    with pytest.raises(UserError, match="files of several repositories: revision, cache_dir and"):
        ViSAudioPipeline.from_pretrained("mmaudio-large-44k-v2", local_files_only=True)


@pytest.mark.parametrize("upstream", ["small_44k", "medium_44k", "large_44k", "large_44k_v2"])
def test_no_trunk_tensor_of_a_public_checkpoint_is_new_or_ignored(shared_dir, upstream):
    """Names and shapes of all four, on the meta device."""
    from visaudio.model.warm_start import load_mmaudio_state_dict

    listing = json.loads((shared_dir / "golden" / "upstream_state_dicts.json").read_text())[upstream]
    variant = variants.VARIANTS["mmaudio-" + upstream.replace("_", "-")]
    with torch.device("meta"):
        network = DualBranchNetwork(variant.preset.network)
        report = load_mmaudio_state_dict(network, {k: torch.empty(v) for k, v in listing.items()})
    assert report.ignored == ()
    assert all(name.startswith(variants.SILENT_WHEN_NEW) for name in report.new)
    assert all(name.startswith("fused_blocks.") for name in report.duplicated) and report.duplicated


def test_presets_start_from_the_same_trunks(shared_dir):
    """With DAC's latents only what reads and writes them is new."""
    from visaudio.model.warm_start import load_mmaudio_state_dict
    from visaudio.presets import get_preset

    listing = json.loads((shared_dir / "golden" / "upstream_state_dicts.json").read_text())
    for preset, upstream in (("small", "small_44k"), ("medium", "medium_44k"), ("large", "large_44k_v2")):
        with torch.device("meta"):
            network = DualBranchNetwork(get_preset(preset).network)
            state = {k: torch.empty(v) for k, v in listing[upstream].items()}
            report = load_mmaudio_state_dict(network, state)
        own = ("audio_input_proj.0.weight", "final_layer.conv.weight", "final_layer.conv.bias")
        statistics = ("latent_mean", "latent_std")
        assert set(report.ignored) == {*own, *statistics}
        news = {name for name in report.new if not name.startswith(variants.SILENT_WHEN_NEW)}
        assert news == {*own, *statistics}


def test_a_variants_tokens_are_mmaudios():
    preset = variants.VARIANTS["mmaudio-small-44k"].preset
    assert preset.sequence.num_tokens == 345 and preset.network.token_dim == 40
    assert preset.synchformer.resize == "crop" and preset.clip.input_size == 384


def test_by_the_command_line(files, tmp_path, monkeypatch, capsys):
    from micro import write_clip

    from visaudio.cli import sample

    monkeypatch.setitem(variants.VARIANTS, SMALL.name, SMALL)
    write_clip(tmp_path / "x.mp4", 0.4)
    arguments = ["--video", str(tmp_path / "x.mp4"), "--variant", SMALL.name, "--num_steps", "1"]
    for part, path in files.items():
        arguments += ["--weights", f"{part}={path}"]
    assert sample.main(arguments) == 0
    assert (tmp_path / "x.binaural.flac").exists() and (tmp_path / "x.binaural.mp4").exists()
    assert "both ears get the same sound" in capsys.readouterr().err
    with pytest.raises(SystemExit) as left:
        sample.main([*arguments, "--weights", "network"])
    assert left.value.code == 2 and "expected PART=FILE, got 'network'" in capsys.readouterr().err
