import pytest
import torch

from visaudio.sequence import SequenceConfig, from_tokens, to_tokens

TINY = SequenceConfig(sample_rate=22050)


def test_eight_seconds_at_the_papers_rates():
    s = SequenceConfig()
    assert (s.num_samples, s.num_frames, s.num_tokens) == (352800, 690, 345)
    assert (s.num_clip_frames, s.num_segments, s.num_sync_tokens) == (64, 24, 192)


def test_eight_seconds_of_the_tiny_preset_round_up_to_whole_tokens():
    assert (TINY.num_samples, TINY.num_tokens, TINY.num_frames) == (176400, 173, 346)


@pytest.mark.parametrize("duration_s", [0.3, 1.0, 2.345, 8.0, 61.7])
def test_tokens_cover_the_samples_with_less_than_one_to_spare(duration_s):
    s = TINY.with_duration(duration_s)
    spare = s.num_frames * s.latent_hop - s.num_samples
    assert 0 <= spare < s.latent_hop * s.frames_per_token
    assert s.num_frames == s.num_tokens * s.frames_per_token
    assert s.num_segments >= 1 and s.num_clip_frames >= 1


def test_segments_lie_within_the_sync_frames():
    for duration_s in (0.3, 0.64, 1.0, 3.3, 8.0):
        s = TINY.with_duration(duration_s)
        end = (s.num_segments - 1) * s.segment_stride + s.segment_frames
        assert end == s.num_sync_frames
        assert s.num_sync_frames >= round(duration_s * s.sync_fps)  # the last frames are seen too


def test_whole_segments_add_less_than_one_and_none_to_eight_seconds():
    lengths = [(d, TINY.with_duration(d).num_sync_frames) for d in (0.3, 0.64, 0.68, 1.0, 3.0, 8.0)]
    assert lengths == [(0.3, 16), (0.64, 16), (0.68, 24), (1.0, 32), (3.0, 80), (8.0, 200)]


def test_tokens_round_trip_and_keep_the_order_of_time():
    frames = torch.arange(2 * 6 * 3).view(2, 6, 3)
    tokens = to_tokens(frames, 2)
    assert tokens.shape == (2, 3, 6)
    assert tokens[0, 1].tolist() == [*frames[0, 2].tolist(), *frames[0, 3].tolist()]
    assert torch.equal(from_tokens(tokens, 2), frames)


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="5 frames.*pad the audio"):
        to_tokens(torch.zeros(1, 5, 3), 2)
    with pytest.raises(ValueError, match="duration_s must be positive, got -1"):
        TINY.with_duration(-1)
