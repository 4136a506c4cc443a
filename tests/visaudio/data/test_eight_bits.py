import numpy as np
import torch

from visaudio.data.eight_bits import from_bytes, to_bytes


def test_the_error_is_half_a_step_of_each_dimensions_own_range():
    random = torch.Generator().manual_seed(0)
    # dimensions of very unlike size, as a transformer's are
    size = torch.tensor([0.01, 1.0, 300.0])
    grid = torch.randn(2, 8, 6, 3, generator=random) * size + 5 * size
    levels, low_step = to_bytes(grid)
    for clip in range(2):
        back = torch.from_numpy(from_bytes(levels[clip].numpy(), low_step[clip].numpy()))
        span = grid[clip].flatten(0, 1).amax(0) - grid[clip].flatten(0, 1).amin(0)
        apart = (back - grid[clip]).abs().flatten(0, 1).amax(0)
        assert (apart <= span / 510 * 1.01).all() and (apart > span / 1000).all()


def test_a_dimension_that_does_not_move_is_kept():
    levels, low_step = to_bytes(torch.full((1, 4, 2, 3), -2.5))
    assert np.array_equal(from_bytes(levels[0].numpy(), low_step[0].numpy()), np.full((4, 2, 3), -2.5))


def test_what_is_not_finite_stays_so():
    grid = torch.zeros(1, 4, 2, 3)
    grid[0, 1, 1, 2] = torch.nan
    assert torch.isfinite(to_bytes(grid)[1]).tolist() == [[[True, True, False]] * 2]
