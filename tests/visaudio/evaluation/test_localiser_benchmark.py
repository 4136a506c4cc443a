import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "localiser.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("localiser_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_spherical_head_is_odd_and_grows(script, capsys):
    assert script.main([]) == 0
    cells = capsys.readouterr().out.strip().splitlines()[2].strip("|").split("|")
    angles = [float(cell) for cell in cells[1:]]
    assert len(angles) == len(script.AZIMUTHS_DEG) and angles == sorted(angles)
    assert [-a for a in angles[::-1]] == angles


def test_clips_are_held_against_their_rows(script, fake_biaudio):
    """The fake rows hold level differences alone, so that the angle is too small, on the right side."""
    from visaudio.data.dataset import open_dataset

    everything = lambda where, splits: open_dataset(where)  # noqa: E731 (none of the fake rows is a test's)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "open_dataset", everything)
        lines = script.clips(fake_biaudio, None).strip().splitlines()
    assert lines[0].startswith("4 clips")
    ours, delay = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[-2:])
    assert ours[5] == "100.0%" and float(ours[1]) < 20
    assert delay[5] == "0.0%"  # there is no delay in these sounds


def test_a_head_that_is_not_there_is_named(script, tmp_path, capsys):
    assert script.main(["--sofa", str(tmp_path / "none.sofa")]) == 2
    assert "none.sofa" in capsys.readouterr().err
