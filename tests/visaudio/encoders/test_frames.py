import numpy as np
import pytest
import torch

from visaudio.encoders.frames import mirror, prepare_frames, to_signed


def ramp(height: int, width: int) -> np.ndarray:
    """Brightness grows with the column, 0 to 250."""
    row = np.linspace(0, 250, width).round().astype(np.uint8)
    return np.broadcast_to(row[None, None, :, None], (2, height, width, 3)).copy()


def test_squash_keeps_the_full_width_and_crop_its_centre():
    frames = ramp(90, 160)
    squashed, cropped = prepare_frames(frames, 32, "squash"), prepare_frames(frames, 32, "crop")
    assert squashed.shape == cropped.shape == (2, 3, 32, 32)
    assert squashed.dtype == torch.uint8
    # ends of the ramp: all of 160 columns, or the middle 90 of them
    assert squashed[0, 0, 16, [0, -1]].tolist() == pytest.approx([4, 246], abs=3)
    assert cropped[0, 0, 16, [0, -1]].tolist() == pytest.approx([57, 193], abs=4)


@pytest.mark.parametrize("shape", [(33, 65), (65, 33), (31, 31), (240, 427)])
@pytest.mark.parametrize("mode", ["squash", "crop"])
def test_odd_sizes_give_squares(shape, mode):
    assert prepare_frames(ramp(*shape), 31, mode).shape == (2, 3, 31, 31)


def test_mirror_commutes_with_squash():
    frames = torch.randint(0, 256, (1, 90, 160, 3), dtype=torch.uint8)
    ours = mirror(prepare_frames(frames, 32))
    theirs = prepare_frames(frames.flip(2), 32)
    assert (ours.int() - theirs.int()).abs().max() <= 1


def test_signed_range_ends_at_one():
    assert to_signed(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1.0, 1.0]


def test_wrong_layout_is_named():
    with pytest.raises(ValueError, match=r"\(T, H, W, 3\).*\(2, 3, 8, 8\)"):
        prepare_frames(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), 8)
    with pytest.raises(ValueError, match="stretch"):
        prepare_frames(ramp(8, 8), 8, "stretch")
