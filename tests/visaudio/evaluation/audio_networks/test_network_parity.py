"""Our audio networks against the public packages: the same names and shapes, the same numbers.

reference_outputs.json is what the packages gave for the same weights and sounds (reference_outputs.py).
"""

import json
from pathlib import Path

import pytest
import torch
from small_audio_networks import cnn14, passt, sounds, vggish

from visaudio.evaluation.audio_networks.cnn14 import PUBLISHED, Cnn14
from visaudio.evaluation.audio_networks.passt import Passt
from visaudio.evaluation.audio_networks.vggish import Vggish

REFERENCE = json.loads(Path(__file__).with_name("reference_outputs.json").read_text())
FULL = {
    "cnn14_16k": lambda: Cnn14(PUBLISHED[257]),
    "cnn14_32k": lambda: Cnn14(PUBLISHED[513]),
    "vggish": Vggish,
    "passt": Passt,
}


def expected(network: str, what: str, like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(REFERENCE[network][what]).reshape(like.shape)


def close(got: torch.Tensor, network: str, what: str) -> None:
    torch.testing.assert_close(got, expected(network, what, got), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", FULL)
def test_names_and_shapes_are_the_published_ones(name):
    with torch.device("meta"):
        state = FULL[name]().state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == REFERENCE["shapes"][name]


@pytest.mark.parametrize("rate", [16_000, 32_000])
@torch.inference_mode()
def test_cnn14(rate):
    name, network, audio = f"cnn14_{rate // 1000}k", cnn14(rate), sounds(1.3, rate)
    mel = network.logmel_extractor(network.spectrogram_extractor(audio))
    close(mel[0, ::25, ::9], name, "mel")  # dB
    output = network(audio)
    close(output.embeddings[:, 0], name, "embeddings")
    close(output.logits.sigmoid(), name, "probabilities")
    assert output.embeddings.std() > 0.05 and output.logits.std() > 0.05  # something to be right about


@torch.inference_mode()
def test_vggish():
    network, audio = vggish(), sounds(2.5, 16_000)
    mel = network.log_mel(audio)[0, :192].reshape(2, 96, 64)
    close(mel[:, ::19, ::9], "vggish", "mel")
    output = network(audio)
    close(output.embeddings, "vggish", "embeddings")
    assert output.logits is None and output.embeddings.std() > 0.05


@torch.inference_mode()
def test_passt():
    network, audio = passt(), sounds(8.0, 32_000)
    close(network.log_mel(network.windows(audio)[:, 0])[0, ::13, ::97], "passt", "mel")
    output = network(audio)
    close(output.embeddings[:, 0], "passt", "embeddings")
    close(output.logits, "passt", "logits")
    assert output.logits.std() > 0.05


@torch.inference_mode()
def test_a_longer_sound_is_read_in_windows_that_cover_it():
    network = passt(window_s=1.0)
    ramp = torch.arange(80_000.0)[None]
    windows = network.windows(ramp)[0]
    assert windows[:, 0].tolist() == [0, 24_000, 48_000] and windows[-1, -1] == 79_999
    one, two = sounds(1.0, 32_000)[:1], sounds(2.0, 32_000)[:1]
    halves = torch.cat([network(two[:, :32_000]).embeddings, network(two[:, 32_000:]).embeddings])
    torch.testing.assert_close(network(two).embeddings[0], halves.mean(dim=0), rtol=1e-4, atol=1e-5)
    assert network.windows(one).shape[1] == 1


@pytest.mark.parametrize(("make", "seconds"), [(cnn14, 0.31), (vggish, 0.975), (passt, 10.0)])
@torch.inference_mode()
def test_a_short_sound_is_one_with_silence_after_it(make, seconds):
    network = make()
    short = sounds(0.1, network.sample_rate)
    silence = torch.zeros(2, round(seconds * network.sample_rate) - short.shape[1])
    for got, whole in zip(network(short), network(torch.cat([short, silence], dim=1)), strict=True):
        assert got is whole is None or torch.equal(got, whole)


def test_embeddings_for_each_0_96_s():
    network = vggish()
    with torch.inference_mode():
        counts = [network(sounds(s, 16_000)).embeddings.shape[1] for s in (0.2, 1.93, 1.935, 8.0)]
    assert counts == [1, 1, 2, 8]  # an example's last frame ends 15 ms after its 0.96 s
