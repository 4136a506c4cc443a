"""Flags and sources by the command line, from end to end, that have no test elsewhere."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from fake_hub import FakeHub
from foa_films import signals, write_film
from test_main import one_line, write_recording
from test_main_options import first_row, write_flat_head

from bi_audio_dataset import executors, manifest, media
from bi_audio_dataset.__main__ import main
from bi_audio_dataset.shards import read_rows
from bi_audio_dataset.sources.sphere360 import Sphere360Source

pytestmark = pytest.mark.usefixtures("in_this_process", "without_plots")


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    write_recording(folder, "walk")
    write_recording(folder, "run", azimuth_deg=-70.0)
    return folder


def build(films, output, *flags) -> list[str]:
    return [
        "build", str(films), "--clip-s", "1", "--size", "64x32", "--mark", "weak_cue",
        "--licence", "CC0-1.0", "--output", str(output), *flags,
    ]  # fmt: skip


@pytest.fixture
def dataset(films, tmp_path) -> Path:
    """Of two recordings, walk and run."""
    assert main(build(films, tmp_path / "set")) == 0
    return tmp_path / "set"


def rows_of(dataset: Path) -> list[dict]:
    return [row for shard in sorted((dataset / "data").iterdir()) for row in read_rows(shard)]


def shards(dataset: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (dataset / "data").iterdir()}


def removal_list(folder: Path, name: str) -> str:
    (folder / "gone.txt").write_text(f"{name} # its author asked\n")
    return str(folder / "gone.txt")


# -------------------- publish, push, rebuild


def test_publish_takes_where_to_get_recordings_and_a_removal_list(dataset, tmp_path, capsys):
    path = tmp_path / "set.jsonl"
    command = ["publish", str(dataset), "--recipe", str(path), "--get", "https://example.org/{id}.mp4"]
    assert main([*command, "--removals", removal_list(tmp_path, "run")]) == 0
    assert "1 clips of 1 recordings, without media" in capsys.readouterr().out
    (recording,) = [row for row in manifest.read(path) if row["kind"] == "recording"]
    assert (recording["id"], recording["get"]) == ("walk", "https://example.org/walk.mp4")


def test_push_takes_a_branch_and_refuses_what_a_list_removes(dataset, tmp_path, capsys, monkeypatch):
    import huggingface_hub

    hub = FakeHub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    command = ["push", str(dataset), "--repo", "ann/set"]
    assert main([*command, "--removals", removal_list(tmp_path, "run")]) == 2
    assert "run" in one_line(capsys) and hub.stored == {}
    assert main([*command, "--revision", "draft"]) == 0
    assert any(name.startswith("data/") for name in hub.branches["draft"])
    assert not any(name.startswith("data/") for name in hub.branches["main"])


def test_rebuild_takes_a_removal_list(films, dataset, tmp_path, capsys):
    recipe, again = str(tmp_path / "set.jsonl"), tmp_path / "again"
    assert main(["publish", str(dataset), "--recipe", recipe]) == 0
    command = ["rebuild", str(films), "--recipe", recipe, "--output", str(again)]
    assert main([*command, "--removals", removal_list(tmp_path, "run")]) == 0
    assert [row["id"] for row in rows_of(again)] == ["walk"]
    found = {row["id"]: row for row in manifest.read(again / "manifest.jsonl")}
    assert found["run"]["reasons"] == {"removed": "its author asked"}


def test_rebuild_takes_another_version_where_asked(films, dataset, tmp_path, capsys):
    recipe, again = tmp_path / "set.jsonl", tmp_path / "again"
    assert main(["publish", str(dataset), "--recipe", str(recipe)]) == 0
    header, *rows = manifest.read(recipe)
    header["stages"] = {**header["stages"], "render": 0}
    manifest.write(recipe, map(manifest.dumps, [header, *rows]))
    command = ["rebuild", str(films), "--recipe", str(recipe), "--output", str(again)]
    capsys.readouterr()
    assert main(command) == 2
    assert "render 0" in (line := one_line(capsys)) and "--any-version" in line
    assert main([*command, "--any-version"]) == 0
    assert shards(again) == shards(dataset)  # as nothing has changed in truth


def test_rebuild_takes_the_recipes_head(films, tmp_path, capsys):
    recipe, again, sofa = tmp_path / "set.jsonl", tmp_path / "again", str(tmp_path / "flat.sofa")
    write_flat_head(tmp_path / "flat.sofa")
    assert main(build(films, tmp_path / "set", "--sofa", sofa)) == 0
    assert main(["publish", str(tmp_path / "set"), "--recipe", str(recipe)]) == 0
    command = ["rebuild", str(films), "--recipe", str(recipe), "--output", str(again)]
    capsys.readouterr()
    assert main(command) == 2
    assert "give --sofa FILE, its 'flat.sofa'" in one_line(capsys)
    assert main([*command, "--sofa", sofa]) == 0
    assert shards(again) == shards(tmp_path / "set")
    assert first_row(again)["hrir_set"].startswith("flat")


def halved(foa, sample_rate):
    """A denoiser that a recipe may name: W alone is halved, which changes how the ears differ."""
    return foa * np.array([0.5, 1, 1, 1], np.float32)[:, None]


def test_rebuild_runs_a_recipes_code_only_where_allowed(films, tmp_path, capsys):
    recipe, again = tmp_path / "set.jsonl", tmp_path / "again"
    name = f"{__name__}:halved"
    assert main(build(films, tmp_path / "plain")) == 0
    assert main(build(films, tmp_path / "set", "--denoiser", name)) == 0
    assert main(["publish", str(tmp_path / "set"), "--recipe", str(recipe)]) == 0
    command = ["rebuild", str(films), "--recipe", str(recipe), "--output", str(again)]
    capsys.readouterr()
    assert main(command) == 2
    assert f"allow it by --denoiser {name}" in one_line(capsys)
    assert main([*command, "--denoiser", name]) == 0
    assert shards(again) == shards(tmp_path / "set") != shards(tmp_path / "plain")


# -------------------- sources and executors


def test_sphere360_with_its_lists_elsewhere(tmp_path):
    films, lists = tmp_path / "films", tmp_path / "lists"
    films.mkdir(), lists.mkdir()
    (lists / "train.txt").write_text("aaaaaaaaaaa_0\n")
    (lists / "test.txt").write_text("bbbbbbbbbbb_1\n")
    for number, name in enumerate(("aaaaaaaaaaa", "bbbbbbbbbbb", "ccccccccccc")):
        media.write_audio(films / f"{name}.flac", signals(4, 12.0, 16000, number), 16000)
        write_film(films / f"{name}.mp4", seconds=12.0)
    command = ["build", str(films), "--source", "sphere360", "--lists", str(lists), "--clip-s", "10"]
    command += ["--size", "32x16", "--set", "fps=5", "--off", "static", "--mark", "weak_cue"]
    command += ["--off", "duplicate", "--output", str(tmp_path / "set")]
    assert main(command) == 0
    train = Sphere360Source(films, lists=lists).split("aaaaaaaaaaa")
    found = {(row["recording_id"], row["split"], row["source_name"]) for row in rows_of(tmp_path / "set")}
    assert found == {("aaaaaaaaaaa", train, "Sphere360"), ("bbbbbbbbbbb", "test", "Sphere360")}
    starts = {r["recording_id"]: r["start_s"] for r in manifest.read(tmp_path / "set/manifest.jsonl") if
              r["kind"] == "clip"}  # fmt: skip
    assert starts == {"aaaaaaaaaaa": 0.0, "bbbbbbbbbbb": 1.0}


def test_fairplay_under_the_split_asked_for(tmp_path):
    """Split 3 says other than split 1 which clip is for what; one picture in all keeps them apart."""
    films = tmp_path / "FAIR-Play"
    (films / "videos").mkdir(parents=True), (films / "binaural_audios").mkdir()
    for clip in ("000001", "000003", "000004"):
        write_film(films / f"videos/{clip}.mp4", seconds=0.6, picture=np.full((48, 64, 3), 90, np.uint8))
        media.write_audio(films / f"binaural_audios/{clip}.wav", signals(2, 0.6, 48000, int(clip)), 48000)
    for number, order in ((1, ("000001", "000003", "000004")), (3, ("000003", "000004", "000001"))):
        place = films / f"splits/split{number}"
        place.mkdir(parents=True)
        for name, clip in zip(("train", "val", "test"), order, strict=True):
            (place / f"{name}.txt").write_text(f"/data/someone/binaural16k/{clip}.wav\n")
    command = ["build", str(films), "--source", "fairplay", "--clip-s", "0.6", "--hfov-deg", "65"]
    for number, expected in ((None, "000001"), ("3", "000003")):
        output = tmp_path / f"set{number}"
        flags = ["--fairplay-split", number] if number else []
        assert main([*command, *flags, "--output", str(output)]) == 0
        rows = rows_of(output)
        assert len(rows) == 3 and len({row["split"] for row in rows}) == 3
        assert [row["id"] for row in rows if row["split"] == "train"] == [expected]
        assert {(row["licence"], row["hfov_deg"], row["hrir_set"]) for row in rows} == {
            ("CC-BY-4.0", 65.0, "recorded: 3Dio Free Space XLR")
        }


def test_ray_is_given_its_address_and_absolute_paths(films, tmp_path, monkeypatch):
    asked = []

    def choose(*arguments):
        asked.append(arguments)
        return executors.Inline()

    monkeypatch.setattr(executors, "choose", choose)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(films, "here")
    write_flat_head(Path("flat.sofa"))
    (tmp_path / "c.yaml").write_text("sofa: flat.sofa\n")
    flags = ["--executor", "ray", "--address", "ray://head:10001", "--workers", "5", "--config", "c.yaml"]
    from bi_audio_dataset import __main__ as cli

    run, seen = cli._run, []

    def watched(source, options, config, *rest, **more):
        seen.append((str(source.folder), config.sofa))
        return run(source, options, config, *rest, **more)

    monkeypatch.setattr(cli, "_run", watched)
    assert main(build("here", "set", *flags)) == 0
    assert asked == [("ray", 5, "ray://head:10001")]
    assert seen == [(str(tmp_path / "here"), str(tmp_path / "flat.sofa"))]
    assert first_row(tmp_path / "set")["hrir_set"].startswith("flat")


def test_synth_sounds_like_the_folder(tmp_path):
    """A file's class is its name up to the first underscore; no other class is heard."""
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    time_s = np.arange(44100) / 44100
    for number, pitch_hz in enumerate((400, 700, 1100)):
        tone = (0.3 * np.sin(2 * np.pi * pitch_hz * time_s) * np.exp(-6 * time_s)).astype(np.float32)
        media.write_audio(sounds / f"gong_{number}.wav", tone[None], 44100)
    command = ["synth", "--clips", "1", "--seed", "3", "--sounds", str(sounds)]
    assert main([*command, "--output", str(tmp_path / "set")]) == 0
    sources = first_row(tmp_path / "set")["truth"]["sources"]
    assert {source["class_name"] for source in sources} == {"gong"}
    assert main(["validate", str(tmp_path / "set")]) == 0
