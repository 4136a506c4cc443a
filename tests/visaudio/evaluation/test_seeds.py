"""Trainings of several seeds as one row: the mean, its interval over clips, and what one method is ahead."""

import numpy as np
import plain_measures
import pytest
import soundfile

from bi_audio_dataset.schema import UserError
from visaudio.evaluation.runner import Options, score
from visaudio.evaluation.seeds import SeedTable, markdown

RATE = 8000
CLIPS = 12


def _sounds(folder, gains_db):
    """One sound for each gain; its ILD is twice the gain."""
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).normal(size=(RATE, 2)) * 0.05
    for number, gain_db in enumerate(gains_db):
        ears = 10 ** (np.array([gain_db, -gain_db]) / 20)
        soundfile.write(folder / f"c{number:02d}.wav", noise * ears, RATE, subtype="FLOAT")
    return folder


@pytest.fixture
def scored(tmp_path, monkeypatch):
    plain_measures.use(monkeypatch, "level", "spread")
    steps = np.arange(CLIPS) / 4
    systems = {
        "a-0": _sounds(tmp_path / "a0", steps),
        "a-1": _sounds(tmp_path / "a1", steps + 1.0),
        "b-0": _sounds(tmp_path / "b0", steps - 1.0),
        "b-1": _sounds(tmp_path / "b1", steps[:-1]),  # one clip less
    }
    reference = _sounds(tmp_path / "truth", 0 * steps)
    options = Options(resamples=200, progress=False)
    return score(systems, reference, tmp_path / "out", options)


METHODS = {"a": ("a-0", "a-1"), "b": ("b-0", "b-1")}


def test_a_row_is_the_mean_of_its_seeds_over_the_clips_of_all(scored):
    table = SeedTable(scored.figures, METHODS)
    assert table.clips == {"level": CLIPS - 1, "spread": CLIPS - 1}
    mean = 2 * np.arange(CLIPS - 1).mean() / 4  # of the ILD where nothing is added, in dB
    found = table.of("a", "ild_db")
    offset = np.array(found.seeds) - mean
    assert np.allclose(np.diff(offset), 2.0, atol=1e-6)  # a second seed 1 dB further: its ILD 2 dB
    assert found.value == pytest.approx(np.mean(found.seeds)) == (found.least + found.greatest) / 2
    assert found.low < found.value < found.high


def test_what_is_alike_in_every_clip_is_certain(scored):
    """The two methods differ by the same in all clips: the interval of the step is a point."""
    step = SeedTable(scored.figures, METHODS).step("a", "b", "ild_db")
    assert step.value == pytest.approx(2.0, abs=1e-6)
    assert 0 <= step.high - step.low < 1e-6
    assert np.isnan(step.wins)  # an ILD is neither good nor bad


def test_wins_are_counted_by_seeds(scored):
    table = SeedTable(scored.figures, METHODS)
    ours, theirs = (table.of(m, "level_error_db").seeds for m in "ab")
    expected = np.mean([(x < y) + 0.5 * (x == y) for x in ours for y in theirs])
    assert table.step("a", "b", "level_error_db").wins == expected
    assert table.step("b", "a", "level_error_db").wins == 1 - expected


def test_some_clips_alone_and_no_distances_of_them(scored):
    table = SeedTable(scored.figures, METHODS, among={"c00", "c01", "c11"})
    assert table.clips == {"level": 2}  # c11 is one that a seed lacks
    assert table.figures == ("level_error_db", "ild_db")
    with pytest.raises(UserError, match="no clip that all seeds"):
        SeedTable(scored.figures, METHODS, among={"c11"})


def test_one_seed_of_one_method(scored):
    table = SeedTable(scored.figures, {"only": ("a-0",)})
    single, _ = scored.figures.resampled(
        "a-0", scored.figures.chosen[0], tuple(f"c{i:02d}" for i in range(CLIPS))
    )
    assert table.of("only", "ild_db").value == single.values["ild_db"]


def test_the_table_says_values_intervals_seeds_and_steps(scored):
    table = SeedTable(scored.figures, METHODS)
    text = markdown(table, {"a": "first", "b": "second"}, ["level_error_db", "ild_db"], {"b": "a"})
    lines = text.splitlines()
    assert lines[0] == "| method | level error (dB) ↓ | ILD (dB) |"
    found = table.of("a", "ild_db")
    cell = f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]; {found.least:.3f} to {found.greatest:.3f}"
    assert lines[2].startswith("| first | ") and lines[2].endswith(f" | {cell} |")
    assert lines[5] == lines[0].replace("method", "step")
    assert lines[7].startswith("| second, less first | ") and "| -2.000 [-2.000, -2.000] |" in lines[7]
