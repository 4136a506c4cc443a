"""Options of the command line that change what is built."""

import io
import json

import cv2
import numpy as np
import pytest
import soundfile
from fake_source import scene, ticks
from test_main import one_line

from bi_audio_dataset import manifest, media
from bi_audio_dataset.__main__ import main
from bi_audio_dataset.hrtf import spherical_head
from bi_audio_dataset.schema import AUDIO_RATE_HZ, MONO_EARS, ClipRecord
from bi_audio_dataset.shards import read_rows, write_rows


def first_row(dataset) -> dict:
    (shard,) = sorted((dataset / "data").glob("*.parquet"))
    return next(read_rows(shard))


def test_provenance_is_recorded_beside_the_file_name(films, tmp_path):
    command = ["build", str(films), "--clip-s", "1", "--output", str(tmp_path / "set")]
    assert main([*command, "--provenance", "our field trip"]) == 0
    provenance = first_row(tmp_path / "set")["provenance"]
    assert "our field trip" in provenance and "walk.mp4" in provenance


def write_flat_head(path) -> None:
    """A head without any level difference, as a SOFA file."""
    import sofar

    head = spherical_head(44100)
    keep = np.arange(0, len(head.directions), 5)
    sofa = sofar.Sofa("SimpleFreeFieldHRIR")
    flat = np.zeros((len(keep), 2, 64))
    flat[:, :, 16] = 1.0
    x, y, z = head.directions[keep].T
    azimuth_deg, elevation_deg = np.degrees(np.arctan2(y, x)) % 360, np.degrees(np.arcsin(z))
    sofa.Data_IR, sofa.Data_SamplingRate = flat, 44100
    sofa.SourcePosition = np.stack([azimuth_deg, elevation_deg, np.full(len(keep), 1.5)], axis=1)
    sofar.write_sofa(path, sofa)


def test_sofa_file_is_the_head_that_hears(films, tmp_path):
    """Of a head without any level difference the ears come out equally loud."""
    write_flat_head(tmp_path / "flat.sofa")
    command = ["build", str(films), "--clip-s", "1", "--sofa", str(tmp_path / "flat.sofa")]
    command += ["--mark", "weak_cue"]  # such a head gives nothing else
    assert main([*command, "--output", str(tmp_path / "set")]) == 0
    row = first_row(tmp_path / "set")
    assert row["hrir_set"].startswith("flat")
    assert row["filters"]["lr_difference"] < 1e-3
    record = json.loads((tmp_path / "set" / "build.json").read_text())
    assert record["config"]["sofa"]["name"] == "flat.sofa"


def test_quick_leaves_out_decoding(films, tmp_path, capsys):
    assert main(["build", str(films), "--clip-s", "1", "--output", str(tmp_path / "set")]) == 0
    (shard,) = (tmp_path / "set" / "data").glob("*.parquet")
    record = ClipRecord.from_row(first_row(tmp_path / "set"))
    write_rows(shard, [ClipRecord(**{**vars(record), "video": b"no film"})])
    assert main(["validate", str(tmp_path / "set"), "--quick"]) == 0
    assert main(["validate", str(tmp_path / "set")]) == 2
    assert "video does not decode" in capsys.readouterr().err


@pytest.mark.slow
def test_synth_takes_sprites_and_holds_out(tmp_path):
    """Every object is drawn as the one picture in the folder, and all clips are test clips."""
    sprites = tmp_path / "sprites"
    sprites.mkdir()
    picture = np.zeros((64, 64, 4), np.uint8)
    picture[8:56, 8:56] = (255, 0, 255, 255)
    cv2.imwrite(str(sprites / "magenta.png"), picture)
    command = ["synth", "--clips", "1", "--seed", "3", "--held-out", "--sprites", str(sprites)]
    assert main([*command, "--output", str(tmp_path / "set")]) == 0
    row = first_row(tmp_path / "set")
    assert row["split"] == "test" and row["licence"] == "CC0-1.0"
    (source, *_) = row["truth"]["sources"]
    frame = int(np.argmax(source["visible"]))
    assert source["visible"][frame]
    (tmp_path / "view.mp4").write_bytes(row["video"]["bytes"])
    view = media.read_frames(tmp_path / "view.mp4", [frame / 25])[0].astype(int)
    magenta = (view[..., 0] > 150) & (view[..., 2] > 150) & (view[..., 1] < 110)
    assert magenta.sum() > 20
    focal = row["width"] / 2 / np.tan(np.radians(row["hfov_deg"]) / 2)
    column = row["width"] / 2 - focal * np.tan(np.radians(source["azimuth_deg"][frame]))
    assert np.abs(np.nonzero(magenta)[1] - column).min() < 4


