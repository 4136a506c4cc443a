"""A dataset, its recipe, and the same dataset again: with real clips of a tiny corpus."""

import dataclasses
import hashlib
import json
import re
import shutil
from pathlib import Path

import fsspec
import pytest
from fake_source import FakeSource, tiny_config
from test_main import write_recording

from bi_audio_dataset import manifest, publish, recipe, removals
from bi_audio_dataset import rebuild as rebuild_module
from bi_audio_dataset.__main__ import main
from bi_audio_dataset.build import build
from bi_audio_dataset.build_config import BuildConfig
from bi_audio_dataset.executors import Inline, Local, RayExecutor
from bi_audio_dataset.finalize import finalize, read_record
from bi_audio_dataset.rebuild import config_of, inner_source, rebuild, version_words
from bi_audio_dataset.review import decisions
from bi_audio_dataset.schema import SCHEMA_VERSION, UserError
from bi_audio_dataset.shards import read_rows
from bi_audio_dataset.sources.folder import FolderSource
from bi_audio_dataset.texts import without_paths
from bi_audio_dataset.validate import validate

pytestmark = pytest.mark.usefixtures("without_plots")
CAPTION = "Visible sound: a bell, Invisible sound: none"
#: Its height is one of whole macroblocks: of other pictures x264 gives other bytes now and then.
CONFIG = tiny_config(height=32)


@pytest.fixture(scope="module")
def original(tmp_path_factory, without_plots) -> Path:
    """Three recordings: one clip is rejected by its reviewer, one has a caption of its own."""
    folder = tmp_path_factory.mktemp("original") / "set"
    build(FakeSource(), folder, CONFIG, workers=0, progress=False, finalize=False)
    time = "2026-01-01T00:00:00.000Z"
    file = folder / decisions.DECISIONS_FILE
    decisions.append(file, decisions.Decision(time, "ann", "fake-1", "reject"))
    decisions.append(file, decisions.Decision(time, "ann", "fake-2", "accept", CAPTION))
    finalize(folder)
    return folder


