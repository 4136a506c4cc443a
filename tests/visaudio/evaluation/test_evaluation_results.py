"""results.json and the tables beside it say what the object says."""

import csv
import io
import json
import math
from dataclasses import replace

import pytest

from bi_audio_dataset.schema import UserError
from visaudio.evaluation import measures, writing
from visaudio.evaluation.measures import FigureSpec, Settings
from visaudio.evaluation.results import (
    ClipScored,
    Comparison,
    Figure,
    MeasureUsed,
    Problem,
    Results,
    SoundScored,
    SystemUsed,
)

NAN = math.nan
SPECS = (
    FigureSpec("side", "side correct", "%", "higher", 1, 100.0),
    FigureSpec("fd", "FD", better="lower", digits=2, per_clip=False),
)


def results(**changes) -> Results:
    given = {
        "systems": (SystemUsed("mine", "/sounds", 2, {"seed": 1}, 2), SystemUsed("other", "/o", 1, of=2)),
        "measures": (MeasureUsed("m", "m-1", SPECS, 1000),),
        "figures": {
            "mine": {"side": Figure(0.5, 0.25, 0.75, 2), "fd": Figure(1.25, 1.0, 2.0, 2)},
            "other": {"side": Figure(1.0, NAN, NAN, 1), "fd": Figure(NAN, NAN, NAN, 0)},
        },
        "clips": (
            ClipScored(
                "a",
                {
                    "mine": SoundScored("a.wav", 1.5, {"side": 0.25}),
                    "other": SoundScored("b.wav", 2.0, {"side": NAN}),
                },
                'a bell, "struck"',
                "ref/a.wav",
                None,
                "clips/a.json",
            ),
        ),
        "comparisons": (Comparison("mine", "other", "fd", Figure(0.5, -1.0, 2.0, 1), 0.5, NAN, NAN),),
        "problems": (Problem("mono", "one channel", ("a", "b"), "mine", details=("", "x")),),
        "unavailable": {"clap": "pip install clap"},
        "groups": {"several": ("a",)},
        "group_titles": {"several": "two or more"},
        "group_figures": {"several": {"mine": {"side": Figure(0.25, NAN, NAN, 1)}}},
        "made": {"settings": {"limit": None}},
    }  # fmt: skip
    return Results(**{**given, **changes})


def test_json_comes_back_equal(tmp_path):
    text = results().to_json()
    again = Results.from_json(text, tmp_path)
    assert again.to_json() == text
    assert again.figures["mine"]["fd"] == Figure(1.25, 1.0, 2.0, 2)
    assert math.isnan(again.clips[0].sounds["other"].values["side"])
    assert math.isnan(again.comparisons[0].p_holm) and again.comparisons[0].difference.low == -1
    assert again.problems == results().problems and again.measures == results().measures
    assert again.group_figures["several"]["mine"]["side"].value == 0.25
    assert again.path(again.clips[0].truth) == tmp_path / "clips" / "a.json"
    assert again.path(again.clips[0].video) is None
    assert again.path("/elsewhere/x.wav").as_posix() == "/elsewhere/x.wav"


def test_json_knows_no_nan():
    stored = json.loads(results().to_json(), parse_constant=lambda name: pytest.fail(name))
    assert stored["figures"]["other"]["side"] == [1.0, None, None, 1]
    assert stored["figures"]["mine"]["side"] == [0.5, 0.25, 0.75, 2]


@pytest.mark.parametrize(
    "text, message",
    [
        ("{}", "not the results.json"),
        ("[1]", "not the results.json"),
        ("nonsense", "not the results.json"),
        ('{"schema_version": 99}', "schema version 99, expected 1"),
    ],
)
def test_what_is_not_results(text, message):
    with pytest.raises(UserError, match=message):
        Results.from_json(text)


