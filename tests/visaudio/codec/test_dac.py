from dataclasses import replace

import pytest
import torch
from micro import micro_preset
from safetensors.torch import load_file

from bi_audio_dataset.schema import UserError
from visaudio import hub
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


@torch.no_grad()
def test_published_weights_serve_continuous_latents(reference, shared_dir):
    """With every dimension kept nothing is lost: the decoder gets the encoder's output, or the same codes."""
    plain, golden = reference
    weights = str(shared_dir / "golden" / "dac_reduced.pth")
    config = DacCodecConfig(weights=weights, latents="continuous", pca_dims=128)
    codec = DacCodec(config)
    # the golden's 16 frames are fewer than its 128 dimensions: noise fills the rest
    noise = 0.3 * torch.randn(4, 1, 512 * 60, generator=torch.Generator().manual_seed(0))
    assert codec.fit_pca([golden["audio"], *noise.split(2)]) == pytest.approx(1.0, abs=1e-6)
    latents = codec.encode(golden["audio"])
    assert latents.shape[-1] == codec.latent_dim == 128
    direct = plain.model.decoder(plain.hidden(golden["audio"]))
    assert (codec.decode(latents) - direct).abs().max() < 1e-4
    assert (codec.codes(latents) != golden["codes"]).float().mean() < 0.01
    again = DacCodec(replace(config, requantise=True))
    again.load_state_dict(codec.state_dict())
    assert {"pca.mean", "pca.basis", "pca.kept"} <= set(codec.state_dict())
    assert (again.decode(latents) - golden["reconstruction"]).abs().max() < 1e-3


@torch.no_grad()
def test_fewer_dimensions_lose_as_much_as_the_fit_says():
    torch.manual_seed(0)
    codec = DacCodec(replace(TINY, latents="continuous", pca_dims=5))
    audio = torch.randn(2, 1, 8 * 200)
    kept = codec.fit_pca(audio.split(1))
    hidden = codec.hidden(audio).mT
    back = codec.pca.decode(codec.encode(audio))
    lost = (back - hidden).square().sum() / (hidden - hidden.mean(dim=(0, 1))).square().sum()
    assert 0 < kept < 1 and float(lost) == pytest.approx(1 - kept, abs=1e-4)
    latents = codec.encode_binaural(torch.randn(1, 2, 100))
    assert latents.shape == (1, 2, 13, 5) and codec.decode_binaural(latents, 100).shape == (1, 2, 100)


def test_continuous_latents_want_a_fit_and_projected_ones_none():
    codec = DacCodec(replace(TINY, latents="continuous", pca_dims=5))
    with pytest.raises(UserError, match="was not fitted"):
        codec.encode(torch.zeros(1, 1, 80))
    with pytest.raises(UserError, match="'continuous'"):
        DacCodec(TINY).fit_pca([torch.zeros(1, 1, 80)])
    with pytest.raises(UserError, match="expected 1 to 16"):
        DacCodec(replace(TINY, latents="continuous"))
    with pytest.raises(UserError, match="'projected' or 'continuous'"):
        replace(TINY, latents="pca")


@torch.no_grad()
def test_a_model_folder_keeps_the_pca(tmp_path):
    codec = DacCodecConfig(
        sample_rate=4000, strides=(8, 16), encoder_width=4, decoder_width=16, num_codebooks=2,
        codebook_size=16, codebook_dim=4, latents="continuous", pca_dims=6,
    )  # fmt: skip
    components = hub.build_components(replace(micro_preset(), codec=codec))
    audio = torch.randn(2, 1, 128 * 40, generator=torch.Generator().manual_seed(0))
    components.codec.fit_pca([audio])
    again = hub.load_pretrained(hub.save_pretrained(tmp_path / "model", components)).codec
    assert again.config == codec
    assert torch.equal(again.encode(audio), components.codec.encode(audio))


