"""benchmarks/ild_spread.py: what it says of sounds whose ILD is known."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from scripts import load_script

ROOT = Path(__file__).parents[4]
RATE = 16000


@pytest.fixture(scope="module")
def script():
    return load_script(ROOT / "benchmarks" / "ild_spread.py")


def values(cells):
    return [float(cell.split()[0]) for cell in cells]


def test_figures_of_known_ilds(script):
    """Two clips at +3 and -3 dB; a system that has twice that, and jumps of 1 dB up and down."""
    jumps = np.tile([0.5, -0.5], 20)
    truth = [(np.full(40, 3.0), 1.0), (np.full(40, -3.0), 1.0)]
    system = [(np.full(40, 6.0) + jumps, 0.5), (np.full(40, -6.0) + jumps, 0.7)]
    assert values(script.spread(truth, truth)) == [3, 0, 0, 1, 1]
    assert values(script.spread(system, truth)) == [6, 0.5, 1, 2, 0.6]


def test_a_clip_without_frames_does_not_count(script):
    truth = [(np.full(9, 3.0), 1.0), (np.full(9, -3.0), 1.0), (np.empty(0), np.nan)]
    assert values(script.spread(truth, truth)) == [3, 0, 0, 1, 1]


def test_what_is_heard(script, tmp_path):
    """One noise 6 dB louder at the left, half a millisecond later at the right; the second half is silent and
    not asked for."""
    noise = np.random.default_rng(0).normal(0, 0.1, RATE)
    ears = np.stack([noise, 10 ** (-6 / 20) * np.roll(noise, 8)]) * (np.arange(RATE) < RATE / 2)
    soundfile.write(tmp_path / "a.wav", ears.T, RATE)
    active = np.arange(25) < 11
    ((ild, iacc),) = script.heard({"a": tmp_path / "a.wav"}, {"a": active}, "one")
    assert len(ild) == 11 and ild == pytest.approx(6, abs=0.3) and iacc > 0.98
    ((ild, iacc),) = script.heard({"a": tmp_path / "a.wav"}, {"a": ~active & (np.arange(25) > 13)}, "one")
    assert len(ild) == 11 and not ild.any() and np.isnan(iacc)


@pytest.fixture
def swapped(script, heldout, tmp_path):
    """The clips' own sounds, and a folder with their ears swapped."""
    rows = script.references.open_rows(heldout)
    true = script.references.write_out(rows, rows.ids, tmp_path / "own", videos=False, progress=False)
    (tmp_path / "swapped").mkdir()
    for clip, reference in true.items():
        audio, rate = soundfile.read(reference.sound)
        soundfile.write(tmp_path / "swapped" / f"{clip}.wav", audio[:, ::-1], rate)
    return tmp_path / "swapped"


def test_the_table(script, heldout, swapped, tmp_path):
    marked = tmp_path / "results.md"
    marked.write_text("<!-- ild_spread: begin -->\nold\n<!-- ild_spread: end -->\n")
    given = ["--dataset", str(heldout), "--config", "default", "--output", str(tmp_path / "out")]
    given += ["--system", f"mirrored={swapped}", "--write-to", str(marked)]
    assert script.main(given) == 0
    text = marked.read_text()
    assert "3 clips." in text and "old" not in text
    truth, mirrored = ([c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines()[5:7])
    assert (truth[0], mirrored[0]) == ("the truth", "mirrored")
    between, within, jumps, factor, iacc = values(mirrored[1:])
    assert values(truth[1:])[3:] == [1, iacc] and factor == -1 and between > 0
    assert values(truth[1:])[:3] == [between, within, jumps]


@pytest.mark.parametrize(
    ("system", "said"),
    [
        ("nothing", "--system nothing: expected NAME=DIR, a folder of sounds"),
        ("a=/nowhere", "--system a=/nowhere: expected NAME=DIR"),
        ("a={empty}", "{empty}: holds no sound or video"),
        ("the truth={empty}", "--system the truth=...: the name is taken"),
    ],
)
def test_mistakes_are_one_line(script, heldout, tmp_path, capsys, system, said):
    (tmp_path / "empty").mkdir()
    given = ["--dataset", str(heldout), "--config", "default", "--output", str(tmp_path / "out")]
    assert script.main([*given, "--system", system.format(empty=tmp_path / "empty")]) == 2
    assert said.format(empty=tmp_path / "empty") in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
