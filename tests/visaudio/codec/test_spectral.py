import pytest
import torch

from visaudio.codec.spectral import FrameStft, SpectralCodec, SpectralCodecConfig, phase_code

SIZES = {"encoder_width": 24, "encoder_blocks": 1, "decoder_width": 24, "decoder_blocks": 1}
SMALL = SpectralCodecConfig(n_fft=256, hop=64, latent_dim=8, phase_slots=2, **SIZES)


@pytest.mark.parametrize(("n_fft", "hop"), [(1024, 256), (256, 128), (512, 64)])
def test_inverse_stft_gives_the_samples_back(n_fft, hop):
    stft, audio = FrameStft(n_fft, hop), torch.randn(2, 10 * hop)
    assert (stft.inverse(stft(audio)) - audio).abs().max() < 5e-6


def test_full_scale_sine_has_magnitude_one_in_every_inner_frame():
    time = torch.arange(20 * 256) / 22050
    bin_hz = 22050 / 1024
    spectrum = FrameStft(1024, 256)(torch.sin(2 * torch.pi * 40 * bin_hz * time)[None])
    assert torch.allclose(spectrum[0, 2:-2, 40].abs(), torch.ones(16), atol=1e-4)


def test_frame_is_centred_on_the_middle_of_its_samples():
    audio = torch.zeros(1, 20 * 256)
    audio[0, 10 * 256 + 128] = 1.0
    energy = FrameStft(1024, 256)(audio).abs().square().sum(-1)[0]
    assert energy.argmax() == 10
    assert torch.allclose(energy[8:13], energy[8:13].flip(0), rtol=1e-3)


@pytest.mark.parametrize("samples", [1, 127, 128, 129, 1000, 5000])
def test_any_length_comes_back_to_the_sample(samples):
    codec = SpectralCodec(SMALL)
    latents = codec.encode(torch.randn(2, 1, samples))
    assert latents.shape == (2, -(-samples // 128), 8)
    assert codec.decode(latents, samples).shape == (2, 1, samples)
    assert codec.decode(latents).shape == (2, 1, latents.shape[1] * 128)


def test_default_is_small_enough_to_ship():
    config = SpectralCodecConfig()
    assert config.latent_hop == 512
    assert config.num_phase_bins == 70  # DC and 69 bins of 21.53 Hz up to 1500 Hz
    codec = SpectralCodec(config)
    assert 3.0e6 < sum(p.numel() for p in codec.parameters()) < 3.21e6
    assert codec.encode(torch.zeros(1, 1, 8 * 22050)).shape == (1, 345, 48)


def test_shift_by_one_latent_frame_shifts_the_latents():
    codec = SpectralCodec(SMALL)
    audio = torch.randn(1, 1, 128 * 40)
    later = torch.nn.functional.pad(audio, (128, 0))[..., :-128]
    latents, shifted = codec.encode(audio), codec.encode(later)
    assert (shifted[:, 11:30] - latents[:, 10:29]).abs().max() < 1e-4


@torch.no_grad()
def test_untrained_phase_code_keeps_the_phase_of_two_partials():
    """What the fold is for: partials in different slots come back with their own phases."""
    config = SpectralCodecConfig(**SIZES)
    codec, time = SpectralCodec(config), torch.arange(22050) / 22050
    audio = 0.3 * torch.sin(2 * torch.pi * 440 * time + 1.0) + 0.2 * torch.sin(2 * torch.pi * 1130 * time)
    spectrum = codec.stft(audio[None, : 43 * 512])
    low = codec.encoder.features(spectrum)[1].unflatten(1, (-1, 2)).flatten(2)
    code = phase_code(config).T.unflatten(0, (2, 2, 70))  # (r, re/im, bin, D)
    back = torch.einsum("rckd,bfd->bfrkc", code, torch.nn.functional.linear(low, phase_code(config)))
    error = torch.angle(torch.view_as_complex(back.contiguous()).flatten(1, 2) * spectrum[..., :70].conj())
    for hz in (440, 1130):
        assert (
            error[0, 4:-4, round(hz / config.sample_rate * 1024)].abs().max() < 0.5
        )  # of pi; half a bin off is 0.4


def test_gradients_reach_every_parameter():
    codec = SpectralCodec(SMALL)
    mean, logvar = codec.encode_distribution(torch.randn(1, 1, 2000))
    (codec.decode(mean + logvar).square().sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in codec.parameters())


def test_bf16_autocast_leaves_the_waveform_in_float32():
    torch.manual_seed(0)
    codec = SpectralCodec(SMALL)
    audio = 0.1 * torch.randn(1, 1, 2000)
    exact = codec.decode(codec.encode(audio))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = codec.decode(codec.encode(audio))
    assert rounded.dtype == torch.float32
    assert (rounded - exact).norm() < 0.05 * exact.norm()


def test_impossible_configurations_are_refused():
    with pytest.raises(ValueError, match="multiple of hop"):
        SpectralCodecConfig(n_fft=1000, hop=256)
    with pytest.raises(ValueError, match=r"\(batch, frames, 8\), got \(1, 4, 9\)"):
        SpectralCodec(SMALL).decode(torch.zeros(1, 4, 9))
