"""Every order of channels comes out as AmbiX, and what is no ambisonics is refused."""

import json

import numpy as np
import pytest

from bi_audio_dataset import ambisonics
from bi_audio_dataset.channels import AMBIX, FUMA, ORDERS, ChannelOrder, order_of, read_sidecar
from bi_audio_dataset.schema import UserError

AZIMUTH, ELEVATION = np.radians(50.0), np.radians(20.0)


def plane_wave():
    signal = np.random.default_rng(0).standard_normal(500).astype(np.float32)
    return signal, ambisonics.encode(signal, AZIMUTH, ELEVATION)


def test_ambix_comes_through_bit_exact():
    _, foa = plane_wave()
    np.testing.assert_array_equal(AMBIX.to_ambix(foa), foa)


def test_fuma_plane_wave():
    """FuMa by its definition: W = s / sqrt(2), then X, Y, Z."""
    signal, foa = plane_wave()
    x, y, z = (np.cos(AZIMUTH) * np.cos(ELEVATION), np.sin(AZIMUTH) * np.cos(ELEVATION), np.sin(ELEVATION))
    fuma = np.stack([signal / np.sqrt(2), x * signal, y * signal, z * signal])
    np.testing.assert_allclose(FUMA.to_ambix(fuma), foa, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("name", sorted(ORDERS))
def test_each_order_keeps_direction_and_level(name):
    signal, foa = plane_wave()
    order = ORDERS[name]
    track = np.zeros_like(foa)
    track[list(order.places)] = foa
    omni, vector = {"sn3d": (1, 1), "n3d": (1, 3**0.5), "maxn": (0.5**0.5, 1)}[order.normalisation]
    track[order.places[0]] *= omni
    track[list(order.places[1:])] *= vector
    np.testing.assert_allclose(order.to_ambix(track), foa, rtol=3e-6, atol=1e-7)


def test_channel_map_and_what_is_left_over():
    foa = np.arange(24, dtype=np.float32).reshape(6, 4)
    order = ChannelOrder(places=(2, 0, 1, 3), extra=2)
    np.testing.assert_array_equal(order.to_ambix(foa), foa[[2, 0, 1, 3]])
    assert str(order) == "YZWX SN3D"
    assert str(FUMA) == "WXYZ MaxN"


def test_higher_orders_give_their_first():
    track = np.random.default_rng(1).standard_normal((9, 10)).astype(np.float32)
    np.testing.assert_array_equal(AMBIX.to_ambix(track), track[:4])


@pytest.mark.parametrize(
    ("channels", "words"),
    [
        (1, "mono"),
        (2, "stereo"),
        (3, "3 audio channels"),
        (5, "expected 4"),
        (6, "5.1 surround"),
        (8, "expected 4"),
    ],
)
def test_other_numbers_of_channels_are_refused(channels, words):
    with pytest.raises(UserError, match=words) as caught:
        AMBIX.to_ambix(np.zeros((channels, 5), np.float32), "'a.wav'")
    assert str(caught.value).startswith(f"'a.wav' has {channels} audio channels")


def test_four_channels_lack_a_head_locked_pair():
    with pytest.raises(UserError, match="and 2 head-locked"):
        ChannelOrder(extra=2).check_count(4)


def test_names_of_orders():
    assert order_of("FuMa") == FUMA
    assert order_of("ACN-N3D").normalisation == "n3d"
    with pytest.raises(UserError, match="'wxyz' is unknown, expected one of ambix, fuma"):
        order_of("wxyz")


@pytest.mark.parametrize(
    ("content", "order"),
    [
        ({"channels": "fuma"}, FUMA),
        ({"ordering": "ACN", "normalisation": "SN3D", "title": "x"}, AMBIX),
        ({"ordering": "FuMa", "normalization": "MaxN"}, FUMA),
        ({"title": "a download tool's file"}, None),
        ([1, 2], None),
    ],
)
def test_sidecar(tmp_path, content, order):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    assert read_sidecar(path) == order


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read as JSON"),
        ('{"ordering": "ACN"}', "both ordering and normalisation"),
        ('{"channels": "b-format"}', "'a.json': channel order 'b-format' is unknown"),
    ],
)
def test_sidecar_that_says_too_little(tmp_path, text, words):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        read_sidecar(path)
