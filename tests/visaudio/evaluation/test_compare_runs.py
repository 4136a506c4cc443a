"""Several runs side by side: what is common is tested, what is not is told, and numbers stay as they were."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from html_tree import read_page
from scipy.stats import wilcoxon
from small_results import SECONDS, small_results, values

from bi_audio_dataset.schema import UserError
from visaudio.evaluation.compare import main, merge, read_runs
from visaudio.evaluation.intervals import holm
from visaudio.evaluation.results import Figure, MeasureUsed, Results, SoundScored


def stored(results, folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(results.to_json())
    return folder / "results.json"


def shifted(results, by, without=()):
    """The same clips with errors that are larger by `by(k)`, less some clips."""
    clips = []
    for k, clip in enumerate(results.clips):
        if k in without:
            continue
        (sound,) = clip.sounds.values()
        row = {name: value + by(k) * (name == "ild_error_db") for name, value in sound.values.items()}
        clips.append(replace(clip, sounds={"ours": replace(sound, values=row)}))
    return replace(results, clips=tuple(clips))


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return small_results(tmp_path_factory.mktemp("one"), systems=("ours",), clips=8)


def by(k):
    return 0.1 * (k + 1)


@pytest.fixture
def two_runs(one, tmp_path):
    """A: 8 clips; B: the same sounds, larger errors, clips 0 and 7 not there."""
    return [
        f"A={stored(one, tmp_path / 'a')}",
        f"B={stored(shifted(one, by, without=(0, 7)), tmp_path / 'b')}",
    ]


def test_common_clips_are_tested_in_pairs(two_runs):
    merged = merge(read_runs(two_runs))
    assert [s.name for s in merged.systems] == ["A", "B"]
    tests = {c.figure: c for c in merged.comparisons}
    assert list(tests) == ["ild_error_db", "side", "ratio_db"]  # of distances there are no tests
    common = [k for k in range(1, 7) if k != 2]  # clip 2 has no error
    difference = np.array([-by(k) for k in common])
    error = tests["ild_error_db"]
    assert (error.a, error.b) == ("A", "B")
    assert error.difference.value == pytest.approx(difference.mean())
    assert error.difference.low < difference.mean() < error.difference.high < 0
    assert error.p_wilcoxon == pytest.approx(wilcoxon(difference).pvalue) == 2 * 0.5**5
    assert error.p_holm == pytest.approx(holm([error.p_wilcoxon, 1.0])[0])
    assert error.difference.clips == 5 and tests["side"].difference.clips == 5
    assert math.isnan(tests["ratio_db"].p_holm)  # neither end is better
    assert tests["side"].difference.value == 0 and tests["side"].p_wilcoxon == 1


@pytest.mark.parametrize(("pooled", "p"), [(-2.0, 0.0625), (2.0, 1.0)])
def test_a_pooled_figure_and_its_clips_must_point_the_same_way(one, tmp_path, pooled, p):
    """A has less error in every clip. Pooled over frames it may have more: then A is not called better."""
    figures = {"ours": one.figures["ours"] | {"ild_error_db": Figure(6 + pooled, 5, 9, 7)}}
    a = stored(replace(one, figures=figures), tmp_path / "a")
    figures = {"ours": one.figures["ours"] | {"ild_error_db": Figure(6.0, 5, 9, 7)}}
    b = stored(replace(shifted(one, by, without=(0, 7)), figures=figures), tmp_path / "b")
    merged = merge(read_runs([f"A={a}", f"B={b}"]))
    error = next(c for c in merged.comparisons if c.figure == "ild_error_db")
    assert error.difference.value < 0 and error.p_wilcoxon == 0.0625
    assert error.p_holm == holm([p, 1.0])[0]


def test_what_is_not_common_is_told_and_still_listed(two_runs):
    merged = merge(read_runs(two_runs))
    (problem,) = [p for p in merged.problems if p.kind == "not_common"]
    assert problem.names == ("clip-0", "clip-7") and problem.system == "A, B"
    assert [list(c.sounds) for c in merged.clips] == [["A"]] + 6 * [["A", "B"]] + [["A"]]


def test_figures_are_those_of_the_runs(one, two_runs):
    merged = merge(read_runs(two_runs))
    assert merged.figures == {"A": one.figures["ours"], "B": one.figures["ours"]}
    assert merged.group_figures["near"]["B"] == one.group_figures["near"]["ours"]
    assert merged.made["runs"]["A"] == one.made


def test_paths_hold_from_elsewhere(tmp_path, monkeypatch):
    """A run's paths are relative to its own folder; the comparison lies in another."""
    run = small_results(tmp_path / "sounds", systems=("ours",), clips=2)
    relative = tuple(
        replace(
            c,
            reference=f"../sounds/reference/{k}.flac",
            truth=None,
            sounds={"ours": replace(c.sounds["ours"], path=f"../sounds/system0/{k}.flac")},
        )
        for k, c in enumerate(run.clips)
    )
    stored(replace(run, clips=relative), tmp_path / "a")
    stored(replace(run, clips=relative), tmp_path / "b")
    monkeypatch.chdir(tmp_path)
    merged = merge(read_runs(["A=a/results.json", "B=b"]))
    stored_paths = [p for c in merged.clips for p in (c.reference, *(s.path for s in c.sounds.values()))]
    places = list(map(Path, stored_paths))
    assert len(places) == 6 and all(p.is_absolute() and p.is_file() for p in places)
    assert not [p for p in merged.problems if "reference" in p.kind]