@pytest.fixture(scope="module")
def written(original, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "set.jsonl"
    assert publish.write(original, path)["clips"] == 2
    return path


def again(written, output, source=None, **more):
    return rebuild(
        written, Path("."), output, source=source or FakeSource(), workers=0, progress=False, **more
    )


@pytest.fixture(scope="module")
def rebuilt(written, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("rebuilt") / "set"
    result = again(written, output)
    assert result.problems == () and result.skipped == {}
    return output


def shards(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / "data").iterdir()}


def edit(written: Path, path: Path, change) -> Path:
    """A copy of the recipe, each row but the first after `change(row)`."""
    header, *rows = manifest.read(written)
    for row in rows:
        change(row)
    manifest.write(path, map(manifest.dumps, [header, *rows]))
    return path


# -------------------- publish


def test_recipe_says_what_it_takes_and_holds_no_media_and_no_paths(original, written):
    header, *rows = manifest.read(written)
    assert header["stages"] == manifest.STAGE_VERSIONS and header["schema_version"] == SCHEMA_VERSION
    assert (header["recordings"], header["clips"]) == (2, 2)
    assert header["config"] == read_record(original)["config"] and header["source"]["name"] == "fake"
    assert [(row["kind"], row["id"]) for row in rows] == [
        ("recording", "fake-0"),
        ("clip", "fake-0"),
        ("recording", "fake-2"),
        ("clip", "fake-2"),
    ]
    assert [len(digest) for digest in rows[0]["input"].values()] == [64, 64]
    assert rows[0]["get"] == "made by the test"
    published = {row["id"]: row for path in (original / "data").iterdir() for row in read_rows(path)}
    for row in rows[1::2]:
        clip = published[row["id"]]
        for name in ("video", "audio"):
            assert row[name]["sha256"] == hashlib.sha256(clip[name]["bytes"]).hexdigest()
        assert row["caption"] == clip["caption"] and row["split"] == clip["split"] and row["start_s"] == 0.0
        assert row["camera"]["yaw_deg"] == pytest.approx(clip["camera"]["yaw_deg"], abs=6e-4)
        assert row["draw"] == {"seed": 0, "window": 0, "view": 0, "render": 0}
    text = written.read_text()
    assert str(original.parent) not in text and '"bytes": "' not in text and len(text) < 20_000


def test_where_the_recordings_are_to_be_had(original, tmp_path):
    publish.write(original, tmp_path / "r.jsonl", get="https://host/{id}.mp4 ({provenance})")
    rows = [row for row in manifest.read(tmp_path / "r.jsonl") if row["kind"] == "recording"]
    assert rows[1]["get"] == "https://host/fake-2.mp4 (made by the test)"


def test_local_paths_are_cut_off_and_addresses_are_not():
    texts = {
        "our trip: /mnt/films/walk.mp4": "our trip: walk.mp4",
        r"C:\films\walk.mp4": "walk.mp4",
        "see '/data/a.mp4', take 2": "see 'a.mp4', take 2",
        "Sphere360: https://www.youtube.com/watch?v=a/b/c": "Sphere360: https://www.youtube.com/watch?v=a/b/c",
        "a/b/c and 16/9": "a/b/c and 16/9",
    }
    assert {text: without_paths(text) for text in texts} == texts
    assert without_paths({"a": ["/x/y", 1]}) == {"a": ["y", 1]}


def test_removed_clips_are_not_in_the_recipe(original, tmp_path):
    (tmp_path / "list.txt").write_text("fake-2 # its author asked")
    header = publish.write(original, tmp_path / "r.jsonl", more_removals=[tmp_path / "list.txt"])
    assert (header["recordings"], header["clips"]) == (1, 1)
    assert set(recipe.read(tmp_path / "r.jsonl").clips) == {"fake-0"}


def test_dataset_without_its_manifest_is_refused(original, tmp_path):
    copy = shutil.copytree(original, tmp_path / "copy")
    rows = [row for row in manifest.read(copy / "manifest.jsonl") if row["id"] != "fake-2"]
    manifest.write(copy / "manifest.jsonl", map(manifest.dumps, rows))
    with pytest.raises(UserError, match="is not sound: manifest.jsonl: 1 clips are in a shard but not publ"):
        publish.write(copy, tmp_path / "r.jsonl")
    (copy / "manifest.jsonl").unlink()
    with pytest.raises(UserError, match="holds no manifest.jsonl"):
        publish.write(copy, tmp_path / "r.jsonl")
    assert not (tmp_path / "r.jsonl").exists()


# -------------------- read


def test_recipe_is_read_as_it_was_written(written):
    found = recipe.read(written)
    assert set(found.recordings) == set(found.clips) == {"fake-0", "fake-2"} and found.renders == {}
    assert found.sha256 == hashlib.sha256(written.read_bytes()).hexdigest()
    assert recipe.config_from(found.header["config"], BuildConfig) == CONFIG


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda text: text[: len(text) - 9], "holds 1 of its 2 clips: cut off or edited"),
        (lambda text: "".join(text.splitlines(True)[:1]), "holds 0 of its 2 recordings"),
        (lambda text: "".join(text.splitlines(True)[1:]), "is no recipe"),
        (lambda text: "", "is empty"),
        (lambda text: "hello\n", "line 1 is not a manifest row"),
        (
            lambda text: text.replace('"recipe_version": 1', '"recipe_version": 2'),
            "recipe_version 2, this pro",
        ),
        (lambda text: text.replace('"id": "fake-2"', '"id": "../fake-2"'), "'../fake-2' is no name of a rec"),
        (lambda text: text.replace('"split": "train"', '"split": "tiny"'), "'fake-2' has the split 'tiny'"),
        (lambda text: text.replace('"input": {', '"output": {'), "the line of 'fake-0' lacks input"),
    ],
)
def test_what_is_no_whole_recipe_is_refused(written, tmp_path, change, words):
    path = tmp_path / "r.jsonl"
    path.write_text(change(written.read_text()))
    with pytest.raises(UserError, match=re.escape(words)):
        recipe.read(path)


