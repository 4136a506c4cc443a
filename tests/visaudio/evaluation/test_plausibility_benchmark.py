"""The benchmark of the plausibility on three fake clips, whose squares stand still."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "plausibility.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("plausibility_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def heldout(fake_biaudio, tmp_path_factory) -> Path:
    from bi_audio_dataset.schema import ClipRecord
    from bi_audio_dataset.shards import read_rows, write_rows

    folder = tmp_path_factory.mktemp("plausible")
    (folder / "data").mkdir()
    (folder / "sounds").mkdir()
    rows = [row for path in sorted(fake_biaudio.rglob("*.parquet")) for row in read_rows(path)][:3]
    records = [replace(ClipRecord.from_row(row), split="test") for row in rows]
    write_rows(folder / "data" / "test-00000-of-00001.parquet", records)
    for record in records:
        (folder / "sounds" / f"{record.id}.flac").write_bytes(record.audio)
    return folder


def test_a_row_for_each_sound_and_group(script, heldout, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "RESAMPLES", 20)
    words = ["--dataset", str(heldout), "--generated", str(heldout / "sounds")]
    words += ["--work", str(tmp_path / "work")]
    assert script.main(words) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert [row[1] for row in rows[:5]] == list(script.SYSTEMS.values())
    assert {row[0] for row in rows} == {"all clips (3)", f"{script.GROUPS['gated']} (3)"}
    # squares that stand still: nothing to judge, and nothing is made up
    assert rows[0][2] == "nan [nan, nan]"
    # again from what was kept
    monkeypatch.setattr(script, "hear_clip", lambda *_: pytest.fail("heard again"))
    assert script.main(words) == 0
    assert capsys.readouterr().out.strip().splitlines() == lines


def test_a_missing_sound_is_named(script, heldout, tmp_path, capsys):
    soundfile.write(tmp_path / "other.wav", [[0.0, 0.0]] * 10, 8000)
    assert script.main(["--dataset", str(heldout), "--generated", str(tmp_path)]) == 2
    assert "expected a sound for every clip" in capsys.readouterr().err
