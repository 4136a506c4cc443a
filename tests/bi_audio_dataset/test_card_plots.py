import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bi_audio_dataset import card_plots
from bi_audio_dataset.figures import IN_VIEW, OUT_OF_VIEW, Figures

matplotlib = pytest.importorskip("matplotlib")


def some_figures(lateral_bins=(12,)) -> Figures:
    figures = Figures()
    figures.classes["bell", "train"] = 3
    figures.classes["a class of a very long name that goes on and on", "test"] = 1
    for place in lateral_bins:
        figures.lateral[IN_VIEW][place] = 30
    figures.lateral[OUT_OF_VIEW][9] = 10
    figures.values["level"].extend([-20.0, -31.0, -90.0])
    figures.values["hfov"].extend([90.0] * 4)
    return figures


def test_only_what_there_is_to_show_is_drawn(tmp_path):
    plots = card_plots.draw(some_figures(), tmp_path)
    names = ["assets/classes.png", "assets/lateral.png", "assets/level.png", "assets/hfov.png"]
    assert [plot.path for plot in plots] == names
    assert sorted(p.name for p in (tmp_path / "assets").iterdir()) == sorted(Path(n).name for n in names)
    assert set(names) <= set(card_plots.FILES)
    for plot in plots:
        assert (tmp_path / plot.path).stat().st_size < 40_000
    assert card_plots.draw(Figures(), tmp_path / "none") == []


def colour_columns(path: Path, colour: str) -> np.ndarray:
    """Columns of the picture that hold the colour, 0 to 1."""
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    found = (np.abs(picture - wanted).sum(axis=2) < 12).sum(axis=0)
    return np.flatnonzero(found > 20) / picture.shape[1]


def test_left_is_drawn_on_the_left(tmp_path):
    """Bins 15 and 2 are +60..70 and -70..-60 degrees; a tall bar is more than the legend's small mark."""
    for number, place in enumerate((15, 2)):
        card_plots.draw(some_figures((place,)), tmp_path / str(number))
    left, right = (
        colour_columns(tmp_path / n / "assets/lateral.png", card_plots.COLOURS[IN_VIEW]) for n in "01"
    )
    assert left.max() < 0.4 and right.min() > 0.6


def test_same_bytes_in_another_process_with_other_settings_of_the_user(tmp_path):
    card_plots.draw(some_figures(), tmp_path / "here")
    (tmp_path / "matplotlibrc").write_text("figure.facecolor: black\nfont.size: 20\nsavefig.dpi: 30\n")
    script = (
        "import sys; sys.path[:0] = sys.argv[2:]; from pathlib import Path; import test_card_plots as t\n"
        "t.card_plots.draw(t.some_figures(), Path(sys.argv[1]))"
    )
    places = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "there"), *places], cwd=tmp_path, check=True
    )  # matplotlib reads matplotlibrc in the working directory
    files = sorted((tmp_path / "here/assets").iterdir())
    assert len(files) == 4
    for path in files:
        data = path.read_bytes()
        assert data == (tmp_path / "there/assets" / path.name).read_bytes()
        assert b"tEXt" not in data and b"tIME" not in data


def test_settings_of_the_user_come_back(tmp_path):
    before = matplotlib.rcParams["font.size"]
    matplotlib.rcParams["font.size"] = 17
    try:
        card_plots.draw(some_figures(), tmp_path)
        assert matplotlib.rcParams["font.size"] == 17
    finally:
        matplotlib.rcParams["font.size"] = before