def changed(where, value="gone"):
    """The stored results with one thing otherwise; where: keys down to it."""
    stored = json.loads(results().to_json())
    *way, last = where
    at = stored
    for key in way:
        at = at[key]
    if value == "gone":
        del at[last]
    else:
        at[last] = value
    return json.dumps(stored)


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (["systems"], "gone", "it lacks 'systems'"),
        (["clips", 0, "sounds"], "gone", "it lacks 'sounds'"),
        (["clips", 0, "id"], "gone", "missing 1 required positional argument: 'id'"),
        (["systems", 0, "colour"], "red", "unexpected keyword argument 'colour'"),
        (["colour"], "red", "unexpected keyword argument 'colour'"),
        (["systems"], 5, "not iterable"),
        (["made"], 5, "made: expected an object"),
        (["clips", 0, "id"], 5, "clips\\[0\\].id: expected text"),
        (["clips", 0, "sounds", "mine", "duration_s"], "1.5", "duration_s: expected a number"),
        (["clips", 0, "sounds", "mine", "duration_s"], 10**400, "duration_s: expected a smaller number"),
        (["clips", 0, "sounds", "mine", "values", "side"], "high", "'high' in place of a number"),
        (["clips", 0, "truth"], 1, "clips\\[0\\].truth: expected text"),
        (["systems", 0, "clips"], True, "systems\\[0\\].clips: expected a whole number"),
        (["figures", "mine", "side"], [1, 2], "not enough values"),
        (["figures", "other"], "gone", "no figures of system 'other'"),
        (["figures", "third"], {}, "there is no system 'third'"),
        (["systems", 1, "name"], "mine", "two systems of one name"),
        (["comparisons", 0, "figure"], "odd", "there is no figure 'odd'"),
        (["comparisons", 0, "a"], "third", "there is no system 'third'"),
        (["measures", 0, "figures", 0, "better"], "green", "figure 'side': better 'green'"),
        (["problems", 0, "names"], "a", "'a' in place of a list"),
        (["problems", 0, "details"], [""], "more or fewer details than names"),
    ],
)
def test_what_somebody_changed_is_told(where, value, message):
    with pytest.raises(UserError, match=rf"not as an evaluation writes.*{message}.*evaluate again") as error:
        Results.from_json(changed(where, value))
    assert "\n" not in str(error.value)


def test_a_nest_without_end_is_no_results():
    with pytest.raises(UserError, match="not the results.json"):
        Results.from_json("[" * 100_000)


def test_the_files(tmp_path):
    written = writing.write(results(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "clips.csv", "comparisons.csv", "results.json", "table.csv",
    ]  # fmt: skip
    assert written.folder == tmp_path.resolve()
    assert Results.from_json((tmp_path / "results.json").read_text()).to_json() == results().to_json()
    rows = {name: list(csv.DictReader(io.StringIO((tmp_path / name).read_text()))) for name in
            ("clips.csv", "table.csv", "comparisons.csv")}  # fmt: skip
    first, second = rows["clips.csv"]
    assert (first["id"], first["system"], float(first["side"]), first["sound"]) == (
        "a",
        "mine",
        0.25,
        "a.wav",
    )
    assert second["side"] == "" and "fd" not in second
    table = {(row["group"], row["system"], row["figure"]): row for row in rows["table.csv"]}
    assert len(table) == 5
    assert [table["", "mine", "side"][k] for k in ("value", "low", "high", "clips")] == [
        "0.5",
        "0.25",
        "0.75",
        "2",
    ]
    assert table["", "other", "fd"]["value"] == "" and table["several", "mine", "side"]["value"] == "0.25"
    assert table["", "other", "side"]["of"] == "2" and table["several", "mine", "side"]["of"] == ""
    (difference,) = rows["comparisons.csv"]
    assert (difference["value"], difference["p_bootstrap"], difference["p_holm"]) == ("0.5", "0.5", "")


def test_values_in_csv_are_in_the_unit_beside_them(tmp_path):
    specs = (SPECS[0], FigureSpec("late_s", "delay", "us", factor=1e6), FigureSpec("fd", "FD", "dB"))
    late, fd = Figure(1.16e-4, 1e-4, 2e-4, 1), Figure(0.5, -1.0, 2.0, 1)
    given = results(
        measures=(MeasureUsed("m", "m-1", specs, 1000),),
        figures={"mine": {"side": Figure(0.938, NAN, NAN, 1), "late_s": late, "fd": fd}},
        comparisons=(Comparison("mine", "other", "late_s", late, 0.5, NAN, NAN),),
        group_figures={},
    )
    writing.write(given, tmp_path)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text())))
    assert [(row["figure"], row["unit"], float(row["value"])) for row in rows] == [
        ("side", "share", 0.938),
        ("late_s", "s", 1.16e-4),
        ("fd", "dB", 0.5),
    ]
    (row,) = csv.DictReader(io.StringIO((tmp_path / "comparisons.csv").read_text()))
    assert (row["unit"], float(row["value"])) == ("s", 1.16e-4)