def test_unknown_settings_are_refused(written):
    plain = recipe.read(written).header["config"]
    with pytest.raises(UserError, match="setting 'zoom' of the recipe is not known"):
        recipe.config_from(plain | {"zoom": 2}, BuildConfig)
    with pytest.raises(UserError, match="setting 'speed' of the recipe is not known"):
        recipe.config_from(plain | {"trajectory": {"speed": 2}}, BuildConfig)
    with pytest.raises(UserError, match="cannot be used: views_per_recording is 0, expected 1 to"):
        recipe.config_from(plain | {"views_per_recording": 0}, BuildConfig)


# -------------------- rebuild


def test_rebuilt_dataset_is_the_original_byte_for_byte(original, rebuilt):
    assert shards(rebuilt) == shards(original)
    rows = {row["id"]: row for path in (rebuilt / "data").iterdir() for row in read_rows(path)}
    assert rows["fake-2"]["caption"] == CAPTION and rows["fake-0"]["split"] == "test"
    assert validate(rebuilt).problems == []


def test_rebuild_again_finds_it_complete_and_honours_a_grown_removal_list(written, rebuilt, tmp_path):
    folder = shutil.copytree(rebuilt, tmp_path / "set")
    assert again(written, folder).already_complete
    (tmp_path / "list.txt").write_text("fake-2 # its author asked")
    assert again(written, folder, more_removals=[tmp_path / "list.txt"]).already_complete
    assert [path.name for path in (folder / "data").iterdir()] == ["test-00000-of-00001.parquet"]
    found = [row for row in manifest.read(folder / "manifest.jsonl") if row["id"] == "fake-2"][-1]
    assert found["reasons"] == {"removed": "its author asked"}


def test_other_and_missing_and_removed_recordings_go_into_quarantine(written, tmp_path):
    other = FakeSource((31.0, -60.0, 100.0), broken=(2,))  # the square of fake-0 is elsewhere
    with pytest.raises(UserError, match="no clip could be built .*another file than the recipe's"):
        again(written, tmp_path / "none", other)

    result = again(written, tmp_path / "set", FakeSource((30.0, -60.0, 99.0)))
    assert set(result.skipped) == {"fake-2"} and result.figures.clips == {"test": 1}
    (problem,) = result.problems
    assert problem.startswith("1 clip (fake-2) of the recipe not rebuilt: 'fake-2' is another file than the")
    assert re.search(r"its audio has SHA-256 [0-9a-f]{12}, in the recipe [0-9a-f]{12}", problem)
    assert problem.endswith("; to be had: made by the test")
    (row,) = [row for row in manifest.read(tmp_path / "set/manifest.jsonl") if row["id"] == "fake-2"]
    assert row["decision"] == "quarantine" and row["reasons"].keys() == {"recipe"}

    (tmp_path / "list.txt").write_text("fake-0 # its author asked")
    gone = again(written, tmp_path / "gone", more_removals=[tmp_path / "list.txt"])
    assert gone.problems == () and gone.skipped == {"fake-0": "its author asked"}
    found = [row for row in manifest.read(tmp_path / "gone/manifest.jsonl") if row["id"] == "fake-0"]
    assert [row["reasons"] for row in found] == [{"removed": "its author asked"}]
    assert removals.load(tmp_path / "gone") == {"fake-0": "its author asked"}


