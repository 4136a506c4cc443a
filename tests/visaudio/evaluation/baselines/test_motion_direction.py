"""The benchmark of the motion's direction on clips in which nothing moves: the path stays in front."""

import json
from pathlib import Path

import pytest
from scripts import load_script


@pytest.fixture(scope="module")
def benchmark():
    return load_script(Path(__file__).parents[4] / "benchmarks" / "motion_direction.py")


def test_still_pictures_give_the_fronts_error(benchmark, heldout, capsys):
    assert benchmark.main(["--dataset", str(heldout), "--split", "test", "--clips", "3"]) == 0
    figures = json.loads(capsys.readouterr().out)
    for kind in benchmark.KINDS:
        assert figures[kind]["clips"] == 3 and figures[kind]["side"] == 0
        assert figures[kind]["error_of_front_deg"] == pytest.approx((30 + 30 + 10) / 3, abs=0.01)
        assert figures[kind]["error_deg"] == pytest.approx(figures[kind]["error_of_front_deg"], abs=0.1)


def test_a_wrong_dataset_is_one_line(benchmark, tmp_path, capsys):
    assert benchmark.main(["--dataset", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
