import numpy as np
import pytest

from bi_audio_dataset import sphere
from bi_audio_dataset.review import drawing

W, H = 1024, 512


def outline(yaw_deg=0.0, pitch_deg=0.0, roll_deg=0.0, hfov_deg=90.0, aspect=16 / 9):
    rotation = sphere.rotation_matrix(*np.radians([yaw_deg, pitch_deg, roll_deg]))
    return drawing.view_outline(rotation, hfov_deg, aspect, W, H)


def azimuths(lines):
    columns = np.concatenate(lines)[:, 0]
    return np.degrees(sphere.pixel_to_angles(columns, 0, W, H)[0])


def test_a_level_view_spans_its_field_of_view():
    (line,) = outline(hfov_deg=70)
    assert [azimuths([line]).min(), azimuths([line]).max()] == pytest.approx([-35, 35], abs=1e-6)
    # the top edge's middle lies at atan(tan(35 deg) / aspect) above the horizon
    highest = np.degrees(np.pi / 2 - np.pi * (line[:, 1].min() + 0.5) / H)
    assert highest == pytest.approx(np.degrees(np.arctan(np.tan(np.radians(35)) * 9 / 16)), abs=0.1)
    assert line[0] == pytest.approx(line[-1])  # closed


def test_yaw_to_the_left_moves_the_outline_to_smaller_columns():
    (line,) = outline(yaw_deg=60)
    assert [azimuths([line]).min(), azimuths([line]).max()] == pytest.approx([15, 105], abs=1e-6)
    assert line[:, 0].mean() < W / 2


def test_an_outline_over_the_seam_is_cut_there():
    lines = outline(yaw_deg=180)
    assert len(lines) > 1
    assert all(np.abs(np.diff(line[:, 0])).max(initial=0) < W / 2 for line in lines)
    assert np.abs(azimuths(lines)).min() == pytest.approx(135, abs=1e-6)


def test_pitch_up_moves_the_outline_up_and_roll_tilts_it():
    level, up, rolled = (outline(pitch_deg=p, roll_deg=r)[0] for p, r in ((0, 0), (20, 0), (0, 10)))
    assert up[:, 1].mean() < level[:, 1].mean() - 30
    # right ear down: the horizon of the camera falls to the right, the top left corner rises
    assert rolled[0, 1] < rolled[23, 1] - 20 and level[0, 1] == pytest.approx(level[23, 1])


def test_every_point_of_the_outline_is_on_the_views_border():
    rotation = sphere.rotation_matrix(*np.radians([100, -15, 5]))
    points = np.concatenate(drawing.view_outline(rotation, 80, 1.5, W, H))
    world = sphere.direction(*sphere.pixel_to_angles(points[:, 0], points[:, 1], W, H))
    x, y, _ = sphere.direction_to_view(sphere.to_camera(world, rotation), 300, 200, np.radians(80))
    edge = np.minimum.reduce([np.abs(x + 0.5), np.abs(x - 299.5), np.abs(y + 0.5), np.abs(y - 199.5)])
    assert edge.max() < 1e-6


def test_the_overlay_is_reddest_where_the_energy_is():
    energy = np.full((16, 32), 1e-4)
    energy[4, 8] = 1.0
    image = drawing.energy_overlay(np.full((20, 40, 3), 100, np.uint8), energy).astype(int)
    assert image.shape == (H, W, 3)
    red = image[..., 0] - image[..., 2]
    row, column = np.unravel_index(red.argmax(), red.shape)
    assert (row, column) == (pytest.approx(4.5 * 32, abs=40), pytest.approx(8.5 * 32, abs=40))
    assert red[-1, -1] == 0  # 40 dB below: the picture is left as it is, grey


def test_silence_leaves_the_panorama():
    image = drawing.energy_overlay(np.full((20, 40, 3), 100, np.uint8), np.zeros((4, 8)))
    assert image.std() == 0 and image.mean() == pytest.approx(80, abs=1)


def test_the_map_shows_path_and_views_and_leaves_its_background_alone():
    rotations = sphere.rotation_matrix(np.radians(np.linspace(90, -90, 50)))
    background = drawing.blank()
    image = drawing.draw_map(background, rotations, 60, 16 / 9, sources=[sphere.direction([3.0], [0.5])])
    assert (background == 24).all()

    def columns_of(colour):
        return np.flatnonzero((np.abs(image.astype(int) - colour).sum(axis=2) < 30).any(axis=0))

    start, end = columns_of(drawing.START), columns_of(drawing.END)
    assert [start.min(), start.max()] == pytest.approx([W / 4 - W / 12, W / 4 + W / 12], abs=3)
    assert [end.min(), end.max()] == pytest.approx([3 * W / 4 - W / 12, 3 * W / 4 + W / 12], abs=3)
    assert columns_of(drawing.SOURCE).mean() == pytest.approx(W * (0.5 - 3.0 / (2 * np.pi)), abs=2)
    # at a moment only the view of that moment is drawn
    image = drawing.draw_map(background, rotations, 60, 16 / 9, moment=49)
    assert columns_of(drawing.START).min() == pytest.approx(3 * W / 4 - W / 12, abs=3)
    assert len(columns_of(drawing.END)) == 0


def test_ild_is_positive_where_the_left_ear_is_louder_and_unknown_in_silence():
    rate = 8000
    noise = np.random.default_rng(0).standard_normal(rate)
    ears = np.stack([noise, 0.5 * noise])
    ears[:, rate // 4 : rate // 2] = 0
    ears[:, rate // 2 :] = ears[::-1, rate // 2 :]
    times, ild = drawing.ild_track(ears, rate, window_s=0.05)
    assert len(times) == 20 and times[0] == 0.025
    assert ild[:5] == pytest.approx(6.02, abs=0.01)
    assert np.isnan(ild[5:10]).all()
    assert ild[10:] == pytest.approx(-6.02, abs=0.01)


def test_the_plot_goes_up_for_left_and_has_gaps_for_silence():
    times = np.linspace(0.05, 7.95, 80)
    ild = np.where(times < 3, 10.0, np.where(times < 5, np.nan, -15.0))
    image = drawing.draw_ild(times, ild, 8.0, moment_s=4.0).astype(int)
    curve = np.abs(image - drawing.END).sum(axis=2) < 60
    width, height = drawing.PLOT_SIZE
    x = (70 + np.array([1.5, 4.0, 6.5]) / 8 * (width - 82)).round().astype(int)
    assert curve[:, x[0]].any() and not curve[:, x[1]].any() and curve[:, x[2]].any()
    middle, span = (12 + height - 28) / 2, (height - 40) / 2
    assert np.flatnonzero(curve[:, x[0]]).mean() == pytest.approx(middle - span / 2, abs=1.5)
    assert np.flatnonzero(curve[:, x[2]]).mean() == pytest.approx(middle + span * 0.75, abs=1.5)
    assert (np.abs(image[:, x[1]] - drawing.START).sum(axis=1) < 60).sum() > 100
