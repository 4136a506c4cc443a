"""condition_times="time": what a latent token is told happened when it sounds."""

import dataclasses
import json

import pytest
import torch
from micro import micro_components

from bi_audio_dataset.schema import UserError
from visaudio import hub
from visaudio.model.network import DualBranchNetwork, NetworkConfig, nearest_index
from visaudio.model.spacetime import interpolate_in_time
from visaudio.model.timing import interpolate_at, sync_track_index, token_positions
from visaudio.presets import TINY, load_preset, network_rates
from visaudio.sequence import SequenceConfig

RATES = (22050, 44100)
DURATIONS = (1.0, 3.0, 8.0)


def slot_times(sequence: SequenceConfig) -> torch.Tensor:
    """Middle of what each sync token sees, seconds, in the encoder's order: (Ts,)."""
    segment = torch.arange(sequence.num_segments)[:, None] * sequence.segment_stride
    frames = sequence.segment_frames / sequence.tokens_per_segment
    within = (torch.arange(sequence.tokens_per_segment) + 0.5) * frames
    return ((segment + within) / sequence.sync_fps).flatten()


def micro_network(sequence: SequenceConfig, **changes) -> DualBranchNetwork:
    sizes = {"clip_dim": 4, "sync_dim": 6, "text_dim": 4, "text_tokens": 2, "spatial_dim": 4, "token_dim": 4}
    sizes |= {"hidden_dim": 16, "num_heads": 2, "joint_blocks": 1, "branch_blocks": 1, "mlp_multiple_of": 16}
    torch.manual_seed(0)
    rates = {**network_rates(sequence), "sync_segment_hop": int(sequence.sync_slots_per_stride)}
    return DualBranchNetwork(NetworkConfig(**{"condition_times": "time", **sizes, **rates, **changes})).eval()


def told_times(sequence: SequenceConfig, **changes) -> tuple[torch.Tensor, torch.Tensor]:
    """What time each latent token gets from the sync features if these are times; and its own, (N,)."""
    net = micro_network(sequence, **changes)
    net.sync_input_proj = torch.nn.Identity()
    told = net._sync(slot_times(sequence)[None, :, None], sequence.num_tokens)[0, :, 0]
    return told, (torch.arange(sequence.num_tokens) + 0.5) / sequence.tokens_per_second


@pytest.mark.parametrize("sample_rate", RATES)
@pytest.mark.parametrize("duration_s", DURATIONS)
def test_latent_tokens_are_told_of_their_own_time(sample_rate, duration_s):
    sequence = SequenceConfig(duration_s, sample_rate)
    told, own = told_times(sequence)
    assert (told - own).abs().max() < 0.06
    assert (told.diff() >= 0).all()


def test_by_index_they_are_told_of_times_up_to_a_third_of_a_second_off():
    told, own = told_times(SequenceConfig(), condition_times="index")
    assert (told - own).abs().max() > 0.29 and (told.diff() < 0).any()


def test_the_track_is_uniform_and_takes_the_middle_of_each_segment():
    for segments in (1, 2, 9, 24):
        track = sync_track_index(segments, 8, 4)
        u = torch.arange(4 * segments + 4)
        s = torch.div(u - 2, 4, rounding_mode="floor").clamp(0, segments - 1)
        assert torch.equal(track, 8 * s + u - 4 * s)
        inner = (track % 8)[2:-2]
        assert ((inner >= 2) & (inner < 6)).all()
    assert sync_track_index(3, 8, 8).tolist() == list(range(24))  # segments that do not overlap
    times = slot_times(SequenceConfig())[sync_track_index(24, 8, 4)]
    torch.testing.assert_close(times, (torch.arange(100) + 0.5) * 0.08)
    with pytest.raises(ValueError, match="1 <= hop <= 8; got 3 segments, hop 9"):
        sync_track_index(3, 8, 9)


@pytest.mark.parametrize("duration_s", DURATIONS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.93])
def test_an_impulse_reaches_the_latent_tokens_of_its_time_and_no_others(duration_s, share):
    """Through the trained convolutions too: 3 + 1 + 1 slots to either side, and one of interpolation."""
    sequence = SequenceConfig(duration_s, 22050)
    net, times = micro_network(sequence), slot_times(sequence)
    moment = 0.08 * (int(share * duration_s / 0.08) + 0.5)
    impulse = ((times - moment).abs() < 0.01).float()[None, :, None].expand(-1, -1, 6)
    assert impulse.sum() > 0
    own = (torch.arange(sequence.num_tokens) + 0.5) / sequence.tokens_per_second
    with torch.no_grad():
        change = (net._sync(impulse, len(own)) - net._sync(0 * impulse, len(own))).abs().sum((0, 2))
        net.sync_input_proj = torch.nn.Identity()
        bare = net._sync(impulse, len(own))[0, :, 0]
    assert (own[bare.argmax()] - moment).abs() < 0.06
    assert change[(own - moment).abs() > 6 * 0.08].sum() == 0 and change.max() > 0