def test_every_figure_of_the_suite_has_a_measured_unit():
    """That of a value before its factor: a unit of its own, not '100 %'."""
    names = ("space", "align", "truth", "onsets", "fsad", "plausibility")
    specs = [spec for name in names for spec in measures.make(name, Settings()).figures]
    scaled = {spec.name: spec.measured_unit for spec in specs if spec.factor != 1}
    assert set(scaled.values()) == {"share", "s"}
    assert (scaled["ild_side"], scaled["itd_error_s"], scaled["truth_side"]) == ("share", "s", "share")
    assert {s.name: s.measured_unit for s in specs}["truth_itd_gcc_us"] == "us"
    assert FigureSpec("x", "x", "min", factor=1 / 60).measured_unit == "0.0166667 min"


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file: cannot be made a folder to write to"):
        writing.write(results(), tmp_path / "file")
    (tmp_path / "out" / "table.csv").mkdir(parents=True)
    with pytest.raises(UserError, match="table.csv: cannot be written"):
        writing.write(results(), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["clips.csv", "table.csv"]


def test_the_table_of_a_terminal():
    lines = writing.table_text(results()).splitlines()
    assert lines[0].split() == ["mine", "(2", "clips)", "other", "(1", "of", "2", "clips)"]
    assert lines[1] == "m"
    assert lines[2].split() == ["side", "correct", "[%]", "(+)", "50.0", "[25.0,", "75.0]", "100.0"]
    assert lines[3].split() == ["FD", "(-)", "1.25", "[1.00,", "2.00]", "-"]


def test_figures_of_one_title_stand_under_their_measures():
    """Space and truth both have an "ILD error": one against the reference, one against the truth."""
    found = results()
    names = {"ild_error_db": 1.5, "truth_ild_error_db": 2.5}
    measures = tuple(
        MeasureUsed(measure, "k", (FigureSpec(name, "ILD error", "dB", digits=1),), 9)
        for measure, name in zip(("space", "truth"), names, strict=True)
    )
    figures = {s.name: {n: Figure(v, math.nan, math.nan, 1) for n, v in names.items()} for s in found.systems}
    lines = writing.table_text(replace(found, measures=measures, figures=figures)).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["space"],
        ["ILD", "error", "[dB]", "(-)", "1.5", "1.5"],
        ["truth"],
        ["ILD", "error", "[dB]", "(-)", "2.5", "2.5"],
    ]


def test_the_command_does_not_tell_where_this_machine_keeps_its_folders(tmp_path):
    typed = ["--generated", f"mine={tmp_path}/a", f"{tmp_path}/b c", "--limit", "3", "--output", "runs/x"]
    assert writing.shown_command(typed) == (
        "python -m visaudio.evaluation --generated mine=a 'b c' --limit 3 --output runs/x"
    )


def test_what_it_ran_on_is_stamped():
    made = writing.stamped(results(), "the command").made
    assert made["command"] == "the command" and made["settings"] == {"limit": None}
    assert {"visaudio", "python", "numpy", "scipy", "soxr"} <= set(made["versions"])
