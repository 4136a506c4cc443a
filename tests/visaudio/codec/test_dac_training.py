from dataclasses import replace

import pytest
import torch

from bi_audio_dataset.schema import UserError
from visaudio.codec.dac import DacCodec, DacCodecConfig
from visaudio.codec.dac_training import (
    DacLossConfig,
    begin,
    dac_codec_loss,
    draw_codebooks,
    quantise_for_training,
    refresh_codebooks,
)

TINY = DacCodecConfig(
    sample_rate=22050, strides=(4, 4), encoder_width=4, decoder_width=16, num_codebooks=3, codebook_size=16,
    codebook_dim=4,
)  # fmt: skip


def audio(batch: int = 3, samples: int = 1600, seed: int = 0) -> torch.Tensor:
    return 0.3 * torch.randn(batch, 1, samples, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def codec() -> DacCodec:
    torch.manual_seed(0)
    codec = DacCodec(TINY)
    begin(codec)
    refresh_codebooks(codec, [audio(seed=9)], 0, everything=True)
    return codec


@torch.no_grad()
def test_with_all_codebooks_the_decoder_gets_what_it_gets_in_use(codec):
    hidden = codec.hidden(audio())
    total, _, _ = quantise_for_training(codec, hidden, torch.full((3,), 3))
    assert torch.allclose(total, codec.quantise(codec.project(hidden)), atol=1e-6)


@torch.no_grad()
def test_a_crop_has_only_its_first_codebooks(codec):
    hidden = codec.hidden(audio())
    total, commitment, codebook = quantise_for_training(codec, hidden, torch.tensor([1, 2, 3]))
    projected = codec.project(hidden)
    parts = projected.mT.split(4, dim=1)
    quantizers = codec.model.quantizer.quantizers
    values = [q.decode_latents(part)[0] for q, part in zip(quantizers, parts, strict=True)]
    assert torch.allclose(total[0], quantizers[0].out_proj(values[0])[0], atol=1e-6)
    two = sum(quantizers[b].out_proj(values[b])[1] for b in (0, 1))
    assert torch.allclose(total[1], two, atol=1e-6)
    errors = [(part - value).square().mean(dim=(1, 2)) for part, value in zip(parts, values, strict=True)]
    expected = (errors[0].sum() + errors[1][1:].sum() + errors[2][2]) / 3
    assert float(commitment) == pytest.approx(float(expected), rel=1e-5)
    assert float(codebook) == pytest.approx(float(expected), rel=1e-5)


@torch.no_grad()
def test_losses_equal_transformers_own_without_dropout(codec):
    own = codec.model.quantizer(codec.hidden(audio()))
    total, commitment, codebook = quantise_for_training(codec, codec.hidden(audio()), torch.full((3,), 3))
    assert torch.allclose(total, own[0], atol=1e-6)
    assert float(commitment) == pytest.approx(float(own[3][0]), rel=1e-5)
    assert float(codebook) == pytest.approx(float(own[4][0]), rel=1e-5)


def test_the_encoder_learns_through_the_rounding_and_codes_from_their_latents(codec):
    loss, parts = dac_codec_loss(codec, audio(), torch.Generator().manual_seed(0))
    loss.backward()
    assert codec.model.encoder.conv1.weight.grad.abs().max() > 0
    assert codec.model.quantizer.quantizers[0].codebook.weight.grad.abs().max() > 0
    assert set(parts) == {"mel", "magnitude", "complex", "level", "frame", "commitment", "codebook"}
    assert not any(value.requires_grad for value in parts.values())


def test_codebooks_are_dropped_as_often_as_asked():
    generator = torch.Generator().manual_seed(0)
    used = draw_codebooks(6000, 3, 0.6, generator)
    assert set(used.tolist()) == {1, 2, 3}
    assert float((used == 1).float().mean()) == pytest.approx(0.2, abs=0.02)
    assert (draw_codebooks(50, 3, 0.0, generator) == 3).all()


@torch.no_grad()
def test_only_codes_without_use_move(codec):
    batch = audio(seed=4)
    quantizers = codec.model.quantizer.quantizers
    quantizers[0].codebook.weight[5] = -quantizers[0].codebook.weight.mean(dim=0)  # points away from all
    before = quantizers[0].codebook.weight.clone()
    used = codec.codes(codec.encode(batch))[:, 0].unique()
    moved = refresh_codebooks(codec, [batch], seed=1)
    after = quantizers[0].codebook.weight
    assert torch.equal(before[used], after[used]) and moved > 0
    idle = torch.tensor([code for code in range(16) if code not in set(used.tolist())])
    assert (before[idle] != after[idle]).any(dim=1).all()
    # lengths agree, so that no code sets the level by itself
    assert torch.allclose(after[idle].norm(dim=1), before.norm(dim=1).mean().expand(len(idle)), rtol=1e-5)


def test_training_brings_the_loss_down(codec):
    batch = audio(samples=2048)
    optimizer = torch.optim.AdamW(codec.parameters(), lr=2e-3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss, _ = dac_codec_loss(codec, batch, config=DacLossConfig(quantizer_dropout=0))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.95 * losses[0]


def test_settings_out_of_range_are_refused():
    with pytest.raises(UserError, match="quantizer_dropout is 1.5"):
        DacLossConfig(quantizer_dropout=1.5)
    with pytest.raises(UserError, match="refresh_every"):
        replace(DacLossConfig(), refresh_every=-1)