@pytest.mark.slow
def test_reviewed_scenes_wait_for_finalize_and_are_the_same(tmp_path, capsys):
    command = ["synth", "--clips", "2", "--seed", "3", "--workers", "2", "--output"]
    assert main([*command, str(tmp_path / "plain")]) == 0
    assert main([*command, str(tmp_path / "set"), "--review"]) == 0
    assert "2 clips wait for caption, review and finalize" in capsys.readouterr().out
    assert not (tmp_path / "set/data").exists()
    assert main(["review", str(tmp_path / "set"), "--queue"]) == 0
    clip_id = first_row(tmp_path / "plain")["id"]
    assert clip_id in capsys.readouterr().out
    assert len(list((tmp_path / "set/review/evidence").iterdir())) == 2
    assert main(["finalize", str(tmp_path / "set")]) == 0
    one, other = (
        {path.name: path.read_bytes() for path in (tmp_path / name / "data").iterdir()}
        for name in ("plain", "set")
    )
    assert one == other


def test_sprites_without_pictures_are_refused(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    command = ["synth", "--clips", "1", "--sprites", str(tmp_path / "empty")]
    assert main([*command, "--output", str(tmp_path / "set")]) == 2
    assert "no .png file" in one_line(capsys)


# -------------------- sources and selection


def with_two_ears(folder, name="walk"):
    """A perspective film whose left ear is twice as loud."""
    folder.mkdir(exist_ok=True)
    frames, _ = scene(20.0, 1.0)
    media.write_video(folder / f"{name}.mp4", frames[:, :, 20:148], fps=25, crf=10, preset="ultrafast")
    sound = ticks(AUDIO_RATE_HZ, 0)
    media.write_audio(folder / f"{name}.flac", np.stack([sound, 0.5 * np.roll(sound, 20)]), AUDIO_RATE_HZ)


def test_perspective_films_go_straight_to_pairs(tmp_path):
    with_two_ears(tmp_path)
    command = ["build", str(tmp_path), "--source", "perspective", "--sound", "stereo", "--hfov-deg", "70"]
    assert main([*command, "--clip-s", "1", "--size", "128x72", "--output", str(tmp_path / "set")]) == 0
    row = first_row(tmp_path / "set")
    assert (row["hrir_set"], row["hfov_deg"]) == ("recorded: stereo", 70.0)
    assert (row["width"], row["height"]) == (116, 72)  # 128 x 80 inside 128 x 72
    assert set(row["camera"]["yaw_deg"]) == {0.0}
    assert main(["validate", str(tmp_path / "set")]) == 0


def test_mono_films_with_a_file_of_captions_become_a_dataset(tmp_path):
    """The road of ordinary video (VGGSound and its like) into mixed training, as docs/training.md has it."""
    with_two_ears(tmp_path / "films", "dog")
    output, caption = str(tmp_path / "set"), "Visible sound: a dog barking, Invisible sound: none"
    (tmp_path / "captions.jsonl").write_text(json.dumps({"id": "dog", "caption": caption}) + "\n")
    command = ["build", str(tmp_path / "films"), "--source", "perspective", "--sound", "mono", "--review"]
    assert main([*command, "--clip-s", "1", "--size", "64x36", "--output", output]) == 0
    assert main(["caption", output, "--from", str(tmp_path / "captions.jsonl")]) == 0
    assert main(["finalize", output]) == 0
    row = first_row(tmp_path / "set")
    assert (row["hrir_set"], row["caption"]) == (MONO_EARS, caption)
    ears = soundfile.read(io.BytesIO(row["audio"]["bytes"]))[0].T
    np.testing.assert_array_equal(ears[0], ears[1])


def test_views_size_and_denoiser(films, tmp_path):
    command = [
        "build",
        str(films),
        "--clip-s",
        "1",
        "--views",
        "2",
        "--size",
        "64x48",
        "--denoiser",
        "wiener",
    ]
    assert main([*command, "--mark", "weak_cue", "--output", str(tmp_path / "set")]) == 0
    (shard,) = (tmp_path / "set/data").glob("*.parquet")
    rows = list(read_rows(shard))
    assert [(row["id"], row["width"], row["height"]) for row in rows] == [
        ("walk-v0", 64, 48),
        ("walk-v1", 64, 48),
    ]
    record = json.loads((tmp_path / "set/build.json").read_text())["config"]
    assert (record["denoiser"], record["selection"]["weak_cue"]["action"]) == ("wiener", "mark")


def test_channels_are_asked_for_where_no_file_states_them(films, tmp_path, capsys):
    (films / "ambisonics.json").unlink()
    command = ["build", str(films), "--clip-s", "1", "--mark", "weak_cue", "--output", str(tmp_path / "set")]
    assert main(command) == 2
    assert "does not say in which order its ambisonic channels are" in capsys.readouterr().err
    command = [*command[:-1], str(tmp_path / "asked"), "--channels", "ambix"]
    assert main(command) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--source", "perspective", "--channels", "ambix"], "--channels is not for --source perspective"),
        (["--source", "folder", "--fairplay-split", "2"], "--fairplay-split is not for --source folder"),
        (["--source", "fairplay", "--lists", "."], "--lists is not for --source fairplay"),
        (["--source", "fairplay", "--fairplay-split", "11"], "splits are 1 to 10, got 11"),
        (["--source", "sphere360", "--lists", "."], "train.txt"),
        (["--mark", "quiet"], "there is no filter 'quiet'"),
        (["--address", "auto"], "--address is a Ray cluster's"),
        (["--mark", "silent", "--off", "silent"], "'silent' is given both --mark and --off"),
    ],
)
def test_options_that_do_not_fit_are_one_line(arguments, words, films, tmp_path, capsys):
    assert main(["build", str(films), "--output", str(tmp_path / "set"), *arguments]) == 2
    assert words in one_line(capsys)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("size", ["64", "64x", "65x48", "8x8"])