def test_systems_keep_their_names_where_runs_have_none(tmp_path):
    a = small_results(tmp_path / "a", systems=("ours", "mono"))
    b = small_results(tmp_path / "b", systems=("theirs",))
    merged = merge(read_runs([str(stored(a, tmp_path / "a")), str(stored(b, tmp_path / "b"))]))
    assert [s.name for s in merged.systems] == ["ours", "mono", "theirs"]
    pairs = list(dict.fromkeys((c.a, c.b) for c in merged.comparisons))
    assert pairs == [("ours", "mono"), ("ours", "theirs"), ("mono", "theirs")]
    # what a run tested itself, distances too, is kept
    kept = [c for c in merged.comparisons if (c.a, c.b) == pairs[0]]
    assert [c.figure for c in kept] == ["ild_error_db", "side", "ratio_db", "fd"]
    named = merge(read_runs([f"X={tmp_path / 'a'}", f"Y={tmp_path / 'b'}"]))
    assert [s.name for s in named.systems] == ["X/ours", "X/mono", "Y"]
    assert {p.system for p in named.problems} == {"X/ours", "X/mono", "X/mono, Y", "Y"}


def test_two_systems_of_one_name_are_refused(one, tmp_path):
    runs = [str(stored(one, tmp_path / name)) for name in "ab"]
    with pytest.raises(UserError, match="called 'ours' in .*a.results.json and in .*: give the runs"):
        merge(read_runs(runs))


def test_a_measure_with_other_settings_is_left_out_and_told(one, tmp_path):
    other = (replace(one.measures[0], key="s-2"), one.measures[1], MeasureUsed("new", "n-1", (), 10))
    b = replace(one, measures=other)
    merged = merge(read_runs([f"A={stored(one, tmp_path / 'a')}", f"B={stored(b, tmp_path / 'b')}"]))
    assert set(merged.figures["B"]) == {"fd"} and merged.figures["A"] == one.figures["ours"]
    assert set(merged.group_figures["near"]["B"]) == set()
    assert merged.comparisons == () and [m.name for m in merged.measures] == ["space", "quality", "new"]
    (problem,) = [p for p in merged.problems if p.kind == "other_measure"]
    assert (problem.system, problem.names, problem.serious) == ("B", ("space",), True)
    assert merged.clips[0].sounds["B"].values == {}


def test_another_reference_is_no_pair(one, tmp_path):
    """The same id, another sound: its clips are shown and not tested."""
    strange = small_results(tmp_path / "sounds", systems=("ours",), clips=8)
    changed = Path(strange.clips[3].reference)
    changed.write_bytes(Path(strange.clips[4].reference).read_bytes())
    Path(strange.clips[5].reference).unlink()
    merged = merge(read_runs([f"A={stored(one, tmp_path / 'a')}", f"B={stored(strange, tmp_path / 'b')}"]))
    told = {p.kind: p.names for p in merged.problems}
    assert told["other_reference"] == ("clip-3",) and told["reference_gone"] == ("clip-5",)
    assert set(merged.clips[3].sounds) == {"A", "B"}
    assert [c.difference.clips for c in merged.comparisons] == [6, 6, 7]  # clip 2 has errors of neither


