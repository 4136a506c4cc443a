"""A dataset folder whose files are not what they should be: one line of each command, never a traceback."""

import json
import shutil

import pytest
from fake_sets import draw_quickly
from quick_maker import QuickMaker, quick_build

from bi_audio_dataset import card_plots, unit
from bi_audio_dataset.__main__ import main
from bi_audio_dataset.schema import SCHEMA_VERSION, UserError

WHOLE = {
    "schema_version": SCHEMA_VERSION,
    "source": {"name": "a", "recordings": 3},
    "config": {"rows_per_shard": 8},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "set"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unit, "ClipMaker", QuickMaker)
        patch.setattr(card_plots, "draw", draw_quickly)
        quick_build(folder, 3)
    return folder


def one_line(capsys) -> str:
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and "\n" not in error
    return error


@pytest.mark.parametrize(
    "record, words",
    [
        ([], "source is missing"),
        ({}, "source is missing"),
        ({"source": 3}, "source is missing or wrong"),
        (WHOLE | {"config": None}, "config is missing"),
        (WHOLE | {"config": {}}, "config.rows_per_shard is missing"),
        (WHOLE | {"source": {"name": "a"}}, "source.recordings is missing"),
        (WHOLE | {"schema_version": "1"}, "schema_version is missing"),
        (WHOLE | {"libraries": []}, "libraries is missing or wrong"),
    ],
)
def test_build_json_that_is_none(record, words, finished, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "set"
    shutil.copytree(finished, folder)
    (folder / "build.json").write_text(json.dumps(record))
    name = str(folder)
    commands = [
        ["status", name],
        ["publish", name, "--recipe", str(tmp_path / "r.jsonl")],
        ["card", name],
        ["remove", name, "--id", "fake-0-0", "--reason", "asked"],
        ["finalize", name],
    ]
    if words.startswith(("config", "source.")):
        commands.remove(["card", name])  # which needs neither
    for command in commands:
        assert main(command) == 2, command
        assert words in one_line(capsys)
    monkeypatch.setattr(unit, "ClipMaker", QuickMaker)
    with pytest.raises(UserError, match=words):
        quick_build(folder, 3)
    assert not (tmp_path / "r.jsonl").exists()


def test_a_cut_shard(finished, tmp_path, capsys):
    folder = tmp_path / "set"
    shutil.copytree(finished, folder)
    shard = sorted((folder / "data").iterdir())[-1]
    content = shard.read_bytes()
    card = (folder / "README.md").read_bytes()
    middle = len(content) // 2
    for damaged in (content[:middle], content[:4] + b"x" * middle + content[4 + middle :]):
        shard.write_bytes(damaged)
        assert main(["card", str(folder)]) == 2
        assert f"{shard}: is damaged (" in one_line(capsys)
        assert (folder / "README.md").read_bytes() == card and not (folder / ".work").exists()