def test_other_bytes_are_told_and_another_path_is_left_out(written, tmp_path):
    def change(row):
        if row["kind"] == "clip" and row["id"] == "fake-0":
            row["video"]["sha256"] = "0" * 64
        elif row["kind"] == "clip":
            row["camera"]["yaw_deg"][7] += 0.2

    result = again(edit(written, tmp_path / "r.jsonl", change), tmp_path / "set")
    other, differ = result.problems
    assert other == (
        "1 clip (fake-2) made otherwise than in the recipe, and left out: "
        "the camera's yaw_deg differs by up to 0.2"
    )
    assert differ.startswith("1 clip (fake-0) of other bytes than the recipe's (1 videos, 0 sounds), marked")
    found = {
        row["id"]: row for row in manifest.read(tmp_path / "set/manifest.jsonl") if row["kind"] == "clip"
    }
    assert found["fake-0"]["marks"]["recipe"] == "video: other bytes than the recipe's"
    assert found["fake-2"]["decision"] == "reject" and "yaw_deg" in found["fake-2"]["reasons"]["recipe"]


def test_clip_of_a_later_rendering_is_made_along_that_path(tmp_path):
    """What a reviewer had rendered again is in the recipe as its number, and comes out the same."""
    folder, source, time = tmp_path / "set", FakeSource((30.0,)), "2026-01-01T00:00:0{}.000Z"
    file = folder / decisions.DECISIONS_FILE
    for number, decision, render in ((0, "rerender", 0), (1, "accept", 1)):
        build(source, folder, CONFIG, workers=0, progress=False, finalize=False)
        decisions.append(
            file, decisions.Decision(time.format(number), "ann", "fake-0", decision, render=render)
        )
    build(source, folder, CONFIG, workers=0, progress=False, finalize=False)
    finalize(folder)
    publish.write(folder, tmp_path / "r.jsonl")
    assert recipe.read(tmp_path / "r.jsonl").renders == {"fake-0": 1}
    result = again(tmp_path / "r.jsonl", tmp_path / "again", source)
    assert result.problems == () and shards(tmp_path / "again") == shards(folder)


