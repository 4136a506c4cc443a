import math

import pytest
import torch
from fakes import FakeSamples

from bi_audio_dataset.schema import UserError
from visaudio.model.network import DualBranchNetwork, NetworkConfig
from visaudio.sequence import SequenceConfig
from visaudio.training.ema import EmaConfig
from visaudio.training.flow_stage import (
    FlowStageConfig,
    TokenSamples,
    export_weights,
    latent_stats,
    train_flow,
)
from visaudio.training.loop import FlowLoopConfig
from visaudio.training.schedule import ScheduleConfig

SEQUENCE = SequenceConfig(duration_s=1.0, sample_rate=512, latent_hop=64, frames_per_token=2)
NETWORK = NetworkConfig(
    token_dim=8,
    clip_dim=5,
    sync_dim=4,
    text_dim=5,
    text_tokens=2,
    spatial_dim=5,
    spatial_rows=1,
    spatial_columns=4,
    spatial_width=8,
    sync_tokens_per_segment=8,
    hidden_dim=16,
    num_heads=2,
    joint_blocks=1,
    branch_blocks=1,
    mlp_multiple_of=8,
    input_kernel=3,
)
CONFIG = FlowStageConfig(
    loop=FlowLoopConfig(
        steps=8,
        batch_size=4,
        precision="fp32",
        schedule=ScheduleConfig(peak=1e-3, warmup_steps=2),
        ema=EmaConfig(snapshots=4),
    )
)


def _samples() -> FakeSamples:
    return FakeSamples(frames=8, dim=4)


def _train(folder, samples=None, config=CONFIG):
    return train_flow(samples or _samples(), None, NETWORK, SEQUENCE, config, folder)


def test_tokens_put_neighbouring_frames_side_by_side():
    samples = _samples()
    tokens = TokenSamples(samples, 2).get(3, mirror=False)["latents"]
    frames = samples.rows[3]["latents"]
    assert tokens.shape == (2, 4, 8)
    assert torch.equal(tokens[1, 2], torch.cat([frames[1, 4], frames[1, 5]]))


def test_latent_stats_are_those_of_all_tokens_of_both_ears():
    samples = TokenSamples(_samples(), 2)
    everything = torch.cat([samples.get(i, False)["latents"].flatten(0, 1) for i in range(12)])
    mean, std, side_std = latent_stats(samples)
    assert torch.allclose(mean, everything.mean(0), atol=1e-6)
    assert torch.allclose(std, everything.std(0, unbiased=False), atol=1e-6)
    ears = torch.stack([samples.get(i, False)["latents"] for i in range(12)])
    apart = (ears[:, 0] - ears[:, 1]) / 2**0.5
    assert torch.allclose(side_std, apart.square().mean(dim=(0, 1)).sqrt(), atol=1e-6)


def test_a_still_dimension_is_not_blown_up():
    samples = _samples()
    for row in samples.rows:
        row["latents"][..., 1] = 0.5
    _, std, _ = latent_stats(TokenSamples(samples, 2))
    assert std[1] == pytest.approx(0.01 * float(std.max()))


def test_the_networks_run_resumes_bit_for_bit_and_exports_the_average(tmp_path):
    _train(tmp_path / "straight")
    _train(tmp_path / "resumed", _Stopping(14))
    result = _train(tmp_path / "resumed")
    assert result.finished
    a, b = (export_weights(NETWORK, CONFIG, tmp_path / run) for run in ("straight", "resumed"))
    assert all(torch.equal(a[name], b[name]) for name in a)

    network = DualBranchNetwork(NETWORK)
    network.load_state_dict(a)
    mean, *_ = latent_stats(TokenSamples(_samples(), 2))
    assert torch.equal(network.latent_mean, mean)  # buffers are not averaged
    assert (tmp_path / "straight" / "model.safetensors").is_file()


class _Stopping(FakeSamples):
    """Sends SIGTERM when a sample is read for the n-th time."""

    def __init__(self, reads: int):
        super().__init__(frames=8, dim=4)
        self.left = reads + 13  # statistics and the shape read each clip once first

    def get(self, index, mirror):
        import os
        import signal

        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().get(index, mirror)


def test_export_of_an_unfinished_run_leaves_it_as_it_was(tmp_path):
    result = _train(tmp_path, _Stopping(10))
    assert not result.finished
    before = sorted(path.name for path in (tmp_path / "ema").iterdir())
    weights = export_weights(NETWORK, CONFIG, tmp_path)
    assert all(math.isfinite(float(value.sum())) for value in weights.values())
    assert sorted(path.name for path in (tmp_path / "ema").iterdir()) == before


def test_export_without_a_checkpoint_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match="train the flow stage first"):
        export_weights(NETWORK, CONFIG, tmp_path)


def test_validation_samples_from_one_noise_where_the_model_will(monkeypatch):
    """Mono copied: both ears start alike, and so come out alike."""
    from visaudio import sampling
    from visaudio.training.flow_stage import generate_sampler
    from visaudio.training.validation import ValidationConfig

    monkeypatch.setattr(sampling, "generate", lambda *_, noise, **__: noise)
    noise = torch.randn(3, 2, 4, 8)
    for shared in (False, True):
        given = generate_sampler(None, SEQUENCE, ValidationConfig(), shared)(None, None, noise)
        assert torch.equal(given[:, 0], noise[:, 0])
        assert torch.equal(given[:, 1], noise[:, 0 if shared else 1])