@pytest.mark.parametrize("duration_s", DURATIONS)
def test_video_frames_lie_where_their_rate_puts_them(duration_s):
    sequence = SequenceConfig(duration_s, 22050)
    frames = torch.arange(float(sequence.num_clip_frames))[None, :, None] / sequence.clip_fps
    ratio = sequence.clip_fps / sequence.tokens_per_second
    own = (torch.arange(sequence.num_tokens) + 0.5) / sequence.tokens_per_second
    told = interpolate_in_time(frames, sequence.num_tokens, ratio)[0, :, 0]
    torch.testing.assert_close(told, own.clamp(max=frames.max().item()))
    net = micro_network(sequence)
    latent, clip = net._rotations(sequence.num_tokens, sequence.num_clip_frames, torch.zeros(1))
    # the fastest angle is the position itself: one radian a latent token
    positions = torch.arange(sequence.num_clip_frames) / sequence.clip_fps * sequence.tokens_per_second
    torch.testing.assert_close(clip.cos[:, 0], positions.cos(), atol=1e-4, rtol=0)
    torch.testing.assert_close(latent.cos[:, 0], torch.arange(float(sequence.num_tokens)).cos())


def test_interpolation_holds_the_ends():
    x = torch.tensor([1.0, 3.0])[None, :, None]
    positions = token_positions(4, 0.5, 0.5, 1)
    assert positions.tolist() == [0.0, 0.25, 0.75, 1.0]
    assert interpolate_at(x, positions)[0, :, 0].tolist() == [1.0, 1.5, 2.5, 3.0]


def test_index_is_the_default_and_stretches_the_order_of_tokens():
    sequence = SequenceConfig(2.0, 22050)
    net = micro_network(sequence, condition_times="index")
    assert NetworkConfig().condition_times == "index"
    tokens = torch.randn(1, sequence.num_sync_tokens, 6)
    nearest = nearest_index(tokens.shape[1], sequence.num_tokens)
    with torch.no_grad():
        stretched = net._sync(tokens, sequence.num_tokens)
        assert torch.equal(stretched, net.sync_input_proj(tokens)[:, nearest])
        by_time = micro_network(sequence)._sync(tokens, sequence.num_tokens)
    assert (by_time - stretched).abs().max() > 1e-3  # same weights


def test_a_config_stored_without_the_key_means_index(tmp_path):
    components = micro_components()
    folder = hub.save_pretrained(tmp_path / "m", components)
    config = json.loads((folder / "config.json").read_text())
    sequence = components.preset.sequence
    for key in ("condition_times", *(k for k in network_rates(sequence) if k != "sync_tokens_per_segment")):
        del config["preset"]["network"][key]
    (folder / "config.json").write_text(json.dumps(config))
    loaded = hub.load_pretrained(folder)
    assert loaded.preset.network.condition_times == "index"
    null = components.network.null_conditions(1, sequence)
    x, t = torch.randn(1, 2, sequence.num_tokens, components.network.config.token_dim), torch.tensor([0.5])
    null = dataclasses.replace(null, sync_features=torch.randn_like(null.sync_features), present=None)
    with torch.no_grad():
        torch.testing.assert_close(loaded.network(x, t, null), components.network(x, t, null))


def test_the_tiny_preset_goes_by_time_and_its_clocks_must_agree():
    n = TINY.network
    assert n.condition_times == "time" and n.token_rate_hz == TINY.sequence.tokens_per_second
    assert (n.clip_fps, n.sync_slot_hz, n.sync_segment_hop, n.sync_tokens_per_segment) == (8.0, 12.5, 4, 8)
    with pytest.raises(UserError, match="network.clip_fps is 8.0, but what sequence says of clip_fps is 4.0"):
        load_preset("tiny", ["sequence.clip_fps=4"])
    assert load_preset("tiny", ["sequence.clip_fps=4", "network.condition_times=index"])
    with pytest.raises(UserError, match="condition_times"):
        load_preset("tiny", ["network.condition_times=clock"])
    with pytest.raises(ValueError, match='condition_times must be "index" or "time", got \'clock\''):
        NetworkConfig(condition_times="clock")
    with pytest.raises(ValueError, match="sync_segment_hop must be 1 to 8.*got 9"):
        NetworkConfig(condition_times="time", sync_segment_hop=9)