def test_another_version_is_refused_unless_asked_for(written, tmp_path, monkeypatch):
    monkeypatch.setitem(manifest.STAGE_VERSIONS, "render", 99)
    with pytest.raises(UserError, match=r"by other versions of the builder: render \d+ \(here 99\)"):
        again(written, tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_another_recipe_into_the_same_folder_is_refused(written, rebuilt, tmp_path):
    other = edit(written, tmp_path / "r.jsonl", lambda row: row.update(caption="Visible sound: x"))
    with pytest.raises(UserError, match="holds another build .source.settings.recipe_sha256"):
        again(other, rebuilt)


def with_header(written, path, **changes) -> recipe.Recipe:
    header, *rows = manifest.read(written)
    manifest.write(path, map(manifest.dumps, [header | changes, *rows]))
    return recipe.read(path)


def test_recipe_of_version_1_gives_rows_of_this_version_and_says_so(
    original, written, tmp_path, monkeypatch, capsys
):
    assert version_words(recipe.read(written)) == []
    with_header(written, tmp_path / "r.jsonl", schema_version=1)
    monkeypatch.setattr(rebuild_module, "inner_source", lambda *_: FakeSource())
    here = {"workers": 0, "progress": False}
    monkeypatch.setattr(rebuild_module, "build", lambda *given, **more: build(*given, **more | here))
    command = ["rebuild", str(tmp_path), "--recipe", str(tmp_path / "r.jsonl")]
    assert main([*command, "--output", str(tmp_path / "set")]) == 0
    assert capsys.readouterr().out.startswith(
        "the recipe is of schema_version 1, the rows are written in 2: new column direction, of most energy"
    )
    assert shards(tmp_path / "set") == shards(original)


def test_ears_must_be_the_recipes(written, tmp_path):
    plain = recipe.read(written).header["config"]
    (tmp_path / "ears.sofa").write_bytes(b"ears")
    with pytest.raises(UserError, match="the spherical-head model: leave out --sofa"):
        config_of(recipe.read(written), tmp_path / "ears.sofa", None)
    wanted = {"name": "KEMAR.sofa", "sha256": hashlib.sha256(b"ears").hexdigest()}
    asked = with_header(written, tmp_path / "r.jsonl", config=plain | {"sofa": wanted})
    with pytest.raises(UserError, match="give --sofa FILE, its 'KEMAR.sofa'"):
        config_of(asked, None, None)
    assert config_of(asked, tmp_path / "ears.sofa", None).sofa == str(tmp_path / "ears.sofa")
    (tmp_path / "ears.sofa").write_bytes(b"others")
    with pytest.raises(UserError, match="is not the recipe's 'KEMAR.sofa': SHA-256 .* expected"):
        config_of(asked, tmp_path / "ears.sofa", None)


def test_code_that_a_recipe_names_is_not_run_unasked(written, tmp_path):
    plain = recipe.read(written).header["config"]
    asked = with_header(written, tmp_path / "r.jsonl", config=plain | {"denoiser": "mine.quiet:clean"})
    with pytest.raises(UserError, match="goes through the code 'mine.quiet:clean': allow it by --denoiser"):
        config_of(asked, None, None)
    assert config_of(asked, None, "mine.quiet:clean").denoiser == "mine.quiet:clean"
    selection = json.loads(json.dumps(plain["selection"]))
    selection["speech"]["action"] = "reject"
    asked = with_header(written, tmp_path / "r.jsonl", config=plain | {"selection": selection})
    assert config_of(asked, None, None).selection.speech.action == "off"


@pytest.mark.parametrize(
    "name, settings, expected",
    [
        ("folder", {"channels": "fuma", "trust_picture": True, "licence": "x"}, {"channels": "fuma"}),
        (
            "Sphere360",
            {"channels": "ambix", "validation_share": 0.1},
            {"channels": "ambix", "name": "folder"},
        ),
        ("perspective", {"sound": "stereo", "hfov_deg": 70.0}, {"sound": "stereo", "hfov_deg": 70.0}),
        ("FAIR-Play", {"split": 3, "hfov_deg": None}, {"hfov_deg": None}),
        (
            "BiAudio-Synth",
            {"seed": 5, "held_out": True, "sounds": "procedural"},
            {"seed": 5, "held_out": True},
        ),
    ],
)
def test_each_corpus_has_its_adaptor(written, tmp_path, name, settings, expected):
    source = {"name": name, "settings": settings, "recordings": 4}
    found = inner_source(with_header(written, tmp_path / "r.jsonl", source=source), tmp_path)
    assert {key: getattr(found, key) for key in expected} == expected


def here(monkeypatch) -> list:
    """Units run in this process; the list of (executor, parts) that builds were asked for."""
    asked = []

    def inline(*arguments, executor, parts, **more):
        asked.append((executor, parts))
        return build(*arguments, **more, executor=Inline(), parts=parts)

    monkeypatch.setattr(rebuild_module, "build", inline)
    return asked


@pytest.mark.parametrize("command", [["rebuild"], ["build"]])
def test_command_takes_executor_address_and_parts(command, written, tmp_path, monkeypatch):
    asked = here(monkeypatch)
    monkeypatch.setattr(rebuild_module, "inner_source", lambda recipe, folder: Absolute(folder))
    elsewhere = str(tmp_path / "parts")
    given = [*command, "films", "--recipe", str(written), "--output", str(tmp_path / "set")]
    given += ["--executor", "ray", "--address", "auto", "--workers", "4", "--parts", elsewhere]
    monkeypatch.chdir(tmp_path)
    assert main(given) == 0
    assert asked == [(RayExecutor("auto", 4), elsewhere)]
    assert (tmp_path / "set/data").is_dir() and list((tmp_path / "parts").iterdir()) == []


@dataclasses.dataclass(frozen=True)
class Absolute(FakeSource):
    """Of a folder that a worker with another working directory finds."""

    def __init__(self, folder):
        assert folder.is_absolute() and folder.name == "films"
        super().__init__()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--address", "auto"], "--address is a Ray cluster's"),
        (["--parts", " "], "the parts' address is empty"),
        (["--workers", "0"], "must be at least 1, got 0"),
        (["--executor", "slurm"], "invalid choice: 'slurm'"),
    ],
)
def test_wrong_ways_to_run_are_one_line(options, words, written, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(rebuild_module, "inner_source", lambda *_: FakeSource())
    given = ["rebuild", str(tmp_path), "--recipe", str(written), "--output", str(tmp_path / "set"), *options]
    try:
        code = main(given)
    except SystemExit as end:
        code = end.code
    (line,) = capsys.readouterr().err.splitlines()
    assert code == 2 and words in line and not (tmp_path / "set/data").exists()


def test_rebuilt_through_a_store_is_the_original_byte_for_byte(original, written, tmp_path):
    store, seen = fsspec.filesystem("memory"), set()

    class Watched(Inline):
        def run(self, work, recording_ids):
            for result in super().run(work, recording_ids):
                seen.update(Path(name).name for name in store.find("/again"))
                yield result

    again(written, tmp_path / "set", executor=Watched(), parts="memory://again")
    assert seen == {"build.json", *(f"fake-{i}.parquet" for i in (0, 2))}
    assert shards(tmp_path / "set") == shards(original) and store.find("/again") == []


def test_unknown_corpus_is_refused(written, tmp_path, capsys):
    assert main(["rebuild", str(tmp_path), "--recipe", str(written), "--output", str(tmp_path / "set")]) == 2
    error = capsys.readouterr().err
    assert "source 'fake' is none of this program's" in error and error.count("\n") == 1


def test_a_folder_of_recordings_goes_the_whole_way(tmp_path, capsys, monkeypatch):
    films, mine, theirs = (tmp_path / name for name in ("films", "mine", "theirs"))
    films.mkdir()
    write_recording(films, "walk")
    write_recording(films, "run", azimuth_deg=-70.0)
    source = FolderSource(films, licence="unknown", provenance=f"trip, {films}")
    config = dataclasses.replace(CONFIG, clip_s=1.0)
    build(source, mine, config, workers=0, progress=False)
    path = tmp_path / "mine.jsonl"
    assert main(["publish", str(mine), "--recipe", str(path)]) == 0
    assert "2 clips of 2 recordings, without media" in capsys.readouterr().out
    assert str(tmp_path) not in path.read_text() and "trip, films: walk.mp4" in path.read_text()

    (films / "run.mp4").unlink()
    given = [str(films), "--recipe", str(path), "--output", str(theirs), "--workers", "3"]
    asked = here(monkeypatch)
    assert main(["rebuild", *given]) == 2
    assert asked == [(Local(3), None)]
    told = capsys.readouterr()
    assert (
        "1 clip (run) of the recipe not rebuilt: the folder holds no video named 'run'; to be had" in told.err
    )
    (row,) = [row for shard in (theirs / "data").iterdir() for row in read_rows(shard)]
    (first,) = [r for s in (mine / "data").iterdir() for r in read_rows(s) if r["id"] == "walk"]
    assert row == first | {"provenance": "trip, films: walk.mp4"}
    assert str(tmp_path) not in (theirs / "manifest.jsonl").read_text()

    assert main(["rebuild", *given]) == 2
    assert "already complete, nothing to do; 1 recording is in quarantine" in capsys.readouterr().out
    write_recording(films, "run", azimuth_deg=-70.0)
    assert main(["rebuild", *given, "--retry"]) == 0
    assert "2 train clips" in capsys.readouterr().out


def test_a_rebuild_does_not_go_on_with_other_libraries(written, tmp_path):
    folder = tmp_path / "set"

    def go(**more):
        return rebuild(written, tmp_path, folder, source=FakeSource(), workers=0, progress=False, **more)

    go()
    shutil.rmtree(folder / "data")  # as if it had not come to its end
    record = read_record(folder)
    record["libraries"]["av"] = "1.0"
    (folder / "build.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="begun with other versions of libraries .av is 1.0 there"):
        go()
    assert go(any_version=True).figures is not None
    assert read_record(folder)["libraries"]["av"].startswith("1.0 and ")
