from dataclasses import replace

import numpy as np
import pytest
import torch

from bi_audio_dataset.schema import UserError
from visaudio.codec.dac import DacCodec, DacCodecConfig
from visaudio.codec.mmaudio import MMAudioCodecConfig
from visaudio.codec.spectral import SpectralCodecConfig
from visaudio.training.codec_stage import CodecStageConfig, CropSampler, train_codec
from visaudio.training.interaural import LOW_BAND_HZ, frames_of, ild_db, interaural_errors, itd_s

RATE = 22050
SMALL = SpectralCodecConfig(
    latent_dim=32, encoder_width=16, encoder_blocks=1, decoder_width=16, decoder_blocks=1
)


def delayed(itd_s_: float, ild_db_: float, low_hz: float = 0, high_hz: float = 9000) -> torch.Tensor:
    """Band-limited noise (1, 2, S); the right ear comes itd_s_ later and ild_db_ softer."""
    rng = np.random.default_rng(0)
    spectrum = np.fft.rfft(rng.standard_normal(RATE))
    frequency = np.fft.rfftfreq(RATE, 1 / RATE)
    spectrum[(frequency < low_hz) | (frequency > high_hz)] = 0
    right = np.fft.irfft(spectrum * np.exp(-2j * np.pi * frequency * itd_s_)) * 10 ** (-ild_db_ / 20)
    return torch.from_numpy(np.stack([np.fft.irfft(spectrum), right]))[None].float()


@pytest.mark.parametrize("itd_us", [-600, -130, 0, 45, 700])
def test_itd_of_a_delay_is_that_delay(itd_us):
    frames = frames_of(delayed(itd_us * 1e-6, 0), RATE)
    for band in (None, LOW_BAND_HZ):
        assert float(itd_s(frames, RATE, band).median()) * 1e6 == pytest.approx(itd_us, abs=10)


def test_positive_ild_is_a_louder_left_ear():
    assert ild_db(frames_of(delayed(0, 6.0), RATE)).mean() == pytest.approx(6.0, abs=0.05)


def test_errors_are_differences_to_the_truth():
    errors = interaural_errors(delayed(3e-4, 2.0), delayed(1e-4, 5.0), RATE)
    assert errors["ild_error_db"] == pytest.approx(3.0, abs=0.1)
    assert errors["itd_gcc_error_us"] == pytest.approx(200, abs=10)
    assert errors["itd_phase_error_us"] == pytest.approx(200, abs=10)


def sampler(audio, **changes) -> CropSampler:
    return CropSampler(audio, RATE, replace(CodecStageConfig(), batch_size=8, **changes), multiple=512)


def test_crops_depend_on_the_step_alone():
    audio = (np.random.default_rng(0).standard_normal((2, 2, 2 * RATE)) * 3000).astype(np.int16)
    a, b = sampler(audio), sampler(audio)
    a.batch(0)
    assert torch.equal(a.batch(5), b.batch(5)) and not torch.equal(
        a.batch(5)[..., :100], a.batch(6)[..., :100]
    )


def test_active_crops_hold_sound_and_lengths_are_whole_frames():
    audio = np.zeros((3, 2, 8 * RATE), dtype=np.int16)
    audio[1, 1, 6 * RATE : 6 * RATE + 2000] = 3000  # one short sound in one ear of one clip
    for step in range(4):
        batch = sampler(audio, active_share=1.0).batch(step)
        assert batch.shape[-1] % 512 == 0 and 0.95 <= batch.shape[-1] / RATE <= 1.5
        assert (batch.abs().amax(dim=(1, 2)) > 0).all()


def test_gain_stays_in_its_range_and_never_clips():
    audio = np.full((1, 2, 2 * RATE), 16384, dtype=np.int16)
    peaks = torch.cat([sampler(audio).batch(step).abs().amax(dim=(1, 2)) for step in range(8)])
    assert peaks.max() <= 1.0 and peaks.min() >= 0.5 * 10 ** (-18 / 20) - 1e-3
    assert peaks.max() > 0.7 and peaks.min() < 0.15


