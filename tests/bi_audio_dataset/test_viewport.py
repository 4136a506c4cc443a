import time
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from bi_audio_dataset import sphere, viewport
from bi_audio_dataset.viewport import Viewport, render_view

PANO_W, PANO_H = 768, 384


def _angle_panorama() -> np.ndarray:
    """A panorama whose three channels code its own directions: 127.5 (1 + x), (1 + y), (1 + z)."""
    u, v = np.meshgrid(np.arange(PANO_W), np.arange(PANO_H))
    vectors = sphere.direction(*sphere.pixel_to_angles(u, v, PANO_W, PANO_H))
    return np.round(127.5 * (1 + vectors)).astype(np.uint8)


def _marked(azimuth_deg: float, elevation_deg: float, radius_deg: float = 1.5) -> np.ndarray:
    """A black panorama with one white disc."""
    u, v = np.meshgrid(np.arange(PANO_W), np.arange(PANO_H))
    vectors = sphere.direction(*sphere.pixel_to_angles(u, v, PANO_W, PANO_H))
    centre = sphere.direction(np.deg2rad(azimuth_deg), np.deg2rad(elevation_deg))
    disc = sphere.angle_between(vectors, centre) < np.deg2rad(radius_deg)
    return np.repeat(255 * disc[..., None].astype(np.uint8), 3, axis=2)


@pytest.mark.parametrize(
    "yaw_deg, pitch_deg, roll_deg", [(0, 0, 0), (60, 20, 0), (180, 0, 5), (-95, -30, -8)]
)
@pytest.mark.parametrize("hfov_deg", [50, 90, 110])
def test_every_pixel_shows_the_direction_of_its_ray(yaw_deg, pitch_deg, roll_deg, hfov_deg):
    rotation = sphere.rotation_matrix(*np.deg2rad([yaw_deg, pitch_deg, roll_deg]))
    view = render_view(_angle_panorama(), rotation, np.deg2rad(hfov_deg), 256, 144)
    expected = sphere.view_directions(256, 144, np.deg2rad(hfov_deg)) @ rotation.T
    # Rounding to 8 bits twice: 1 of 127.5.
    np.testing.assert_allclose(view / 127.5 - 1, expected, atol=0.012)


@pytest.mark.parametrize("offset_deg", [-44.0, -30.0, 0.0, 20.0, 44.0])
@pytest.mark.parametrize("yaw_deg", [0.0, 150.0, 180.0])
def test_a_mark_lands_where_the_angles_say(offset_deg, yaw_deg):
    view = render_view(
        _marked(yaw_deg + offset_deg, 0), sphere.rotation_matrix(np.deg2rad(yaw_deg)), np.pi / 2, 256, 144
    )
    rows, columns = np.nonzero(view[..., 0] > 127)
    # A 90 degree view: tan of the offset to the left, in half widths; the disc itself is 4 to 8 pixels wide.
    assert columns.mean() == pytest.approx(127.5 - 128 * np.tan(np.deg2rad(offset_deg)), abs=1.0)
    assert rows.mean() == pytest.approx(71.5, abs=0.5)


def test_yaw_moves_the_picture_right_and_pitch_moves_it_down():
    mark = _marked(0, 0)
    still = np.argwhere(render_view(mark, np.eye(3), np.pi / 2, 256, 144)[..., 0] > 127).mean(axis=0)
    turned = sphere.rotation_matrix(np.deg2rad(20), np.deg2rad(10))
    moved = np.argwhere(render_view(mark, turned, np.pi / 2, 256, 144)[..., 0] > 127).mean(axis=0)
    assert moved[1] - still[1] > 40 and moved[0] - still[0] > 20


def test_no_seam_behind():
    view = render_view(_angle_panorama(), sphere.rotation_matrix(np.pi), np.pi / 2, 256, 144).astype(int)
    assert np.abs(np.diff(view, axis=1)).max() <= 3


def test_dense_panoramas_do_not_alias():
    stripes = np.zeros((1024, 2048, 3), np.uint8)
    stripes[:, ::2] = 255  # finer than the view can show: must come out grey
    view = render_view(stripes, np.eye(3), np.pi / 2, 64, 36)
    assert np.abs(view[10:26].astype(int) - 128).max() < 40


def test_wrong_panorama_size_is_named():
    lens = Viewport(64, 36, 1.0, 128, 64)
    with pytest.raises(ValueError, match="128x64.*32x16"):
        lens.render(np.zeros((16, 32, 3), np.uint8), np.eye(3))


def test_a_frame_takes_milliseconds():
    lens = Viewport(256, 144, np.pi / 2, PANO_W, PANO_H)
    panorama = _angle_panorama()
    times = []
    for k in range(10):
        start = time.perf_counter()
        lens.render(panorama, sphere.rotation_matrix(0.1 * k))
        times.append(time.perf_counter() - start)
    # Some 1 ms alone on a core; the bound leaves room for a busy machine.
    assert min(times) < 0.02


# --- against float64 references: a detailed analytic panorama, and one of noise ---

