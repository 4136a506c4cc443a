import pytest
import torch
from fakes import FakeNetwork, FakeSamples
from torch.utils.tensorboard import SummaryWriter

from visaudio.training.validation import FlowValidation, ValidationConfig, ild_figures

RATE = 8000


def _panned(ild_db: list[float], frame_s: float = 0.1) -> torch.Tensor:
    """(1, 2, S): noise whose ILD in consecutive frames is as given."""
    noise = torch.randn(len(ild_db), round(frame_s * RATE), generator=torch.Generator().manual_seed(0))
    gain = 10 ** (torch.tensor(ild_db) / 40)
    ears = [(noise * g[:, None] * 0.1).reshape(-1) for g in (gain, 1 / gain)]
    return torch.stack(ears)[None]


def test_ild_figures_of_known_panning():
    truth = _panned([-10, -5, 0, 5, 10])
    same = ild_figures(truth, truth, RATE)
    assert same["ild_r"] == pytest.approx(1.0) and same["side"] == 1.0
    swapped = ild_figures(truth.flip(1), truth, RATE)
    assert swapped["ild_r"] == pytest.approx(-1.0, abs=1e-4) and swapped["side"] == 0.0
    half = ild_figures(_panned([-5, -2.5, 0, 2.5, 5]), truth, RATE)
    assert half["ild_r"] == pytest.approx(1.0, abs=1e-4)
    assert half["ild_error_db"] == pytest.approx(3.0, abs=0.01)
    louder = ild_figures(2 * truth, truth, RATE)
    assert louder["level_error_db"] == pytest.approx(6.02, abs=0.01)


def test_mono_and_silence_have_no_right_side():
    truth = _panned([-10, 10, 8])
    assert ild_figures(truth.mean(1, keepdim=True).expand(1, 2, -1), truth, RATE)["side"] == 0.0
    assert ild_figures(torch.zeros_like(truth), truth, RATE)["side"] == 0.0


class _Knowing(FakeNetwork):
    """Knows the latents (they are the sync features), so its velocity is exact: (x_1 - x_t) / (1 - t)."""

    def forward(self, latents, t, conditions):
        sync = conditions.sync_features
        x_1 = self.normalize(torch.stack([sync, -sync], dim=1))
        t = t[:, None, None, None]
        return (x_1 - latents) / (1 - t)


def test_losses_are_zero_for_the_exact_velocity_and_repeat(tmp_path):
    validation = FlowValidation(FakeSamples(20), ValidationConfig(loss_clips=20, time_bins=4), seed=0)
    assert validation.losses(_Knowing())["loss"] == pytest.approx(0.0, abs=1e-8)
    network = FakeNetwork().requires_grad_(False)
    first, second = validation.losses(network), validation.losses(network)
    assert first == second
    assert set(first) == {"loss", "loss_t0.1", "loss_t0.4", "loss_t0.6", "loss_t0.9"}
    assert first["loss"] == pytest.approx(sum(first[k] for k in first if k != "loss") / 4)


def test_sampling_gets_the_clips_conditions_and_a_fixed_noise(tmp_path):
    samples, seen = FakeSamples(4), []

    def sampler(network, conditions, noise):
        seen.append(noise)
        assert torch.equal(conditions.sync_features[1], samples.rows[1]["sync"])
        return _panned([-10, 4, 10]).repeat(2, 1, 1)

    validation = FlowValidation(
        samples,
        ValidationConfig(loss_clips=2, audio_clips=2),
        seed=0,
        sampler=sampler,
        decoder=lambda tokens: _panned([-10, 4, 10]).repeat(len(tokens), 1, 1),
        sample_rate=RATE,
    )
    with SummaryWriter(str(tmp_path)) as writer:
        network = FakeNetwork().train()
        figures = validation(network, 1, writer)
        validation(network, 2, writer)
    assert network.training
    assert figures["ild_r"] == pytest.approx(1.0) and figures["side"] == 1.0
    assert torch.equal(seen[0], seen[1]) and seen[0].shape == (2, 2, 6, 4)
