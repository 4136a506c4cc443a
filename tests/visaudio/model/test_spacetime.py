import math

import pytest
import torch

from visaudio.model.spacetime import SpacetimeModule, column_azimuth_rad, interpolate_in_time


def module(**kwargs) -> SpacetimeModule:
    torch.manual_seed(0)
    return SpacetimeModule(6, 2, 8, width=16, inner=12, multiple_of=16, **kwargs)


def flip_columns(cells: torch.Tensor) -> torch.Tensor:
    """(..., 2 x 8, D) with its columns mirrored."""
    return cells.unflatten(-2, (2, 8)).flip(-2).flatten(-3, -2)


def test_azimuths_of_the_columns():
    azimuth = column_azimuth_rad(8, torch.tensor([math.radians(90), math.radians(60), math.nan]))
    assert azimuth[0, 0].item() == pytest.approx(math.atan(7 / 8))  # the left column is to the left: positive
    assert azimuth[1, 0].item() == pytest.approx(math.atan(7 / 8 * math.tan(math.radians(30))))
    torch.testing.assert_close(azimuth, -azimuth.flip(1))
    assert (azimuth.diff(dim=1) < 0).all()
    torch.testing.assert_close(azimuth[2], azimuth[0])


def test_interpolation_puts_frames_at_their_first_instant():
    """A ramp x(t) = t sampled at 8 fps comes back as each token's centre time, ends held."""
    frames = torch.arange(64.0)[None, :, None] / 8
    out = interpolate_in_time(frames, 173)[0, :, 0]
    centres = (torch.arange(173) + 0.5) / 173 * 8
    torch.testing.assert_close(out, centres.clamp(max=63 / 8), atol=1e-5, rtol=0)


def test_interpolation_of_a_single_frame_holds_it():
    assert interpolate_in_time(torch.full((1, 1, 2), 5.0), 9).unique().item() == 5.0


def test_mirrored_picture_swaps_the_ears_at_the_start():
    """E^l and E^r start as mirror images and everything else is shared, so the symmetry is exact."""
    m, x, hfov = module(), torch.randn(3, 5, 16, 6), torch.tensor([1.0, 1.5, math.nan])
    with torch.no_grad():
        out, mirrored = m(x, hfov, 11), m(flip_columns(x), hfov, 11)
    torch.testing.assert_close(mirrored, out.flip(1), atol=1e-5, rtol=1e-5)
    assert (out[:, 0] - out[:, 1]).abs().max() > 1e-3  # and the ears do differ


def test_mirroring_the_weights_mirrors_an_asymmetric_module():
    m, other = module(), module()
    with torch.no_grad():
        for p in (m.ear_embedding, m.query):
            p.normal_()
        other.load_state_dict(m.state_dict())
        other.ear_embedding.copy_(flip_columns(m.ear_embedding).flip(0))
        other.query.copy_(m.query.flip(0))
        x, hfov = torch.randn(2, 4, 16, 6), torch.tensor([1.2, 0.9])
        torch.testing.assert_close(
            other(flip_columns(x), hfov, 9), m(x, hfov, 9).flip(1), atol=1e-4, rtol=1e-4
        )


def test_the_lens_matters_and_unknown_is_its_own_case():
    m, x = module(), torch.randn(1, 4, 16, 6)
    torch.nn.init.normal_(m.unknown_lens)
    with torch.no_grad():
        narrow, wide, unknown = (m(x, torch.tensor([h]), 7) for h in (0.9, math.pi / 2, math.nan))
    assert (narrow - wide).abs().max() > 1e-4
    assert (unknown - wide).abs().max() > 1e-4


def test_zero_output_and_wrong_grid():
    m = module()
    m.zero_output()
    assert m(torch.randn(1, 4, 16, 6), torch.tensor([1.0]), 7).abs().max() == 0
    with pytest.raises(ValueError, match="expected 2 x 8 cells, got 9"):
        m(torch.randn(1, 4, 9, 6), torch.tensor([1.0]), 7)