def test_sizes_that_no_encoder_takes(size, films, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["build", str(films), "--output", str(tmp_path / "set"), "--size", size])
    assert "--size" in one_line(capsys)


def test_filters_are_switched_by_name(films, tmp_path):
    from bi_audio_dataset.__main__ import _parser
    from bi_audio_dataset.build_command import config_of

    command = [
        "build",
        str(films),
        "--output",
        "x",
        "--reject",
        "planar",
        "--off",
        "duplicate",
        "--mark",
        "static",
    ]
    chosen = config_of(_parser().parse_args(command)).selection
    assert (chosen.planar.action, chosen.duplicate.action, chosen.static.action) == ("reject", "off", "mark")
    asked = _parser().parse_args(["build", "x", "--output", "y", "--source", "fairplay"])
    fairplay = config_of(asked).selection
    assert fairplay.duplicate.keep_together is False and fairplay.duplicate.action == "reject"


def test_dry_run_counts_and_writes_nothing(films, tmp_path, capsys):
    command = ["build", str(films), "--clip-s", "1", "--output", str(tmp_path / "set")]
    assert main([*command, "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "1 recordings, 0 of them built already, 1 to build" in told
    assert "estimate from 1 recordings, built just now and thrown away: about 1 clips, 0." in told
    assert not (tmp_path / "set").exists()


def test_reviewed_build_waits_for_finalize(films, tmp_path, capsys):
    command = ["build", str(films), "--clip-s", "1", "--mark", "weak_cue", "--output", str(tmp_path / "set")]
    assert main([*command, "--review"]) == 0
    assert "1 clips wait for caption, review and finalize" in capsys.readouterr().out
    assert main(["review", str(tmp_path / "set"), "--queue"]) == 0
    assert "walk" in capsys.readouterr().out
    (tmp_path / "out.txt").write_text("walk # its author asked\n")
    assert main(["filter", str(tmp_path / "set"), "--removals", str(tmp_path / "out.txt")]) == 0
    assert "removed" in capsys.readouterr().out
    assert main(["finalize", str(tmp_path / "set")]) == 0
    assert first_row(tmp_path / "set")["id"] == "walk"
    assert main(["validate", str(tmp_path / "set")]) == 0


def test_build_of_a_recipe_is_rebuild(films, tmp_path, capsys):
    command = ["build", str(films), "--clip-s", "1", "--size", "64x32", "--mark", "weak_cue"]
    assert main([*command, "--output", str(tmp_path / "set")]) == 0
    assert main(["publish", str(tmp_path / "set"), "--recipe", str(tmp_path / "set.jsonl")]) == 0
    again = [
        "build",
        str(films),
        "--recipe",
        str(tmp_path / "set.jsonl"),
        "--output",
        str(tmp_path / "again"),
    ]
    assert main(again) == 0
    (one,), (other,) = ((tmp_path / name / "data").glob("*.parquet") for name in ("set", "again"))
    assert one.read_bytes() == other.read_bytes()
    with pytest.raises(SystemExit, match="2"):
        main([*again[:-1], str(tmp_path / "third"), "--clip-s", "2"])
    assert "unrecognized arguments: --clip-s" in capsys.readouterr().err


def test_the_same_recording_under_three_names_is_published_once(films, tmp_path):
    """A copy, and one whose picture and sound were coded again, louder."""
    (films / "copy.mp4").write_bytes((films / "walk.mp4").read_bytes())
    (films / "copy.flac").write_bytes((films / "walk.flac").read_bytes())
    frames = media.read_frames(films / "walk.mp4", np.arange(25) / 25)
    media.write_video(films / "zoom.mp4", frames, fps=25, crf=30, preset="ultrafast")
    foa, rate = media.read_audio(films / "walk.flac")
    media.write_audio(films / "zoom.wav", np.clip(1.5 * foa, -1, 1), rate)
    command = ["build", str(films), "--clip-s", "1", "--mark", "weak_cue", "--output", str(tmp_path / "set")]
    assert main(command) == 0
    (shard,) = (tmp_path / "set/data").glob("*.parquet")
    assert [row["id"] for row in read_rows(shard)] == ["copy"]
    rows = {row["id"]: row for row in manifest.read(tmp_path / "set/manifest.jsonl") if row["kind"] == "clip"}
    assert rows["walk"]["reasons"] == {"duplicate": "the same file as 'copy'"}
    assert rows["zoom"]["reasons"] == {"duplicate": "picture and sound of 'copy'"}
    assert "| duplicate | 0 | 2 | 0 |" in (tmp_path / "set/README.md").read_text()