DETAIL_W, DETAIL_H = 1536, 768
VIEW_W, VIEW_H = 384, 216  # dense enough that nothing is shrunk


def _detail(directions: np.ndarray) -> np.ndarray:
    """A smooth function of direction with details down to 6 degrees (26 columns): (..., 3) in 0 to 255."""
    rng = np.random.default_rng(0)
    waves = rng.standard_normal((3, 10, 3))
    waves *= rng.uniform(4, 60, (3, 10, 1)) / np.linalg.norm(waves, axis=-1, keepdims=True)
    phases = rng.uniform(0, 2 * np.pi, (3, 10))
    return np.stack(
        [127.5 + 11 * np.cos(directions @ waves[c].T + phases[c]).sum(axis=-1) for c in range(3)], axis=-1
    )


@pytest.fixture(scope="module")
def detailed() -> np.ndarray:
    u, v = np.meshgrid(np.arange(DETAIL_W), np.arange(DETAIL_H))
    picture = _detail(sphere.direction(*sphere.pixel_to_angles(u, v, DETAIL_W, DETAIL_H)))
    assert picture.min() > 0 and picture.max() < 255 and picture.std() > 20
    return np.round(picture).astype(np.uint8)


def _poses() -> list[np.ndarray]:
    """25 poses: three in each octant (front or back, left or right, up or down), and one more."""
    rng = np.random.default_rng(1)
    poses = []
    for k in range(25):
        yaw = rng.uniform(0, np.pi / 2) + (k % 4) * np.pi / 2
        pitch = rng.uniform(0.05, 1.4) * (-1) ** (k // 4)
        poses.append(sphere.rotation_matrix(yaw, pitch, rng.uniform(-0.4, 0.4)))
    return poses


def _bilinear(panorama: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """float64 bilinear interpolation at pixel coordinates; wraps in u, stops at the edge in v."""
    height, width = panorama.shape[:2]
    v = np.clip(v, 0, height - 1)
    left, top = np.floor(u).astype(int), np.floor(v).astype(int)
    a, b = (u - left)[..., None], (v - top)[..., None]

    def pixel(column, row):
        return panorama[np.clip(row, 0, height - 1), column % width].astype(np.float64)

    upper = pixel(left, top) * (1 - a) + pixel(left + 1, top) * a
    lower = pixel(left, top + 1) * (1 - a) + pixel(left + 1, top + 1) * a
    return upper * (1 - b) + lower * b


def _psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((a.astype(np.float64) - b) ** 2))


@pytest.mark.parametrize("hfov_deg", [50, 90])
def test_a_detailed_panorama_in_every_octant(detailed, hfov_deg):
    rays = sphere.view_directions(VIEW_W, VIEW_H, np.deg2rad(hfov_deg))
    lens = Viewport(VIEW_W, VIEW_H, np.deg2rad(hfov_deg), DETAIL_W, DETAIL_H)
    quality_db = [
        _psnr_db(lens.render(detailed, rotation), _detail(rays @ rotation.T)) for rotation in _poses()
    ]
    assert len(quality_db) == 25 and min(quality_db) > 45


@pytest.mark.parametrize("width", [768, 1536])
def test_noise_as_by_float64_interpolation(width):
    """Both grades of coordinates, where an error of a whole pixel would leave 8 dB."""
    noise = np.random.default_rng(2).integers(0, 256, (width // 2, width, 3), dtype=np.uint8)
    lens = Viewport(VIEW_W, VIEW_H, np.pi / 2, width, width // 2)
    assert lens.exact == (width > 1154)
    rays = sphere.view_directions(VIEW_W, VIEW_H, np.pi / 2)
    for rotation in _poses()[:8]:
        u, v = sphere.angles_to_pixel(*sphere.angles(rays @ rotation.T), width, width // 2)
        assert _psnr_db(lens.render(noise, rotation), _bilinear(noise, u, v)) > 40


def test_ffmpegs_v360_shows_the_same_but_for_its_pixel_grid(detailed):
    """v360 turns its yaw to the right, and has the panorama's edges at the centres of its outer pixels."""
    try:
        av.filter.Filter("v360")
    except ValueError:
        pytest.skip("this PyAV has no v360")
    source = av.VideoFrame.from_ndarray(detailed, format="rgb24").reformat(format="gbrp")
    source.pts = 0
    vfov_deg = 2 * np.degrees(np.arctan(VIEW_H / VIEW_W))
    rays = sphere.view_directions(VIEW_W, VIEW_H, np.pi / 2)
    lens = Viewport(VIEW_W, VIEW_H, np.pi / 2, DETAIL_W, DETAIL_H)
    for yaw, pitch, roll in ((0, 0, 0), (30, 20, 10), (-140, -35, -8)):
        graph = av.filter.Graph()
        chain = [
            graph.add_buffer(
                width=DETAIL_W, height=DETAIL_H, format=av.VideoFormat("gbrp"), time_base=Fraction(1, 25)
            ),
            graph.add(
                "v360",
                f"input=equirect:output=flat:h_fov=90:v_fov={vfov_deg}:w={VIEW_W}:h={VIEW_H}:interp=linear:"
                f"yaw={-yaw}:pitch={pitch}:roll={roll}",
            ),
            graph.add("buffersink"),
        ]
        graph.link_nodes(*chain).configure()
        graph.vpush(source)
        theirs = graph.vpull().reformat(format="rgb24").to_ndarray()
        rotation = sphere.rotation_matrix(*np.deg2rad([yaw, pitch, roll]))
        u, v = sphere.angles_to_pixel(*sphere.angles(rays @ rotation.T), DETAIL_W, DETAIL_H)
        # From centres at (i + 0.5) / W to centres at i / (W - 1).
        u_theirs, v_theirs = ((c + 0.5) * (1 - 1 / size) for c, size in ((u, DETAIL_W), (v, DETAIL_H)))
        offset = _bilinear(detailed, u_theirs, v_theirs) - _bilinear(detailed, u, v)
        ours = lens.render(detailed, rotation)
        accounted_db, plain_db = _psnr_db(theirs - offset, ours), _psnr_db(theirs, ours)
        assert accounted_db > 45 and accounted_db > plain_db


# --- the short cuts give what the long way gives ---


@pytest.mark.parametrize("width", [768, 1536])
def test_only_what_is_on_view_is_touched(width):
    """The same pixels as from maps over the whole panorama: seam, poles and all."""
    rng = np.random.default_rng(3)
    noise = rng.integers(0, 256, (width // 2, width, 3), dtype=np.uint8)
    lens = Viewport(VIEW_W, VIEW_H, np.pi / 2, width, width // 2)
    padded = cv2.copyMakeBorder(noise, 0, 0, 1, 1, cv2.BORDER_WRAP)
    for rotation in (*_poses(), np.eye(3), sphere.rotation_matrix(np.pi), sphere.rotation_matrix(0, 0.3)):
        maps = lens.maps(rotation)
        if lens.exact:
            maps = cv2.convertMaps(*maps, cv2.CV_16SC2)
        whole = cv2.remap(padded, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        view = lens.render(noise, rotation)
        np.testing.assert_array_equal(view, whole)
        np.testing.assert_array_equal(lens.render(noise, rotation), view)  # from the kept maps


def test_a_turn_about_the_vertical_moves_the_kept_maps(detailed):
    kept = Viewport(VIEW_W, VIEW_H, np.pi / 2, DETAIL_W, DETAIL_H)
    for yaw in np.linspace(-3.5, 3.5, 9):
        rotation = sphere.rotation_matrix(yaw, 0.2, 0.1)
        fresh = Viewport(VIEW_W, VIEW_H, np.pi / 2, DETAIL_W, DETAIL_H)
        (u, v), (u_fresh, v_fresh) = kept.maps(rotation), fresh.maps(rotation)
        apart = (u - u_fresh + DETAIL_W / 2) % DETAIL_W - DETAIL_W / 2
        assert np.abs(apart).max() < 2e-3 and np.abs(v - v_fresh).max() < 2e-3
        assert u.min() >= 0.5 - 1e-3 and u.max() <= DETAIL_W + 0.5 + 1e-3
        difference = kept.render(detailed, rotation).astype(int) - fresh.render(detailed, rotation)
        assert np.abs(difference).max() <= 1
    assert kept.exact and np.array_equal(kept._base[0], sphere.rotation_matrix(-3.5, 0.2, 0.1))  # just one


@pytest.mark.parametrize(
    "pano_w, pano_h, density, expected",
    [
        (3840, 1920, 4.8, 5),
        (1920, 960, 1.9, 2),
        (1920, 960, 1.4, 1),
        (4096, 2048, 5.1, 4),
        (3838, 1919, 4.8, 0),
    ],
)
def test_panoramas_shrink_by_whole_numbers_that_divide_them(pano_w, pano_h, density, expected):
    assert viewport._shrink(pano_w, pano_h, density) == expected


@pytest.mark.parametrize("width, height", [(1280, 640), (1282, 641)])
def test_shrunk_views_show_the_same_directions(width, height):
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    vectors = sphere.direction(*sphere.pixel_to_angles(u, v, width, height))
    codes = np.round(127.5 * (1 + vectors)).astype(np.uint8)
    for rotation in (sphere.rotation_matrix(0.5, 0.3, 0.1), sphere.rotation_matrix(np.pi, -0.2)):
        view = render_view(codes, rotation, np.pi / 2, 96, 54)
        expected = sphere.view_directions(96, 54, np.pi / 2) @ rotation.T
        np.testing.assert_allclose(view / 127.5 - 1, expected, atol=0.012)


def test_without_antialiasing_a_dense_panorama_is_sampled_as_it_is():
    stripes = np.zeros((1024, 2048, 3), np.uint8)
    stripes[:, ::2] = 255
    view = Viewport(64, 36, np.pi / 2, 2048, 1024, antialias=False).render(stripes, np.eye(3))
    assert np.abs(view[10:26].astype(int) - 128).max() > 100
