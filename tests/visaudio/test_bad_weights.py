"""A file of weights that is another model's, cut short, or holds code: one line for each, nothing run."""

import pickle
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from small_mmaudio import SMALL, mmaudios_names

from bi_audio_dataset.schema import UserError
from visaudio.codec.bigvgan import BigVgan
from visaudio.codec.dac import DacCodec, DacCodecConfig
from visaudio.codec.mel_vae import MelVae
from visaudio.codec.mmaudio import MMAudioCodec
from visaudio.encoders.clip import ClipEncoder
from visaudio.encoders.perception import PerceptionConfig, PerceptionEncoder
from visaudio.encoders.synchformer import SynchformerEncoder
from visaudio.model.network import DualBranchNetwork
from visaudio.training.initial import initialise

DAC = DacCodecConfig(
    strides=(2, 4), encoder_width=4, decoder_width=16, num_codebooks=2, codebook_size=8, codebook_dim=4
)
PE = PerceptionConfig(
    "vit_pe_spatial_tiny_patch16_512", None, image_size=32, patch_size=8, width=16, depth=1, heads=2
)
DESCRIPT = {
    "encoder_dim": 4,
    "encoder_rates": [2, 4],
    "decoder_dim": 16,
    "decoder_rates": [4, 2],
    "n_codebooks": 2,
    "codebook_size": 8,
    "codebook_dim": 4,
    "sample_rate": 44100,
}


def load_network(file: str, folder) -> None:
    initialise(DualBranchNetwork(SMALL.preset.network), file, folder)


# part -> (its tensors in a public file's names, what loads that file)
PARTS = {
    "clip": (
        lambda: ClipEncoder(SMALL.clip).model.state_dict(),
        lambda file, _: ClipEncoder(replace(SMALL.clip, weights=file)),
    ),
    "synchformer": (
        lambda: {
            f"vfeat_extractor.{name}": value
            for name, value in SynchformerEncoder(SMALL.synchformer).state_dict().items()
        },
        lambda file, _: SynchformerEncoder(replace(SMALL.synchformer, weights=file)),
    ),
    "spatial": (
        lambda: PerceptionEncoder(PE).model.state_dict(),
        lambda file, _: PerceptionEncoder(replace(PE, weights=file)),
    ),
    "codec (VAE)": (
        lambda: MelVae(SMALL.codec.vae).state_dict(),
        lambda file, _: MMAudioCodec(replace(SMALL.codec, weights=file)),
    ),
    "codec (vocoder)": (
        lambda: BigVgan(SMALL.codec.vocoder).state_dict(),
        lambda file, _: MMAudioCodec(replace(SMALL.codec, vocoder_weights=file)),
    ),
    "codec (DAC)": (
        lambda: DacCodec(DAC).model.state_dict(),
        lambda file, _: DacCodec(replace(DAC, weights=file)),
    ),
    "network": (lambda: mmaudios_names(DualBranchNetwork(SMALL.preset.network)), load_network),
}


def public_form(part: str, state) -> dict:
    return {"state_dict": state, "metadata": {"kwargs": DESCRIPT}} if "DAC" in part else dict(state)


def refusal(part: str, file, folder) -> str:
    """What loading says, which must be one line and name the file."""
    with pytest.raises(UserError) as caught:
        PARTS[part][1](str(file), folder)
    said = str(caught.value)
    assert "\n" not in said and file.name in said and len(said) < 700
    return said


@pytest.fixture(params=PARTS)
def part(request):
    return request.param


def test_the_same_way_loads_what_is_whole(part, tmp_path):
    """So that a refusal below is of the file, not of the way it was asked for."""
    torch.manual_seed(0)
    file = tmp_path / "whole.pth"
    torch.save(public_form(part, PARTS[part][0]()), file)
    PARTS[part][1](str(file), tmp_path)


def test_another_models_checkpoint(part, tmp_path):
    other = next(name for name in PARTS if name != part)
    file = tmp_path / "other.pth"
    torch.save(public_form(part, PARTS[other][0]()), file)
    expected = "is no MMAudio network" if part == "network" else "not the weights of"
    assert expected in refusal(part, file, tmp_path)


def test_a_checkpoint_of_another_size(part, tmp_path):
    state = PARTS[part][0]()
    name = next(n for n, value in state.items() if value.ndim > 1 and min(value.shape) > 1)
    file = tmp_path / "wide.pth"
    torch.save(public_form(part, {**state, name: torch.cat([state[name]] * 2)}), file)
    assert "other shapes" in (said := refusal(part, file, tmp_path)) or "does not fit" in said


def test_a_cut_file(part, tmp_path):
    whole, file = tmp_path / "whole.pth", tmp_path / "cut.pth"
    torch.save(public_form(part, PARTS[part][0]()), whole)
    file.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert "is it damaged, cut short" in refusal(part, file, tmp_path)


class Code:
    def __init__(self, proof) -> None:
        self.proof = str(proof)

    def __reduce__(self):
        return open, (self.proof, "w")


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_code_in_a_pickle_is_not_run(part, form, tmp_path):
    proof, file = tmp_path / "it-ran", tmp_path / "code.pth"
    content = public_form(part, {**PARTS[part][0](), "extra": Code(proof)})
    if form == "pickle":
        file.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, file)
    said = refusal(part, file, tmp_path)
    assert "cannot be read as weights of" in said and "it holds more than tensors (code that" in said
    assert "PyTorch" not in said and not proof.exists()
    pickle.loads(pickle.dumps(Code(proof))).close()  # it is code: a plain pickle does run it
    assert proof.exists()


def test_a_dac_of_transformers_that_is_cut_or_another_models(tmp_path):
    codec = DacCodec(DAC)
    codec.model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cannot load a DAC from") as caught:
        DacCodec(DacCodecConfig(weights=str(tmp_path)))
    assert "\n" not in str(caught.value)
    save_file({"other.weight": torch.ones(2)}, file, {"format": "pt"})
    with pytest.raises(UserError, match="not the weights of a DAC: missing"):
        DacCodec(DacCodecConfig(weights=str(tmp_path)))
    file.unlink()
    torch.save(codec.model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot load a DAC from"):  # safetensors alone
        DacCodec(DacCodecConfig(weights=str(tmp_path)))
