import numpy as np
import pytest
import torch
from micro import FPS, moving_square, write_clip

from bi_audio_dataset import media
from visaudio.encoders.frames import prepare_frames
from visaudio.sequence import SequenceConfig
from visaudio.windows import (
    FrameRequest,
    Window,
    decode_size,
    hold_mask,
    plan_windows,
    read_windows,
    total_windows,
)


def test_a_plan_for_known_numbers():
    assert plan_windows(20, 10, 4) == (Window(0, 10, 0), Window(6, 10, 4), Window(10, 10, 6))
    assert plan_windows(16, 10, 4) == (Window(0, 10, 0), Window(6, 10, 4))
    assert plan_windows(7, 10, 4) == (Window(0, 7, 0),)


@pytest.mark.parametrize("overlap", [0, 1, 4, 9])
def test_windows_cover_every_token_and_none_is_short(overlap):
    for total in range(11, 60):
        windows = plan_windows(total, 10, overlap)
        assert windows[0].start == 0 and windows[-1].start + windows[-1].length == total
        for before, window in zip(windows, windows[1:], strict=False):
            assert window.length == 10 and window.start > before.start
            assert window.overlap == before.start + 10 - window.start >= overlap


@pytest.mark.parametrize("arguments", [(0, 10, 2), (20, 10, 10), (20, 10, -1)])
def test_impossible_plans_are_refused(arguments):
    with pytest.raises(ValueError, match="overlap < window"):
        plan_windows(*arguments)


def test_hold_mask_holds_then_eases_out():
    assert torch.allclose(hold_mask(4, 7)[:, 0], torch.tensor([1, 1, 2 / 3, 1 / 3, 0, 0, 0]))
    assert hold_mask(0, 3).sum() == 0


def test_windows_follow_from_seconds():
    tiny = SequenceConfig(sample_rate=22050)
    windows = total_windows(tiny, 20.0, overlap_s=2.0)
    assert [w.length for w in windows] == [173, 173, 173]
    assert windows[1].overlap == round(2.0 * tiny.tokens_per_second) == 43
    assert windows[-1].start + 173 == tiny.with_duration(20.0).num_tokens


def test_videos_are_decoded_near_the_size_of_training_clips():
    assert decode_size(1280, 720, [128, 112]) == (256, 144)
    assert decode_size(720, 1280, [128]) == (144, 256)
    assert decode_size(256, 144, [128]) == (256, 144)
    assert decode_size(160, 90, [128]) == (160, 90)


def test_frames_of_each_window_are_those_shown_at_its_times(tmp_path, monkeypatch):
    video = write_clip(tmp_path / "v.mp4", 1.2)
    starts = (0.0, 0.45, 0.8)  # the last one reaches 0.4 s beyond the end
    requests = [
        (FrameRequest(s + np.arange(6) / 8.0, 32), FrameRequest(s + np.arange(20) / 25.0, 16)) for s in starts
    ]
    passes = []
    original = media.iter_frames

    def counted(*arguments, **options):
        passes.append(1)
        return original(*arguments, chunk=7, **options)

    monkeypatch.setattr(media, "iter_frames", counted)
    for window, given in zip(requests, read_windows(video, requests), strict=True):
        for request, frames in zip(window, given, strict=True):
            shown = media.read_frames(video, request.times_s, size=decode_size(64, 48, [32, 16]))
            expected = prepare_frames(shown, request.size)
            assert torch.equal(frames, expected)
    assert len(passes) == 1


def test_the_last_frame_is_held(tmp_path):
    video = write_clip(tmp_path / "v.mp4", 0.2)
    (frames,) = next(read_windows(video, [(FrameRequest(np.arange(10) / FPS, 16),)]))
    assert not torch.equal(frames[3], frames[4])
    assert all(torch.equal(frames[4], late) for late in frames[5:])
    assert len(moving_square(5)) == 5
