"""python -m visaudio.evaluation as a user types it: what it prints, writes and ends with."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from plain_measures import Level, use
from sound_files import noise, write

from visaudio.cli.evaluation import main
from visaudio.evaluation import measures
from visaudio.evaluation.results import Results

ROOT = Path(__file__).parents[3]


@pytest.fixture
def three(tmp_path, monkeypatch):
    """Folders gen, louder and ref of three clips, in the working folder."""
    monkeypatch.chdir(tmp_path)
    use(monkeypatch, "level", "spread", "picky")
    for number in range(3):
        samples = noise(seed=number)
        write(tmp_path / "ref" / f"c{number}.flac", samples)
        write(tmp_path / "gen" / f"c{number}.binaural.flac", 0.5 * samples)
        write(tmp_path / "louder" / f"c{number}.wav", 2 * samples)
    return tmp_path


def run(text: str, capfd) -> tuple[int, list[str], list[str]]:
    code = main(text.split())
    out, err = capfd.readouterr()
    return (
        code,
        out.splitlines(),
        [line for line in err.splitlines() if line and "clip/s]" not in line and "s/clip]" not in line],
    )


def read(folder: Path) -> Results:
    return Results.from_json((folder / "results.json").read_text(), folder)


def test_two_systems_against_a_folder(three, capfd):
    code, out, err = run(
        "--generated gen loud=louder --reference ref --output out --workers 1 --no-report --device cpu", capfd
    )
    assert code == 0 and err == []
    assert out[0].split() == ["gen", "(3", "clips)", "loud", "(3", "clips)"]
    assert out[-1] == "out: results.json, clips.csv, table.csv, comparisons.csv"
    results = read(three / "out")
    assert results.figures["gen"]["level_error_db"].value == pytest.approx(6.02, abs=0.05)
    assert [c.figure for c in results.comparisons] == ["level_error_db", "ild_db", "spread_db", "loud_db"]
    assert results.comparisons[3].difference.value == pytest.approx(-12.04, abs=0.1)
    assert results.made["command"].startswith("python -m visaudio.evaluation --generated gen loud=louder")
    with (three / "out" / "clips.csv").open() as file:
        assert [(row["id"], row["system"]) for row in csv.DictReader(file)] == [
            (f"c{n}", system) for n in range(3) for system in ("gen", "loud")
        ]


def test_measures_limit_and_seed(three, capfd):
    line = "--generated gen --reference ref --output out --no-report --workers 1"
    (three / "c.csv").write_text("id,caption\nc1,a bell\n")
    code, out, _ = run(f"{line} --measures level,picky --limit 2 --captions c.csv --seed 7", capfd)
    assert code == 0
    assert [row.split()[0] for row in out[1:-1]] == ["level", "level", "ILD", "picky", "loudness"]
    results = read(three / "out")
    assert [clip.id for clip in results.clips] == ["c0", "c1"] and results.clips[1].caption == "a bell"
    assert results.made["settings"]["seed"] == 7 and results.made["settings"]["limit"] == 2


@pytest.mark.parametrize("seed", ["-1", "1.5", "9" * 20])
def test_a_seed_that_cannot_be_is_told_before_anything_is_scored(three, capfd, seed):
    with pytest.raises(SystemExit) as caught:
        run(f"--generated gen --reference ref --output out --seed {seed}", capfd)
    (line,) = capfd.readouterr().err.splitlines()
    assert caught.value.code == 2 and "argument --seed" in line and seed in line
    assert not (three / "out").exists()


@pytest.mark.parametrize("names", ["", ",", " , "])
def test_no_measure_is_a_plain_line(three, capfd, names):
    code = main(["--generated", "gen", "--reference", "ref", "--output", "out", "--measures", names])
    assert code == 2
    assert capfd.readouterr().err.splitlines() == [
        "error: --measures names none, expected any of level, spread, picky; all that can be had without it"
    ]


def test_settings_reach_the_measures(three, capfd, monkeypatch):
    given = []
    monkeypatch.setattr("plain_measures.make_level", lambda settings: given.append(settings) or Level())
    line = "--generated gen --reference ref --output out --no-report --workers 1 --measures level"
    code, *_ = run(f"{line} --hfov_deg 60 --detector_labels bell,dog --device cpu", capfd)
    assert code == 0 and (given[0].hfov_deg, given[0].detector_labels) == (60.0, ("bell", "dog"))
    assert given[0].device == "cpu"


def test_problems_are_one_line_each_and_strict_ends_on_them(three, capfd):
    (three / "gen" / "c0.binaural.flac").write_bytes(b"broken")
    (three / "ref" / "c2.flac").unlink()
    line = "--generated gen --reference ref --output out --no-report --workers 1"
    code, out, err = run(line, capfd)
    assert code == 0 and "gen (1 of 2 clips)" in out[0]
    assert len(err) == 3
    assert err[0] == "gen: 1 x no reference for this generated sound: left out: c2"
    assert err[1].startswith("gen: 1 x a file that cannot be read: clip refused: c0 [c0.binaural.flac: ")
    assert err[2] == "gen: 1 x a single clip: figures have no intervals and no tests"
    code, out, err = run(line + " --strict", capfd)
    assert (code, out) == (2, [])
    assert err == ["error: --strict: gen: 1 x no reference for this generated sound: left out: c2"]


def test_without_reference(three, capfd):
    code, out, err = run("--generated gen --output out --no-report --workers 1", capfd)
    assert code == 0 and err[0] == "no reference: only what needs none is measured"
    assert out[2].endswith(" -") and "[" in out[3]  # no level error; an ILD


@pytest.mark.parametrize(
    "line, message",
    [
        ("--output out", "nothing to score"),
        ("--generated gen", "--output"),
        ("--generated nowhere --output out", "nowhere: no such folder"),
        ("--generated gen --reference nowhere --output out", "nowhere: no such folder"),
        ("--generated gen --reference ref --output ref/c0.flac", "cannot be made a folder"),
        ("--generated gen --reference ref --output out --measures odd", "no measure 'odd'"),
        ("--generated gen --reference ref --output out --weights odd", "expected NAME=PATH"),
        (
            "--generated gen --reference ref --output out --weights odd=x",
            "--weights odd=...: the measures taken",
        ),
        (
            "--generated gen --reference ref --output out --weights picky_weights=none --measures picky",
            "picky: no w",
        ),
        ("--generated gen --reference ref --output out --videos ref", "--videos ref: holds no video"),
        ("--generated gen gen --reference ref --output out", "two systems are called 'gen'"),
        ("--generated gen --reference ref --dataset ref --output out", "one of --dataset and --reference"),
        ("--generated gen --reference ref --output out --num_steps 3", "--num_steps is for generating"),
        ("--generated gen --reference ref --output out --prompt caption", "--prompt is for generating"),
        ("--model tiny --output out", "--model needs --dataset"),
        ("--model tiny --dataset nowhere --output out", "no dataset at 'nowhere'"),
        ("--generated gen --reference clips/tru --output out", "no dataset at 'clips/tru': there is no such"),
        ("--generated gen --reference clips/tru/ --output out", "clips/tru: no such folder of sounds"),
        (
            "--model tiny --dataset clips/tru --output out",
            "folder here, and the Hub cannot be reached (HF_HUB_O",
        ),
        ("--model odd --dataset ref --output out", "no model 'odd'"),
        ("--generated model=gen --model tiny --dataset ref --output out", "is the name of --model's sounds"),
        ("--generated gen --reference ref --output out --limit 0", "--limit"),
        ("--generated gen --reference ref --output out --hfov_deg 180", "between 0 and 180 degrees"),
    ],
)
def test_a_mistake_is_one_line_and_2(three, capfd, line, message):
    try:
        code = main(line.split())
    except SystemExit as error:
        code = error.code
    out, err = capfd.readouterr()
    assert code == 2 and out == ""
    assert message in err and err.startswith("error: ") and err.count("\n") == 1


def test_the_truth_asked_for_of_a_folder_of_sounds_is_one_line_and_2(three, capfd, monkeypatch):
    monkeypatch.setitem(measures.REGISTRY, "truth", "visaudio.evaluation.truth:make")
    line = "--generated gen --reference ref --output out --no-report --workers 1"
    assert run(f"{line} --measures level,truth", capfd) == (
        2,
        [],
        ["error: truth: no clip has what it needs (no truth)"],
    )
    code, out, err = run(line, capfd)
    assert code == 0 and len(err) == 1 and "truth: no truth" in err[0]


def test_the_page_is_written_last(three, capfd):
    pytest.importorskip("visaudio.evaluation.html_report")
    code, out, _ = run("--generated gen --reference ref --output out --workers 1", capfd)
    assert code == 0 and out[-1] == "out: results.json, clips.csv, table.csv, report.html"
    page = (three / "out" / "report.html").read_text()
    assert "c1" in page and "level error" in page


@pytest.mark.slow
def test_an_interruption_says_that_the_same_command_goes_on(three):
    """Ctrl-C while two workers hear slowly: one line, 130, and what was done is not done again."""
    for number in range(40):
        samples = noise(seed=number)
        write(three / "gen" / f"d{number}.wav", samples)
        write(three / "ref" / f"d{number}.wav", samples)
    program = (
        "import sys\n"
        "from visaudio.cli.evaluation import main\n"
        "from visaudio.evaluation import measures\n"
        "measures.REGISTRY = {'slow': 'plain_measures:make_slow'}\n"
        "if __name__ == '__main__':\n"
        "    sys.exit(main('--generated gen --reference ref --output out --no-report --workers 2'.split()))\n"
    )
    (three / "program.py").write_text(program)
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    start = {
        "cwd": three,
        "env": {**os.environ, "PYTHONPATH": paths},
        "text": True,
        "stderr": subprocess.PIPE,
    }
    heard = three / "out" / "cache" / "slow-1"
    # a shell's background jobs, and what they start, ignore Ctrl-C unless told otherwise
    hears = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    running = subprocess.Popen([sys.executable, "program.py"], start_new_session=True, **hears, **start)
    try:
        until = time.monotonic() + 60
        while len(list(heard.rglob("*.npz"))) < 6:
            assert running.poll() is None and time.monotonic() < until
            time.sleep(0.02)
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to the workers too
        said = running.communicate(timeout=60)[1]
    finally:
        running.kill()
    assert running.returncode == 130
    last = [line for line in said.replace("\r", "\n").splitlines() if line and "clip" not in line]
    assert last == ["what was done is kept in out: the same command goes on", "interrupted"]
    before = {path: path.stat().st_mtime_ns for path in heard.rglob("*.npz")}
    assert 6 <= len(before) < 43 and not list((three / "out").rglob("*.partial"))
    subprocess.run([sys.executable, "program.py"], check=True, **start)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert read(three / "out").systems[0].clips == 43


# -------------------- a model


@pytest.fixture(scope="module")
def two_clips(fake_biaudio, tmp_path_factory) -> Path:
    """A BiAudio folder of two test clips and one of training."""
    from dataclasses import replace

    from bi_audio_dataset.schema import ClipRecord
    from bi_audio_dataset.shards import read_rows, write_rows

    rows = [row for path in sorted(fake_biaudio.rglob("*.parquet")) for row in read_rows(path)]
    records = sorted((ClipRecord.from_row(row) for row in rows), key=lambda record: record.id)
    folder = tmp_path_factory.mktemp("two_clips")
    (folder / "data").mkdir()
    for split, chosen in (("test", records[:2]), ("train", records[2:3])):
        path = folder / "data" / f"{split}-00000-of-00001.parquet"
        write_rows(path, [replace(record, split=split) for record in chosen])
    return folder


@pytest.fixture(scope="module")
def micro(tmp_path_factory) -> Path:
    from micro import micro_components

    from visaudio import hub

    return hub.save_pretrained(tmp_path_factory.mktemp("models") / "micro", micro_components(num_steps=2))


def test_a_model_is_heard_and_scored_in_one_command(three, two_clips, micro, capfd, monkeypatch):
    use(monkeypatch, "level", "looks")
    line = f"--model {micro} --dataset {two_clips} --output out --no-report --workers 1"
    code, out, err = run(line, capfd)
    assert code == 0 and out[0].split() == ["model", "(2", "clips)"]
    assert err == [
        "model: 2 x sampling rates that differ: each measure resamples both to its own [4000 and 44100 Hz]"
    ]
    results = read(three / "out")
    assert [clip.id for clip in results.clips] == ["fake-000", "fake-001"]
    made = results.systems[0].made
    assert made["model"] == "micro" and made["seed"] == 0 and len(made["weights_sha256"]) == 16
    assert results.figures["model"]["picture_bytes"].clips == 2
    clip = results.clips[1]
    assert clip.caption == "Visible sound: a small drum, Invisible sound: none"
    assert clip.video == "clips/fake-001.mp4" and clip.sounds["model"].path == "sounds/model/fake-001.flac"
    assert results.path(clip.video).read_bytes()[4:8] == b"ftyp"  # wherever the folder is moved
    from visaudio.evaluation.truth_files import read_truth

    assert read_truth(results.path(clip.truth)).sources[0].azimuth_deg[0] == -30
    assert results.groups["gated"] == ("fake-000", "fake-001")
    assert set(results.group_figures["gated"]["model"]) == {"level_error_db", "ild_db", "picture_bytes"}
    of_group, of_all = results.group_figures["gated"]["model"]["ild_db"], results.figures["model"]["ild_db"]
    assert (of_group.value, of_group.clips) == (of_all.value, 2)

    sounds = sorted((three / "out" / "sounds" / "model").glob("*.flac"))
    before = [path.stat().st_mtime_ns for path in sounds]
    code, again, _ = run(line, capfd)
    assert (code, again) == (0, out)
    assert [path.stat().st_mtime_ns for path in sounds] == before  # resumed, not made again

    code, _, err = run(line + " --seed 3", capfd)
    assert code == 2 and err[-1].startswith("error: out holds sounds made with seed 0: give another --output")


def sound_of(folder: Path, clip: str = "fake-001") -> np.ndarray:
    from bi_audio_dataset import media

    return media.read_audio(folder / "sounds" / "model" / f"{clip}.flac")[0]


@pytest.mark.slow
def test_what_the_model_is_told_reaches_its_sounds(three, two_clips, micro, capfd):
    line = f"--model {micro} --dataset {two_clips} --no-report --workers 1 --measures level --output "
    flags = ("", " --num_steps 3", " --cfg_strength 1", " --prompt caption", " --hfov known", " --seed 1",
             " --batch 1", " --limit 1 --split train")  # fmt: skip
    for number, flag in enumerate(flags):
        assert run(f"{line} out{number}{flag}", capfd)[0] == 0
    plain = sound_of(three / "out0")
    for number in range(1, 6):
        assert np.abs(sound_of(three / f"out{number}") - plain).max() > 1e-3, flags[number]
    np.testing.assert_allclose(sound_of(three / "out6"), plain, atol=1e-4)
    assert [clip.id for clip in read(three / "out7").clips] == ["fake-002"]
    notes = json.loads((three / "out1" / "sounds" / "model" / "fake-000.json").read_text())
    assert notes["sampling"]["num_steps"] == 3 and notes["seed"] == 0


def test_other_systems_beside_the_model(three, two_clips, micro, capfd):
    for number in range(2):
        write(three / "other" / f"fake-00{number}.wav", noise(2, 44100, seed=number), 44100)
    line = f"--model {micro} --dataset {two_clips} --generated other --output out --no-report --workers 1"
    code, out, _ = run(line + " --measures level", capfd)
    assert code == 0 and out[0].split() == ["model", "(2", "clips)", "other", "(2", "clips)"]
    assert {(c.a, c.b) for c in read(three / "out").comparisons} == {("model", "other")}


def test_a_dataset_as_reference(three, two_clips, capfd):
    write(three / "other" / "fake-000.wav", noise(2, 44100), 44100)
    line = f"--generated other --reference {two_clips} --output out --no-report --workers 1 --measures level"
    code, _, err = run(line, capfd)
    assert (
        code == 0
        and err[0] == "other: 1 x no generated sound for this clip of the reference: left out: fake-001"
    )
    clip = read(three / "out").clips[0]
    assert clip.video is None and clip.truth.endswith("clips/fake-000.json")  # nobody wanted the picture
    code, _, err = run(line + " --split validation", capfd)
    assert code == 2 and "has no clip of the split 'validation': expected one of test, train" in err[-1]
    code, _, err = run(line + " --config synth", capfd)
    assert code == 2 and "holds no 'synth' clips" in err[-1]


def test_a_file_where_a_folder_of_the_output_goes_is_one_line(three, two_clips, micro, capfd):
    write(three / "sys" / "fake-000.wav", noise(seconds=2.0))
    (three / "out").mkdir()
    for blocked, line in (
        ("clips", f"--generated sys --reference {two_clips}"),
        ("sounds", f"--model {micro} --dataset {two_clips}"),
        ("cache", "--generated gen --reference ref"),
    ):
        (three / "out" / blocked).write_text("mine")
        code, out, err = run(f"{line} --output out --no-report --workers 1 --measures level", capfd)
        assert (code, out) == (2, []) and err[-1].startswith(f"error: out/{blocked}"), err
        assert len([text for text in err if "error" in text]) == 1 and "can" in err[-1]
        assert (three / "out" / blocked).read_text() == "mine"
        (three / "out" / blocked).unlink()


def test_several_processes_share_the_clips(three, two_clips, micro, monkeypatch):
    """Each of two makes its own, the first alone goes on to score."""
    import types

    from visaudio.data import features
    from visaudio.evaluation.generation import Generation, generate

    def state(number):
        return types.SimpleNamespace(
            process_index=number, num_processes=2, is_main_process=number == 0, device="cpu",
            wait_for_everyone=lambda: waited.append(number),
        )  # fmt: skip

    prepared, waited = [], []

    def on_main(state, work):
        if state.is_main_process:
            prepared.append(work())
        return prepared[0]

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(features, "on_main", on_main)
    for number, expected in ((0, ["fake-000"]), (1, ["fake-000", "fake-001"])):
        monkeypatch.setattr(features, "processes", lambda number=number, **_: state(number))
        given = generate(two_clips, three / "out", Generation(str(micro), batch=1), progress=False)
        assert (given is None) == (number == 1)
        assert sorted(p.stem for p in (three / "out" / "sounds" / "model").glob("*.flac")) == expected
    assert waited == [0, 1]
    monkeypatch.delenv("WORLD_SIZE")
    generate(two_clips, three / "alone", Generation(str(micro), batch=1), progress=False)
    np.testing.assert_array_equal(sound_of(three / "out"), sound_of(three / "alone"))


@pytest.mark.slow
def test_the_packaged_model_from_its_own_program(two_clips, tmp_path):
    """The command as documented, in a process of its own, with two workers and the real tiny model."""
    from visaudio import hub

    if hub.DEFAULT_MODEL not in hub.packaged_models():
        pytest.skip("this checkout carries no weights")
    from visaudio.evaluation import measures

    if not measures.REGISTRY:
        pytest.skip("no measure is registered")
    command = [sys.executable, "-m", "visaudio.evaluation", "--model", "tiny", "--dataset", str(two_clips)]
    command += ["--output", str(tmp_path / "out"), "--num_steps", "2", "--workers", "2", "--no-report"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    results = read(tmp_path / "out")
    assert [clip.id for clip in results.clips] == ["fake-000", "fake-001"]
    assert any(np.isfinite(figure.value) for figure in results.figures["model"].values())