def test_nothing_in_common(one, tmp_path):
    other = replace(one, clips=tuple(replace(c, id=f"else-{k}") for k, c in enumerate(one.clips)))
    runs = [f"A={stored(one, tmp_path / 'a')}", f"B={stored(other, tmp_path / 'b')}"]
    with pytest.raises(UserError, match="A and B have no clip with the same reference in common"):
        merge(read_runs(runs))


def test_a_clip_that_one_run_has_no_value_for(one, tmp_path):
    """nan stays out of the means of both, and a figure that one lacks altogether out of the tests."""
    row = {"side": 0.5, "ratio_db": math.nan}
    bare = tuple(
        replace(c, sounds={"ours": SoundScored(c.sounds["ours"].path, SECONDS, row)}) for c in one.clips
    )
    b = replace(one, clips=bare)
    merged = merge(read_runs([f"A={stored(one, tmp_path / 'a')}", f"B={stored(b, tmp_path / 'b')}"]))
    (test,) = merged.comparisons
    sides = [values(k, 0)["side"] for k in range(8) if k != 2]
    assert test.figure == "side" and test.difference.value == pytest.approx(np.mean(sides) - 0.5)


# -------------------- the command


def test_command_writes_everything(two_runs, tmp_path, capsys):
    output = tmp_path / "out"
    command = [*two_runs, "--output", str(output), "--resamples", "50", "--seed", "3", "--report-clips", "1"]
    assert main([*command, "--report-figure", "side", "--report-system", "B"]) == 0
    out, err = capsys.readouterr()
    assert "A (8 clips)" in out and "2 x a clip that one of two compared systems lacks" in err
    found = Results.from_json((output / "results.json").read_text(), output)
    assert found.made["command"].startswith("python -m visaudio.evaluation.compare A=results.json")
    assert str(tmp_path) not in found.made["command"]
    again = merge(read_runs(two_runs), resamples=50, seed=3)
    assert str(found.comparisons) == str(again.comparisons)  # nan is not nan
    assert found.comparisons != merge(read_runs(two_runs), resamples=50, seed=4).comparisons
    page = read_page((output / "report.html").read_text())
    (card,) = page.all("article")
    assert card.one("small").text == "1 of 8 from the worst by side accuracy of B"
    assert (output / "clips.csv").read_text().count("\n") == 1 + 8 + 6


def test_one_run_gets_its_page_anew_and_nothing_else(one, tmp_path, capsys):
    run = stored(one, tmp_path / "a")
    before = run.read_bytes()
    assert main([str(run), "--output", str(run.parent), "--report-clips", "0"]) == 0
    assert capsys.readouterr().out.strip() == str(run.parent / "report.html")
    assert run.read_bytes() == before and {p.name for p in run.parent.iterdir()} == {
        "results.json",
        "report.html",
        "media",
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [(None, "cannot be read (No such file or directory), expected a results.json"),
     ("{}", "not the results.json of an evaluation"),
     (json.dumps({"schema_version": 99}), "results of schema version 99"),
     ("\xff", "not the results.json"),
     (json.dumps({"schema_version": 1}), "writes its results.json (it lacks 'systems')")],
)  # fmt: skip
def test_a_file_that_is_no_results(tmp_path, capsys, text, reason):
    if text is not None:
        (tmp_path / "results.json").write_text(text)
    assert main([str(tmp_path / "results.json"), "--output", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and reason in err and err.count("\n") == 1


def test_runs_are_not_overwritten_and_flags_are_checked(two_runs, tmp_path, capsys):
    assert main([*two_runs, "--output", str(tmp_path / "a")]) == 2
    assert "holds one of the runs" in capsys.readouterr().err
    assert main([*two_runs, "--output", str(tmp_path / "out"), "--report-figure", "loudness"]) == 2
    assert "no clip has a figure 'loudness'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit):
        main([*two_runs, "--output", str(tmp_path / "out"), "--report-clips", "-1"])
    (tmp_path / "file").write_text("")
    assert main([*two_runs, "--output", str(tmp_path / "file")]) == 2


@pytest.mark.slow
def test_it_runs_as_a_module(two_runs, tmp_path):
    command = [sys.executable, "-m", "visaudio.evaluation.compare", *two_runs, "--report-clips", "0"]
    subprocess.run([*command, "--output", str(tmp_path / "out")], check=True, capture_output=True)
    assert (tmp_path / "out" / "report.html").is_file()
