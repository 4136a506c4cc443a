import pytest
import torch
from torch import Tensor

from visaudio.codec.base import Codec, num_frames, pad_to_frames, trim


class FrameCopy(Codec):
    """Latents are the samples themselves: every length and ear error shows."""

    sample_rate, latent_hop, latent_dim = 100, 8, 8

    def encode(self, audio: Tensor) -> Tensor:
        return pad_to_frames(audio, 8).unflatten(-1, (-1, 8))[:, 0]

    def decode(self, latents: Tensor, num_samples: int | None = None) -> Tensor:
        return trim(latents.flatten(1)[:, None], num_samples)


@pytest.mark.parametrize(("samples", "frames"), [(1, 1), (511, 1), (512, 1), (513, 2), (176400, 345)])
def test_frames_are_rounded_up(samples, frames):
    assert num_frames(samples, 512) == frames


@pytest.mark.parametrize("samples", [1, 7, 8, 9, 100])
def test_binaural_round_trip_keeps_ears_apart(samples):
    audio = torch.randn(3, 2, samples)
    codec = FrameCopy()
    latents = codec.encode_binaural(audio)
    assert latents.shape == (3, 2, num_frames(samples, 8), 8)
    assert torch.equal(codec.decode_binaural(latents, samples), audio)
    assert torch.equal(latents[:, 1], codec.encode(audio[:, 1:]))


def test_wrong_shapes_and_lengths_are_named():
    codec = FrameCopy()
    with pytest.raises(ValueError, match=r"\(batch, 2, samples\), got \(1, 1, 8\)"):
        codec.encode_binaural(torch.zeros(1, 1, 8))
    with pytest.raises(ValueError, match="got 17"):
        codec.decode(torch.zeros(1, 2, 8), 17)
    with pytest.raises(ValueError, match="at least 1 sample"):
        codec.encode(torch.zeros(1, 1, 0))