def test_stage_writes_weights_that_it_reads_again(fake_biaudio, tmp_path):
    config = replace(
        CodecStageConfig(), batch_size=2, crop_s=(0.3, 0.4), validation_clips=1,
        loop=replace(CodecStageConfig().loop, steps=2, warmup_steps=1),
    )  # fmt: skip
    arguments = (fake_biaudio, SMALL, config, tmp_path / "codec")
    codec, figures = train_codec(*arguments, duration_s=2.0, workers=1, progress=False)
    assert figures["mel_distance"] > 0 and figures["ild_error_db"] >= 0
    again, same = train_codec(*arguments, duration_s=2.0, workers=1, progress=False)
    assert same == figures
    audio = torch.randn(1, 1, 2048, generator=torch.Generator().manual_seed(0))
    assert torch.equal(codec.encode(audio), again.encode(audio))


DAC = DacCodecConfig(
    sample_rate=RATE, strides=(8, 8), encoder_width=4, decoder_width=16, num_codebooks=2, codebook_size=16,
    codebook_dim=4, pca_dims=6,
)  # fmt: skip
TWO_STEPS = replace(
    CodecStageConfig(), batch_size=2, crop_s=(0.2, 0.2), validation_clips=1,
    loop=replace(CodecStageConfig().loop, steps=2, warmup_steps=1, precision="fp32"),
)  # fmt: skip


def stage(dataset, codec, output, cache=None):
    return train_codec(dataset, codec, TWO_STEPS, output, cache, duration_s=1.0, workers=1, progress=False)


@pytest.fixture(scope="module")
def trained_dac(fake_biaudio, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dac")
    return folder, *stage(fake_biaudio, DAC, folder / "codec")


def test_a_dac_trains_and_is_read_again(trained_dac, fake_biaudio):
    folder, codec, figures = trained_dac
    assert isinstance(codec, DacCodec) and figures["mel_distance"] > 0
    again, same = stage(fake_biaudio, DAC, folder / "codec")
    audio = torch.randn(1, 1, 2048, generator=torch.Generator().manual_seed(0))
    assert same == figures and torch.equal(codec.encode(audio), again.encode(audio))


def test_continuous_latents_are_those_of_the_same_dac_with_a_pca(trained_dac, fake_biaudio):
    folder, plain, _ = trained_dac
    config = replace(DAC, latents="continuous")
    codec, figures = stage(fake_biaudio, config, folder / "continuous", folder / "cache")
    assert 0 < figures["pca_variance_kept"] < 1 and figures["mel_distance"] > 0
    audio = torch.randn(1, 1, 2048, generator=torch.Generator().manual_seed(0))
    hidden = plain.hidden(audio).detach()
    assert torch.equal(codec.hidden(audio), hidden)  # one training, whatever the latents are
    assert torch.allclose(codec.encode(audio), codec.pca.encode(hidden.mT))


def test_published_weights_get_a_pca_and_stay_what_they_are(trained_dac, fake_biaudio, tmp_path):
    folder, plain, _ = trained_dac
    plain.model.save_pretrained(tmp_path / "published")
    config = replace(DAC, latents="continuous", weights=str(tmp_path / "published"))
    codec, figures = stage(fake_biaudio, config, tmp_path / "codec", folder / "cache")
    audio = torch.randn(1, 1, 2048, generator=torch.Generator().manual_seed(0))
    assert torch.equal(codec.hidden(audio), plain.hidden(audio)) and figures["pca_variance_kept"] > 0


def test_no_stage_trains_mmaudios_codec(tmp_path):
    with pytest.raises(UserError, match="MMAudioCodecConfig"):
        train_codec("nowhere", MMAudioCodecConfig(), TWO_STEPS, tmp_path)
