"""The benchmark's tables: every system on every clip, and of no other set than the benchmark by mistake."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scripts import load_script

from bi_audio_dataset.schema import ClipRecord, UserError
from bi_audio_dataset.shards import read_rows, write_rows
from visaudio.evaluation import benchmark_table as module
from visaudio.evaluation.benchmark_table import benchmark_clips, benchmark_table

ROOT = Path(__file__).parents[3]
COUNT = 3


@pytest.fixture(scope="module")
def dataset(fake_biaudio, tmp_path_factory):
    """Its training clips as a test split."""
    folder = tmp_path_factory.mktemp("scored") / "set"
    (folder / "data").mkdir(parents=True)
    rows = list(read_rows(fake_biaudio / "data" / "train-00000-of-00001.parquet"))
    records = [replace(ClipRecord.from_row(row), split="test") for row in rows]
    assert len(records) == COUNT
    write_rows(folder / "data" / "test-00000-of-00001.parquet", records)
    return folder


@pytest.fixture
def sounds(dataset, tmp_path):
    """The truth's own, and the same with the ears exchanged."""
    import io

    from visaudio.data.dataset import open_dataset

    for row in open_dataset(dataset):
        audio, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]))
        for name, ears in (("true", audio), ("mirrored", audio[:, ::-1])):
            (tmp_path / name).mkdir(exist_ok=True)
            soundfile.write(tmp_path / name / f"{row['id']}.flac", ears, rate)
    return {name: [tmp_path / name] for name in ("true", "mirrored")}


@pytest.fixture
def clips(dataset, monkeypatch):
    monkeypatch.setattr(module, "MEASURES", ("truth", "onsets"))
    return benchmark_clips(dataset, "default", any_set=True)


TITLES = {"true": "as it is", "mirrored": "ears exchanged"}


def test_rows_say_what_each_system_gets(sounds, clips, tmp_path):
    text = benchmark_table(sounds, clips, tmp_path / "out", TITLES, {"mirrored": "true"})
    assert "Scored on: set, which is not the benchmark." in text
    assert (
        f"All {COUNT} clips:" in text
        and f"visible in at least 95 % of its active frames ({COUNT} clips)" in text
    )
    rows = {line.split(" | ")[0].strip("| "): line.split(" | ") for line in text.splitlines() if "|" in line}
    assert float(rows["as it is"][1].split()[0]) == 100.0
    assert float(rows["ears exchanged"][1].split()[0]) == 0.0
    assert rows["ears exchanged, less as it is"][1].startswith("-100.0")


@pytest.mark.parametrize("harm", ["missing", "broken", "nan"])
def test_a_system_that_lacks_a_clip_is_refused(sounds, clips, tmp_path, harm):
    path = sorted(sounds["mirrored"][0].iterdir())[1]
    if harm == "missing":
        path.unlink()
    elif harm == "broken":
        path.write_bytes(b"no sound")
    else:
        path.unlink()
        soundfile.write(path.with_suffix(".wav"), np.full((800, 2), np.nan), 8000, subtype="FLOAT")
    with pytest.raises(UserError, match=f"every system needs a sound of every clip: .*{path.stem}"):
        benchmark_table(sounds, clips, tmp_path / "out", TITLES)


def test_a_silent_sound_is_scored_and_told(sounds, clips, tmp_path):
    path = sorted(sounds["true"][0].iterdir())[0]
    soundfile.write(path, np.zeros((44100 * 2, 2)), 44100)
    text = benchmark_table(sounds, clips, tmp_path / "out", TITLES)
    assert "Noticed:" in text and path.stem in text.split("Noticed:")[1]


def test_another_set_is_no_benchmark(dataset):
    with pytest.raises(UserError, match="is not the BiAudio-Synth benchmark: expected its 320 clips"):
        benchmark_clips(dataset, "default")
    assert benchmark_clips(dataset, "default", 2, True).what.startswith(
        "the first 2 of 3 clips of set, which"
    )


def test_a_sound_much_shorter_than_its_clip_is_refused(sounds, clips, tmp_path):
    path = sorted(sounds["true"][0].iterdir())[0]
    soundfile.write(path, soundfile.read(path)[0][:44100], 44100)
    with pytest.raises(UserError, match="every system needs a sound of every clip: .*lengths that differ"):
        benchmark_table(sounds, clips, tmp_path / "out", TITLES)


def test_the_leaderboards_mistakes_are_one_line(dataset, sounds, tmp_path, capsys):
    complete, some = sounds["true"][0], sounds["mirrored"][0]
    min(some.iterdir()).unlink()
    leaderboard = load_script(ROOT / "benchmarks" / "leaderboard.py")
    common = ["--dataset", str(dataset), "--config", "default", "--output", str(tmp_path / "out")]
    for extra, said in (
        ([], "is not the BiAudio-Synth benchmark"),
        (["--any-set", "--system", "theirs"], "--system theirs: expected NAME=DIR"),
        (["--any-set", "--system", f"theirs={some}"], f"--system theirs {some}: 1 of 3 clips have no sound"),
        (["--any-set", "--system", f"mono={complete}"], "give it another name"),
        (["--any-set", "--measures", "space"], "there is no 'space' to add, expected of panns"),
        (["--any-set", "--write-to", str(tmp_path / "none.md")], "holds no <!-- leaderboard: begin -->"),
    ):
        assert leaderboard.main([*common, *extra]) == 2
        assert said in capsys.readouterr().err
