"""The report's pictures against sounds whose spectrum, level and delay are known."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from visaudio.evaluation import cues
from visaudio.evaluation.page import pictures, spectrogram
from visaudio.evaluation.page.axes import Panel, time_ticks
from visaudio.evaluation.page.pictures import ShownSound, Track, draw
from visaudio.evaluation.page.text import number, p_value, script_json, slug

RATE = 32000


def tone(frequency_hz, seconds=1.0):
    return np.sin(2 * np.pi * frequency_hz * np.arange(round(seconds * RATE)) / RATE).astype(np.float32)


def test_a_tone_is_in_its_band_at_its_level():
    one = tone(1000.0)
    levels = spectrogram.levels_db(np.stack([one, 0.1 * one]), RATE, 1.0)
    edges = np.linspace(0, spectrogram.mel(spectrogram.TOP_HZ), spectrogram.BANDS + 1)
    middle = levels[:, :, 100]
    assert (middle.argmax(axis=1) == np.searchsorted(edges, spectrogram.mel(1000.0)) - 1).all()
    # a band is the mean of its bins: a full tone, less what it shares with its neighbours
    assert -6 < middle[0].max() <= 0
    assert middle[0].max() - middle[1].max() == pytest.approx(20, abs=0.01)
    far = np.searchsorted(edges, spectrogram.mel(4000.0)) - 1
    assert middle[0, far] < middle[0].max() - 60


def test_a_click_is_at_its_time_and_the_end_is_the_end():
    audio = np.zeros((2, RATE), np.float32)
    audio[:, RATE // 2] = 1.0
    levels = spectrogram.levels_db(audio, RATE, 2.0)
    loudest = levels[0].max(axis=0).argmax()
    assert abs((loudest + 0.5) / spectrogram.COLUMNS * 2.0 - 0.5) < 2.0 / spectrogram.COLUMNS
    assert np.isneginf(levels[:, :, spectrogram.COLUMNS // 2 :]).all()
    assert np.isfinite(levels[:, :, : spectrogram.COLUMNS // 2]).all()


def test_above_half_the_rate_there_is_nothing():
    levels = spectrogram.levels_db(np.random.default_rng(0).normal(size=(2, 8000)), 8000, 1.0)
    edges = np.linspace(0, spectrogram.mel(spectrogram.TOP_HZ), spectrogram.BANDS + 1)
    above = edges[:-1] > spectrogram.mel(4000.0)
    assert (levels[:, above] == -120).all() and np.median(levels[:, ~above], axis=2).min() > -40


def test_png_has_low_bands_below_and_the_range_in_its_colours():
    levels = np.array([[0.0, -35.0], [-70.0, -np.inf]])
    picture = np.array(Image.open(io.BytesIO(spectrogram.png(levels, 0.0))).convert("RGB"))
    table = spectrogram.colours()
    assert (picture == np.array([[table[0], table[0]], [table[255], table[128]]])).all()


def test_colours_grow_evenly_lighter():
    """Of luminance as screens make it (IEC 61966-2-1), which is what colour-blind readers see too."""
    value = spectrogram.colours() / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    lightness = np.cbrt(linear @ [0.2126, 0.7152, 0.0722])
    steps = np.diff(lightness[::8])
    assert (steps > 0).all() and steps.max() < 3 * steps.min()
    assert lightness[0] < 0.25 and lightness[-1] > 0.9


# -------------------- cues


def panels(svg):
    """Of the two cue panels, (left, top, width, height)."""
    found = re.findall(r'class="panel" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', svg)
    return [tuple(map(float, f)) for f in found][-2:]


def line(svg, style, number_=0):
    """(points, 2) of the `number_`-th path of that style that is drawn with lines."""
    paths = re.findall(rf'<path class="{style}" d="(M[^"h]*)"', svg)
    return np.array([[float(v) for v in p.split()] for p in re.split("[ML]", paths[number_])[1:]])


def drawn(left, right, tracks=(), seconds=1.0):
    audio = np.stack([left, right])
    return draw([ShownSound("ref", audio, RATE, "reference")], tracks, seconds, "label")


def test_ild_is_drawn_where_the_axis_says():
    noise = np.random.default_rng(1).normal(0, 0.1, RATE).astype(np.float32)
    svg = drawn(2 * noise, noise)
    _, top, _, height = panels(svg)[0]
    reach = 12.0  # the least that the axis shows
    middle = line(svg, "line reference")[5:-5, 1]
    expected = top + height / 2 - 20 * np.log10(2) / reach * height / 2
    # the floor of cues.ild_db takes a little off
    assert np.abs(middle - expected).max() < 0.3


def test_itd_is_drawn_where_the_axis_says():
    noise = np.random.default_rng(2).normal(0, 0.1, RATE + 16).astype(np.float32)
    svg = drawn(noise[16:], noise[:-16])  # the left ear hears it 0.5 ms earlier
    _, top, _, height = panels(svg)[1]
    middle = line(svg, "line reference", 1)[5:-5, 1]
    expected = top + height / 2 - 500 / pictures.ITD_US * height / 2
    assert np.median(middle) == pytest.approx(expected, abs=0.3)


def test_silence_is_a_gap_and_the_true_angle_shares_the_zero():
    noise = np.random.default_rng(3).normal(0, 0.1, RATE).astype(np.float32)
    noise[RATE // 2 :] = 0
    angle = np.where(np.arange(25) < 10, 45.0, np.nan)
    track = Track("a bell", angle, 25.0, np.array([0.25]))
    svg = drawn(noise, noise, (track,))
    left, top, width, height = panels(svg)[0]
    points = line(svg, "line reference")
    assert points[:, 0].max() < left + width * 0.56
    assert points[0, 0] == pytest.approx(left + width * 0.5 / cues.FRAME_RATE_HZ, abs=0.1)
    truth = line(svg, "lateral t0")
    assert truth[:, 1] == pytest.approx(np.full(10, top + height / 4), abs=0.1)
    assert truth[-1, 0] == pytest.approx(left + width * 9 / 25, abs=0.1)
    assert svg.count('class="onset"') == 2  # in both ears' spectrograms
    assert "true lateral angle, a bell" in svg and "+45\N{DEGREE SIGN}" in svg


def test_axes_have_units():
    svg = drawn(tone(500.0), tone(500.0))
    for words in ("kHz", "ILD in dB, + left louder", "ITD in \N{MICRO SIGN}s, + left first", "0 dB", ">s<"):
        assert words in svg


def test_a_longer_or_shorter_sound_stays_in_the_panel():
    noise = np.random.default_rng(4).normal(0, 0.1, 2 * RATE).astype(np.float32)
    svg = drawn(noise, noise, seconds=1.0)
    left, _, width, _ = panels(svg)[0]
    assert line(svg, "line reference")[:, 0].max() <= left + width
    short = drawn(noise[: RATE // 2], noise[: RATE // 2], seconds=1.0)
    assert line(short, "line reference")[:, 0].max() < left + 0.55 * width


def test_a_lone_value_is_a_dot_and_nothing_is_nothing():
    panel = Panel(0, 0, 100, 10, 1.0, -1, 1)
    assert panel.path(np.array([np.nan, 0.0, np.nan]), 10.0, "x") == '<path class="x" d="M10.0 5.0h0.1"/>'
    assert panel.path(np.full(3, np.nan), 10.0, "x") == ""


@pytest.mark.parametrize(
    ("seconds", "ticks"),
    [(8.0, [0, 1, 2, 3, 4, 5, 6, 7, 8]), (0.5, [0, 0.1, 0.2, 0.3, 0.4, 0.5]), (60, None)],
)
def test_time_ticks(seconds, ticks):
    found = time_ticks(seconds)
    assert found == (ticks or [0, 10, 20, 30, 40, 50, 60])


# -------------------- text


@pytest.mark.parametrize(
    ("value", "digits", "factor", "text"),
    [
        (0.98765, 1, 100.0, "98.8"),
        (-0.5, 2, 1.0, "\N{MINUS SIGN}0.50"),
        (-0.0001, 2, 1.0, "0.00"),
        (float("nan"), 2, 1.0, "\N{EM DASH}"),
    ],
)
def test_numbers(value, digits, factor, text):
    assert number(value, digits, factor) == text


def test_p_values_script_json_and_slugs():
    assert [p_value(p) for p in (0.0004, 0.04, float("nan"))] == ["< 0.001", "0.040", "\N{EM DASH}"]
    assert script_json({"</script>": [float("inf"), "&"]}) == '{"\\u003c/script\\u003e":[null,"\\u0026"]}'
    assert slug("../a b/\N{SNOWMAN}") == "a-b" and slug("") == "x"
    assert slug("A", taken=["a", "a-2"]) == "A-3"
