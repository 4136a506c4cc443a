"""Versions of libraries: in build.json and in a recipe; an unfinished build does not go on with others."""

import importlib.metadata
import json

import pytest
from fake_sets import draw_quickly
from quick_maker import QuickMaker, QuickSource, digests, quick_build, tiny_config
from test_main import write_recording

from bi_audio_dataset import card_plots, executors, libraries, publish, unit
from bi_audio_dataset.__main__ import main
from bi_audio_dataset.finalize import finalize, read_record
from bi_audio_dataset.forecast import forecast
from bi_audio_dataset.schema import UserError
from bi_audio_dataset.unit import Work
from bi_audio_dataset.workplace import Parts

REAL = libraries._versions()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(unit, "ClipMaker", QuickMaker)
    monkeypatch.setattr(card_plots, "draw", draw_quickly)


@pytest.fixture
def install(monkeypatch):
    """Pretends that a library is installed in this version."""

    def install(**found):
        monkeypatch.setattr(libraries, "_versions", lambda: tuple(sorted((dict(REAL) | found).items())))

    return install


def test_build_json_says_what_the_bytes_come_from(tmp_path):
    quick_build(tmp_path, 2)
    record = read_record(tmp_path)
    found = record["libraries"]
    assert found["av"] == importlib.metadata.version("av") and found["x264"][:1].isdigit()
    assert found.keys() >= {"libavcodec", "numpy", "scipy", "soxr", "opencv", "pyarrow", "soundfile"}
    assert record["encoder"] == {"name": "libx264", "threads": 1, "x264_params": "mbtree=0"}
    assert "libraries" in (tmp_path / "README.md").read_text()  # the card shows build.json


def test_unfinished_build_refuses_other_versions(tmp_path, install):
    folder = tmp_path / "set"
    quick_build(folder, 3, finalize=False)
    before = digests(folder)
    install(av="99.1", soxr="7")
    words = r"was begun with other versions .*\(av is .* there, 99.1 here; soxr is .* --any-version"
    with pytest.raises(UserError, match=words):
        quick_build(folder, 3)
    with pytest.raises(UserError, match=words):
        forecast(QuickSource((0, 1, 2)), tiny_config(rows_per_shard=8), folder)
    assert {k: v for k, v in digests(folder).items() if "lock" not in k} == {
        k: v for k, v in before.items() if "lock" not in k
    }
    install()
    quick_build(folder, 3)


def test_overruled_it_names_both_and_goes_on(tmp_path, install):
    folder = tmp_path / "set"
    quick_build(folder, 3, finalize=False)
    install(av="99.1")
    assert quick_build(folder, 3, finalize=False, any_version=True).waiting
    both = read_record(folder)["libraries"]
    assert both["av"] == f"{dict(REAL)['av']} and 99.1" and both["numpy"] == dict(REAL)["numpy"]
    quick_build(folder, 3)  # either of the two by now
    install()
    assert quick_build(folder, 3).already_complete


def test_finished_dataset_and_older_record_are_left_alone(tmp_path, install):
    quick_build(tmp_path / "set", 3)
    quick_build(tmp_path / "old", 3, finalize=False)
    record = read_record(tmp_path / "old")
    for name in libraries.KEYS:
        del record[name]
    (tmp_path / "old/build.json").write_text(json.dumps(record))
    before = digests(tmp_path / "set")
    install(av="99.1")
    assert quick_build(tmp_path / "set", 3).already_complete
    assert digests(tmp_path / "set") == before
    quick_build(tmp_path / "old", 3)


def test_finalize_needs_the_pyarrow_of_the_build(tmp_path, install, capsys):
    quick_build(tmp_path, 3, finalize=False)
    install(av="99.1")
    finalize(tmp_path, keep=True)
    install(pyarrow="99.2")
    assert main(["finalize", str(tmp_path)]) == 2
    assert "(pyarrow is " in capsys.readouterr().err
    assert main(["filter", str(tmp_path)]) == 0
    assert main(["finalize", str(tmp_path), "--any-version"]) == 0
    assert read_record(tmp_path)["libraries"]["pyarrow"].endswith(" and 99.2")


def test_worker_with_other_libraries_makes_nothing(tmp_path, install):
    work = Work(QuickSource((1.0,)), tiny_config(), Parts(str(tmp_path)), libraries=libraries.versions())
    work.task()
    install(numpy="99.3")
    with pytest.raises(UserError, match=r"this worker has numpy 99.3, not .*: install the same libraries"):
        work.task()


def test_parts_elsewhere_do_not_mind_versions(tmp_path, install):
    """The address is claimed by source and settings."""
    text = {}
    for name in ("one", "two"):
        install(av=name)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Parts, "claim", lambda self, settings, name=name: text.update({name: settings}))
            quick_build(tmp_path / name, 2, parts=str(tmp_path / f"parts {name}"))
    assert text["one"] == text["two"] and "libraries" not in text["one"]


def test_a_recipe_carries_them(tmp_path, monkeypatch):
    make = QuickMaker.make

    def hashed(self, recording, *rest):
        made = make(self, recording, *rest)
        made.recording |= {"input": {"video": "0" * 64}, "stages": {"render": 1}}
        for row in made.clips:
            row |= {"video": {"sha256": "1"}, "audio": {"sha256": "2"}}
        return made

    monkeypatch.setattr(QuickMaker, "make", hashed)
    quick_build(tmp_path / "set", 2)
    header = publish.write(tmp_path / "set", tmp_path / "r.jsonl")
    assert header["libraries"] == libraries.versions() and header["encoder"] == libraries.encoder()
    assert libraries.differences(header) == [] == libraries.differences({})


def test_any_version_through_the_command_line(tmp_path, install, capsys, monkeypatch):
    monkeypatch.setattr(executors, "choose", lambda *_: executors.Inline())
    (tmp_path / "films").mkdir()
    write_recording(tmp_path / "films", seconds=0.6)
    folder = tmp_path / "set"
    command = ["build", str(tmp_path / "films"), "--output", str(folder)]
    assert main(command) == 0
    (folder / "data").rename(tmp_path / "data")  # as if it had not come to its end
    install(scipy="99.4")
    assert main(command) == 2
    assert "scipy is" in capsys.readouterr().err
    assert main([*command, "--any-version", "--dry-run"]) == 0
    assert "99.4" not in read_record(folder)["libraries"]["scipy"]
    assert main([*command, "--any-version"]) == 0
    assert read_record(folder)["libraries"]["scipy"].endswith(" and 99.4")
