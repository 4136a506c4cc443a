from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from bi_audio_dataset.schema import UserError
from visaudio.codec.dac import DacCodec, DacCodecConfig, merge_weight_norm, rename_descript

TINY = DacCodecConfig(
    strides=(2, 4), encoder_width=4, decoder_width=16, num_codebooks=3, codebook_size=16, codebook_dim=4
)


@pytest.fixture(scope="module")
def reference(shared_dir):
    """Descript's own reduced network and what it gave."""
    codec = DacCodec(DacCodecConfig(weights=str(shared_dir / "golden" / "dac_reduced.pth")))
    return codec, load_file(shared_dir / "golden" / "dac_reduced_io.safetensors")


@torch.no_grad()
def test_latents_and_codes_equal_descripts(reference):
    codec, golden = reference
    assert (codec.latent_hop, codec.latent_dim, codec.sample_rate) == (512, 72, 44100)
    latents = codec.encode(golden["audio"])
    assert (latents.mT - golden["projected_latents"]).abs().max() < 1e-4
    codes = codec.codes(latents)
    for book, frame in (codes != golden["codes"]).any(dim=0).nonzero().tolist():
        quantizer = codec.model.quantizer.quantizers[book]
        part = latents[:, frame, book * 8 : book * 8 + 8]
        table = torch.nn.functional.normalize(quantizer.codebook.weight)
        distance = torch.cdist(torch.nn.functional.normalize(part), table)
        ours, theirs = (distance.gather(1, c[:, book, frame, None]) for c in (codes, golden["codes"]))
        assert (ours - theirs).abs().max() < 1e-5, "codes may differ only at ties"


@torch.no_grad()
def test_reconstructions_equal_descripts(reference):
    codec, golden = reference
    decoded = codec.decode(golden["projected_latents"].mT)
    assert (decoded - golden["reconstruction_from_latents"]).abs().max() < 1e-4
    round_trip = codec.decode(codec.encode(golden["audio"]))
    assert (round_trip - golden["reconstruction"]).abs().max() < 1e-4


@torch.no_grad()
def test_decoding_rounds_a_small_error_away(reference):
    codec, golden = reference
    latents = golden["projected_latents"].mT
    noisy = latents + 1e-4 * torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    same = (codec.codes(noisy) == codec.codes(latents)).float().mean()
    assert same > 0.99


@torch.no_grad()
@pytest.mark.parametrize("samples", [1, 7, 8, 9, 1001])
def test_any_length_comes_back_to_the_sample(samples):
    codec = DacCodec(TINY)
    latents = codec.encode_binaural(torch.randn(1, 2, samples))
    assert latents.shape == (1, 2, -(-samples // 8), 12)
    assert codec.decode_binaural(latents, samples).shape == (1, 2, samples)


@torch.no_grad()
def test_encoding_agrees_with_transformers_own():
    codec = DacCodec(TINY).train()  # stays in evaluation mode: no codebook is dropped
    audio = torch.randn(2, 1, 800)
    own = codec.model.encode(audio)
    assert torch.allclose(codec.encode(audio).mT, own.projected_latents, atol=1e-5)
    assert torch.equal(codec.codes(codec.encode(audio)), own.audio_codes)
    expected = codec.model.decode(own.quantized_representation).audio_values
    assert torch.allclose(codec.decode(codec.encode(audio))[:, 0], expected, atol=1e-5)


@torch.no_grad()
def test_transformers_folder_loads_with_its_own_sizes(tmp_path):
    codec = DacCodec(TINY)
    codec.model.save_pretrained(tmp_path)
    loaded = DacCodec(DacCodecConfig(weights=str(tmp_path)))
    assert replace(loaded.config, weights=None) == TINY
    audio = torch.randn(1, 1, 100)
    assert torch.equal(loaded.encode(audio), codec.encode(audio))


def test_weight_norm_in_both_spellings():
    layer = torch.nn.utils.parametrizations.weight_norm(torch.nn.ConvTranspose1d(3, 2, 4))
    state = layer.state_dict()
    old = {
        "weight_g": state["parametrizations.weight.original0"],
        "weight_v": state["parametrizations.weight.original1"],
        "bias": state["bias"],
    }
    for spelling in (state, old):
        merged = merge_weight_norm(spelling)
        assert set(merged) == {"weight", "bias"}
        assert torch.allclose(merged["weight"], layer.weight, atol=1e-6)


@pytest.mark.parametrize(
    ("descript", "ours"),
    [
        ("encoder.block.0.weight", "encoder.conv1.weight"),
        ("encoder.block.2.block.1.block.3.bias", "encoder.block.1.res_unit2.conv2.bias"),
        ("encoder.block.4.block.4.weight", "encoder.block.3.conv1.weight"),
        ("encoder.block.5.alpha", "encoder.snake1.alpha"),
        ("decoder.model.1.block.1.weight", "decoder.block.0.conv_t1.weight"),
        ("decoder.model.4.block.4.block.0.alpha", "decoder.block.3.res_unit3.snake1.alpha"),
        ("decoder.model.6.bias", "decoder.conv2.bias"),
        ("quantizer.quantizers.3.codebook.weight", "quantizer.quantizers.3.codebook.weight"),
    ],
)
def test_descript_names(descript, ours):
    assert rename_descript(descript, num_strides=4) == ours


def test_bad_weights_are_one_clear_error(tmp_path):
    with pytest.raises(UserError, match="no weights of DAC at"):
        DacCodec(DacCodecConfig(weights=str(tmp_path / "none.pth")))
    (tmp_path / "text.pth").write_text("not a checkpoint")
    with pytest.raises(UserError, match="text.pth: cannot be read as weights of DAC"):
        DacCodec(DacCodecConfig(weights=str(tmp_path / "text.pth")))
    torch.save({"state_dict": {}}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="other.pth: is no Descript .pth with state_dict and metadata"):
        DacCodec(DacCodecConfig(weights=str(tmp_path / "other.pth")))
    with pytest.raises(UserError, match="even"):
        DacCodecConfig(strides=(2, 5))
    with pytest.raises(UserError, match="cannot load a DAC"):
        DacCodec(DacCodecConfig(weights=str(tmp_path)))
