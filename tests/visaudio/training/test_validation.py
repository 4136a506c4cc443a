import math

import numpy as np
import pytest
import torch
from fakes import FakeNetwork, FakeSamples
from torch.utils.tensorboard import SummaryWriter

from bi_audio_dataset.schema import UserError
from visaudio.training.validation import SOUND_METRICS, FlowValidation, ValidationConfig, sound_figures

RATE = 8000


def _panned(ild_db: list[float], frame_s: float = 0.1) -> torch.Tensor:
    """(1, 2, S): noise whose ILD in consecutive frames is as given."""
    noise = torch.randn(len(ild_db), round(frame_s * RATE), generator=torch.Generator().manual_seed(0))
    gain = 10 ** (torch.tensor(ild_db) / 40)
    ears = [(noise * g[:, None] * 0.1).reshape(-1) for g in (gain, 1 / gain)]
    return torch.stack(ears)[None]


def _clicks(times_s: list[float], duration_s: float = 2.0, itd_s: float = 0.0) -> np.ndarray:
    """(1, 2, S) at 22.05 kHz: decaying noise bursts, the left ear first by itd_s."""
    rate, rng = 22050, np.random.default_rng(1)
    burst = rng.standard_normal(rate // 5) * np.exp(-np.arange(rate // 5) / (0.03 * rate))
    mono = 1e-4 * rng.standard_normal(round(duration_s * rate))
    for time_s in times_s:
        start = round(time_s * rate)
        mono[start : start + len(burst)] += 0.3 * burst[: len(mono) - start]
    return np.stack([mono, np.roll(mono, round(itd_s * rate))])[None]


def test_figures_of_known_panning():
    truth = _panned([-10, -5, 0, 5, 10]).numpy()
    same = sound_figures(truth, truth, RATE)
    assert same["ild_r"] == pytest.approx(1.0) and same["side"] == 1.0
    assert same["ild_error_db"] == same["level_error_db"] == same["itd_error_us"] == 0.0
    swapped = sound_figures(truth[:, ::-1], truth, RATE)
    assert swapped["ild_r"] == pytest.approx(-1.0, abs=1e-3) and swapped["side"] == 0.0
    half = sound_figures(_panned([-5, -2.5, 0, 2.5, 5]).numpy(), truth, RATE)
    assert half["ild_r"] == pytest.approx(1.0, abs=0.01)
    assert half["ild_error_db"] == pytest.approx(3.0, abs=0.25)  # frames of 80 ms straddle the steps of 0.1 s
    louder = sound_figures(2 * truth, truth, RATE)
    assert louder["level_error_db"] == pytest.approx(6.02, abs=0.01)


def test_mono_and_silence_have_no_right_side():
    truth = _panned([-10, 10, 8]).numpy()
    mono = truth.mean(1, keepdims=True).repeat(2, axis=1)
    assert sound_figures(mono, truth, RATE)["side"] == 0.0
    silent = sound_figures(0 * truth, truth, RATE)
    assert silent["side"] == 0.0 and math.isnan(silent["ild_r"])
    nothing = sound_figures(truth, 0 * truth, RATE)
    assert all(math.isnan(value) for value in nothing.values()) and set(nothing) == set(SOUND_METRICS)


def test_arrival_times_and_onsets_are_heard():
    truth = _clicks([0.3, 0.9, 1.5], itd_s=0.0)
    late = sound_figures(_clicks([0.3, 0.9, 1.5], itd_s=0.0005), truth, 22050)
    assert late["itd_error_us"] == pytest.approx(round(0.0005 * 22050) / 22050 * 1e6, abs=10)
    assert late["onset_f1"] == 1.0
    missed = sound_figures(_clicks([0.3, 0.9]), truth, 22050)
    assert missed["onset_f1"] == pytest.approx(2 * 2 / (2 + 3))


def test_figures_are_pooled_over_clips():
    """Two clips, one of them wrong: half of the sides; r over all frames of both."""
    clips = np.concatenate([_panned([9, 9, 9]), _panned([-9, -9, -9])])
    one_wrong = np.concatenate([_panned([9, 9, 9]), _panned([9, 9, 9])])
    assert sound_figures(one_wrong, clips, RATE)["side"] == 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"best_metric": "fad"},
            "best_metric is 'fad', which this validation does not compute; expected one of",
        ),
        ({"best_metric": "loss_t0.5", "time_bins": 4}, "expected one of loss, loss_t0.1, loss_t0.4"),
        ({"best_metric": "ild_r", "audio_clips": 0}, "'ild_r' is heard in sampled clips: set audio_clips"),
        ({"loss_clips": 0}, "loss_clips is 0"),
        ({"num_steps": 0}, "num_steps is 0"),
        ({"audio_clips": -1}, "audio_clips is -1"),
    ],
)
def test_a_figure_that_is_not_computed_is_refused_before_training(settings, message):
    with pytest.raises(UserError, match=message):
        ValidationConfig(**settings)


def test_every_figure_has_a_direction_and_is_computed():
    config = ValidationConfig(loss_clips=2, audio_clips=2, time_bins=20)
    better_high = {name for name, higher in config.metrics.items() if higher}
    assert better_high == {"ild_r", "side", "onset_f1"}
    assert len(config.bins) == 20  # no two of one name
    truth = _panned([-10, 4, 10]).repeat(2, 1, 1)
    decode = lambda tokens: truth[: len(tokens)]  # noqa: E731
    validation = FlowValidation(FakeSamples(2), config, 0, lambda n, c, x: truth, decode, RATE)
    figures = validation.losses(FakeNetwork().requires_grad_(False))
    figures |= validation.sound(FakeNetwork(), 0, _Mute())
    assert set(figures) == set(config.metrics)


class _Mute:
    def add_audio(self, *_):
        pass


def test_many_clips_are_sampled_a_few_at_a_time_and_the_first_logged():
    sizes, logged = [], []
    truth = _panned([-10, 4, 10])

    def sampler(network, conditions, noise):
        sizes.append(len(noise))
        return truth.repeat(len(noise), 1, 1)

    writer = _Mute()
    writer.add_audio = lambda name, *_: logged.append(name)
    config = ValidationConfig(audio_clips=20)
    FlowValidation(
        FakeSamples(24), config, 0, sampler, lambda tokens: truth.repeat(len(tokens), 1, 1), RATE
    ).sound(FakeNetwork(), 0, writer)
    assert sizes == [16, 4] and len(logged) == 2 * 4


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