def descript_state(config: DacCodecConfig) -> dict[str, torch.Tensor]:
    """Names and shapes of Descript's file of these sizes, from its layers; the tensors have no memory."""
    shapes: dict[str, tuple[int, ...]] = {}

    def convolution(name: str, out: int, given: int, kernel: int, transposed: bool = False) -> None:
        first = given if transposed else out
        shapes[f"{name}.bias"] = (out,)
        shapes[f"{name}.weight_g"] = (first, 1, 1)
        shapes[f"{name}.weight_v"] = (first, out if transposed else given, kernel)

    def unit(name: str, width: int) -> None:
        shapes[f"{name}.block.0.alpha"] = shapes[f"{name}.block.2.alpha"] = (1, width, 1)
        convolution(f"{name}.block.1", width, width, 7)
        convolution(f"{name}.block.3", width, width, 1)

    width, hidden, last = config.encoder_width, config.hidden_dim, len(config.strides) + 1
    convolution("encoder.block.0", width, 1, 7)
    for place, stride in enumerate(config.strides, 1):
        for number in range(3):
            unit(f"encoder.block.{place}.block.{number}", width)
        shapes[f"encoder.block.{place}.block.3.alpha"] = (1, width, 1)
        convolution(f"encoder.block.{place}.block.4", 2 * width, width, 2 * stride)
        width *= 2
    shapes[f"encoder.block.{last}.alpha"] = (1, width, 1)
    convolution(f"encoder.block.{last + 1}", hidden, width, 3)
    for book in range(config.num_codebooks):
        stem = f"quantizer.quantizers.{book}"
        convolution(f"{stem}.in_proj", config.codebook_dim, hidden, 1)
        convolution(f"{stem}.out_proj", hidden, config.codebook_dim, 1)
        shapes[f"{stem}.codebook.weight"] = (config.codebook_size, config.codebook_dim)
    width = config.decoder_width
    convolution("decoder.model.0", width, hidden, 7)
    for place, stride in enumerate(reversed(config.strides), 1):
        shapes[f"decoder.model.{place}.block.0.alpha"] = (1, width, 1)
        convolution(f"decoder.model.{place}.block.1", width // 2, width, 2 * stride, transposed=True)
        width //= 2
        for number in range(2, 5):
            unit(f"decoder.model.{place}.block.{number}", width)
    shapes[f"decoder.model.{last}.alpha"] = (1, width, 1)
    convolution(f"decoder.model.{last + 1}", 1, width, 7)
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def shapes_of(state) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}


def test_descripts_names_are_those_of_its_file(reference, shared_dir):
    state = torch.load(shared_dir / "golden" / "dac_reduced.pth", weights_only=True)["state_dict"]
    assert shapes_of(descript_state(reference[0].config)) == shapes_of(state)


def test_full_size_names_and_shapes():
    """descript/dac_44khz and weights_44khz_8kbps on the meta device: every tensor has its place."""
    from transformers import DacConfig, DacModel

    with torch.device("meta"):
        ours = DacCodec().model
        # its config.json differs from transformers' defaults in the rate alone
        hub = DacModel(DacConfig(sampling_rate=44100))
    assert shapes_of(ours.state_dict()) == shapes_of(hub.state_dict())
    assert DacCodecConfig().hidden_dim == hub.config.hidden_size == 1024
    assert DacCodecConfig().latent_hop == hub.config.hop_length == 512
    theirs = merge_weight_norm(descript_state(DacCodecConfig()))
    renamed = {rename_descript(name, 4): value for name, value in theirs.items()}
    assert len(renamed) == len(theirs) and shapes_of(renamed) == shapes_of(ours.state_dict())
    assert sum(p.numel() for p in ours.parameters()) == pytest.approx(76.6e6, rel=0.005)


def test_a_dac_of_the_hub_is_fetched_as_two_files_of_one_commit(tmp_path, monkeypatch):
    commit, asked = "0123456789" * 4, []
    folder = tmp_path / "snapshots" / commit
    codec = DacCodec(TINY)
    codec.model.save_pretrained(folder)

    def fetch_file(repository, path, revision=None, *, what):
        asked.append((repository, path, revision))
        return folder / path

    monkeypatch.setattr("visaudio.hub_access.fetch_file", fetch_file)
    loaded = DacCodec(DacCodecConfig(weights="ann/dac"))
    assert asked == [("ann/dac", "config.json", None), ("ann/dac", "model.safetensors", commit)]
    assert replace(loaded.config, weights=None) == TINY
    audio = torch.randn(1, 1, 100)
    assert torch.equal(loaded.encode(audio), codec.encode(audio))


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
    with pytest.raises(UserError, match="cannot load a DAC") as caught:
        DacCodec(DacCodecConfig(weights=str(tmp_path)))
    assert str(caught.value).endswith(".): give a folder of transformers' or Descript's .pth that you have")
    with pytest.raises(UserError, match="nowhere' .there is no such folder.: give a folder"):
        DacCodec(DacCodecConfig(weights="nowhere"))
