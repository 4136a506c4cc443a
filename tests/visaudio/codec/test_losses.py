import math

import pytest
import torch

from visaudio.codec.losses import (
    LevelReadout,
    add_latent_noise,
    complex_loss,
    mel_filters,
    reconstruction_losses,
    spectral_codec_loss,
    stft,
)
from visaudio.codec.spectral import SpectralCodec, SpectralCodecConfig

RATE = 22050


SIZES = {"encoder_width": 32, "encoder_blocks": 1, "decoder_width": 32, "decoder_blocks": 1}
SMALL = SpectralCodecConfig(n_fft=256, hop=64, latent_dim=8, phase_slots=2, **SIZES)


@pytest.fixture
def audio() -> torch.Tensor:
    return 0.1 * torch.randn(2, 1, 8000, generator=torch.Generator().manual_seed(0))


def tone(hz: float, phase: float = 0.0) -> torch.Tensor:
    return 0.5 * torch.sin(2 * math.pi * hz * torch.arange(11025) / RATE + phase)[None, None]


def test_all_terms_are_zero_at_identity(audio):
    parts = reconstruction_losses(audio, audio, RATE)
    assert set(parts) == {"mel", "magnitude", "complex", "level", "frame"}
    assert all(abs(value.item()) < 1e-6 for value in parts.values())


def test_gain_of_6_db_is_read_as_6_db(audio):
    parts = reconstruction_losses(2 * audio, audio, RATE)
    assert parts["mel"].item() == pytest.approx(math.log(2), rel=0.01)
    assert parts["magnitude"].item() == pytest.approx(1.0, rel=0.01)
    assert parts["level"].item() == pytest.approx(2 * math.log10(2), rel=0.01)
    assert parts["frame"].item() == pytest.approx(2 * math.log10(2), rel=0.01)


def test_a_late_copy_costs_phase_below_the_cutoff_only():
    low = reconstruction_losses(tone(500, phase=1.0), tone(500), RATE)
    high = reconstruction_losses(tone(5000, phase=1.0), tone(5000), RATE)
    assert low["complex"] > 10 * high["complex"]
    assert low["complex"] > 5 * low["magnitude"]


def test_complex_loss_of_a_tone_is_the_chord_of_its_phase_error():
    chord = []
    for phase in (0.1, 0.2, 0.4):
        estimate, target = stft(tone(500, phase)[0], 1024), stft(tone(500)[0], 1024)
        chord.append(complex_loss(estimate[..., :70], target[..., :70]).item() / (2 * math.sin(phase / 2)))
    assert max(chord) / min(chord) < 1.02


def test_silence_is_finite_with_finite_gradients(audio):
    estimate = torch.zeros_like(audio, requires_grad=True)
    loss = sum(reconstruction_losses(estimate, torch.zeros_like(audio), RATE).values())
    loss = loss + sum(reconstruction_losses(estimate, audio, RATE).values())
    loss.backward()
    assert estimate.grad.isfinite().all()


@pytest.mark.parametrize(("n_fft", "bands"), [(256, 32), (2048, 100)])
def test_mel_bands_are_all_filled_and_rise(n_fft, bands):
    filters = mel_filters(RATE, n_fft, bands)
    assert torch.allclose(filters.sum(dim=0), torch.ones(bands), atol=1e-5)
    centres = (filters * torch.arange(len(filters))[:, None]).sum(dim=0)
    assert (centres.diff() >= 0).all()


def test_latent_noise_is_relative_to_each_dimension():
    latents = torch.randn(64, 100, 2, generator=torch.Generator().manual_seed(1)) * torch.tensor([1.0, 50.0])
    noise = add_latent_noise(latents, 0.15, torch.Generator().manual_seed(2)) - latents
    assert noise.std(dim=(0, 1)).tolist() == pytest.approx([0.15, 7.5], rel=0.03)


def test_readout_asks_for_each_latent_frames_levels(audio):
    codec = SpectralCodec(SMALL)
    readout = LevelReadout(codec.latent_dim, bands=6)
    quiet, loud = (readout.targets(codec, gain * audio[..., :7936]) for gain in (1.0, 10.0))
    assert quiet.shape == (2, 7936 // codec.latent_hop, 7) == readout(codec.encode(audio[..., :7936])).shape
    assert torch.allclose(loud - quiet, torch.full_like(quiet, 2.0), atol=0.02)  # 20 dB, in units of 10


def test_readout_makes_latents_say_levels(audio):
    torch.manual_seed(0)
    codec = SpectralCodec(SMALL)
    readout = LevelReadout(codec.latent_dim, bands=6)
    optimizer = torch.optim.Adam([*codec.parameters(), *readout.parameters()], 5e-3)
    found = []
    for step in range(40):
        generator = torch.Generator().manual_seed(step)
        loss, parts = spectral_codec_loss(codec, audio[..., :7936], generator, readout=readout)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(parts["readout"].item())
    assert found[-1] < 0.5 * found[0]


def test_codec_loss_is_deterministic_per_seed_and_falls_in_a_few_steps(audio):
    torch.manual_seed(0)
    codec = SpectralCodec(SMALL)
    first, parts = spectral_codec_loss(codec, audio, torch.Generator().manual_seed(3))
    again, _ = spectral_codec_loss(codec, audio, torch.Generator().manual_seed(3))
    other, _ = spectral_codec_loss(codec, audio, torch.Generator().manual_seed(4))
    assert first.item() == again.item() != other.item()
    assert "kl" in parts and not any(value.requires_grad for value in parts.values())
    optimizer = torch.optim.Adam(codec.parameters(), 5e-3)
    for step in range(15):
        loss, _ = spectral_codec_loss(codec, audio, torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.9 * first.item()
