"""MMAudio's codec against what its own networks gave, and on random weights where those are absent."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from bi_audio_dataset.schema import UserError
from visaudio.codec.bigvgan import BigVgan, BigVganConfig, current_names
from visaudio.codec.mel_vae import MelVae, MelVaeConfig
from visaudio.codec.mmaudio import LogMel, MMAudioCodec, MMAudioCodecConfig, read_vocoder_config

SMALL = MMAudioCodecConfig(
    vae=MelVaeConfig(width=8, latent_dim=5),
    vocoder=BigVganConfig(width=64, block_kernels=(3,), dilations=((1,),)),
)


def part(tensors, prefix):
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


@pytest.fixture(scope="module")
def vae_golden(shared_dir):
    return load_file(shared_dir / "golden" / "mmaudio_vae44k_reduced.safetensors")


@pytest.fixture(scope="module")
def vocoder_golden(shared_dir):
    return load_file(shared_dir / "golden" / "bigvgan_v2_reduced.safetensors")


def test_mel_equals_mmaudios(vae_golden):
    mel = LogMel(44100, 2048, 512, 128)(vae_golden["wav"])
    assert mel.shape == vae_golden["mel"].shape
    assert (mel - vae_golden["mel"]).abs().max() < 1e-4


@torch.no_grad()
def test_latents_and_mel_equal_mmaudios(vae_golden):
    vae = MelVae(MelVaeConfig(width=32)).eval()
    vae.load_state_dict(part(vae_golden, "vae."))
    mean, std = vae.encode(vae_golden["mel"])
    assert (mean - vae_golden["latent_mean"]).abs().max() < 1e-4
    assert (std - vae_golden["latent_std"]).abs().max() < 1e-4
    assert (vae.decode(vae_golden["latent_mean"]) - vae_golden["decoded_mel"]).abs().max() < 1e-4


@torch.no_grad()
def test_sound_equals_bigvgans(shared_dir, vocoder_golden):
    config = read_vocoder_config(shared_dir / "golden" / "bigvgan_v2_reduced.json")
    vocoder = BigVgan(config)
    vocoder.load_state_dict(part(vocoder_golden, "bigvgan."))
    audio = vocoder(vocoder_golden["mel"])
    assert audio.shape[-1] == vocoder_golden["mel"].shape[-1] * config.hop
    loudest = vocoder_golden["audio"].abs().max()
    assert (audio - vocoder_golden["audio"]).abs().max() < 1e-4 * loudest


def test_filters_are_those_of_the_checkpoints(vocoder_golden):
    """They stand in the files; random weights have the same."""
    ours = BigVgan(SMALL.vocoder).state_dict()["activation_post.upsample.filter"]
    assert (ours - vocoder_golden["bigvgan.activation_post.upsample.filter"]).abs().max() < 1e-7


def test_the_full_checkpoints_names_and_shapes(shared_dir):
    listing = json.loads((shared_dir / "golden" / "upstream_state_dicts.json").read_text())
    with torch.device("meta"):
        ours = {"mmaudio_vae_44k": MelVae(), "bigvgan_v2_44khz_128band_512x": BigVgan()}
    for name, module in ours.items():
        assert {k: list(v.shape) for k, v in module.state_dict().items()} == listing[name]


def test_public_files_give_the_codec(shared_dir, vae_golden, vocoder_golden, tmp_path):
    """The VAE as MMAudio stores it; BigVGAN as NVIDIA does: under `generator`, with the older names."""
    torch.save(part(vae_golden, "vae."), tmp_path / "vae.pth")
    old = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): value
        for name, value in part(vocoder_golden, "bigvgan.").items()
    }
    assert any(name.endswith("weight_g") for name in old)
    assert current_names(old).keys() == part(vocoder_golden, "bigvgan.").keys()
    torch.save({"generator": old}, tmp_path / "bigvgan.pt")
    codec = MMAudioCodec(
        MMAudioCodecConfig(
            weights=str(tmp_path / "vae.pth"),
            vocoder_weights=str(tmp_path / "bigvgan.pt"),
            vae=MelVaeConfig(width=32),
            vocoder=read_vocoder_config(shared_dir / "golden" / "bigvgan_v2_reduced.json"),
        )
    )
    with torch.no_grad():
        latents = codec.encode(vae_golden["wav"][:, None])
        assert (latents.mT - vae_golden["latent_mean"]).abs().max() < 1e-4
        straight = codec.vocoder(vae_golden["decoded_mel"])
        assert (codec.decode(latents) - straight).abs().max() < 1e-4


def test_safetensors_of_its_own_too(tmp_path):
    codec = MMAudioCodec(SMALL)
    save_file(codec.vae.state_dict(), tmp_path / "vae.safetensors")
    again = MMAudioCodec(
        MMAudioCodecConfig(str(tmp_path / "vae.safetensors"), vae=SMALL.vae, vocoder=SMALL.vocoder)
    )
    weight = "encoder.conv_in.weight"
    assert torch.equal(again.vae.state_dict()[weight], codec.vae.state_dict()[weight])


@torch.no_grad()
@pytest.mark.parametrize("samples", [1, 700, 1024, 1025, 5000])
def test_any_length_comes_back_to_the_sample(samples):
    codec = MMAudioCodec(SMALL)
    latents = codec.encode_binaural(0.1 * torch.randn(1, 2, samples))
    assert latents.shape == (1, 2, -(-samples // 1024), 5)
    audio = codec.decode_binaural(latents, samples)
    assert audio.shape == (1, 2, samples) and torch.isfinite(audio).all()


@torch.no_grad()
def test_ears_do_not_mix():
    codec = MMAudioCodec(SMALL)
    audio = 0.1 * torch.randn(1, 2, 4096)
    latents = codec.encode_binaural(audio)
    assert torch.allclose(latents[:, 1], codec.encode(audio[:, 1:]), atol=1e-5)
    assert torch.allclose(codec.decode_binaural(latents)[:, :1], codec.decode(latents[:, 0]), atol=1e-5)


def test_what_does_not_fit_is_named(tmp_path):
    with pytest.raises(UserError, match="must be equal"):
        MMAudioCodecConfig(vocoder=BigVganConfig(rates=(8, 4, 2, 2, 2)))
    torch.save(MelVae(MelVaeConfig(width=16)).state_dict(), tmp_path / "other.pth")
    with pytest.raises(UserError, match="not the weights of this mel VAE: .* other shapes"):
        MMAudioCodec(
            MMAudioCodecConfig(str(tmp_path / "other.pth"), vae=MelVaeConfig(width=8), vocoder=SMALL.vocoder)
        )
    (tmp_path / "config.json").write_text('{"resblock": "2"}')
    with pytest.raises(UserError, match="resblock is '2', this reads v2's '1' alone"):
        read_vocoder_config(tmp_path / "config.json")
    with pytest.raises(ValueError, match="latents of shape"):
        MMAudioCodec(SMALL).decode(torch.zeros(1, 4, 3))
